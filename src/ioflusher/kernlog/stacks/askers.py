"""Who a waiting thread is to others: a daemon, the kernel's storage worker, a file system at work, nobody."""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

from ioflusher.kernlog.records import TaskReport
from ioflusher.kernlog.stacks.anatomy import Anatomy, Step
from ioflusher.kernlog.stacks.roles import Role, role_of

DAEMON_TABLE = "daemons.txt"


class Service(Enum):
    """What others need a thread for."""

    DAEMON = "daemon"  # a program whose answers complete other threads' I/O
    KERNEL = "kernel"  # a kernel thread that completes I/O of a device or a network file system
    FLUSHER = "flusher"  # writes dirty pages back
    INTERNALS = "internals"  # code of a subsystem, which may hold its locks or a transaction
    ORDINARY = "ordinary"  # nobody needs it, as far as the log tells


@dataclass(frozen=True, slots=True)
class Daemon:
    """A line of the table of programs.

    Attributes:
        name: the task's name; `*` at the end is any rest, at both ends any name that holds the word.
        serves: what waits when it waits, such as "nbd" or "fuse".
        about: a few words on it.
    """

    name: str
    serves: str
    about: str


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose allocation, or whose wait, a stack shows.

    Attributes:
        service: what others need the thread for.
        part: the subsystem that asked for memory, None where no particular one did.
        daemon: the table's line of the program, None for what is no daemon.
    """

    service: Service
    part: str | None
    daemon: Daemon | None


@lru_cache(maxsize=1)
def known_daemons() -> tuple[Daemon, ...]:
    """The table of programs, in its order."""
    text = Path(__file__).with_name(DAEMON_TABLE).read_text("utf-8")
    lines = (line.split(None, 2) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return tuple(Daemon(name, serves, about.strip()) for name, serves, about in lines)


@lru_cache(maxsize=4096)
def daemon_named(comm: str | None, extra: tuple[str, ...] = ()) -> Daemon | None:
    """The daemon with this task name, None for none; `extra` are names the user gave."""
    if not comm:
        return None
    if any(_fits(name, comm) for name in extra):
        return Daemon(comm, "block", "named by you as a storage daemon")
    # threads of the kernel are called after devices: jbd2/nbd0-8
    if "/" in comm:
        return None
    return next((daemon for daemon in known_daemons() if _fits(daemon.name, comm)), None)


def _fits(pattern: str, comm: str) -> bool:
    if pattern.startswith("*") and pattern.endswith("*"):
        return pattern[1:-1] in comm
    # the kernel keeps 15 characters of a name
    return comm.startswith(pattern[:-1]) if pattern.endswith("*") else comm == pattern[:15]


# parts of one subsystem under several module names
_FAMILIES = {
    "jbd2": "ext4",
    "jbd": "ext3",
    "spl": "zfs",
    "rbd": "ceph",
    "libceph": "ceph",
    "sunrpc": "nfs",
    "nfsv3": "nfs",
    "nfsv4": "nfs",
    "nfs_acl": "nfs",
    "lockd": "nfs",
    "iscsi_tcp": "iscsi",
    "libiscsi": "iscsi",
    "libiscsi_tcp": "iscsi",
    "scsi_transport_iscsi": "iscsi",
    "raid1": "md",
    "raid10": "md",
    "raid456": "md",
    "md_mod": "md",
    "ocfs2_dlm": "ocfs2",
    "ocfs2_nodemanager": "ocfs2",
    "dlm": "gfs2",
    "nvme_tcp": "nvme",
    "nvme_rdma": "nvme",
    "nvme_core": "nvme",
    "nvme_fabrics": "nvme",
    "zsmalloc": "zram",
    "cachefiles": "fscache",
    "zcommon": "zfs",
    "zavl": "zfs",
    "usb_storage": "usb",
    "uas": "usb",
    "usbcore": "usb",
    "xhci_hcd": "usb",
    "ehci_hcd": "usb",
    "ib_isert": "iscsi_target_mod",
    "ib_srpt": "target_core_mod",
    "tcm_loop": "target_core_mod",
    "rds": "rdma",
    "rds_rdma": "rdma",
    "rds_tcp": "rdma",
    "ib_core": "rdma",
    "ib_cm": "rdma",
    "iw_cm": "rdma",
    "rdma_cm": "rdma",
    "mlx4_core": "rdma",
    "mlx5_core": "rdma",
    "mlx4_ib": "rdma",
    "mlx5_ib": "rdma",
    "rpcrdma": "nfs",
    "ufshcd_core": "ufs",
}
# parts that say nothing about whose the code is
GENERAL = frozenset({None, "mm", "memcg", "fs", "block", "net", "tcp", "unix", "scsi", "quota", "virtio_blk"})


def family(part: str | None) -> str | None:
    """One name for all modules of a subsystem; None for none and for parts that everything passes through."""
    if part in GENERAL or part is None:
        return None
    return "dm" if part.startswith("dm_") else _FAMILIES.get(part, part)


def families(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """The families of a run of steps, innermost first, each once."""
    found = (family(step.part) for step in steps)
    return tuple(dict.fromkeys(name for name in found if name))


# kernel threads of these families complete the I/O that others wait for
_BLOCK_COMPLETERS = {
    "loop",
    "nbd",
    "drbd",
    "iscsi",
    "nvme",
    "usb",
    "ufs",
    "dm",
    "md",
    "bcache",
    "zram",
    "rdma",
}
_TARGETS = {"iscsi_target_mod", "target_core_mod", "target_core_user"}
_NETWORKED = {"ceph", "nfs", "cifs", "gfs2", "ocfs2", "9p", "fuse", "zfs", "fscache"}
_COMPLETERS = _BLOCK_COMPLETERS | _TARGETS | _NETWORKED
_KERNEL_THREAD = re.compile(
    r"^(?:kworker/|loop\d|nbd\d|ceph-|md\d|drbd|rpciod|xprtiod|nfsiod|cifsd|scsi_eh_|iscsi_q|jbd2/|kdmflush"
    r"|kcryptd|dmcrypt_write|xfsaild|flush-|bdi-|txg_|z_|zvol|spl_|arc_|o2net|dlm_|usb-storage|hub_|khubd|kslowd)"
)


_WORK = ("_work", "_workfn", "_work_fn", "_worker", "_thread")


def is_kernel_thread(report: TaskReport, body: Anatomy) -> bool:
    """Whether a stack belongs to a thread of the kernel itself."""
    if report.workqueue or (report.comm and _KERNEL_THREAD.match(report.comm)):
        return True
    # a stack that was cut may end in the work itself: loop_queue_work()
    cut = bool(body.outer) and body.outer[-1].frame.name.endswith(_WORK)
    return cut or any(step.role is Role.WORKER for step in body.outer)


def asker_of(
    report: TaskReport, body: Anatomy, extra: tuple[str, ...] = (), served: str | None = None
) -> Asker:
    """Who the thread of a stack is.

    Args:
        report, body: the stack, and it taken apart.
        extra: task names that the user knows as storage daemons.
        served: the device whose requests the thread's process is known to complete, None for none.
    """
    part = asking_part(body)
    daemon = daemon_named(report.comm, extra)
    if served:
        daemon = Daemon(report.comm or "?", "block", f"serves {served}")
    if daemon and daemon.serves == "fuse" and any(step.role is Role.USER_FS for step in body.outer):
        daemon = None  # it uses such a file system, whatever its name
    if daemon is None and any(step.role is Role.USER_FS_DAEMON for step in body.outer):
        daemon = Daemon(report.comm or "?", "fuse", "answers requests of a file system in user space")
    if daemon:
        return Asker(Service.DAEMON, part, daemon)
    roles = {step.role for step in body.outer}
    # an NFS server's thread answers other machines; only its own mounts' workers complete I/O here
    names = families(tuple(step for step in body.outer if step.role is not Role.NFS_SERVER))
    if is_kernel_thread(report, body):
        drivers = families(tuple(step for step in body.outer if step.role is Role.BLOCK))
        completer = next((name for name in names if name in _COMPLETERS or name in drivers), None)
        completer = completer or _queues_family(report.workqueue)
        if completer and Role.WRITEBACK not in roles:
            return Asker(Service.KERNEL, part or completer, None)
        if report.comm and re.match(r"loop\d|nbd\d|drbd|scsi_eh_|rpciod|cifsd|md\d|kslowd", report.comm):
            return Asker(Service.KERNEL, part or report.comm, None)
    if Role.WRITEBACK in roles or any(_WRITES_PAGES.search(step.frame.name) for step in body.outer):
        return Asker(Service.FLUSHER, part, None)
    return Asker(Service.INTERNALS if part else Service.ORDINARY, part, None)


def _queues_family(workqueue: str | None) -> str | None:
    """The family of a work queue's function, where the stack was cut: "kcryptd kcryptd_crypt [dm_crypt]"."""
    for word in (workqueue or "").split()[1:]:
        row = role_of(word)
        name = family(word[1:-1] if word.startswith("[") else row.part if row else None)
        if name in _COMPLETERS or (name and row and row.role is Role.BLOCK):
            return name
    return None


# whoever stands in one of these has pages marked as under writeback that it has not sent off yet
_WRITES_PAGES = re.compile(
    r"writepages$|^(?:write_cache_pages|writeback_iter|mpage_map_|mpage_prepare_extent|ext4_bio_write)"
    r"|_write_data_pages$|_write_cache_pages$"
)


def asking_part(body: Anatomy) -> str | None:
    """The subsystem whose own code asked for the memory, with nothing plainer in between; None for none."""
    for step in body.outer:
        if step.role in (Role.PLAIN_PATH, Role.PAGE_FAULT, Role.SYSCALL):
            return None
        if family(step.part) and step.role is not Role.NETWORK:
            return family(step.part)
    return None
