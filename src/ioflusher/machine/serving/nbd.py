"""Who serves the nbd devices: the process that keeps the kernel's end, and the server behind the socket.

drivers/block/nbd.c: /sys/block/nbdN/pid is the thread that started the device (nbd_start_device), and exists
while the device is set up. By ioctl that thread stays inside NBD_DO_IT; by netlink it may be long gone, and
the kernel alone holds the sockets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ioflusher.machine.endpoints import SocketEnd
from ioflusher.machine.peers import split_address
from ioflusher.machine.process import Process
from ioflusher.machine.serving.index import SnapshotIndex, distinct
from ioflusher.machine.serving.kernel_clients import KernelClients, is_unix_address
from ioflusher.machine.serving.nbd_traffic import Match, Pair, matches, mismatch
from ioflusher.machine.serving.service import (
    Candidate,
    Confidence,
    StorageRole,
    StorageService,
    TargetKind,
)
from ioflusher.machine.storage import BlockDevice, DeviceKind

NBD_PORT = "10809"  # registered with IANA
# Programs whose only or known use is to speak NBD; a thread's name is cut at 15 bytes.
_PROGRAMS = frozenset(("nbd-server", "nbdkit", "qemu-nbd", "qemu-storage-daemon", "rbd-nbd", "nbdfuse"))
_COMMS = frozenset(program[:15] for program in _PROGRAMS)


def nbd_services(index: SnapshotIndex) -> Iterator[StorageService]:
    """Clients and servers of all nbd devices that are set up."""
    clients = KernelClients(index)
    orphans = []
    for device in index.snapshot.devices:
        if device.kind is not DeviceKind.NBD or (device.size == 0 and device.serving_pid is None):
            continue
        client = index.process_of(device.serving_pid)
        pairs = _pairs(index, clients, client) if client is not None else []
        if client is not None and (pairs or index.talks_abroad(client.pid)):
            yield from _of_client(index, device, client, pairs)
            continue
        # Gone; or its number is another process's now; or it kept nothing but the device.
        if client is not None and f"/dev/{device.name}" in {handle.path for handle in client.handles}:
            yield _client(index, device, client, essential=False)
        elif client is not None and not index.certain:
            yield replace(_client(index, device, client, essential=False), certain=False)
        orphans.append(device)
    if orphans:
        yield from _of_orphans(index, clients, orphans)


def _pairs(index: SnapshotIndex, clients: KernelClients, client: Process) -> list[Pair]:
    """The client's connections by which an nbd device may be served."""
    return [pair for pair in index.connections_of(client.pid) if not clients.explain(*pair)]


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
    candidate: Candidate | None = None,
) -> StorageService:
    return StorageService(
        pid,
        role,
        TargetKind.DEVICE,
        device.name,
        evidence,
        certain,
        essential=essential,
        candidate=candidate,
    )


def _of_client(
    index: SnapshotIndex, device: BlockDevice, client: Process, pairs: list[Pair]
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
    certain = len({pair[1].pids for pair in pairs}) == 1 and not index.talks_abroad(client.pid)
    for pid, (own, other), candidate in _ranked(index, device, pairs):
        evidence = (
            f"{index.name(pid)} holds socket {other.inode} ({other.address or 'a pair'}), "
            f"the peer of socket {own.inode} of the client {index.name(client.pid)}"
        )
        yield _service(
            device,
            pid,
            StorageRole.NBD_SERVER,
            evidence,
            certain=certain,
            candidate=None if certain else candidate,
        )


def _of_orphans(
    index: SnapshotIndex, clients: KernelClients, devices: list[BlockDevice]
) -> Iterator[StorageService]:
    """Devices without a client: their servers hold the peers of sockets that the kernel alone holds."""
    # who may not look at other users' processes takes their sockets for the kernel's
    sockets = [pair for pair in index.kernel_ends if not clients.explain(*pair)] if index.certain else []
    exact = _exact_matches(devices, sockets)
    for device in devices:
        if device.name in exact:
            yield from _of_match(index, device, exact[device.name])
    taken = {kernel.inode for match in exact.values() for kernel, _ in match.pairs}
    left = [pair for pair in sockets if pair[0].inode not in taken]
    devices = [device for device in devices if device.name not in exact]
    abroad = any(
        not remote.end.pids and not clients.explain_address(remote.peer) for remote in index.snapshot.remotes
    )
    # nbd_start_device: a hardware queue a connection, but no more than processors. With fewer sockets, some
    # device has lost its own.
    wanted = sum(device.queue.hardware_queues or 1 for device in devices)
    groups = {pair[1].pids for pair in left}
    certain = index.certain and len(groups) == 1 and not abroad and len(left) >= wanted
    by_start = sorted(devices, key=lambda device: (device.serving_pid or 0, device.name))
    for device in devices:
        for pid, (kernel, server), candidate in _ranked(index, device, left, by_start.index(device)):
            evidence = (
                f"{index.name(pid)} holds socket {server.inode} ({server.address or 'a pair'}), "
                f"the peer of socket {kernel.inode}, which the kernel alone holds"
            )
            yield _service(
                device,
                pid,
                StorageRole.NBD_SERVER,
                evidence,
                certain=certain,
                candidate=None if certain else candidate,
            )
        if not left and not abroad:
            evidence = f"{device.name} is set up, and no socket that the kernel alone holds has a peer"
            if not index.certain:
                evidence = f"{device.name} is set up, and who serves it cannot be seen without privilege"
            yield _service(device, None, StorageRole.NBD_SERVER, evidence, certain=index.certain)


def _exact_matches(devices: Sequence[BlockDevice], sockets: Sequence[Pair]) -> dict[str, Match]:
    """Devices whose traffic is that of one server's connections alone, which fit no other device."""
    unique: dict[str, Match] = {}
    claims: dict[int, int] = {}
    for device in devices:
        found = matches(device, sockets)
        for inode in {kernel.inode for match in found for kernel, _ in match.pairs}:
            claims[inode] = claims.get(inode, 0) + 1
        if len(found) == 1:
            unique[device.name] = found[0]
    return {
        name: match
        for name, match in unique.items()
        if all(claims[kernel.inode] == 1 for kernel, _ in match.pairs)
    }


def _of_match(index: SnapshotIndex, device: BlockDevice, match: Match) -> Iterator[StorageService]:
    pids = {pid: pair for pair in match.pairs for pid in pair[1].pids}
    for pid in distinct(pids):
        kernel, server = pids[pid]
        evidence = (
            f"{index.name(pid)} holds socket {server.inode} ({server.address}), the peer of the kernel's "
            f"socket {kernel.inode}: {match.received} bytes came in, and the replies to {device.name} make "
            f"{match.expected} without the handshake"
        )
        yield _service(device, pid, StorageRole.NBD_SERVER, evidence)


def _ranked(
    index: SnapshotIndex, device: BlockDevice, pairs: Sequence[Pair], place: int = 0
) -> Iterator[tuple[int, Pair, Candidate]]:
    """Each process that may serve the device, with its connection: the one that most speaks for first.

    What speaks for one: that it speaks NBD at all; how well the bytes agree; and of equals, that its
    connection was opened in the order in which the devices were set up, where `place` is this device's.
    """
    by_pid: dict[int, Pair] = {}
    for pair in sorted(pairs, key=lambda pair: pair[0].inode):
        for pid in pair[1].pids:
            by_pid.setdefault(pid, pair)
    judged = []
    for opened, (pid, pair) in enumerate(by_pid.items()):
        confidence, reason = _confidence(index, pid, pair[1])
        differs = mismatch(device, pair[0])
        if differs is not None:
            reason += f"; its socket's bytes differ from the device's by {differs}"
        order = (confidence is Confidence.POSSIBLE, differs is None, differs or 0, abs(opened - place), pid)
        judged.append((order, pid, confidence, reason))
    for rank, (_, pid, confidence, reason) in enumerate(sorted(judged, key=lambda entry: entry[0]), 1):
        yield pid, by_pid[pid], Candidate(confidence, rank, len(judged), reason)


def _confidence(index: SnapshotIndex, pid: int, server: SocketEnd) -> tuple[Confidence, str]:
    """Whether the process is known to speak NBD, and by what."""
    if not is_unix_address(server.address) and split_address(server.address)[1] == NBD_PORT:
        return Confidence.LIKELY, f"it serves at port {NBD_PORT}, which is NBD's"
    process = index.processes.get(pid)
    if process is not None:
        program = (process.exe or "").removesuffix(" (deleted)").rpartition("/")[2]
        if program in _PROGRAMS or process.comm in _COMMS:
            return Confidence.LIKELY, f"its program is {program or process.comm}"
    return Confidence.POSSIBLE, "nothing says that it speaks NBD"
