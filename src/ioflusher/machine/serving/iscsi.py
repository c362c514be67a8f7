"""Who serves iSCSI disks: the initiator's daemon, and the target where it is on this same machine."""

from collections.abc import Iterator

from ioflusher.machine.endpoints import IscsiSession
from ioflusher.machine.peers import split_address
from ioflusher.machine.serving.at_address import servers_at
from ioflusher.machine.serving.index import SnapshotIndex, distinct
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind

NETLINK_ISCSI = 8  # include/uapi/linux/netlink.h


def iscsi_services(index: SnapshotIndex) -> Iterator[StorageService]:
    """Initiator daemons and local targets, for each disk of each session."""
    for session in index.snapshot.iscsi:
        yield from _initiators(index, session)
        yield from _targets(index, session)


def _initiators(index: SnapshotIndex, session: IscsiSession) -> Iterator[StorageService]:
    """drivers/scsi/scsi_transport_iscsi.c reports errors to NETLINK_ISCSI and takes connections from it."""
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
        # the initiator's end is iscsid's as well as the kernel's
        for found in servers_at(index, host, port, session.name, client_is_kernel=False):
            for disk in session.devices:
                yield StorageService(
                    found.pid,
                    StorageRole.ISCSI_TARGET,
                    TargetKind.DEVICE,
                    disk,
                    found.evidence,
                    found.certain,
                    found.kernel,
                )
