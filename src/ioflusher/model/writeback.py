"""Dirty pages: their limits, who is throttled, who writes them; mm/page-writeback.c, fs/fs-writeback.c."""

from dataclasses import dataclass, field

from ioflusher.kernel.task_flags import PF_KTHREAD, PF_LOCAL_THROTTLE, PF_WQ_WORKER
from ioflusher.model.block import BioPool, BlockDriver, bio_put
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_NOFS
from ioflusher.model.linux import Linux
from ioflusher.model.memory import kmem_cache_alloc
from ioflusher.model.plug import blk_plug
from ioflusher.model.reclaim import written_by_reclaim
from ioflusher.model.transitions import Expression, Variable, maximum, minimum, number, total, where
from ioflusher.model.versions import holds

# MAX_PAUSE, mm/page-writeback.c: max(HZ/5, 1)
MAX_PAUSE_NS = 200_000_000
# MIN_WRITEBACK_PAGES, fs/fs-writeback.c: the least that a flusher takes of an inode at a time
MIN_WRITEBACK_BYTES = 4 << 20
# ext4_prealloc_space objects of a slab of a page, 112 bytes each (/proc/slabinfo)
PREALLOC_SPACES = 36
# what is set aside of a file of more than 8 MiB at a time: ext4_mb_normalize_request(), fs/ext4/mballoc.c
PREALLOCATED_BYTES = 8 << 20
# INIT_BW, mm/page-writeback.c: what a device is thought to write before it was measured, bytes a second
INIT_BW = 100 << 20
# JBD2_DEFAULT_MAX_COMMIT_AGE: seconds until a transaction is committed
COMMIT_NS = 5_000_000_000
# bdi_set_max_ratio(), fs/fuse/inode.c: percent of the limits that a device with a strict limit may have
MAX_RATIO = 1
# what mkfs has written to each device before anything else, as BdiWritten of a guest says
WRITTEN_BEFORE = 160 << 10
# units that a device writes in a run at most
MOST_WRITTEN = 1 << 24


@dataclass(frozen=True, slots=True)
class DelayedBlocks:
    """A file of ext4 whose blocks are found when it is written back.

    Attributes:
        i_data_sem: who finds them, by number of the task; 0 for nobody.
        preallocated: units of blocks that are set aside for what comes next (ext4_prealloc_space).
    """

    i_data_sem: Variable
    preallocated: Variable


@dataclass(frozen=True, slots=True)
class JournalErrors:
    """A journal, as far as errors of its device go; fs/jbd2/.

    Attributes:
        failed: whether a write of the file system ended with an error: what was written is lost.
        aborted: whether the journal was aborted: the file system can only be read.
    """

    failed: Variable
    aborted: Variable


@dataclass(frozen=True, slots=True)
class BackingDevice:
    """struct backing_dev_info: the dirty pages of what lies on one device.

    Attributes:
        device: where they are written.
        dirty, writeback: units (WB_RECLAIMABLE, WB_WRITEBACK).
        written: units that it has written so far (wb->completions), which its share of the limits comes from;
            None where each device has the same share.
        strictlimit: BDI_CAP_STRICTLIMIT, as FUSE has it: its own share of the limit counts, always.
        temporary: what is written back is copied, as FUSE had it before 6.16: it is no NR_WRITEBACK.
        sync_wanted: somebody waits until all is written.
        blocks: those of what is written; None where that is left out (`map_blocks`).
        pool: the bio pool of what is written.
        reclaim_writes: whether kswapd may write a dirty page of it (->writepage): XFS before 6.0.
        journal: of its file system; None where no request fails.
    """

    device: BlockDriver
    dirty: Variable
    writeback: Variable
    written: Variable | None
    sync_wanted: Variable
    pool: BioPool
    strictlimit: bool
    temporary: bool
    blocks: DelayedBlocks | None
    reclaim_writes: bool
    journal: "JournalErrors | None" = None

    @property
    def unwritten(self) -> Expression:
        """Dirty and under writeback."""
        return self.dirty + self.writeback

    @property
    def counted(self) -> Expression:
        """What counts against the limits of all: of temporary pages nothing does."""
        return self.dirty if self.temporary else self.unwritten

    def pageout(self, code: Code) -> None:
        """kswapd writes dirty pages of files, and waits as the flusher does: pageout(), mm/vmscan.c."""
        with code.call("shrink_lruvec", "shrink_inactive_list", "shrink_page_list"):
            code.step("a dirty page", {self.dirty: self.dirty - 1, self.writeback: self.writeback + 1})
            with code.call("pageout", "xfs_vm_writepage"):
                self.device.begin_write(code, self.pool)
                self.device.submit(code, "write")


@dataclass(frozen=True, slots=True)
class DirtyLimit:
    """A limit of dirty memory: vm.dirty_bytes, in units, or vm.dirty_ratio, a percentage; and its background.

    Attributes:
        units: so many; 0 where percent counts.
        percent: of what can be dirty at all.
    """

    units: int
    percent: int

    def of(self, dirtyable: Expression) -> Expression:
        """How many units that is, one at least."""
        return number(self.units) if self.units else maximum(1, dirtyable * self.percent // 100)


@dataclass(slots=True)
class DirtyDomain:
    """struct wb_domain of the whole machine: all backing devices and their limits.

    Attributes:
        limit, background: of all devices together.
        backing: every backing device.
    """

    limit: DirtyLimit
    background: DirtyLimit
    backing: list[BackingDevice] = field(default_factory=list)

    def limits(self, linux: Linux) -> tuple[Expression, Expression]:
        """What the limit and its background are at the moment: domain_dirty_limits(), mm/page-writeback.c.

        Percentages are of global_dirtyable_memory(): what is free beyond totalreserve_pages, and the pages of
        files, clean or not. Anonymous memory is no part of it.
        """
        zone = linux.zone
        files = total([zone.clean, *(backing.counted for backing in self.backing)])
        dirtyable = maximum(0, zone.free - zone.wmark_high) + files
        thresh, background = self.limit.of(dirtyable), self.background.of(dirtyable)
        return thresh, where(background >= thresh, thresh // 2, background)

    @property
    def dirty(self) -> Expression:
        """NR_FILE_DIRTY and NR_WRITEBACK, of all devices."""
        return total(backing.counted for backing in self.backing)

    @property
    def written_by_kswapd(self) -> tuple[BackingDevice, ...]:
        """The backing devices of which kswapd may write dirty pages."""
        return tuple(backing for backing in self.backing if backing.reclaim_writes)

    @property
    def reclaimable(self) -> Expression:
        """NR_FILE_DIRTY of all devices: what no writeback has begun for."""
        return total(backing.dirty for backing in self.backing)


def make_backing_device(
    linux: Linux,
    device: BlockDriver,
    pool: BioPool,
    *,
    strictlimit: bool = False,
    temporary: bool = False,
    maps_blocks: bool = False,
    reclaim_writes: bool = False,
) -> BackingDevice:
    """The backing device of a file system on a block device, in the domain of all.

    Args:
        maps_blocks: whether its flusher allocates blocks (`map_blocks`).
        reclaim_writes: whether kswapd may write a dirty page of it.
    """
    zone, name = linux.zone, device.name
    units = zone.free.high
    backing = BackingDevice(
        device,
        linux.variable(f"{name}_dirty", 0, units, what=f"dirty memory of {name}", unit="memory"),
        linux.variable(f"{name}_writeback", 0, units, what=f"memory being written to {name}", unit="memory"),
        _completions(linux, name) if linux.in_full else None,
        linux.variable(f"{name}_sync", 0, 1, what=f"somebody syncs {name}"),
        pool,
        strictlimit,
        temporary,
        _delayed_blocks(linux, name) if maps_blocks else None,
        reclaim_writes,
        _journal(linux, name) if device.can_fail else None,
    )
    if backing.journal is not None:  # mapping_set_error(): the page is clean nevertheless
        device.failures["write"] = {
            backing.writeback: backing.writeback - 1,
            zone.clean: zone.clean + 1,
            backing.journal.failed: 1,
            **bio_put(pool),
        }
    device.completions["write"] = {
        backing.writeback: backing.writeback - 1,
        zone.clean: zone.clean + 1,
        **({} if backing.written is None else {backing.written: backing.written + 1}),
        **bio_put(pool),
    }
    linux.domain.backing.append(backing)
    return backing


def _journal(linux: Linux, name: str) -> JournalErrors:
    return JournalErrors(
        linux.variable(f"{name}_write_failed", 0, 1, what=f"a write to {name} has failed"),
        linux.variable(f"{name}_aborted", 0, 1, what=f"the journal on {name} is aborted"),
    )


def add_jbd2(linux: Linux, backing: BackingDevice) -> None:
    """The thread that commits: kjournald2() to jbd2_journal_commit_transaction().

    It waits for the data of the files in the transaction, so for ever where one of those requests never ends.
    Then it writes, which fails as all else does, and aborts the journal.
    """
    journal, device = backing.journal, backing.device
    if journal is None:
        return
    code = Code(flags=PF_KTHREAD)
    with code.call("kjournald2"):
        code.rest()
        code.wait(journal.failed > 0, "time to commit", interruptible=True)
        code.step("commits", takes_ns=COMMIT_NS)
        calls = ("jbd2_journal_commit_transaction", "jbd2_journal_finish_inode_data_buffers")
        with code.call(*calls, "__filemap_fdatawait_range", "folio_wait_writeback"):
            code.wait(device.in_flight.is_(0), f"writeback of {device.name}")
        code.step("aborts the journal", {journal.aborted: 1})
        code.rest()
    linux.add(code, f"jbd2/{device.name}-8")


def _completions(linux: Linux, name: str) -> Variable:
    before = linux.units(WRITTEN_BEFORE)
    return linux.variable(f"{name}_written", before, before + MOST_WRITTEN, what=f"written to {name} so far")


def _delayed_blocks(linux: Linux, name: str) -> DelayedBlocks:
    sem = linux.variable(
        f"{name}_i_data_sem", 0, 63, what=f"holder of i_data_sem of a file on {name}", unit="task"
    )
    most = linux.units(PREALLOCATED_BYTES)
    what = f"blocks set aside for a file on {name}"
    return DelayedBlocks(sem, linux.variable(f"{name}_preallocated", 0, most, what=what))


def balance_dirty_pages(code: Code, linux: Linux, backing: BackingDevice, *, realtime: bool = False) -> None:
    """A task that made a page dirty is stopped: mm/page-writeback.c.

    Below the free-run ceiling it goes on. Up to the limit it pauses once, so long that all of them dirty as
    fast as the device writes (wb_position_ratio(); here of the global part alone). At the limit it pauses
    again and again until the machine is below: if the pages are those of a device that waits for this task,
    for ever.

    With PF_LOCAL_THROTTLE the task goes on while its own backing device is below its share of the free-run
    ceiling, unless that has a strict limit. Before 5.8 the same bit was PF_LESS_THROTTLE, which gives a
    quarter more of the limits of all, as a real-time task has it.
    """
    domain = linux.domain
    thresh, bg_thresh = domain.limits(linux)
    local = bool(code.flags & PF_LOCAL_THROTTLE)
    less = local and not holds("local_throttle", linux.version)
    if realtime or less:  # domain_dirty_limits()
        thresh, bg_thresh = thresh + thresh // 4 + thresh // 32, bg_thresh + bg_thresh // 4 + thresh // 32
    freerun = (thresh + bg_thresh) // 2
    dirty = domain.dirty
    share = _share(linux, backing, freerun, left=(thresh - dirty) * freerun // thresh)
    with code.call("balance_dirty_pages_ratelimited_flags", "balance_dirty_pages"), code.choice() as ways:
        free = dirty <= freerun
        if backing.strictlimit:
            free = free & (backing.unwritten <= share)
        elif local and not less:
            free = free | (backing.unwritten < share)
        with ways.way(when=free):
            pass
        with ways.otherwise("pauses", when=dirty < thresh, takes_ns=_pause(linux, dirty, freerun, thresh)):
            pass
        with ways.otherwise(when=dirty >= thresh):
            over = free | (dirty < thresh) | backing.unwritten.is_(0)
            # it sleeps in state K: SIGKILL ends it
            ends = over if code.killed is None else over | code.killed
            code.wait(ends, "less dirty memory in the machine")


def _share(linux: Linux, backing: BackingDevice, limit: Expression, *, left: Expression) -> Expression:
    """The part of a limit that is one device's: __wb_calc_thresh(), mm/page-writeback.c.

    It is the device's part of all that was written (fprop_fraction_percpu()), and since 6.14 at least an
    eighth of what is left of the limit (`left`); with a strict limit it is less than a unit. What was written
    counts half after 3 s, of all devices alike; that is not here.
    """
    if backing.strictlimit:
        return limit * MAX_RATIO // 100
    every = linux.domain.backing
    written = [each.written for each in every if each.written is not None]
    if backing.written is None:
        return maximum(1, limit // len(every))
    share = limit * backing.written // total(written)
    return maximum(share, left // 8) if holds("wb_thresh_floor", linux.version) else share


def _pause(linux: Linux, dirty: Expression, freerun: Expression, limit: Expression) -> Expression:
    """Nanoseconds for a unit: its time at INIT_BW, over pos_ratio_polynom(), at most MAX_PAUSE."""
    setpoint = (freerun + limit) // 2
    span = maximum(1, limit - setpoint)
    cube = span * span * span
    unit_ns = linux.unit_bytes * 1_000_000_000 // INIT_BW
    distance = setpoint - dirty
    ratio = distance * distance * distance + cube
    return minimum(MAX_PAUSE_NS, cube * unit_ns // maximum(1, ratio))


def map_blocks(code: Code, linux: Linux, backing: BackingDevice, chunk: Expression) -> None:
    """The flusher finds blocks for a chunk of delayed ones: ext4_map_blocks(), fs/ext4/inode.c.

    It holds i_data_sem, for which whoever writes to the file waits (ext4_da_get_block_prep()). Where nothing
    is left that was set aside for it (ext4_mb_use_preallocated()) it allocates an ext4_prealloc_space with
    GFP_NOFS, which it keeps. It does not carry the state, so that it may write to swap to find memory. An
    ext4_allocation_context is given back at once, so that the next one finds it.
    """
    if backing.blocks is None:
        return
    sem, left = backing.blocks.i_data_sem, backing.blocks.preallocated
    with code.call("ext4_writepages", "ext4_do_writepages", "mpage_map_and_submit_extent", "ext4_map_blocks"):
        code.step(f"i_data_sem of a file on {backing.device.name}", {sem: linux.next_pid()}, when=sem.is_(0))
        with code.call("ext4_ext_map_blocks", "ext4_mb_new_blocks"), code.choice() as ways:
            with ways.way("blocks set aside", {left: left - chunk}, when=left >= chunk):
                pass
            with ways.otherwise():
                kmem_cache_alloc(code, linux, GFP_NOFS, objects=PREALLOC_SPACES)
                code.step("sets blocks aside", {left: left + left.high - chunk})
        code.step("gives it back", {sem: 0})


def add_flusher(linux: Linux, backing: BackingDevice) -> None:
    """The worker that writes the dirty pages of a backing device: wb_workfn(), fs/fs-writeback.c.

    It begins above the background limit, of which pages under writeback are no part (wb_over_bg_thresh()),
    when its own dirty pages are above its share of that, and when somebody syncs. What it takes at a time is
    under writeback from then on, although it may wait to submit the first of it.
    """
    domain = linux.domain
    code = Code(flags=PF_WQ_WORKER)
    _, bg_thresh = domain.limits(linux)
    dirty = domain.reclaimable
    over = (dirty > bg_thresh) | (backing.dirty > _share(linux, backing, bg_thresh, left=bg_thresh - dirty))
    asked = over | (backing.sync_wanted > 0)
    chunk = linux.variable(
        f"{backing.device.name}_chunk",
        0,
        backing.dirty.high,
        what="what is left of a chunk",
    )
    size = minimum(backing.dirty, linux.units(MIN_WRITEBACK_BYTES))
    begun = {backing.dirty: backing.dirty - size, backing.writeback: backing.writeback + size, chunk: size}
    with (
        code.call("wb_workfn", "wb_do_writeback", "wb_writeback", "writeback_sb_inodes", "do_writepages"),
        code.loop(),
    ):
        code.rest()
        code.step(
            "writes back",
            begun,
            when=(backing.dirty > 0) & asked,
            waits_for="something to write",
            interruptible=True,
        )
        mine = {(backing.device.name, "write"): (backing.device, "write")}
        for device, kind in written_by_reclaim(linux):
            mine[device.name, kind] = device, kind
        with blk_plug(code, linux, *mine.values()):
            map_blocks(code, linux, backing, chunk)
            with code.loop():
                backing.device.begin_write(code, backing.pool)
                backing.device.submit(code, "write")
                with code.choice() as ways:
                    with ways.way("one less", {chunk: chunk - 1}, when=chunk > 1):
                        pass
                    with ways.otherwise("all submitted", {chunk: 0}):
                        code.leave()
    linux.add(code, f"kworker/u:flush-{backing.device.name}")
