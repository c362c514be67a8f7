"""Who serves what: the records that the inference over a Snapshot yields, and the inference's entry."""

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ioflusher.machine.snapshot import Snapshot


class Role(Enum):
    """How a process stands in the I/O path."""

    NBD_CLIENT = "NBD client"  # keeps the kernel's end; often does no I/O itself
    NBD_SERVER = "NBD server"
    UBLK_SERVER = "ublk server"
    TCMU_HANDLER = "tcmu handler"
    ISCSI_INITIATOR = "iSCSI initiator daemon"
    ISCSI_TARGET = "iSCSI target"
    MULTIPATH = "multipath daemon"
    VDUSE_SERVER = "vduse server"
    FUSE_SERVER = "FUSE daemon"
    FILE_SERVER = "file server"  # NFS, CIFS, 9p, virtiofs from this same machine


class TargetKind(Enum):
    """What is served."""

    DEVICE = "device"  # target is a BlockDevice.name; a tcmu device's uio name where no disk here is known
    MOUNT = "mount"  # target is the file system's number, "major:minor" (Mount.number)


@dataclass(frozen=True, slots=True)
class Service:
    """One process that must act so that I/O to one target completes.

    Attributes:
        pid: the process; None where its part is known and nobody plays it (a device whose daemon is gone),
            or where the kernel itself serves (`kernel` is then True).
        role: how.
        kind, target: what.
        evidence: the fact that says so, one sentence with the file that it was read from.
        certain: False where several processes could be meant.
        kernel: whether the kernel itself plays the part (nfsd, LIO).
        essential: whether each request needs it (an NBD server), or only recovery does (iscsid, multipathd).
    """

    pid: int | None
    role: Role
    kind: TargetKind
    target: str
    evidence: str
    certain: bool = True
    kernel: bool = False
    essential: bool = True


def services(snapshot: "Snapshot") -> tuple[Service, ...]:
    """Who serves what, inferred from the facts of the snapshot alone, in a stable order.

    loop, zram, md and bcache have no daemon: what they stand on is in BlockDevice. docs/serving.md has each
    fact and where the kernel tells it.
    """
    # here, because these modules make the records above
    from ioflusher.machine.facts import Facts
    from ioflusher.machine.serve_devices import dm_services, tcmu_services, ublk_services, vduse_services
    from ioflusher.machine.serve_files import file_server_services, fuse_services
    from ioflusher.machine.serve_iscsi import iscsi_services
    from ioflusher.machine.serve_nbd import nbd_services

    facts = Facts(snapshot)
    found: dict[tuple[int | None, Role, TargetKind, str], Service] = {}
    for infer in (
        nbd_services,
        ublk_services,
        vduse_services,
        tcmu_services,
        iscsi_services,
        dm_services,
        fuse_services,
        file_server_services,
    ):
        for service in infer(facts):
            found.setdefault((service.pid, service.role, service.kind, service.target), service)
    return tuple(found.values())
