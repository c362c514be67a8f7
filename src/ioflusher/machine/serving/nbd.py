"""Who serves the nbd devices: the process that keeps the kernel's end, and the server behind the socket.

drivers/block/nbd.c: /sys/block/nbdN/pid is the thread that started the device (nbd_start_device), and exists
while the device is set up. By ioctl that thread stays inside NBD_DO_IT; by netlink it may be long gone, and
the kernel alone holds the sockets.
"""

from collections.abc import Iterator
from dataclasses import replace

from ioflusher.machine.process import Process
from ioflusher.machine.services import SocketEnd
from ioflusher.machine.serving.facts import Facts, distinct, join_address, split_address
from ioflusher.machine.serving.files import server_address
from ioflusher.machine.serving.service import Role, Service, TargetKind
from ioflusher.machine.storage import BlockDevice, DeviceKind

# Ports at which the kernel's own clients of other protocols are served: RPC, NFS, SMB, 9p, iSCSI, NVMe
_OTHER_PORTS = frozenset(("111", "2049", "20048", "445", "139", "564", "3260", "860", "4420"))


def nbd_services(facts: Facts) -> Iterator[Service]:
    """Clients and servers of all nbd devices that are set up."""
    orphans = []
    for device in facts.snapshot.devices:
        if device.kind is not DeviceKind.NBD or (device.size == 0 and device.serving_pid is None):
            continue
        client = facts.process_of(device.serving_pid)
        pairs = _pairs(facts, client) if client is not None else []
        if client is not None and (pairs or facts.talks_abroad(client.pid)):
            yield from _of_client(facts, device, client, pairs)
            continue
        # Gone; or a stranger that was given its number; or a client that kept nothing but the device.
        if client is not None and f"/dev/{device.name}" in {handle.path for handle in client.handles}:
            yield _client(facts, device, client, essential=False)
        elif client is not None and not facts.certain:
            yield replace(_client(facts, device, client, essential=False), certain=False)
        orphans.append(device)
    yield from _of_orphans(facts, orphans)


def _pairs(facts: Facts, client: Process) -> list[tuple[SocketEnd, SocketEnd]]:
    """The client's connections by which an nbd device may be served."""
    return [pair for pair in facts.connections_of(client.pid) if not _of_another_protocol(*pair)]


def _of_another_protocol(*ends: SocketEnd) -> bool:
    """Whether a TCP connection's ports say that it is no NBD."""
    return any(
        split_address(end.address)[1] in _OTHER_PORTS
        for end in ends
        if not end.address.startswith(("/", "@"))
    )


def _client(facts: Facts, device: BlockDevice, process: Process, *, essential: bool) -> Service:
    evidence = f"/sys/block/{device.name}/pid names {facts.name(process.pid)}"
    return _service(device, process.pid, Role.NBD_CLIENT, evidence, essential=essential)


def _service(
    device: BlockDevice,
    pid: int | None,
    role: Role,
    evidence: str,
    *,
    certain: bool = True,
    essential: bool = True,
) -> Service:
    return Service(pid, role, TargetKind.DEVICE, device.name, evidence, certain, essential=essential)


def _of_client(
    facts: Facts, device: BlockDevice, client: Process, pairs: list[tuple[SocketEnd, SocketEnd]]
) -> Iterator[Service]:
    """A device whose client lives: the other ends of its sockets are its server."""
    both = [pair for pair in pairs if client.pid in pair[1].pids]
    fed = [pair for pair in pairs if not pair[1].pids]
    if both or fed:
        # qemu-nbd, rbd-nbd: the process serves the very socket that it gave to the kernel
        yield _client(facts, device, client, essential=True)
        where = f"socket {both[0][0].inode}" if both else f"the kernel's socket {fed[0][1].inode}"
        evidence = f"{facts.name(client.pid)}, which set it up, itself holds the other end of {where}"
        yield _service(device, client.pid, Role.NBD_SERVER, evidence)
        return
    # It sits in NBD_DO_IT and the kernel does the work: only a new connection after a lost one needs it.
    yield _client(facts, device, client, essential=False)
    servers = {pid: pair for pair in pairs for pid in pair[1].pids}
    certain = len({pair[1].pids for pair in pairs}) == 1 and not facts.talks_abroad(client.pid)
    for pid in distinct(servers):
        own, other = servers[pid]
        evidence = (
            f"{facts.name(pid)} holds socket {other.inode} ({other.address or 'a pair'}), "
            f"the peer of socket {own.inode} of the client {facts.name(client.pid)}"
        )
        yield _service(device, pid, Role.NBD_SERVER, evidence, certain=certain)


def _addresses_of_others(facts: Facts) -> set[str]:
    """Addresses of servers with which the kernel speaks something else than NBD."""
    others = {address for session in facts.snapshot.iscsi for address in session.addresses}
    for mount in facts.snapshot.mounts:
        address = server_address(mount)
        if address is not None:
            others.add(join_address(*address))
        elif mount.fstype == "9p":
            others.add(mount.source)
    return others


def _of_orphans(facts: Facts, devices: list[BlockDevice]) -> Iterator[Service]:
    """Devices without a client: their servers hold the peers of sockets that the kernel alone holds."""
    if not devices:
        return
    others = _addresses_of_others(facts)
    candidates: dict[int, tuple[SocketEnd, SocketEnd]] = {}
    sockets = 0
    # who may not look at other users' processes takes their sockets for the kernel's
    for kernel, server in facts.kernel_ends if facts.certain else ():
        if others.isdisjoint((kernel.address, server.address)) and not _of_another_protocol(kernel, server):
            sockets += 1
            for pid in server.pids:
                candidates.setdefault(pid, (kernel, server))
    abroad = any(
        not remote.end.pids
        and remote.peer not in others
        and split_address(remote.peer)[1] not in _OTHER_PORTS
        for remote in facts.snapshot.remotes
    )
    # nbd_start_device: a hardware queue a connection. With fewer sockets, some device has lost its own.
    wanted = sum(device.queue.hardware_queues or 1 for device in devices)
    groups = {pair[1].pids for pair in candidates.values()}
    certain = facts.certain and len(groups) == 1 and not abroad and sockets >= wanted
    for device in devices:
        for pid in distinct(candidates):
            kernel, server = candidates[pid]
            evidence = (
                f"{facts.name(pid)} holds socket {server.inode} ({server.address or 'a pair'}), "
                f"the peer of socket {kernel.inode}, which the kernel alone holds"
            )
            yield _service(device, pid, Role.NBD_SERVER, evidence, certain=certain)
        if not candidates and not abroad:
            evidence = f"{device.name} is set up, and no socket that the kernel alone holds has a peer"
            if not facts.certain:
                evidence = f"{device.name} is set up, and who serves it cannot be seen without privilege"
            yield _service(device, None, Role.NBD_SERVER, evidence, certain=facts.certain)
