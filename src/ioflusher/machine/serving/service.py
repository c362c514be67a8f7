"""Who serves what: the records of the inference."""

from dataclasses import dataclass
from enum import Enum


class StorageRole(Enum):
    """What a process is in the I/O path."""

    NBD_CLIENT = "NBD client"  # keeps the kernel's end; often does no I/O itself
    NBD_SERVER = "NBD server"
    UBLK_SERVER = "ublk server"
    TCMU_HANDLER = "tcmu handler"
    ISCSI_INITIATOR = "iSCSI initiator daemon"
    ISCSI_TARGET = "iSCSI target"
    NVME_TARGET = "NVMe target"
    MULTIPATH = "multipath daemon"
    VDUSE_SERVER = "vduse server"
    FUSE_SERVER = "FUSE daemon"
    FILE_SERVER = "file server"  # NFS, CIFS, 9p, virtiofs from this same machine
    CEPH_DAEMON = "Ceph daemon"  # of a cluster on this machine that krbd or CephFS uses


class TargetKind(Enum):
    """What is served."""

    DEVICE = "device"  # target is a BlockDevice.name; a tcmu device's uio name where no disk here is known
    MOUNT = "mount"  # target is the file system's number, "major:minor" (Mount.number)


class Confidence(Enum):
    """What is known of one of several candidates."""

    LIKELY = "likely"  # it speaks the protocol: it serves one of the targets, if not this one
    POSSIBLE = "possible"  # it has a connection with the kernel, and nothing says what for


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of several processes of which one serves a target.

    Attributes:
        confidence: whether it is known to speak the protocol.
        rank: its place among the candidates for the target, 1 for the one that most speaks for.
        number: how many candidates there are.
        reason: what speaks for it, or that nothing does; one clause.
    """

    confidence: Confidence
    rank: int
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class StorageService:
    """One process that must act so that I/O to one target completes.

    Attributes:
        pid: the process; None where the part is known and no process has it (a device whose daemon is gone),
            or where the kernel itself serves (`kernel` is then True).
        role: its part.
        kind, target: what it serves.
        evidence: the fact that says so, one sentence with the file that it was read from.
        certain: False where several processes could be meant.
        kernel: whether the kernel itself has the part (nfsd, LIO, nvmet).
        essential: whether each request needs it (an NBD server), or only recovery does (iscsid, multipathd).
        candidate: its place among several, of which only one serves the target; None where the process
            serves it, or is the only one that could.
    """

    pid: int | None
    role: StorageRole
    kind: TargetKind
    target: str
    evidence: str
    certain: bool = True
    kernel: bool = False
    essential: bool = True
    candidate: Candidate | None = None

    @property
    def speaks_protocol(self) -> bool:
        """Whether the process is known to have this role for some target; else no advice fits it."""
        return self.candidate is None or self.candidate.confidence is Confidence.LIKELY
