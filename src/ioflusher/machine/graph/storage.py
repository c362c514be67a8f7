"""The storage half of the graph: swap and mounts, file systems, block devices, down to disks and servers."""

from ioflusher.machine.graph.draft import Draft
from ioflusher.machine.graph.layers import Layers, device_layer
from ioflusher.machine.graph.nodes import Node, NodeKind, Reason
from ioflusher.machine.peers import split_address
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.storage import BlockDevice, DeviceKind, Mount, Swap
from ioflusher.support.sizes import format_size

SWAPPED = "swapped"

_FUSE = frozenset(("fuse", "fuseblk"))
_NETWORK = frozenset(("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "virtiofs", "lustre"))
# File systems on devices whose number is anonymous, "0:N": something is behind them, named or not.
_ON_DEVICES = frozenset(("btrfs", "bcachefs", "zfs", "ubifs", "jffs2"))
_SLAVE_REASONS = {
    DeviceKind.DM: Reason.DM,
    DeviceKind.MD: Reason.RAID,
    DeviceKind.BCACHE: Reason.BCACHE,
}


def add_storage(draft: Draft, layers: Layers, served: frozenset[str]) -> None:
    """Adds everything that stores. `served`: nodes whose server on this machine is known."""
    snapshot = layers.snapshot
    for device in snapshot.devices:
        draft.add(_device(device))
    for number, mounts in layers.mounts.items():
        draft.add(_file_system(number, mounts))
    if snapshot.swaps:
        draft.add(Node(SWAPPED, NodeKind.SWAPPED, "swapped-out memory", "read back when it is needed"))
    for device in snapshot.devices:
        _below_device(draft, layers, device)
    for number, mounts in layers.mounts.items():
        _below_file_system(draft, layers, number, mounts, served)
    for mount in snapshot.mounts:
        _add_mount(draft, mount)
    for swap in snapshot.swaps:
        _add_swap(draft, layers, swap)
    _add_sessions(draft, snapshot, served)


def _device(device: BlockDevice) -> Node:
    kind = device.kind.value if device.kind is not DeviceKind.OTHER else "block device"
    words = [kind, format_size(device.size)]
    if device.dm is not None:
        words.insert(1, " ".join([device.dm.name, *dict.fromkeys(device.dm.targets)]))
    if device.read_only:
        words.append("read-only")
    return Node(f"dev:{device.name}", NodeKind.DEVICE, device.name, ", ".join(words), number=device.number)


def _file_system(number: str, mounts: list[Mount]) -> Node:
    first = mounts[0]
    points = dict.fromkeys(mount.point for mount in mounts)
    more = f" and {len(points) - 1} more" if len(points) > 1 else ""
    return Node(
        f"fs:{number}",
        NodeKind.FILE_SYSTEM,
        f"{first.fstype} at {first.point}{more}",
        f"of {first.source}" if first.source and first.source != first.fstype else "",
        number=number,
    )


def _below_device(draft: Draft, layers: Layers, device: BlockDevice) -> None:
    source = f"dev:{device.name}"
    where = f"/sys/class/block/{device.name}"
    if device.parent:
        target = draft.layer(device_layer(device.parent))
        draft.edge(source, target, Reason.PARTITION, f"{where} lies in the directory of {device.parent}")
    for name in device.slaves:
        reason = _SLAVE_REASONS.get(device.kind, Reason.SLAVE)
        draft.edge(source, draft.layer(device_layer(name)), reason, f"{where}/slaves names {name}")
    file = device.backing_file
    if file and file != "none":
        loop = device.kind is DeviceKind.LOOP
        reason = Reason.LOOP if loop else Reason.ZRAM
        attribute = "loop/backing_file" if loop else "backing_dev"
        layer = layers.of_path(file)
        if layer is not None:
            target = draft.layer(layer)
        else:
            target = draft.unknown(f"path:{file}", file, f"named by {where}/{attribute}; on no known mount")
        draft.edge(source, target, reason, f"{where}/{attribute} names {file}")


def _below_file_system(
    draft: Draft, layers: Layers, number: str, mounts: list[Mount], served: frozenset[str]
) -> None:
    source = f"fs:{number}"
    fstype = mounts[0].fstype
    device = layers.by_number.get(number)
    if device is not None:
        draft.edge(
            source, f"dev:{device.name}", Reason.LIES_ON, f"its device number {number} is {device.name}"
        )
    for mount in mounts:
        for name in mount.devices:
            evidence = f"{mount.source} is one of the devices of the {fstype} that {name} belongs to"
            draft.edge(source, draft.layer(device_layer(name)), Reason.MEMBER, evidence)
        named = layers.device_of_path(mount.source) if device is None and not mount.devices else None
        if named is not None:
            draft.edge(source, f"dev:{named.name}", Reason.LIES_ON, f"mountinfo names {mount.source}")
            device = named
    for mount in {(mount.options, mount.namespace): mount for mount in mounts}.values():
        _below_overlay(draft, layers, mount)
    if fstype == "tmpfs" and SWAPPED in draft:
        draft.edge(source, SWAPPED, Reason.SWAPPED, "pages of a tmpfs go to swap when memory is short")
    if device is not None or source in served or any(mount.devices for mount in mounts):
        return
    if fstype in _NETWORK:
        _add_server(draft, source, mounts[0])
    elif fstype.partition(".")[0] in _FUSE:
        target = draft.unknown(f"daemon:{source}", "a FUSE daemon", f"of {fstype} at {mounts[0].point}")
        draft.edge(source, target, Reason.SERVED, "no process is known to serve it", certain=False)
    elif not number.startswith("0:") or fstype in _ON_DEVICES:
        target = draft.unknown(
            f"device:{number}", mounts[0].source or number, f"the device of {fstype} {number}"
        )
        draft.edge(source, target, Reason.LIES_ON, f"no known block device has the number {number}")


def _below_overlay(draft: Draft, layers: Layers, mount: Mount) -> None:
    for option, path, layer in layers.of_overlay(mount):
        reason = Reason.LOWER if option == "lowerdir" else Reason.UPPER
        if layer is not None:
            target = draft.layer(layer)
        else:
            what = "lower layers" if reason is Reason.LOWER else "upper layer"
            name, why = f"{what} of an overlay", "on no mount that is seen"
            target = draft.unknown(f"{what}:{mount.number}", name, why)
        draft.edge(f"fs:{mount.number}", target, reason, f"mountinfo names {path} as {option}")


def _add_server(draft: Draft, source: str, mount: Mount) -> None:
    """The other machine of a network file system."""
    if mount.fstype == "virtiofs" or mount.option("trans") == "virtio":
        name, detail = "the hypervisor", f"serves {mount.fstype} {mount.source}"
    else:
        host = mount.source.removeprefix("//").partition("/")[0] if mount.fstype in ("cifs", "smb3") else ""
        host = mount.option("addr") or host or mount.source.partition(":/")[0]
        name, detail = host or "a server", f"serves {mount.fstype} {mount.source}"
    target = draft.add(Node(f"remote:{name}", NodeKind.REMOTE, name, detail))
    draft.edge(source, target, Reason.REMOTE, f"mountinfo says {mount.fstype} of {mount.source}")


def _add_mount(draft: Draft, mount: Mount) -> None:
    part = mount.root != "/"
    words = [mount.fstype, "read-only"] if mount.read_only else [mount.fstype]
    node = draft.add(Node(f"mount:{mount.mount_id}", NodeKind.MOUNT, mount.point, ", ".join(words)))
    what = f"{mount.root} of it" if part else "it"
    draft.edge(
        node,
        f"fs:{mount.number}",
        Reason.BIND if part else Reason.MOUNT,
        f"mountinfo line {mount.mount_id} shows {what} at {mount.point}",
    )


def _add_swap(draft: Draft, layers: Layers, swap: Swap) -> None:
    node = draft.add(
        Node(
            f"swap:{swap.path}",
            NodeKind.SWAP,
            swap.path,
            f"{format_size(swap.size)}, {format_size(swap.used)} used",
            number=swap.number,
        )
    )
    layer = layers.of_swap(swap)
    if layer is not None:
        target = draft.layer(layer)
    else:
        target = draft.unknown(f"path:{swap.path}", swap.path, "a swap area on nothing that is known")
    draft.edge(node, target, Reason.SWAP, f"/proc/swaps names {swap.path}")
    draft.edge(SWAPPED, node, Reason.SWAPPED, f"/proc/swaps names {swap.path}")


def _add_sessions(draft: Draft, snapshot: Snapshot, served: frozenset[str]) -> None:
    """The other machines of iSCSI disks."""
    parts = {device.name for device in snapshot.devices if device.parent}
    for session in snapshot.iscsi:
        for name in session.devices:
            device = draft.layer(device_layer(name))
            if device in served or name in parts:
                continue
            for address in session.addresses:
                host, _ = split_address(address)
                target = draft.add(
                    Node(f"remote:{address}", NodeKind.REMOTE, host or address, f"iSCSI target at {address}")
                )
                evidence = f"/sys/class/iscsi_session/{session.name} leads to {address}"
                draft.edge(device, target, Reason.REMOTE, evidence)


def writable_targets(layers: Layers, served: frozenset[str]) -> list[tuple[str, str]]:
    """Where reclaim may have to write before it gets a page: nodes, each with the evidence.

    Every swap area; every file system that is mounted writable and lies on a block device; and network file
    systems that are served from this machine. FUSE is left out: its pages are copied before they are
    written, and reclaim does not wait for the daemon (fs/fuse/file.c).
    """
    found = [
        (f"swap:{swap.path}", f"pages of programs may be written to {swap.path}")
        for swap in layers.snapshot.swaps
    ]
    for number, mounts in layers.mounts.items():
        writable = next((mount for mount in mounts if not mount.read_only), None)
        if writable is None or writable.fstype.partition(".")[0] in _FUSE:
            continue
        device = layers.by_number.get(number)
        on_device = (
            device is not None
            or not number.startswith("0:")
            or any(mount.devices for mount in mounts)
            or layers.device_of_path(writable.source) is not None
            or writable.fstype in _ON_DEVICES
        )
        here = writable.fstype in _NETWORK and f"fs:{number}" in served
        if (on_device and not (device is not None and device.read_only)) or here:
            evidence = f"{writable.fstype} is mounted writable at {writable.point}"
            found.append((f"fs:{number}", evidence))
    return found
