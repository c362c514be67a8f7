"""Who serves the nbd devices: the process that keeps the kernel's end, and the server behind the socket.

drivers/block/nbd.c: /sys/block/nbdN/pid is the thread that started the device (nbd_start_device), and exists
while the device is set up. By ioctl that thread stays inside NBD_DO_IT; by netlink it may be long gone, and
the kernel alone holds the sockets.
"""

from collections.abc import Iterator
from dataclasses import replace

from ioflusher.machine.peers import join_address, split_address
from ioflusher.machine.process import Process
from ioflusher.machine.services import SocketEnd
from ioflusher.machine.serving.files import server_address
from ioflusher.machine.serving.index import SnapshotIndex, distinct
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.storage import BlockDevice, DeviceKind

# Ports at which the kernel's own clients of other protocols are served: RPC, NFS, SMB, 9p, iSCSI, NVMe
_OTHER_PORTS = frozenset(("111", "2049", "20048", "445", "139", "564", "3260", "860", "4420"))


def nbd_services(index: SnapshotIndex) -> Iterator[StorageService]:
    """Clients and servers of all nbd devices that are set up."""
    orphans = []
    for device in index.snapshot.devices:
        if device.kind is not DeviceKind.NBD or (device.size == 0 and device.serving_pid is None):
            continue
        client = index.process_of(device.serving_pid)
        pairs = _pairs(index, client) if client is not None else []
        if client is not None and (pairs or index.talks_abroad(client.pid)):
            yield from _of_client(index, device, client, pairs)
            continue
        # Gone; or a stranger that was given its number; or a client that kept nothing but the device.
        if client is not None and f"/dev/{device.name}" in {handle.path for handle in client.handles}:
            yield _client(index, device, client, essential=False)
        elif client is not None and not index.certain:
            yield replace(_client(index, device, client, essential=False), certain=False)
        orphans.append(device)
    yield from _of_orphans(index, orphans)


def _pairs(index: SnapshotIndex, client: Process) -> list[tuple[SocketEnd, SocketEnd]]:
    """The client's connections by which an nbd device may be served."""
    return [pair for pair in index.connections_of(client.pid) if not _of_another_protocol(*pair)]


def _of_another_protocol(*ends: SocketEnd) -> bool:
    """Whether a TCP connection's ports say that it is no NBD."""
    return any(
        split_address(end.address)[1] in _OTHER_PORTS
        for end in ends
        if not end.address.startswith(("/", "@"))
    )


def _client(
    index: SnapshotIndex, device: BlockDevice, process: Process, *, essential: bool
) -> StorageService:
    evidence = f"/sys/block/{device.name}/pid names {index.name(process.pid)}"
    return _service(device, process.pid, StorageRole.NBD_CLIENT, evidence, essential=essential)


def _service(
    device: BlockDevice,
    pid: int | None,
    role: StorageRole,
    evidence: str,
    *,
    certain: bool = True,
    essential: bool = True,
) -> StorageService:
    return StorageService(pid, role, TargetKind.DEVICE, device.name, evidence, certain, essential=essential)


def _of_client(
    index: SnapshotIndex, device: BlockDevice, client: Process, pairs: list[tuple[SocketEnd, SocketEnd]]
) -> Iterator[StorageService]:
    """A device whose client lives: the other ends of its sockets are its server."""
    both = [pair for pair in pairs if client.pid in pair[1].pids]
    fed = [pair for pair in pairs if not pair[1].pids]
    if both or fed:
        # qemu-nbd, rbd-nbd: the process serves the very socket that it gave to the kernel
        yield _client(index, device, client, essential=True)
        where = f"socket {both[0][0].inode}" if both else f"the kernel's socket {fed[0][1].inode}"
        evidence = f"{index.name(client.pid)}, which set it up, itself holds the other end of {where}"
        yield _service(device, client.pid, StorageRole.NBD_SERVER, evidence)
        return
    # It sits in NBD_DO_IT and the kernel does the work: only a new connection after a lost one needs it.
    yield _client(index, device, client, essential=False)
    servers = {pid: pair for pair in pairs for pid in pair[1].pids}
    certain = len({pair[1].pids for pair in pairs}) == 1 and not index.talks_abroad(client.pid)
    for pid in distinct(servers):
        own, other = servers[pid]
        evidence = (
            f"{index.name(pid)} holds socket {other.inode} ({other.address or 'a pair'}), "
            f"the peer of socket {own.inode} of the client {index.name(client.pid)}"
        )
        yield _service(device, pid, StorageRole.NBD_SERVER, evidence, certain=certain)


def _addresses_of_others(index: SnapshotIndex) -> set[str]:
    """Addresses of servers with which the kernel speaks something else than NBD."""
    others = {address for session in index.snapshot.iscsi for address in session.addresses}
    for mount in index.snapshot.mounts:
        address = server_address(mount)
        if address is not None:
            others.add(join_address(*address))
        elif mount.fstype == "9p":
            others.add(mount.source)
    return others


def _of_orphans(index: SnapshotIndex, devices: list[BlockDevice]) -> Iterator[StorageService]:
    """Devices without a client: their servers hold the peers of sockets that the kernel alone holds."""
    if not devices:
        return
    others = _addresses_of_others(index)
    candidates: dict[int, tuple[SocketEnd, SocketEnd]] = {}
    sockets = 0
    # who may not look at other users' processes takes their sockets for the kernel's
    for kernel, server in index.kernel_ends if index.certain else ():
        if others.isdisjoint((kernel.address, server.address)) and not _of_another_protocol(kernel, server):
            sockets += 1
            for pid in server.pids:
                candidates.setdefault(pid, (kernel, server))
    abroad = any(
        not remote.end.pids
        and remote.peer not in others
        and split_address(remote.peer)[1] not in _OTHER_PORTS
        for remote in index.snapshot.remotes
    )
    # nbd_start_device: a hardware queue a connection. With fewer sockets, some device has lost its own.
    wanted = sum(device.queue.hardware_queues or 1 for device in devices)
    groups = {pair[1].pids for pair in candidates.values()}
    certain = index.certain and len(groups) == 1 and not abroad and sockets >= wanted
    for device in devices:
        for pid in distinct(candidates):
            kernel, server = candidates[pid]
            evidence = (
                f"{index.name(pid)} holds socket {server.inode} ({server.address or 'a pair'}), "
                f"the peer of socket {kernel.inode}, which the kernel alone holds"
            )
            yield _service(device, pid, StorageRole.NBD_SERVER, evidence, certain=certain)
        if not candidates and not abroad:
            evidence = f"{device.name} is set up, and no socket that the kernel alone holds has a peer"
            if not index.certain:
                evidence = f"{device.name} is set up, and who serves it cannot be seen without privilege"
            yield _service(device, None, StorageRole.NBD_SERVER, evidence, certain=index.certain)
