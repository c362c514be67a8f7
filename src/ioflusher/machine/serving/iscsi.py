"""Who serves iSCSI disks: the initiator's daemon, and the target where it is on this same machine."""

from collections.abc import Iterator

from ioflusher.machine.peers import split_address
from ioflusher.machine.services import IscsiSession
from ioflusher.machine.serving.index import SnapshotIndex, distinct
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind

NETLINK_ISCSI = 8  # include/uapi/linux/netlink.h


def iscsi_services(index: SnapshotIndex) -> Iterator[StorageService]:
    """Initiator daemons and local targets, for each disk of each session."""
    for session in index.snapshot.iscsi:
        yield from _initiators(index, session)
        yield from _targets(index, session)


def _initiators(index: SnapshotIndex, session: IscsiSession) -> Iterator[StorageService]:
    """drivers/scsi/scsi_transport_iscsi.c tells errors to, and takes new connections from, NETLINK_ISCSI."""
    users = distinct(user.pid for user in index.snapshot.netlink if user.protocol == NETLINK_ISCSI)
    holders = {
        pid
        for address in session.addresses
        for _, other in index.connections_at(address)
        for pid in other.pids
    } | {pid for r in index.snapshot.remotes if r.peer in session.addresses for pid in r.end.pids}
    chosen = distinct(holders.intersection(users)) or users
    for disk in session.devices:
        for pid in chosen:
            evidence = f"{index.name(pid)} holds a netlink socket of the protocol NETLINK_ISCSI"
            if pid in holders:
                evidence += f" and the connection of {session.name}"
            yield _initiator(pid, disk, evidence, certain=len(chosen) == 1)
        if not chosen:
            evidence = f"{session.name} is there, and nobody is seen to hold a socket of NETLINK_ISCSI"
            yield _initiator(None, disk, evidence, certain=index.certain)


def _initiator(pid: int | None, disk: str, evidence: str, *, certain: bool) -> StorageService:
    """It is needed when a connection is lost, not for each request."""
    return StorageService(
        pid, StorageRole.ISCSI_INITIATOR, TargetKind.DEVICE, disk, evidence, certain, essential=False
    )


def _targets(index: SnapshotIndex, session: IscsiSession) -> Iterator[StorageService]:
    """The other ends of the session's connections, where they are sockets of this machine."""
    for address in session.addresses:
        host, port = split_address(address)
        ends = [own for own, _ in index.connections_at(address)]
        pids = distinct(pid for end in ends for pid in end.pids)
        listeners = index.listeners_at(host, port)
        listening = distinct(pid for listener in listeners for pid in listener.end.pids)
        for disk in session.devices:
            for pid in pids:
                evidence = (
                    f"{index.name(pid)} holds the other end of {session.name}'s connection to {address}"
                )
                yield _target(pid, disk, evidence, certain=len(pids) == 1)
            if pids:
                continue
            if ends and index.certain:
                evidence = f"the kernel alone holds the other end of {session.name}'s connection to {address}"
                yield _target(None, disk, evidence, kernel=True)
            elif index.is_local(host):
                yield from _of_lost_session(index, session, address, disk, listening, bool(listeners))


def _of_lost_session(
    index: SnapshotIndex,
    session: IscsiSession,
    address: str,
    disk: str,
    listening: tuple[int, ...],
    any_listener: bool,
) -> Iterator[StorageService]:
    """A session to an address of this machine that is not connected now."""
    for pid in listening:
        evidence = f"{index.name(pid)} listens at {address}, where {session.name} leads"
        yield _target(pid, disk, evidence, certain=len(listening) == 1)
    if listening:
        return
    if any_listener:
        evidence = f"the kernel is seen to listen at {address}, where {session.name} leads"
        yield _target(None, disk, evidence, certain=index.certain, kernel=True)
    else:
        evidence = f"{session.name} leads to {address} on this machine, where nobody is seen to listen"
        yield _target(None, disk, evidence, certain=index.certain)


def _target(
    pid: int | None, disk: str, evidence: str, *, certain: bool = True, kernel: bool = False
) -> StorageService:
    return StorageService(pid, StorageRole.ISCSI_TARGET, TargetKind.DEVICE, disk, evidence, certain, kernel)
