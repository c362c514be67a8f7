"""The storage graph as it would be after a command, and which of its cycles would be new."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ioflusher.machine.endpoints import Family
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.graph.cycles import cycle_through
from ioflusher.machine.graph.layers import Layers
from ioflusher.machine.graph.nodes import Cycle, Edge, Graph, Reason
from ioflusher.machine.hypothetical import (
    Addition,
    HypothesisError,
    WouldAttach,
    WouldLoop,
    WouldMount,
    WouldSwap,
)
from ioflusher.machine.peers import join_address, split_address
from ioflusher.machine.serving.files import NETWORK_PORTS, server_address
from ioflusher.machine.serving.index import SnapshotIndex, distinct
from ioflusher.machine.serving.infer import services as infer_services
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.storage import BlockDevice, DeviceKind, Mount, Swap

_NO_LISTENER = (
    "a snapshot has only the listeners of processes that serve storage already: predict on the live machine"
)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A machine as it would be.

    Attributes:
        analysis: the machine with what would be added.
        graph: its graph, with what is new marked; new cycles come first.
    """

    analysis: Analysis
    graph: Graph


def predict(before: Analysis, additions: Iterable[Addition]) -> Prediction:
    """The machine as it would be after the commands, one after another.

    Raises:
        HypothesisError: a command does not fit the machine, or what it would lead to is not in the snapshot.
    """
    snapshot, services = before.snapshot, before.services
    for addition in additions:
        match addition:
            case WouldMount():
                snapshot = _mounted(snapshot, addition)
                known = {(s.pid, s.role, s.kind, s.target) for s in services}
                number = snapshot.mounts[-1].number
                services += tuple(
                    s
                    for s in infer_services(snapshot)
                    if s.target == number and (s.pid, s.role, s.kind, s.target) not in known
                )
            case WouldSwap():
                snapshot = _swapped(snapshot, addition)
            case WouldLoop():
                snapshot = _looped(snapshot, addition)
            case WouldAttach():
                snapshot, added = _attached(snapshot, addition)
                services = (*(s for s in services if s.target != addition.device), *added)
    after = Analysis(snapshot, services)
    return Prediction(after, marked(after.graph, before.graph))


def marked(graph: Graph, old: Graph) -> Graph:
    """The graph with the nodes and cycles marked that the old one does not have, new cycles first.

    A cycle is new where a wait inside it is; the way round that is shown then goes over such a wait.
    """
    nodes = {node.id for node in old.nodes}
    waits = {_key(edge) for edge in old.edges}
    fresh = [edge for edge in graph.edges if edge.waits and _key(edge) not in waits]
    cycles = []
    for cycle in graph.cycles:
        members = frozenset(cycle.nodes)
        inside = [edge for edge in fresh if edge.source in members and edge.target in members]
        cycles.append(_over(cycle, graph.edges, inside) if inside else cycle)
    return Graph(
        tuple(replace(node, hypothetical=node.id not in nodes) for node in graph.nodes),
        graph.edges,
        tuple(sorted(cycles, key=lambda cycle: not cycle.hypothetical)),
    )


def _key(edge: Edge) -> tuple[str, str, Reason]:
    return edge.source, edge.target, edge.reason


def _over(cycle: Cycle, edges: tuple[Edge, ...], fresh: list[Edge]) -> Cycle:
    """The cycle as a new one, by a way round over one of the new edges."""
    wanted = {_key(edge) for edge in fresh}
    ways = (cycle, *(cycle_through(cycle, edges, edge.source) for edge in fresh))
    found = next((way for way in ways if any(_key(edge) in wanted for edge in way.witness)), cycle)
    return replace(found, hypothetical=True)


def _mounted(snapshot: Snapshot, would: WouldMount) -> Snapshot:
    layers = Layers(snapshot)
    first = snapshot.mounts[0] if snapshot.mounts else None
    namespace = first.namespace if first is not None else None
    above = layers.mount_of(would.point)
    mount = Mount(
        mount_id=max((mount.mount_id for mount in snapshot.mounts), default=0) + 1,
        parent_id=above.mount_id if above is not None else 0,
        number="",
        root="/",
        point=would.point,
        fstype=would.fstype or "auto",
        source=would.source,
        options=would.options,
        namespace=namespace,
    )
    if would.bind:
        met = layers.mount_of(would.source)
        if met is None:
            raise HypothesisError(f"cannot predict: {would.source} lies on no mount of the snapshot")
        rest = would.source.removeprefix(met.point.rstrip("/"))
        root = f"{met.root.rstrip('/')}{rest}".rstrip("/") or "/"
        mount = replace(met, mount_id=mount.mount_id, parent_id=mount.parent_id, root=root, point=would.point)
        return replace(snapshot, mounts=(*snapshot.mounts, mount))
    if would.fstype in NETWORK_PORTS or would.fstype in ("overlay", "tmpfs"):
        return replace(snapshot, mounts=(*snapshot.mounts, _anonymous(snapshot, mount)))
    device = layers.device_of_path(would.source)
    if device is None and would.source.startswith("/") and not would.source.startswith("/dev/"):
        snapshot = _looped(snapshot, WouldLoop(would.source))  # mount(8) makes a loop device for a file
        device = snapshot.devices[-1]
        mount = replace(mount, source=f"/dev/{device.name}")
    if device is None:
        raise HypothesisError(
            f"cannot predict: {would.source!r:.200} is no block device of the snapshot",
            hint="with -t nfs, nfs4, cifs, 9p, overlay or tmpfs it need not be one",
        )
    same = next((known for known in snapshot.mounts if known.number == device.number), None)
    fstype = would.fstype or (same.fstype if same is not None else "auto")
    return replace(snapshot, mounts=(*snapshot.mounts, replace(mount, number=device.number, fstype=fstype)))


def _anonymous(snapshot: Snapshot, mount: Mount) -> Mount:
    """The mount with a number of its own, and the address of its server where it has one."""
    numbers = [mount.number.partition(":") for mount in snapshot.mounts]
    minors = [int(minor) for major, _, minor in numbers if major == "0" and minor.isdecimal()]
    mount = replace(mount, number=f"0:{max(minors, default=0) + 1}")
    if mount.fstype not in NETWORK_PORTS or mount.option("addr") is not None:
        address = server_address(mount)
    else:
        name = mount.source.removeprefix("//").partition("/")[0].rpartition(":")[0]
        host = name or mount.source.removeprefix("//").partition("/")[0]
        mount = replace(mount, options=(*mount.options, ("addr", host.strip("[]"))))
        address = server_address(mount)
    index = SnapshotIndex(snapshot)
    if address is not None and index.is_local(address[0]) and not index.listeners_at(*address):
        served = any(not other.pids for _, other in index.connections_at(join_address(*address)))
        if not served:
            raise HypothesisError(
                f"cannot predict: nobody is seen to listen at {join_address(*address)} of this machine",
                hint=_NO_LISTENER,
            )
    return mount


def _swapped(snapshot: Snapshot, would: WouldSwap) -> Snapshot:
    if any(swap.path == would.path for swap in snapshot.swaps):
        raise HypothesisError(f"cannot predict: {would.path} is a swap area already")
    layers = Layers(snapshot)
    device = layers.device_of_path(would.path)
    if device is not None:
        swap = Swap(would.path, False, device.number, device.size, 0, -1)
    else:
        mount = layers.mount_of(would.path)
        if would.path.startswith("/dev/") or mount is None:
            raise HypothesisError(f"cannot predict: {would.path} is no device and no file of the snapshot")
        swap = Swap(would.path, True, mount.number, 0, 0, -1)
    return replace(snapshot, swaps=(*snapshot.swaps, swap))


def _looped(snapshot: Snapshot, would: WouldLoop) -> Snapshot:
    if Layers(snapshot).of_path(would.file) is None:
        raise HypothesisError(f"cannot predict: {would.file} lies on no mount of the snapshot")
    loops = {device.name: device for device in snapshot.devices if device.kind is DeviceKind.LOOP}
    busy = {name for name, device in loops.items() if device.backing_file is not None}
    name = would.device or next(f"loop{n}" for n in range(len(loops) + 1) if f"loop{n}" not in busy)
    if name in busy:
        raise HypothesisError(f"cannot predict: {name} has the file {loops[name].backing_file} already")
    # drivers/block/loop.c: the major number of loop is 7
    fallback = BlockDevice(name, f"7:{name.removeprefix('loop')}", 0, DeviceKind.LOOP)
    device = replace(loops.get(name, fallback), backing_file=would.file)
    others = tuple(known for known in snapshot.devices if known.name != name)
    return replace(snapshot, devices=(*others, device))


def _attached(snapshot: Snapshot, would: WouldAttach) -> tuple[Snapshot, tuple[StorageService, ...]]:
    device = next((known for known in snapshot.devices if known.name == would.device), None)
    if device is not None and (device.size or device.serving_pid is not None):
        raise HypothesisError(f"cannot predict: {would.device} is set up already")
    minor = 32 * int(would.device.removeprefix("nbd"))  # drivers/block/nbd.c: part_shift 5, by max_part 16
    device = device or BlockDevice(would.device, f"43:{minor}", 0, DeviceKind.NBD)
    others = tuple(known for known in snapshot.devices if known.name != would.device)
    after = replace(snapshot, devices=(*others, replace(device, size=1 << 20)))
    index = SnapshotIndex(snapshot)
    if would.address.startswith("/"):
        listeners = [
            found
            for found in snapshot.listeners
            if found.family is Family.UNIX and found.end.address == would.address
        ]
    else:
        host, port = split_address(would.address)
        if not index.is_local(host):
            return after, ()  # another machine's
        listeners = index.listeners_at(host, port)
    pids = distinct(pid for listener in listeners for pid in listener.end.pids)
    if not pids:
        raise HypothesisError(
            f"cannot predict: nobody is seen to listen at {would.address}", hint=_NO_LISTENER
        )
    role, kind = StorageRole.NBD_SERVER, TargetKind.DEVICE
    return after, tuple(
        StorageService(
            pid,
            role,
            kind,
            would.device,
            f"{index.name(pid)} listens at {would.address}",
            certain=len(pids) == 1,
        )
        for pid in pids
    )
