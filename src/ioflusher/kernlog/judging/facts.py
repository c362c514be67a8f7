"""What a log as a whole tells, which one stack alone cannot: who holds, who waits, what is short."""

import re
from dataclasses import dataclass, field

from ioflusher.kernlog.judging.findings import Case
from ioflusher.kernlog.records import DeviceServer, Event, EventKind
from ioflusher.kernlog.stacks.anatomy import Anatomy, Reclaim, Wait
from ioflusher.kernlog.stacks.askers import Service, families
from ioflusher.kernlog.stacks.roles import Role

# a log holds more tasks than anybody reads; the sets below stay this small
MAX_REMEMBERED = 1024

# fs/super.c: they take s_umount for writing
THAWS = frozenset({"thaw_super", "thaw_super_locked", "freeze_super", "thaw_bdev", "emergency_thaw"})
# kernel/kthread.c: kthreadd makes every other kernel thread
MAKES_THREADS = frozenset({"kthreadd", "create_kthread"})
# fs/: they take an inode's lock for the whole write, read of a directory or change of size
_TAKES_INODE_LOCK = re.compile(
    r"^(?:generic_file_(?:aio_write|write_iter)|\w+_file_(?:aio_|buffered_)?write(?:_iter)?|\w+_buffered_write_iter"
    r"|do_truncate|iterate_dir|vfs_readdir|lookup_slow|do_unlinkat|filename_create|vfs_fallocate)$"
)
_HELD = {Wait.LOCK, Wait.COMPLETION, Wait.WORK}
_STUCK = {Wait.IO, Wait.WRITEBACK, Wait.MEMPOOL, Wait.TAG, Wait.PAGE_LOCK, Wait.FS}


def awaits_thaw(body: Anatomy) -> bool:
    """Whether a stack is in reclaim and waits until a frozen file system is thawed.

    The compiler may have put sb_start_intwrite() into its callers; what is left of it is the per-processor
    semaphore that freezing takes.
    """
    if body.reclaim is None:
        return False
    taken = any(step.frame.name in ("percpu_rwsem_wait", "__percpu_down_read") for step in body.inner)
    return body.wait is Wait.FROZEN or (body.wait is Wait.LOCK and taken)


def takes_inode_lock(body: Anatomy) -> bool:
    """Whether a stack is below a function that holds an inode's lock, or waits for one."""
    return any(_TAKES_INODE_LOCK.match(step.frame.name) for step in body.outer)


def _waits_for_inode_lock(body: Anatomy) -> bool:
    """Whether it waits for an inode's lock: /proc shows whoever asked for the lock at the very end."""
    if body.reclaim is not None or body.wait not in (Wait.LOCK, Wait.UNKNOWN):
        return False
    asks = next((s for s in body.steps if s.role not in (Role.SCHEDULE, Role.LOCK, Role.WAIT_BIT)), None)
    return asks is not None and bool(_TAKES_INODE_LOCK.match(asks.frame.name))


@dataclass(slots=True)
class Facts:
    """Gathered while a log is read; bounded in size.

    Attributes:
        shrinker_waiters: family -> the task that waits for every shrinker while it works on that family.
        blocked_reclaim: family -> a task in reclaim, kswapd included, that waits for anything of that family.
        blocked_shrinkers: family -> a task in reclaim that waits for a lock of that family.
        allocating_inside: family -> a task in direct reclaim whose memory that family's own code asked for.
        reclaiming: tid -> a task in direct reclaim that waits for I/O, memory or a lock.
        fuse_daemon: a FUSE daemon's thread that is itself in direct reclaim, throttled, or waits in reclaim.
        nfs_server: a thread of this machine's NFS server that is in direct reclaim.
        nfsd_waits: a thread of this machine's NFS server that waits for a page or a lock.
        thawer: a task that thaws or freezes a file system and waits for a lock.
        frozen_reclaim: a task in reclaim, kswapd included, that waits for a file system's thaw.
        thread_maker: kthreadd, in direct reclaim.
        thread_waiters: family -> a task that works on it and waits for a new kernel thread.
        inode_waiter: a task that waits for an inode's lock.
        stuck: number of tasks that wait for I/O, outside reclaim or in it.
        families: every subsystem seen in a stack, and every device in trouble.
        in_shrinker: a task that waits in a shrinker, and so keeps those waiting that wait for every shrinker.
        nfs_shrinker: a task in a shrinker that waits for a file server's answer.
        servers: the processes that complete devices' requests, where a kernel's memory told.
        worst_margin: KiB of the zone that is furthest below its min watermark; positive above; None unknown.
        osd: a Ceph OSD's own threads were seen, so its messenger threads serve a disk of this machine.
    """

    shrinker_waiters: dict[str, Case] = field(default_factory=dict)
    blocked_reclaim: dict[str, Case] = field(default_factory=dict)
    blocked_shrinkers: dict[str, Case] = field(default_factory=dict)
    allocating_inside: dict[str, Case] = field(default_factory=dict)
    reclaiming: dict[int, Case] = field(default_factory=dict)
    fuse_daemon: Case | None = None
    nfs_server: Case | None = None
    nfsd_waits: Case | None = None
    thawer: Case | None = None
    frozen_reclaim: Case | None = None
    thread_maker: Case | None = None
    thread_waiters: dict[str, Case] = field(default_factory=dict)
    inode_waiter: Case | None = None
    stuck: int = 0
    families: set[str] = field(default_factory=set)
    in_shrinker: Case | None = None
    nfs_shrinker: Case | None = None
    servers: list[DeviceServer] = field(default_factory=list)
    worst_margin: int | None = None
    osd: bool = False

    def learn_case(self, case: Case) -> None:
        """Take in what one stack adds."""
        body, report = case.body, case.report
        self._remember_families((*families(body.inner), *families(body.outer)))
        if case.ran:
            return
        if report.comm and report.comm.startswith(
            ("ceph-osd", "tp_osd_tp", "bstore_", "filestore", "tp_fstore")
        ):
            self.osd = True
        if body.wait in _STUCK:
            self.stuck += 1
        if body.wait is Wait.SHRINKERS:
            for name in families(body.outer):
                self.shrinker_waiters.setdefault(name, case)
        if body.reclaim is not None and body.wait is not Wait.RUNNING:
            shrinks = any(step.role is Role.SHRINKER for step in body.inner)
            for name in families(body.inner):
                self.blocked_reclaim.setdefault(name, case)
                if shrinks and body.wait in _HELD:
                    self.blocked_shrinkers.setdefault(name, case)
            if shrinks and body.wait is not Wait.SHRINKERS:
                self.in_shrinker = self.in_shrinker or case
            if shrinks and body.wait is Wait.SERVER:
                self.nfs_shrinker = self.nfs_shrinker or case
        if body.reclaim is Reclaim.DIRECT:
            self._learn_direct(case)
        elif "nfsd" in families(body.outer) and body.wait in (Wait.PAGE_LOCK, Wait.WRITEBACK, Wait.LOCK):
            self.nfsd_waits = self.nfsd_waits or case
        self._learn_meeting(case)

    def _learn_meeting(self, case: Case) -> None:
        """Waits that only mean something together with another task's."""
        body = case.body
        if awaits_thaw(body):
            self.frozen_reclaim = self.frozen_reclaim or case
        elif body.wait is Wait.LOCK and any(step.frame.name in THAWS for step in body.steps):
            self.thawer = self.thawer or case
        elif _waits_for_inode_lock(body):
            self.inode_waiter = self.inode_waiter or case
        elif body.wait is Wait.THREAD and body.reclaim is None:
            for name in families(body.steps):
                self.thread_waiters.setdefault(name, case)
        if body.reclaim is Reclaim.DIRECT and any(step.frame.name in MAKES_THREADS for step in body.outer):
            self.thread_maker = self.thread_maker or case

    def _learn_direct(self, case: Case) -> None:
        body, asker = case.body, case.asker
        if asker.part:
            self.allocating_inside.setdefault(asker.part, case)
        if (
            body.wait is not Wait.RUNNING
            and case.report.tid is not None
            and len(self.reclaiming) < MAX_REMEMBERED
        ):
            self.reclaiming.setdefault(case.report.tid, case)
        if asker.service is Service.DAEMON and asker.daemon and asker.daemon.serves == "fuse":
            self.fuse_daemon = self.fuse_daemon or case
        if "nfsd" in families(body.outer):
            self.nfs_server = self.nfs_server or case

    def learn_event(self, event: Event) -> None:
        """Take in what one line adds."""
        if event.kind is EventKind.ZONE and event.number is not None:
            # the DMA zone is kept almost empty on purpose
            if event.subject and not event.subject.endswith(" DMA"):
                known = event.number if self.worst_margin is None else self.worst_margin
                self.worst_margin = min(known, event.number)
        elif event.kind is EventKind.DEVICE_TROUBLE and event.subject:
            self._remember_families((event.subject.rstrip("0123456789"),))

    def _remember_families(self, names: tuple[str, ...]) -> None:
        if len(self.families) < MAX_REMEMBERED:
            self.families.update(names)

    def served_by(self, pid: int | None) -> str | None:
        """The device whose requests a process completes, None for none and where nothing told."""
        return next((server.device for server in self.servers if server.pid == pid), None)

    @property
    def exhausted(self) -> bool:
        """Whether the log shows a zone below its min watermark."""
        return self.worst_margin is not None and self.worst_margin < 0
