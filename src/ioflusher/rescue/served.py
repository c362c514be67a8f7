"""A device that user space must serve, with all that an action has to know of it. Pure."""

from dataclasses import dataclass

from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.graph.layers import Layer, LayerKind, device_layer
from ioflusher.machine.peers import awaited, reachable
from ioflusher.machine.serving.files import connection_number
from ioflusher.machine.serving.index import is_bystander
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.storage import BlockDevice, DeviceKind
from ioflusher.rescue.other_server import OtherServer, other_server

PEER = "peer of a daemon"
MOST_PEERS = 16


@dataclass(frozen=True, slots=True)
class ServingDaemon:
    """A process that must act so that the device's requests complete.

    Attributes:
        pid, comm: its number and name.
        role: its part, in words (`machine.serving.service.StorageRole`).
        covered: whether every one of its threads carries the IO_FLUSHER state.
    """

    pid: int
    comm: str
    role: str
    covered: bool

    @property
    def name(self) -> str:
        """As "nbdkit (812)"."""
        return f"{self.comm} ({self.pid})"


@dataclass(frozen=True, slots=True)
class FuseMount:
    """A FUSE file system in the path.

    Attributes:
        connection: its directory's name below /sys/fs/fuse/connections: the number of its st_dev
            (fs/fuse/control.c, fuse_ctl_add_conn).
        point: where it is mounted.
    """

    connection: int
    point: str


def kernels_own(role: str) -> str:
    """The part of the kernel that has this role, in words."""
    return f"the kernel's own {role}"


@dataclass(frozen=True, slots=True)
class ServedDevice:
    """A block device whose requests wait for processes of this machine.

    Attributes:
        name: as nbd0, dm-3; empty where a record does not tell.
        kind: what drives it.
        daemons: the processes in its path, those that each request needs first, and their local peers last.
        clients: processes that set an nbd device up and may hold the driver's sockets.
        missing: roles that nobody has, in words: their daemon is gone.
        kernel_targets: roles that the kernel itself has on this machine, in words.
        mounts: where file systems on it are mounted.
        swaps: swap areas on it.
        fuse: FUSE file systems that it stands on.
        multipath: name of the multipath map in its path.
        in_flight: requests, when it was looked at.
        other_server: of the same store, which could take over.
    """

    name: str
    kind: DeviceKind
    daemons: tuple[ServingDaemon, ...] = ()
    clients: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    kernel_targets: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    swaps: tuple[str, ...] = ()
    fuse: tuple[FuseMount, ...] = ()
    multipath: str | None = None
    in_flight: int | None = None
    other_server: OtherServer | None = None

    @property
    def path(self) -> str:
        """As /dev/nbd0."""
        return f"/dev/{self.name}" if self.name else "a device that the record does not name"

    @property
    def servers(self) -> tuple[str, ...]:
        """Who serves it, in words: "nbdkit (812)", "the kernel's own iSCSI target"."""
        return (*(daemon.name for daemon in self.daemons), *map(kernels_own, self.kernel_targets))


def served_devices(analysis: Analysis) -> tuple[ServedDevice, ...]:
    """The block devices of the machine that lie on something that a process serves, in a stable order."""
    by_layer: dict[Layer, list[StorageService]] = {}
    for service in analysis.services:
        by_layer.setdefault(analysis.layers.of_service(service), []).append(service)
    found = []
    for device in analysis.snapshot.devices:
        if device.kind is DeviceKind.PARTITION or not device.size:
            continue
        below = analysis.layers.below(device_layer(device.name))
        services = [service for layer in sorted(below, key=_order) for service in by_layer.get(layer, ())]
        if services:
            found.append(_served(analysis, device, below, services))
    return tuple(found)


def _order(layer: Layer) -> tuple[str, str]:
    return layer.kind.value, layer.name


def _served(
    analysis: Analysis, device: BlockDevice, below: frozenset[Layer], services: list[StorageService]
) -> ServedDevice:
    processes = {process.pid: process for process in analysis.snapshot.processes}
    daemons: dict[int, ServingDaemon] = {}
    missing = []
    kernel_targets: dict[str, None] = {}
    for service in sorted(services, key=lambda service: not service.essential):
        process = processes.get(service.pid) if service.pid is not None else None
        if process is not None and process.living:
            if not (service.speaks_protocol or _only_one(service)):
                continue  # one of several that may be strangers
            held = (StorageRole.NBD_CLIENT,) if not service.essential else ()
            if service.role not in held:
                daemons.setdefault(
                    process.pid,
                    ServingDaemon(process.pid, process.comm, service.role.value, process.covered),
                )
        elif service.kernel:
            kernel_targets[service.role.value] = None
        elif service.essential and service.certain:
            missing.append(service.role.value)
    clients = dict.fromkeys(s.pid for s in services if s.role is StorageRole.NBD_CLIENT and s.pid is not None)
    for pid in sorted(_peers(analysis, frozenset(daemons)) - clients.keys()):
        if pid in processes and processes[pid].living:
            daemons[pid] = ServingDaemon(pid, processes[pid].comm, PEER, processes[pid].covered)
    above = analysis.layers.above(device_layer(device.name))
    mounts = [
        mount
        for layer in sorted(above, key=_order)
        if layer.kind is LayerKind.FILE_SYSTEM
        for mount in analysis.layers.mounts.get(layer.name, ())
    ]
    return ServedDevice(
        name=device.name,
        kind=device.kind,
        daemons=tuple(daemons.values()),
        clients=tuple(clients),
        missing=tuple(missing),
        kernel_targets=tuple(kernel_targets),
        mounts=tuple(dict.fromkeys(mount.point for mount in mounts)),
        swaps=tuple(swap.path for swap in analysis.layers.swaps_on(above)),
        fuse=_fuse(analysis, services),
        multipath=_multipath(analysis, below),
        in_flight=device.in_flight,
        other_server=other_server(analysis, device.kind, services),
    )


def _only_one(service: StorageService) -> bool:
    """Whether nobody else can be meant: its stacks are worth a look then, whatever it speaks."""
    return service.candidate is not None and service.candidate.number == 1


def _peers(analysis: Analysis, pids: frozenset[int]) -> frozenset[int]:
    """Processes that these wait for over local sockets, as sshfs for its server; none where they are many."""
    snapshot = analysis.snapshot
    connections = [found for found in snapshot.connections if not is_bystander(found)]
    peers = reachable(pids, awaited(connections, snapshot.listeners)) - pids
    return peers if len(peers) <= MOST_PEERS else frozenset()


def _fuse(analysis: Analysis, services: list[StorageService]) -> tuple[FuseMount, ...]:
    found: dict[int, FuseMount] = {}
    for service in services:
        if service.role is not StorageRole.FUSE_SERVER or service.kind is not TargetKind.MOUNT:
            continue
        mounts = analysis.layers.mounts.get(service.target, ())
        connection = connection_number(service.target)
        if mounts and connection is not None:
            found.setdefault(connection, FuseMount(connection, mounts[0].point))
    return tuple(found.values())


def _multipath(analysis: Analysis, below: frozenset[Layer]) -> str | None:
    for layer in sorted(below, key=_order):
        device = analysis.layers.devices.get(layer.name)
        if device is not None and device.dm is not None and "multipath" in device.dm.targets:
            return device.dm.name
    return None
