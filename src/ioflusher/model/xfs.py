"""XFS: inodes in memory, the log, and reclaim of inodes, which waits for both before 5.9; fs/xfs/.

An inode that was changed is pinned until the log has it on disk, then dirty until it is written to its place,
then clean, and only then its memory can be had. Before 5.9 reclaim made it so and waited: for the log
(xfs_iunpin_wait()), for the buffer (xfs_bwrite()). Since then it frees what is clean and asks for the rest to
be written (`xfs_reclaim_waits` of `ioflusher.model.versions`).
"""

from ioflusher.kernel.task_flags import PF_KTHREAD, PF_MEMALLOC, PF_MEMALLOC_NOFS, PF_WQ_WORKER
from ioflusher.model.block import BioPool, BlockDriver, bio_alloc_bioset, bio_put
from ioflusher.model.code import Code, Ways
from ioflusher.model.gfp import GFP_KERNEL
from ioflusher.model.linux import Linux
from ioflusher.model.memory import alloc_pages, filemap_alloc_folio
from ioflusher.model.transitions import Changes, Expression, Variable
from ioflusher.model.versions import holds

# requests besides the flusher's: reads, and those that XFS makes itself: of the log, of xfsaild, of reclaim
# that waits
KINDS = ("read", "log", "inode", "bwrite")
# what an inode takes: xfs_inode with its VFS part, the log item, a directory entry
INODE_BYTES = 2048
# how many bytes are committed before the log is written unasked: XLOG_CIL_SPACE_LIMIT() of a small log
CIL_BYTES = 1 << 20
SCAN_NS = 30_000
# tasks that wait, at most; more may not have seen yet that theirs is done than requests are in flight
WAITERS = 63


class XfsInodes:
    """The inodes of a mount, in units of memory: struct xfs_mount, xfs_cil, xfs_ail.

    Attributes:
        pinned: changed since the log was written. logging: in the part of it that is being written.
        dirty: in the log, not in their place. flushing: being written there. clean: to be had.
        log_waiters: tasks that wait for the log. pushed: whether somebody asked for all to be written.
        written, read: writes of reclaim, and reads, that are done and whose waiters have not seen it.
    """

    def __init__(self, linux: Linux, device: BlockDriver, pool: BioPool, units: int, pressure: int) -> None:
        self.linux = linux
        self.device = device
        self.pool = pool
        self.weight = max(1, 20 * pressure // 100)

        def inodes(name: str, what: str) -> Variable:
            return linux.variable(f"xfs_{name}", 0, units, what=f"inodes that are {what}", unit="memory")

        self.pinned = inodes("pinned", "pinned")
        self.logging = inodes("logging", "being written to the log")
        self.dirty = inodes("dirty", "dirty")
        self.flushing = inodes("flushing", "being written")
        self.clean = inodes("clean", "clean")
        self.log_waiters = linux.variable("xfs_log_waiters", 0, WAITERS, what="tasks that wait for the log")
        self.pushed = linux.variable("xfs_pushed", 0, 1, what="somebody asked for all inodes to be written")
        self.written = linux.variable("xfs_written", 0, WAITERS, what="inodes written by reclaim")
        freed = bio_put(pool)
        flushed: Changes = {self.flushing: self.flushing - 1, self.clean: self.clean + 1, **freed}
        device.completions["log"] = {self.dirty: self.dirty + self.logging, self.logging: 0}
        device.completions["inode"] = flushed
        self.read = linux.variable("xfs_read", 0, WAITERS, what="reads that are done")
        device.completions["read"] = {self.read: self.read + 1, **freed}
        device.completions["bwrite"] = {**flushed, self.written: self.written + 1}
        linux.shrinkers.append(self)

    @property
    def waits(self) -> bool:
        """Whether reclaim of inodes waits."""
        return holds("xfs_reclaim_waits", self.linux.version)

    def create(self, code: Code, also: Changes) -> None:
        """xfs_create() of a unit of inodes; a transaction allocates without __GFP_FS (PF_MEMALLOC_NOFS)."""
        with (
            code.call("xfs_create", "xfs_dir_ialloc", "xfs_iget", "xfs_inode_alloc"),
            code.with_flags(PF_MEMALLOC_NOFS),
        ):
            gives = {self.pinned: self.pinned + 1, **also}
            alloc_pages(code, self.linux, GFP_KERNEL, gives, label="creates files")

    def read_file(self, code: Code, also: Changes, *, inode: Expression) -> None:
        """A unit of files is read: xfs_file_read_iter().

        Where `inode` holds a unit of inodes is read with it (xfs_iget(), with __GFP_FS), and changed, as the
        time of the last access is (relatime).
        """
        with code.choice() as ways:
            with ways.way(when=inode), code.call("xfs_lookup", "xfs_iget", "xfs_inode_alloc"):
                alloc_pages(code, self.linux, GFP_KERNEL, {self.pinned: self.pinned + 1}, label="opens files")
            with ways.otherwise():
                pass
        with code.call("xfs_file_read_iter", "filemap_read", "page_cache_ra_unbounded"):
            filemap_alloc_folio(code, self.linux, "a page of a file that is read", also)
            bio_alloc_bioset(code, self.linux, self.pool)
            self.device.submit(code, "read")
            code.step(
                "is read",
                {self.read: self.read - 1},
                when=self.read > 0,
                waits_for=f"a read of {self.device.name}",
            )

    def can_free(self) -> Expression:
        """super_cache_count(): whether a scan comes to something."""
        held = self.pinned + self.logging + self.dirty
        if self.waits:
            return (self.clean + held) > 0
        return (self.clean > 0) | ((held > 0) & self.pushed.is_(0))

    def scan(self, code: Code, ways: Ways) -> None:
        """super_cache_scan() to xfs_reclaim_inode()."""
        with code.call("shrink_slab", "do_shrink_slab", "super_cache_scan", "xfs_reclaim_inodes_nr"):
            freed = {self.clean: self.clean - 1, self.linux.zone.free: self.linux.zone.free + 1}
            with ways.way(
                "inodes are freed", freed, when=self.clean > 0, takes_ns=SCAN_NS, weight=self.weight
            ):
                pass
            held = self.pinned + self.logging + self.dirty
            if not self.waits:
                asked = (held > 0) & self.pushed.is_(0)
                with ways.way("inodes are to be written", {self.pushed: 1}, when=asked, weight=self.weight):
                    pass
                return
            with code.call("xfs_reclaim_inodes_ag", "xfs_reclaim_inode"):
                with ways.way(
                    when=(self.pinned + self.logging) > 0, changes={self.pushed: 1}, weight=self.weight
                ):
                    self._unpin(code)
                with ways.way(
                    "an inode is written",
                    {self.dirty: self.dirty - 1, self.flushing: self.flushing + 1},
                    when=self.dirty > 0,
                    weight=self.weight,
                ):
                    self._bwrite(code)

    def _unpin(self, code: Code) -> None:
        """xfs_iunpin_wait(): the log up to this inode has to be on disk."""
        waiters = self.log_waiters
        with code.call("xfs_iunpin_wait", "xfs_log_force_lsn", "xlog_cil_force_lsn", "__flush_work"):
            code.step("the log is to be written", {waiters: waiters + 1})
            code.step(
                "the log is written",
                {waiters: waiters - 1},
                when=(self.pinned + self.logging).is_(0),
                waits_for=f"the log of XFS on {self.device.name}",
            )

    def _bwrite(self, code: Code) -> None:
        """xfs_bwrite(): the buffer of the inode, and the wait for it."""
        with code.call("xfs_iflush", "xfs_bwrite", "__xfs_buf_submit"):
            with code.call("_xfs_buf_ioapply"):
                bio_alloc_bioset(code, self.linux, self.pool)
                self.device.submit(code, "bwrite")
            with code.call("xfs_buf_iowait", "wait_for_completion"):
                code.step(
                    "the inode is written",
                    {self.written: self.written - 1},
                    when=self.written > 0,
                    waits_for=f"a buffer of XFS on {self.device.name}",
                )

    def add_tasks(self) -> None:
        """xlog_cil_push_work() and xfsaild()."""
        self._add_log()
        self._add_xfsaild()

    def _add_log(self) -> None:
        """The log is written when somebody waits for it, or enough was committed; its bios are its own."""
        code = Code(flags=PF_WQ_WORKER)
        full = self.pinned > self.linux.units(CIL_BYTES)
        wanted = (self.pinned > 0) & ((self.log_waiters > 0) | full)
        with code.call("xlog_cil_push_work", "xlog_write"), code.loop():
            code.rest()
            code.step(
                "writes the log",
                {self.logging: self.pinned, self.pinned: 0},
                when=wanted,
                waits_for="something to log",
                interruptible=True,
            )
            self.device.submit(code, "log")
            code.wait(self.logging.is_(0), f"the log of XFS on {self.device.name}")
        self.linux.add(code, f"kworker/u:xfs-cil/{self.device.name}")

    def _add_xfsaild(self) -> None:
        code = Code(flags=PF_KTHREAD | PF_MEMALLOC)
        waiters = self.log_waiters
        with code.call("xfsaild", "xfsaild_push"), code.loop():
            code.rest()
            with code.choice() as ways:
                with (
                    ways.way(
                        "writes an inode",
                        {self.dirty: self.dirty - 1, self.flushing: self.flushing + 1},
                        when=(self.pushed > 0) & (self.dirty > 0),
                        waits_for="inodes that are to be written",
                        interruptible=True,
                    ),
                    code.call("xfs_buf_delwri_submit_nowait"),
                ):
                    bio_alloc_bioset(code, self.linux, self.pool)
                    self.device.submit(code, "inode")
                with (
                    ways.way(
                        "the log is to be written",
                        {waiters: waiters + 1},
                        when=(self.pushed > 0) & self.dirty.is_(0) & (self.pinned > 0),
                    ),
                    code.call("xfs_log_force"),
                ):
                    code.step(
                        "the log is written",
                        {waiters: waiters - 1},
                        when=self.pinned.is_(0),
                        waits_for=f"the log of XFS on {self.device.name}",
                    )
                with ways.way(
                    "all is written",
                    {self.pushed: 0},
                    when=(self.pushed > 0) & (self.dirty + self.pinned + self.logging).is_(0),
                ):
                    pass
        self.linux.add(code, f"xfsaild/{self.device.name}")
