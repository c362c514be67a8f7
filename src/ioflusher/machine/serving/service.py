"""Who serves what: the records of the inference."""

from dataclasses import dataclass
from enum import Enum


class StorageRole(Enum):
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
class StorageService:
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
    role: StorageRole
    kind: TargetKind
    target: str
    evidence: str
    certain: bool = True
    kernel: bool = False
    essential: bool = True
