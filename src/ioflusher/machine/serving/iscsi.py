"""Who serves iSCSI disks: the initiator's daemon, and the target where it is on this same machine."""

from collections.abc import Iterator

from ioflusher.machine.services import IscsiSession
from ioflusher.machine.serving.facts import Facts, distinct, split_address
from ioflusher.machine.serving.service import Role, Service, TargetKind

NETLINK_ISCSI = 8  # include/uapi/linux/netlink.h


def iscsi_services(facts: Facts) -> Iterator[Service]:
    """Initiator daemons and local targets, for each disk of each session."""
    for session in facts.snapshot.iscsi:
        yield from _initiators(facts, session)
        yield from _targets(facts, session)


def _initiators(facts: Facts, session: IscsiSession) -> Iterator[Service]:
    """drivers/scsi/scsi_transport_iscsi.c tells errors to, and takes new connections from, NETLINK_ISCSI."""
    users = distinct(user.pid for user in facts.snapshot.netlink if user.protocol == NETLINK_ISCSI)
    holders = {
        pid
        for address in session.addresses
        for _, other in facts.connections_at(address)
        for pid in other.pids
    } | {pid for r in facts.snapshot.remotes if r.peer in session.addresses for pid in r.end.pids}
    chosen = distinct(holders.intersection(users)) or users
    for disk in session.devices:
        for pid in chosen:
            evidence = f"{facts.name(pid)} holds a netlink socket of the protocol NETLINK_ISCSI"
            if pid in holders:
                evidence += f" and the connection of {session.name}"
            yield _initiator(pid, disk, evidence, certain=len(chosen) == 1)
        if not chosen:
            evidence = f"{session.name} is there, and nobody is seen to hold a socket of NETLINK_ISCSI"
            yield _initiator(None, disk, evidence, certain=facts.certain)


def _initiator(pid: int | None, disk: str, evidence: str, *, certain: bool) -> Service:
    """It is needed when a connection is lost, not for each request."""
    return Service(pid, Role.ISCSI_INITIATOR, TargetKind.DEVICE, disk, evidence, certain, essential=False)


def _targets(facts: Facts, session: IscsiSession) -> Iterator[Service]:
    """The other ends of the session's connections, where they are sockets of this machine."""
    for address in session.addresses:
        host, port = split_address(address)
        ends = [own for own, _ in facts.connections_at(address)]
        pids = distinct(pid for end in ends for pid in end.pids)
        listeners = facts.listeners_at(host, port)
        listening = distinct(pid for listener in listeners for pid in listener.end.pids)
        for disk in session.devices:
            for pid in pids:
                evidence = (
                    f"{facts.name(pid)} holds the other end of {session.name}'s connection to {address}"
                )
                yield _target(pid, disk, evidence, certain=len(pids) == 1)
            if pids:
                continue
            if ends and facts.certain:
                evidence = f"the kernel alone holds the other end of {session.name}'s connection to {address}"
                yield _target(None, disk, evidence, kernel=True)
            elif facts.is_local(host):
                yield from _of_lost_session(facts, session, address, disk, listening, bool(listeners))


def _of_lost_session(
    facts: Facts,
    session: IscsiSession,
    address: str,
    disk: str,
    listening: tuple[int, ...],
    any_listener: bool,
) -> Iterator[Service]:
    """A session to an address of this machine that is not connected now."""
    for pid in listening:
        evidence = f"{facts.name(pid)} listens at {address}, where {session.name} leads"
        yield _target(pid, disk, evidence, certain=len(listening) == 1)
    if listening:
        return
    if any_listener:
        evidence = f"the kernel is seen to listen at {address}, where {session.name} leads"
        yield _target(None, disk, evidence, certain=facts.certain, kernel=True)
    else:
        evidence = f"{session.name} leads to {address} on this machine, where nobody is seen to listen"
        yield _target(None, disk, evidence, certain=facts.certain)


def _target(
    pid: int | None, disk: str, evidence: str, *, certain: bool = True, kernel: bool = False
) -> Service:
    return Service(pid, Role.ISCSI_TARGET, TargetKind.DEVICE, disk, evidence, certain, kernel)
