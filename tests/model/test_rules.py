"""The rules themselves: who may go below a watermark, what reclaim frees, whom the OOM killer takes."""

from collections.abc import Callable

import pytest

from ioflusher.kernel.task_flags import PF_KTHREAD, PF_MEMALLOC, Version
from ioflusher.model import memory, oom, reclaim, swap, writeback
from ioflusher.model.block import BIO_POOL_SIZE, DiskDriver
from ioflusher.model.build import build
from ioflusher.model.code import Code, Ways
from ioflusher.model.gfp import GFP_ATOMIC, GFP_KERNEL, GFP_NOFS, GFP_NOIO, Gfp
from ioflusher.model.linux import Linux
from ioflusher.model.memory import OBJECTS, alloc_pages, filemap_alloc_folio, kmem_cache_alloc, watermark
from ioflusher.model.oom import _daemon_points, _workload_points, out_of_memory
from ioflusher.model.reclaim import (
    add_kswapd,
    allow_direct_reclaim,
    can_be_throttled,
    reclaimable,
    shrink_node,
    throttle_direct_reclaim,
)
from ioflusher.model.transitions import Expression
from ioflusher.model.writeback import make_backing_device
from ioflusher.scenario.file import find_scenario
from tests.model.one_rule import (
    CACHED,
    CLEAN,
    NOTHING,
    SWAP,
    bio_pool,
    changed,
    first_steps,
    kernel,
    labelled,
    value,
    with_swap,
)


@pytest.mark.parametrize(
    ("gfp", "flags", "realtime", "version", "units"),
    [
        (GFP_KERNEL, 0, False, (6, 12), 16),
        (GFP_KERNEL, PF_MEMALLOC, False, (6, 12), 0),
        (GFP_KERNEL | Gfp.MEMALLOC, 0, False, (6, 12), 0),
        (GFP_KERNEL | Gfp.NOMEMALLOC, PF_MEMALLOC, False, (6, 12), 16),
        (GFP_KERNEL | Gfp.NOMEMALLOC | Gfp.MEMALLOC, 0, False, (6, 12), 16),
        (GFP_ATOMIC, 0, False, (6, 12), 8),
        (GFP_ATOMIC, 0, True, (6, 12), 8),
        (GFP_KERNEL, 0, True, (6, 12), 8),
        (GFP_NOIO, 0, True, (6, 2), 12),
        (GFP_NOIO, 0, True, (6, 3), 8),
        (Gfp.KSWAPD_RECLAIM, 0, True, (6, 12), 16),
    ],
)
def test_how_much_has_to_stay_free(
    gfp: int, flags: int, realtime: bool, version: Version, units: int
) -> None:
    """ALLOC_NO_WATERMARKS, ALLOC_MIN_RESERVE, and neither; real-time tasks only where they may sleep."""
    assert watermark(kernel(version), gfp, flags, realtime=realtime) == units


@pytest.mark.parametrize(
    ("min_free", "size", "marks"),
    [
        (16, 400, (16, 20, 24)),
        (2, 400, (2, 3, 4)),
        (2, 6000, (2, 8, 14)),
        (2, 6497, (2, 8, 14)),
        (2, 6503, (2, 9, 16)),
    ],
)
def test_where_the_watermarks_lie(min_free: int, size: int, marks: tuple[int, int, int]) -> None:
    """A quarter of min between them, or a thousandth of the memory, and one unit at least."""
    zone = kernel(min_free=min_free, size=size).zone
    assert (zone.wmark_min, zone.wmark_low, zone.wmark_high) == marks
    assert (zone.free.initial, zone.clean.initial, zone.anonymous.initial) == (size - 100, 100, 0)
    assert (zone.kswapd_awake.initial, zone.kswapd_awake.high) == (0, 1), "it sleeps until it is woken"


def test_a_small_object_is_mostly_there() -> None:
    """One of a slab's objects takes a page, and that it is taken does not show."""
    linux = kernel()
    code = Code()
    kmem_cache_alloc(code, linux, GFP_KERNEL)
    first = code.program("one", 1).steps_at()[0]
    assert sorted(step.weight for step in first) == [1, OBJECTS - 1]
    program = code.program("one", 1)
    slabs = [step for step in program.steps if step.label.endswith("a slab")]
    assert {name for step in slabs for name in (step.when.reads if step.when else ())} >= {"free"}
    assert all(variable.name == "kswapd_awake" for step in slabs for variable, _ in step.changes)


def test_who_waits_for_kswapd() -> None:
    """Half of min free is enough, and so is a kswapd that finds nothing; kernel threads never wait."""
    linux = kernel()
    allowed = allow_direct_reclaim(linux)
    assert [value(allowed, free=free, clean=1) for free in (7, 8, 9)] == [0, 0, 1]
    assert value(allowed, free=0, clean=0) == 1
    assert not can_be_throttled(linux, 0)
    linux.realtime = True
    assert can_be_throttled(linux, 0)
    assert not can_be_throttled(linux, PF_KTHREAD)
    for min_free, throttled in ((1, False), (2, True)):
        tiny = kernel(min_free=min_free)
        tiny.realtime = True
        assert can_be_throttled(tiny, 0) == throttled, "half of one unit is none, half of two is one"


def test_points_of_the_oom_killer() -> None:
    """A thousandth of memory for each point of oom_score_adj; -1000 is never taken."""
    linux = kernel()
    assert _daemon_points(linux) is None, "there is no daemon"
    linux.daemon_memory = linux.variable("daemon_memory", 0, 400)
    for adjusted, points in ((0, 7), (500, 207), (-500, -193), (-999, -393)):
        linux.oom_score_adj = adjusted
        found = _daemon_points(linux)
        assert found is not None
        assert value(found, daemon_memory=7) == points
    linux.oom_score_adj = -1000
    assert _daemon_points(linux) is None


def test_numbers_of_the_kernels_source() -> None:
    """As mm/ and fs/ have them: what is tried how often, how long a pause is, how much at a time."""
    assert (oom.MAX_RECLAIM_RETRIES, oom.JIFFY_NS, oom.CONGESTION_WAIT_NS) == (16, 4_000_000, 100_000_000)
    assert (oom.OOM_SCORE_ADJ_MIN, reclaim.THROTTLED_NS) == (-1000, 1_000_000_000)
    assert (writeback.MAX_PAUSE_NS, writeback.INIT_BW) == (200_000_000, 100 << 20)
    assert (writeback.MIN_WRITEBACK_BYTES, writeback.MAX_RATIO) == (4 << 20, 1)
    assert writeback.PREALLOCATED_BYTES == 8 << 20
    assert (writeback.PREALLOC_SPACES, memory.OBJECTS) == (4096 // 112, 4096 // 256)
    assert (BIO_POOL_SIZE, memory.ALLOCATION_NS, reclaim.SCAN_NS) == (2, 20_000, 30_000)
    assert (swap.TOUCH_NS, DiskDriver(kernel(), "disk", request_ns=1).queue_depth) == (20_000, 256)


@pytest.mark.parametrize(
    ("gfp", "swappiness", "lru_gen", "clean", "anonymous", "able"),
    [
        (GFP_KERNEL, 60, False, 1, 1, {CLEAN: 140, SWAP: 60}),
        (GFP_KERNEL, 60, False, 0, 1, {SWAP: 60}),
        (GFP_KERNEL, 60, False, 1, 0, {CLEAN: 140}),
        (GFP_NOIO, 60, False, 1, 1, {CLEAN: 140}),
        (GFP_NOIO, 60, False, 0, 1, {NOTHING: 1}),
        (GFP_KERNEL, 0, False, 1, 1, {CLEAN: 200}),
        (GFP_KERNEL, 0, False, 0, 1, {NOTHING: 1}),
        (GFP_KERNEL, 1, False, 1, 1, {CLEAN: 199, SWAP: 1}),
        (GFP_KERNEL, 199, True, 1, 1, {CLEAN: 1}),
        (GFP_KERNEL, 199, True, 0, 1, {SWAP: 199}),
        (GFP_KERNEL, 200, True, 1, 1, {CLEAN: 0, SWAP: 200}),
    ],
)
def test_what_is_reclaimed_how_often(
    gfp: int, swappiness: int, lru_gen: bool, clean: int, anonymous: int, able: dict[str, int]
) -> None:
    """vm.swappiness of 200 against the rest; the multi-generational LRU takes clean pages first below 200."""
    linux = kernel()
    with_swap(linux, swappiness=swappiness, lru_gen=lru_gen)
    code = Code()
    shrink_node(code, linux, gfp)
    found = first_steps(code, clean=clean, anonymous=anonymous, swap_slots=1)
    assert {label: step.weight for label, step in found.items()} == able


def test_what_can_be_reclaimed_at_all() -> None:
    """A clean page for anybody, anonymous memory with a slot for it for who may do I/O."""
    linux = kernel()
    with_swap(linux)
    for gfp, clean, anonymous, found in (
        (GFP_NOIO, 1, 0, True),
        (GFP_NOIO, 0, 1, False),
        (GFP_KERNEL, 0, 1, True),
        (GFP_KERNEL, 0, 0, False),
    ):
        assert value(reclaimable(linux, gfp), clean=clean, anonymous=anonymous, swap_slots=1) == found
    assert not value(reclaimable(linux, GFP_KERNEL), clean=0, anonymous=1, swap_slots=0)


@pytest.mark.parametrize(
    ("gfp", "wakes"), [(GFP_KERNEL, True), (GFP_ATOMIC, True), (Gfp.DIRECT_RECLAIM | Gfp.IO, False)]
)
def test_an_allocation_below_the_low_watermark(gfp: int, wakes: bool) -> None:
    """Above it a unit is taken at once; below it kswapd is woken, by who may, and min counts."""
    linux = kernel()
    code = Code()
    anonymous = linux.zone.anonymous
    alloc_pages(code, linux, gfp, {anonymous: anonymous + 1})
    assert "allocates" in first_steps(code, free=21, clean=1, kswapd_awake=0)
    taken = first_steps(code, free=21, clean=1, kswapd_awake=0)["allocates"]
    assert {variable.name: value(to, free=21, anonymous=3) for variable, to in taken.changes} == {
        "free": 20,
        "anonymous": 4,
    }
    assert "allocates" not in first_steps(code, free=20, clean=1, kswapd_awake=0)
    slow = [step for step in code.program("one", 1).steps if step.label == "allocates"][-1]
    least = 8 if gfp & Gfp.HIGH else 16
    assert slow.when is not None
    assert [value(slow.when, free=free) for free in (least, least + 1)] == [0, 1]
    assert ("kswapd_awake" in {variable.name for variable, _ in slow.changes}) == wakes


@pytest.mark.parametrize("reclaim_writes", [False, True])
def test_kswapd_writes_dirty_pages_where_none_is_clean(reclaim_writes: bool) -> None:
    """Whoever else reclaims leaves them to the flusher; what kswapd writes is then under writeback."""
    linux = kernel()
    pool = bio_pool(linux)
    make_backing_device(linux, DiskDriver(linux, "own", request_ns=1), pool, reclaim_writes=reclaim_writes)
    direct = Code(flags=PF_MEMALLOC)
    shrink_node(direct, linux, GFP_KERNEL)
    assert not [step for step in direct.program("one", 1).steps if step.label == "a dirty page"]
    add_kswapd(linux)
    kswapd = linux.system("one").programs[-1]
    written = [step for step in kswapd.steps if step.label == "a dirty page"]
    assert len(written) == reclaim_writes
    for step in written:
        assert changed(step, own_dirty=3, own_writeback=5) == {"own_dirty": 2, "own_writeback": 6}
        when = step.when
        assert when is not None
        assert value(when, clean=0, own_dirty=1)
        assert not value(when, clean=1, own_dirty=1), "with clean pages these are left to the flusher"
        assert not value(when, clean=0, own_dirty=0)
        assert any("mempool_alloc" in step.calls for step in kswapd.steps), (
            "it waits for a bio as the flusher does"
        )


@pytest.mark.parametrize(
    ("name", "version", "writes"),
    [
        ("xfs-on-nbd-5.8", (5, 19), True),
        ("xfs-on-nbd-5.8", (6, 0), False),
        ("ext4-on-nbd-throttled", (5, 8), False),
    ],
)
def test_of_which_file_systems_kswapd_writes_pages(name: str, version: Version, writes: bool) -> None:
    """XFS before 6.0; ext4_writepage() gave back what has no blocks yet, as newly written pages have none."""
    system = build(find_scenario(name), io_flusher=True, version=version)
    (kswapd,) = (program for program in system.programs if program.name == "kswapd0")
    assert any("xfs_vm_writepage" in step.calls for step in kswapd.steps) == writes


def test_of_two_with_equal_points_the_younger_is_taken() -> None:
    """oom_evaluate_task() goes on from a task to a later one with as many; the daemon is there first."""
    linux = kernel()
    linux.daemon_memory = linux.variable("daemon_memory", 0, 400)
    for workload, taken in ((6, "the daemon"), (7, "the workload"), (8, "the workload")):
        code = Code()
        out_of_memory(code, linux)
        (kills,) = first_steps(code, daemon_memory=7, anonymous=workload).values()
        assert kills.kills == taken


def test_points_of_the_workload() -> None:
    """Its memory and what it has in swap."""
    linux = kernel()
    assert value(_workload_points(linux), anonymous=3) == 3
    with_swap(linux)
    assert value(_workload_points(linux), anonymous=3, swap_slots=90) == 13
    linux.daemon_memory = linux.variable("daemon_memory", 0, 400)
    linux.oom_score_adj = 100
    found = _daemon_points(linux)
    assert found is not None
    assert value(found, daemon_memory=7) == 57, "swap counts as memory"


@pytest.mark.parametrize(
    ("swappiness", "lru_gen", "able"),
    [
        (60, False, {CLEAN: 140, CACHED: 60}),
        (0, False, {CLEAN: 200}),
        (60, True, {CLEAN: 140}),
        (200, True, {CLEAN: 0, CACHED: 200}),
    ],
)
def test_clean_swap_cache_is_freed_whatever_the_mask(
    swappiness: int, lru_gen: bool, able: dict[str, int]
) -> None:
    """It is in swap as well, so it needs no I/O; it stands in the list of anonymous pages."""
    linux = kernel()
    with_swap(linux, swappiness=swappiness, lru_gen=lru_gen, reads=True)
    values = {"anonymous": 1, "swap_slots": 1}
    assert value(reclaimable(linux, GFP_NOIO), clean=0, swap_cached=1, **values)
    assert not value(reclaimable(linux, GFP_NOIO), clean=0, swap_cached=0, **values)
    code = Code()
    shrink_node(code, linux, GFP_NOIO)
    found = first_steps(code, clean=1, swap_cached=1, **values)
    assert {label: step.weight for label, step in found.items()} == able
    for step in (step for label, step in found.items() if label == CACHED):
        assert changed(step, swap_cached=2, free=5) == {"swap_cached": 1, "free": 6}
        assert value(step.takes_ns or 0) == reclaim.SCAN_NS
    assert CACHED not in first_steps(code, clean=1, swap_cached=0, **values)


class Cache:
    """A file system's cache of so many units."""

    def __init__(self, linux: Linux) -> None:
        self.units = linux.variable("cached", 0, 10)

    def can_free(self) -> Expression:
        return self.units > 0

    def scan(self, code: Code, ways: Ways) -> None:
        with ways.way("shrinks the cache", when=self.units > 0):
            pass


@pytest.mark.parametrize(("gfp", "asked"), [(GFP_KERNEL, True), (GFP_NOFS, False), (GFP_NOIO, False)])
def test_who_shrinks_the_caches_of_file_systems(gfp: int, asked: bool) -> None:
    """Who may enter file systems, and nobody else: super_cache_scan() returns SHRINK_STOP."""
    linux = kernel()
    linux.shrinkers.append(Cache(linux))
    assert value(reclaimable(linux, gfp), clean=0, cached=1) == asked
    assert value(reclaimable(linux, gfp), clean=1, cached=0)
    assert not value(reclaimable(linux, gfp), clean=0, cached=0)
    code = Code()
    shrink_node(code, linux, gfp)
    assert ("shrinks the cache" in first_steps(code, clean=0, cached=1)) == asked


def test_what_a_round_of_reclaim_frees() -> None:
    """A clean page becomes a free one, which takes its time; without swap always."""
    linux = kernel()
    code = Code()
    shrink_node(code, linux, GFP_KERNEL)
    freed = labelled(code, CLEAN)
    assert changed(freed, clean=3, free=5) == {"clean": 2, "free": 6}
    assert (value(freed.takes_ns or 0), freed.weight) == (reclaim.SCAN_NS, 200)


def test_who_is_no_real_time_task() -> None:
    """Whoever is not said to be one: the whole min watermark stays free."""
    linux = kernel()
    allocate: list[Callable[[Code], None]] = [
        lambda code: alloc_pages(code, linux, GFP_KERNEL, {}),
        lambda code: kmem_cache_alloc(code, linux, GFP_KERNEL),
        lambda code: filemap_alloc_folio(code, linux, "allocates"),
    ]
    for write in allocate:
        code = Code()
        write(code)
        slow = [step for step in code.program("one", 1).steps if step.calls[0] == "__alloc_pages_slowpath"]
        assert [value(slow[0].when or 0, free=free) for free in (16, 17)] == [0, 1]


def test_a_page_of_a_file_is_clean_at_first() -> None:
    """Of free memory; what else changes, changes with it."""
    linux = kernel()
    code = Code()
    filemap_alloc_folio(code, linux, "reads", {linux.zone.anonymous: 7})
    step = first_steps(code, free=21)["reads"]
    assert changed(step, free=21, clean=3) == {"free": 20, "clean": 4, "anonymous": 7}


@pytest.mark.parametrize(("gfp", "sleeps"), [(GFP_KERNEL, False), (GFP_NOFS, True), (GFP_NOIO, True)])
def test_how_long_a_task_is_throttled(gfp: int, sleeps: bool) -> None:
    """Without __GFP_FS for a second at most, in state S; then it reclaims. With it as long as it takes."""
    linux = kernel()
    code = Code()
    throttle_direct_reclaim(code, linux, gfp)
    first = code.program("one", 1).steps_at()[0]
    (waits,) = (step for step in first if step.waits_for)
    assert (waits.waits_for, waits.interruptible) == ("kswapd to free memory", sleeps)
    late = [value(step.after_ns) for step in first if step.after_ns is not None]
    assert late == [reclaim.THROTTLED_NS] * sleeps
    calls = {name for step in code.program("one", 1).steps for name in step.calls}
    assert ("shrink_node" in calls) == sleeps


def test_who_may_bring_the_oom_killer() -> None:
    """Who may enter file systems, after 17 looks in vain; and who has nothing to reclaim is told so."""
    linux = kernel()
    assert not oom.may_kill(linux, GFP_KERNEL), "there is none"
    linux.kills = True
    assert [oom.may_kill(linux, gfp) for gfp in (GFP_KERNEL, GFP_NOFS, GFP_NOIO)] == [True, False, False]
    assert [oom.retries_ns(kernel(version)) for version in ((5, 15), (5, 16))] == [1_700_000_000, 68_000_000]
    for gfp, lacks in (
        (GFP_KERNEL, "memory that can be reclaimed"),
        (GFP_NOIO, "memory that can be reclaimed without I/O"),
    ):
        code = Code()
        alloc_pages(code, linux, gfp, {})
        steps = code.program("one", 1).steps
        assert {step.waits_for for step in steps if step.waits_for} == {lacks}
        late = [value(step.after_ns) for step in steps if step.after_ns is not None]
        assert late == ([68_000_000] if gfp == GFP_KERNEL else [])
        assert any(step.kills for step in steps) == bool(late)


def test_when_kswapd_goes_on() -> None:
    """While there is something for it; dirty pages of files too, where it may write them."""
    for writes in (False, True):
        linux = kernel()
        pool = bio_pool(linux)
        make_backing_device(linux, DiskDriver(linux, "own", request_ns=1), pool, reclaim_writes=writes)
        add_kswapd(linux)
        (waits,) = (
            step
            for step in linux.system("one").programs[-1].steps
            if step.waits_for == "memory that can be reclaimed"
        )
        assert waits.when is not None
        assert value(waits.when, free=23, clean=1, own_dirty=0)
        assert value(waits.when, free=23, clean=0, own_dirty=1) == writes
        assert not value(waits.when, free=23, clean=0, own_dirty=0)


@pytest.mark.parametrize("realtime", [False, True])
def test_what_an_allocation_does_below_its_watermark(realtime: bool) -> None:
    """It reclaims what its mask allows; of kswapd it waits where a real-time task may use the reserve.

    Without __GFP_IO it waits for memory, although kswapd could swap: try_to_free_pages() would come back with
    nothing again and again.
    """
    linux = kernel()
    linux.realtime = realtime
    with_swap(linux)
    for gfp, free, clean, anonymous, does in (
        (GFP_KERNEL, 16, 1, 0, "try_to_free_pages"),
        (GFP_KERNEL, 8, 1, 0, "throttle_direct_reclaim" if realtime else "try_to_free_pages"),
        (GFP_NOIO, 16, 0, 1, ""),
        (GFP_NOIO, 8, 0, 1, ""),
    ):
        code = Code()
        alloc_pages(code, linux, gfp, {})
        program = code.program("one", 1)
        values = {"free": free, "clean": clean, "anonymous": anonymous, "swap_slots": 9, "kswapd_awake": 0}
        (slow,) = first_steps(code, **values).values()
        able = [
            step for step in program.steps_at()[slow.to] if step.when is None or value(step.when, **values)
        ]
        calls = {call for step in able for then in program.steps_at()[step.to] for call in then.calls}
        names = {"try_to_free_pages", "throttle_direct_reclaim"}
        throttled = "throttle_direct_reclaim" in calls
        assert ("throttle_direct_reclaim" if throttled else next(iter(calls & names), "")) == does


def test_who_may_not_reclaim_waits_for_the_watermark() -> None:
    """In reclaim already, or atomic: it goes on once there is more than has to stay free."""
    linux = kernel()
    code = Code()
    alloc_pages(code, linux, GFP_ATOMIC, {})
    waits = code.program("one", 1).steps[-1]
    assert waits.when is not None
    assert [value(waits.when, free=free) for free in (8, 9)] == [0, 1]
    assert (waits.waits_for, changed(waits, free=9)) == ("free memory", {"free": 8, "kswapd_awake": 1})


def test_when_kswapd_sleeps() -> None:
    """From the high watermark on; below it, it goes on while there is something for it."""
    linux = kernel()
    add_kswapd(linux)
    program = linux.system("one").programs[-1]
    wakes = program.steps_at()[0][0]
    assert wakes.when is not None
    assert wakes.interruptible, "it sleeps in state S"
    assert [value(wakes.when, kswapd_awake=awake) for awake in (0, 1)] == [0, 1]
    sleeps = next(step for step in program.steps if step.label == "sleeps")
    assert sleeps.when is not None
    assert [value(sleeps.when, free=free) for free in (23, 24, 25)] == [0, 1, 1]
    assert [(variable.name, to.text) for variable, to in sleeps.changes] == [("kswapd_awake", "0")]


@pytest.mark.parametrize(
    ("gfp", "flags", "reclaims"),
    [
        (GFP_KERNEL, 0, True),
        (GFP_NOIO, 0, True),
        (GFP_KERNEL, PF_MEMALLOC, False),
        (GFP_ATOMIC, 0, False),
        (GFP_ATOMIC, PF_MEMALLOC, False),
    ],
)
def test_who_reclaims(gfp: int, flags: int, reclaims: bool) -> None:
    """Who may sleep and is not in reclaim already."""
    linux = kernel()
    code = Code(flags=flags)
    alloc_pages(code, linux, gfp, {})
    calls = {name for step in code.program("one", 1).steps for name in step.calls}
    assert ("try_to_free_pages" in calls) == reclaims
