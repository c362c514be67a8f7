"""The rules themselves: who may go below a watermark, what a step may change, where limits lie."""

from collections.abc import Callable
from fractions import Fraction

import pytest

from ioflusher.kernel.task_flags import PF_KTHREAD, PF_LOCAL_THROTTLE, PF_MEMALLOC, Version
from ioflusher.model import memory, oom, reclaim, swap, writeback
from ioflusher.model.block import (
    BIO_POOL_SIZE,
    SWAP_IN,
    BioPool,
    BlockDriver,
    DiskDriver,
    bio_alloc_bioset,
    bio_put,
)
from ioflusher.model.build import build
from ioflusher.model.code import Code, Ways
from ioflusher.model.gfp import GFP_ATOMIC, GFP_KERNEL, GFP_NOFS, GFP_NOIO, Gfp
from ioflusher.model.linux import Linux
from ioflusher.model.memcg import MemoryGroup, mem_cgroup_charge
from ioflusher.model.memory import (
    OBJECTS,
    alloc_pages,
    filemap_alloc_folio,
    kmem_cache_alloc,
    make_zone,
    watermark,
)
from ioflusher.model.oom import _daemon_points, _workload_points, out_of_memory
from ioflusher.model.reclaim import (
    add_kswapd,
    allow_direct_reclaim,
    can_be_throttled,
    reclaimable,
    shrink_node,
    throttle_direct_reclaim,
)
from ioflusher.model.swap import SwapArea
from ioflusher.model.transitions import SCALAR_NAMES, Expression, Number, Program, Step, number
from ioflusher.model.writeback import (
    DirtyDomain,
    DirtyLimit,
    _pause,
    _share,
    add_flusher,
    balance_dirty_pages,
    make_backing_device,
    map_blocks,
)
from ioflusher.scenario.file import find_scenario

UNIT = 128 << 10


def value(of: Number, **variables: int) -> int:
    """An expression's value."""
    return int(eval(number(of).text, {**SCALAR_NAMES, **variables}))


def kernel(version: Version = (6, 12), *, min_free: int = 16, size: int = 400, clean: int = 100) -> Linux:
    """One with a zone of so many units."""
    linux = Linux(version, UNIT)
    make_zone(linux, size=size * UNIT, clean=clean * UNIT, min_free=min_free * UNIT)
    linux.domain = DirtyDomain(DirtyLimit(64, 0), DirtyLimit(32, 0))
    return linux


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


def ways_of(code: Code) -> dict[str, list[Expression | None]]:
    """The conditions of the first point of a program, by label or what is waited for."""
    program = code.program("one", 1)
    found: dict[str, list[Expression | None]] = {}
    for step in program.steps_at()[0]:
        found.setdefault(step.label or step.waits_for, []).append(step.when)
    return found


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


@pytest.mark.parametrize(("elements", "then"), [(0, 1), (1, 2), (BIO_POOL_SIZE, BIO_POOL_SIZE)])
def test_the_bio_pool_is_filled_up_first(elements: int, then: int) -> None:
    """An element that comes back is kept where one is missing, else freed."""
    pool = BioPool(kernel().variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    (left,) = bio_put(pool).values()
    assert value(left, bio_pool=elements) == then


@pytest.mark.parametrize(
    ("flags", "free", "elements", "clean", "way"),
    [
        (0, 17, 0, 0, "a bio"),
        (0, 16, 1, 0, "an element of the bio pool"),
        (0, 16, 0, 1, ""),
        (0, 16, 0, 0, None),
        (PF_MEMALLOC, 17, 2, 0, "a bio"),
        (PF_MEMALLOC, 16, 0, 1, None),
    ],
)
def test_where_a_bio_comes_from(flags: int, free: int, elements: int, clean: int, way: str | None) -> None:
    """Free memory above the min watermark, the pool, and who is not in reclaim reclaims without I/O."""
    linux = kernel()
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    code = Code(flags=flags)
    bio_alloc_bioset(code, linux, pool)
    able = {
        label
        for label, conditions in ways_of(code).items()
        for when in conditions
        if when is None or value(when, free=free, bio_pool=elements, clean=clean)
    }
    assert able == (set() if way is None else {way} if way else able)
    if way == "":
        assert not able & {"a bio", "an element of the bio pool"}
        assert able


@pytest.mark.parametrize("elements", [1, 2])
def test_an_element_of_the_pool_is_taken(elements: int) -> None:
    """One of them, and the last one too."""
    linux = kernel()
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    code = Code(flags=PF_MEMALLOC)
    bio_alloc_bioset(code, linux, pool)
    (taken,) = first_steps(code, free=16, bio_pool=elements).values()
    assert {variable.name: value(to, bio_pool=elements) for variable, to in taken.changes} == {
        "bio_pool": elements - 1
    }


def test_a_disk_is_no_task() -> None:
    """What completes its requests is an interrupt, of which no hung task log has a stack."""
    linux = kernel()
    disk = DiskDriver(linux, "vda", request_ns=7)
    disk.completions["write"] = {}
    disk.add_server()
    (server,) = linux.system("one").programs
    assert (server.name, server.hardware, server.daemon) == ("vda", True, False)
    (completes,) = server.steps
    assert completes.when is not None
    assert [value(completes.when, vda_writes=writes) for writes in (0, 1)] == [0, 1]
    assert changed(completes, vda_writes=1, vda_tags=9) == {"vda_writes": 0, "vda_tags": 10}
    assert (value(completes.takes_ns or 0), completes.interruptible) == (7, True)


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


def test_what_is_in_swap() -> None:
    """What is still being written or already being read needs no fault; a unit and a slot are enough."""
    linux = kernel()
    device = DiskDriver(linux, "disk", request_ns=1, kinds=("swap", SWAP_IN))
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    swap = SwapArea(linux, device, pool, size=100 * UNIT)
    assert value(swap.swapped, swap_slots=40, swap_writeback=10, swap_reading=3, swap_cached=5) == 42
    assert [value(swap.can_take, swap_slots=slots, anonymous=1) for slots in (0, 1)] == [0, 1]
    assert [value(swap.can_take, swap_slots=1, anonymous=units) for units in (0, 1)] == [0, 1]
    assert (swap.swappiness, swap.lru_gen) == (60, False), "as a kernel has it"


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


def test_what_ends_the_wait_for_less_dirty_memory() -> None:
    """Less than the limit; its own device below its share, with the state; or nothing of its own."""
    linux = kernel()
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    devices = [DiskDriver(linux, name, request_ns=1) for name in ("own", "other")]
    backing = [make_backing_device(linux, one, pool) for one in devices]
    for flags, own, other, goes_on in (
        (0, 30, 33, True),
        (0, 30, 34, False),
        (PF_LOCAL_THROTTLE, 23, 90, True),
        (PF_LOCAL_THROTTLE, 24, 90, False),
        (0, 0, 90, True),
    ):
        code = Code(flags=flags)
        balance_dirty_pages(code, linux, backing[0])
        (wait,) = (step for step in code.program("one", 1).steps if step.waits_for)
        assert wait.when is not None
        values = {"own_dirty": 0, "own_writeback": own, "other_dirty": other, "other_writeback": 0}
        assert value(wait.when, **values) == goes_on


def dirtied(
    flags: int = 0,
    *,
    version: Version = (6, 12),
    realtime: bool = False,
    strict: bool = False,
    dirty: int,
    own: int,
    written: int = 0,
) -> set[str]:
    """What a task may do that has made a page dirty: of two devices, whose dirty pages are these."""
    linux = kernel(version)
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    devices = [DiskDriver(linux, name, request_ns=1) for name in ("own", "other")]
    backing = [make_backing_device(linux, one, pool, strictlimit=strict) for one in devices]
    code = Code(flags=flags)
    balance_dirty_pages(code, linux, backing[0], realtime=realtime)
    values = {"own_dirty": own - written, "own_writeback": written, "other_dirty": dirty - own}
    values["other_writeback"] = 0
    able, points = set(), code.program("one", 1).steps_at()
    for step in points[0]:
        if step.when is None or value(step.when, **values):
            able.add(step.label or ("waits" if step.to in points else "goes on"))
    return able


@pytest.mark.parametrize(("dirty", "way"), [(48, "goes on"), (49, "pauses"), (63, "pauses"), (64, "waits")])
def test_the_limits_of_dirty_memory(dirty: int, way: str) -> None:
    """Free run up to half way between background and limit (32 and 64), a pause, and a wait at the limit."""
    assert dirtied(dirty=dirty, own=dirty, written=dirty) == {way}


@pytest.mark.parametrize(
    ("percent", "free", "dirty", "limits"),
    [
        ((20, 10), 300, 0, (75, 37)),
        ((20, 10), 100, 0, (35, 17)),  # 200 became anonymous memory
        ((20, 10), 90, 10, (35, 17)),  # what is dirty or being written still counts
        ((20, 10), 20, 0, (20, 10)),  # what lies below the high watermark, 24, does not
        ((100, 10), 20, 0, (100, 10)),
        ((100, 10), 25, 0, (101, 10)),
        ((10, 10), 300, 0, (37, 18)),  # a background that is not below the limit is a half of it
        ((0, 0), 300, 0, (1, 0)),
    ],
)
def test_limits_that_are_shares_of_memory(
    percent: tuple[int, int], free: int, dirty: int, limits: tuple[int, int]
) -> None:
    """global_dirtyable_memory(): what is free beyond watermarks, and pages of files; none of anonymous."""
    linux = kernel()
    linux.domain = DirtyDomain(DirtyLimit(0, percent[0]), DirtyLimit(0, percent[1]))
    pool = BioPool(linux.variable("bio_pool", 2, 2))
    disk = DiskDriver(linux, "vda", request_ns=1)
    make_backing_device(linux, disk, pool)
    state = {"free": free, "clean": 100, "vda_dirty": dirty // 2, "vda_writeback": dirty - dirty // 2}
    assert tuple(value(limit, **state) for limit in linux.domain.limits(linux)) == limits


def test_a_limit_in_bytes_is_no_share() -> None:
    """vm.dirty_bytes stays what it is; a background in percent is still one, and a half of it at most."""
    linux = kernel()
    linux.domain = DirtyDomain(DirtyLimit(64, 0), DirtyLimit(0, 10))
    found = [
        [value(each, free=free, clean=100) for each in linux.domain.limits(linux)] for free in (300, 900)
    ]
    assert found == [[64, 37], [64, 32]]


def test_a_real_time_task_has_a_quarter_more() -> None:
    """domain_dirty_limits(): a quarter and a 32nd of the limit, of both of them: 82 and 42 here."""
    assert dirtied(dirty=62, own=0, realtime=True) == {"goes on"}
    assert dirtied(dirty=63, own=0, realtime=True) == {"pauses"}
    assert dirtied(dirty=81, own=0, realtime=True) == {"pauses"}
    assert dirtied(dirty=82, own=0, realtime=True) == {"waits"}


def test_local_throttle_and_strict_limit() -> None:
    """Below its device's share of the free run, a half here; with a strict limit never above its own."""
    assert dirtied(PF_LOCAL_THROTTLE, dirty=64, own=23) == {"goes on"}
    assert dirtied(PF_LOCAL_THROTTLE, dirty=64, own=24) == {"waits"}
    assert dirtied(0, dirty=64, own=23) == {"waits"}
    assert dirtied(dirty=40, own=0, strict=True) == {"goes on"}
    assert dirtied(dirty=40, own=1, strict=True) == {"pauses"}, "a hundredth is less than a unit"
    assert dirtied(PF_LOCAL_THROTTLE, dirty=64, own=0, strict=True) == {"waits"}


def test_before_5_8_the_bit_is_less_throttle() -> None:
    """A quarter more of the limits of all, whatever its own device has; and nothing for its own share."""
    for version, waits in (((5, 7), 82), ((5, 8), 64)):
        for own in (24, 60):
            told = {
                dirty: dirtied(PF_LOCAL_THROTTLE, version=version, dirty=dirty, own=own)
                for dirty in (waits - 1, waits)
            }
            assert told == {waits - 1: {"pauses"}, waits: {"waits"}}
    assert dirtied(PF_LOCAL_THROTTLE, version=(5, 7), dirty=82, own=23) == {"waits"}
    assert dirtied(PF_LOCAL_THROTTLE, version=(5, 8), dirty=82, own=23) == {"goes on"}


def test_how_long_a_pause_is() -> None:
    """A unit's time at 100 MiB a second at the middle, half of it at the free run, at most 200 ms."""
    linux = kernel()
    unit_ns = UNIT * 10**9 // (100 << 20)
    dirty = linux.variable("dirty", 0, 100)
    pause = _pause(linux, dirty, number(48), number(64))
    assert value(pause, dirty=56) == unit_ns
    assert Fraction(value(pause, dirty=48), unit_ns).limit_denominator(10) == Fraction(1, 2)
    assert value(pause, dirty=60) == unit_ns * 8**3 // (8**3 - 4**3)
    assert value(pause, dirty=64) == 200_000_000
    tiny = _pause(linux, dirty, number(1), number(1))
    assert [value(tiny, dirty=units) for units in (1, 2)] == [unit_ns, unit_ns], "limits of a unit"


def test_numbers_of_the_kernels_source() -> None:
    """As mm/ and fs/ have them: what is tried how often, how long a pause is, how much at a time."""
    assert (oom.MAX_RECLAIM_RETRIES, oom.JIFFY_NS, oom.CONGESTION_WAIT_NS) == (16, 4_000_000, 100_000_000)
    assert (oom.OOM_SCORE_ADJ_MIN, reclaim.THROTTLED_NS) == (-1000, 1_000_000_000)
    assert (writeback.MAX_PAUSE_NS, writeback.INIT_BW) == (200_000_000, 100 << 20)
    assert (writeback.MIN_WRITEBACK_BYTES, writeback.MAX_RATIO) == (4 << 20, 1)
    assert (writeback.PREALLOC_SPACES, memory.OBJECTS) == (4096 // 112, 4096 // 256)
    assert (BIO_POOL_SIZE, memory.ALLOCATION_NS, reclaim.SCAN_NS) == (2, 20_000, 30_000)
    assert (swap.TOUCH_NS, DiskDriver(kernel(), "disk", request_ns=1).queue_depth) == (20_000, 256)


def with_swap(linux: Linux, *, swappiness: int = 60, lru_gen: bool = False, reads: bool = False) -> SwapArea:
    """A swap area of a hundred units."""
    kinds = ("swap", SWAP_IN) if reads else ("swap",)
    device = DiskDriver(linux, "disk", request_ns=1, kinds=kinds)
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    return SwapArea(linux, device, pool, size=100 * UNIT, swappiness=swappiness, lru_gen=lru_gen)


def first_steps(code: Code, **values: int) -> dict[str, Step]:
    """What a task can do at first, by label."""
    steps = code.program("one", 1).steps_at()[0]
    return {step.label: step for step in steps if step.when is None or value(step.when, **values)}


def changed(step: Step, **values: int) -> dict[str, int]:
    """What a step changes, from these values on."""
    return {variable.name: value(to, **values) for variable, to in step.changes}


def labelled(code: Code, label: str) -> Step:
    """The only step of a program with a label."""
    (step,) = (step for step in code.program("one", 1).steps if step.label == label)
    return step


CLEAN, SWAP, NOTHING = "a clean page is freed", "into the swap cache", "nothing to reclaim"
CACHED = "a page of the swap cache is freed"


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


def test_what_a_control_group_is_charged() -> None:
    """Pages of files, clean or not; or anonymous memory, with what is on its way to swap or back."""
    linux = kernel()
    swap = with_swap(linux, reads=True)
    make_backing_device(linux, DiskDriver(linux, "vda", request_ns=1), swap.pool)
    values = {"clean": 1, "vda_dirty": 2, "vda_writeback": 4, "anonymous": 8}
    values |= {"swap_writeback": 16, "swap_reading": 32, "swap_cached": 64}
    for files, charged in ((True, 7), (False, 120)):
        group = MemoryGroup(limit=charged, version=2, files=files)
        assert value(group.charged(linux), **values) == charged
        linux.groups["own"] = group
        code = Code(group="own")
        mem_cgroup_charge(code, linux, GFP_KERNEL)
        code.step("goes on")
        assert "goes on" not in first_steps(code, **values)
        assert "goes on" in first_steps(code, **{**values, "clean": 0, "anonymous": 7})
    other = Code(group="another")
    mem_cgroup_charge(other, linux, GFP_KERNEL)
    assert other.program("one", 1).steps == (), "a group without a limit"
    reclaiming = Code(flags=PF_MEMALLOC, group="own")
    mem_cgroup_charge(reclaiming, linux, GFP_KERNEL)
    assert reclaiming.program("one", 1).steps == (), "whoever reclaims is never held up"


@pytest.mark.parametrize("reclaim_writes", [False, True])
def test_kswapd_writes_dirty_pages_where_none_is_clean(reclaim_writes: bool) -> None:
    """Whoever else reclaims leaves them to the flusher; what kswapd writes is then under writeback."""
    linux = kernel()
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
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


def flusher() -> Program:
    """That of the first of two devices, whose limits are 64 and 32 units."""
    linux = kernel()
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    devices = [DiskDriver(linux, name, request_ns=1) for name in ("own", "other")]
    backing = [make_backing_device(linux, one, pool) for one in devices]
    add_flusher(linux, backing[0])
    return linux.system("one").programs[-1]


@pytest.mark.parametrize(
    ("dirty", "writeback_", "other", "sync", "begins"),
    [
        (0, 0, 40, 0, False),  # nothing of its own
        (1, 0, 31, 0, False),  # 32, the background limit
        (1, 0, 32, 0, True),
        (16, 0, 0, 0, False),  # its share of the background
        (17, 0, 0, 0, True),
        (1, 90, 0, 0, False),  # what is being written is no part of it
        (1, 0, 0, 1, True),  # somebody syncs
    ],
)
def test_when_a_flusher_begins(dirty: int, writeback_: int, other: int, sync: int, begins: bool) -> None:
    """wb_over_bg_thresh(): the limit of all, or its own share; or it is asked."""
    (step,) = flusher().steps_at()[0]
    assert step.when is not None
    assert step.interruptible, "a worker without work is idle, in state I"
    values = {"own_dirty": dirty, "own_writeback": writeback_, "other_dirty": other, "own_sync": sync}
    assert value(step.when, **values) == begins


@pytest.mark.parametrize(("dirty", "chunk"), [(40, 32), (33, 32), (32, 32), (5, 5)])
def test_what_a_flusher_takes_at_a_time(dirty: int, chunk: int) -> None:
    """4 MiB, 32 units here; all of it is under writeback from then on."""
    (step,) = flusher().steps_at()[0]
    values = {"own_dirty": dirty, "own_writeback": 3}
    after = {variable.name: value(to, **values) for variable, to in step.changes}
    assert after == {"own_dirty": dirty - chunk, "own_writeback": 3 + chunk, "own_chunk": chunk}


@pytest.mark.parametrize(
    ("chunk", "left", "label"), [(3, 2, "one less"), (2, 1, "one less"), (1, 0, "all submitted")]
)
def test_what_is_left_of_a_chunk(chunk: int, left: int, label: str) -> None:
    """A request for each unit of it; with the last one it is no more, and the flusher looks again."""
    steps = [step for step in flusher().steps if "own_chunk" in {one.name for one, _ in step.changes}]
    submitted = [step for step in steps if step.when and step.when.reads == {"own_chunk"}]
    (taken,) = (step for step in submitted if step.when and value(step.when, own_chunk=chunk))
    assert (taken.label.split(",")[0], changed(taken, own_chunk=chunk)) == (label, {"own_chunk": left})


def test_a_strict_share_is_a_hundredth() -> None:
    """bdi_set_max_ratio() of FUSE: whole units of it, none of less than a hundred; else equal parts."""
    linux = kernel()
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    strict = make_backing_device(linux, DiskDriver(linux, "fuse", request_ns=1), pool, strictlimit=True)
    other = make_backing_device(linux, DiskDriver(linux, "vda", request_ns=1), pool)
    limits = [number(limit) for limit in (1, 99, 100, 199)]
    assert [value(_share(linux.domain, strict, limit)) for limit in limits] == [0, 0, 1, 1]
    assert [value(_share(linux.domain, other, limit)) for limit in limits] == [1, 49, 50, 99]


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


def test_requests_in_flight() -> None:
    """As many as tags are taken, each of which comes back with its request."""
    device = DiskDriver(kernel(), "disk", request_ns=1, queue_depth=128)
    device.completions["write"] = {}
    assert value(device.in_flight, disk_tags=120) == 8
    assert {
        variable.name: value(to, disk_tags=120) for variable, to in device.completed("write").items()
    } == {"disk_tags": 121}
    assert [value(device.can_take("write"), disk_writes=pending) for pending in (0, 1)] == [0, 1]


def test_a_request_takes_a_tag() -> None:
    """The last one too; it waits for one where there is none; it is handed over and begins to count."""
    linux = kernel()
    device = DiskDriver(linux, "disk", request_ns=1)
    code = Code()
    device.submit(code, "write")
    assert device.pending["write"].initial == 0
    tag, handed = code.program("one", 1).steps
    assert tag.when is not None
    assert [value(tag.when, disk_tags=tags) for tags in (0, 1)] == [0, 1]
    assert (tag.waits_for, tag.begins, changed(tag, disk_tags=1)) == (
        "a tag of disk",
        "disk",
        {"disk_tags": 0},
    )
    assert changed(handed, disk_writes=3) == {"disk_writes": 4}
    assert {one.name: value(to, disk_writes=3) for one, to in device.taken_up("write").items()} == {
        "disk_writes": 2
    }


def test_what_a_completed_write_gives_back() -> None:
    """Its page is clean, and no more under writeback; the bio goes back to the pool."""
    linux = kernel()
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    backing = make_backing_device(linux, DiskDriver(linux, "vda", request_ns=1), pool)
    values = {"vda_writeback": 3, "clean": 5, "bio_pool": 1, "vda_tags": 9}
    assert {one.name: value(to, **values) for one, to in backing.device.completed("write").items()} == {
        "vda_writeback": 2,
        "clean": 6,
        "bio_pool": 2,
        "vda_tags": 10,
    }


def test_nothing_is_under_way_at_first() -> None:
    """No dirty page, nothing being written or read, nobody syncs; and who can be as many as memory."""
    linux = kernel()
    area = with_swap(linux, reads=True)
    own = make_backing_device(linux, DiskDriver(linux, "own", request_ns=1), area.pool, maps_blocks=True)
    add_flusher(linux, own)
    found = {each.name: (each.initial, each.high) for each in linux.system("one").variables}
    for name in ("own_dirty", "own_writeback"):
        assert found[name] == (0, 400)
    for name in ("swap_writeback", "swap_reading", "swap_read", "swap_cached"):
        assert found[name] == (0, 100)
    assert (found["own_sync"], found["own_chunk"], found["swap_slots"]) == ((0, 1), (0, 400), (100, 100))
    assert found["own_i_data_sem"] == (0, 63)


def test_what_a_backing_device_is_by_default() -> None:
    """No strict limit, no copies, no lock for its blocks, and reclaim does not write it: ext4 on a disk."""
    linux = kernel()
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    own = make_backing_device(linux, DiskDriver(linux, "own", request_ns=1), pool)
    assert (own.strictlimit, own.temporary, own.i_data_sem, own.reclaim_writes) == (False, False, None, False)
    code = Code()
    map_blocks(code, linux, own)
    assert code.program("one", 1).steps == ()


def test_a_page_on_its_way_to_swap() -> None:
    """It takes a slot and is under writeback; written, it is free memory and the bio goes back."""
    linux = kernel()
    area = with_swap(linux)
    code = Code(flags=PF_MEMALLOC)
    area.pageout(code, linux)
    taken = labelled(code, SWAP)
    values = {"swap_slots": 7, "anonymous": 4, "swap_writeback": 2}
    assert changed(taken, **values) == {"swap_slots": 6, "anonymous": 3, "swap_writeback": 3}
    assert value(taken.takes_ns or 0) == reclaim.SCAN_NS
    written = {"swap_writeback": 3, "free": 5, "bio_pool": 1, "disk_tags": 9}
    assert {one.name: value(to, **written) for one, to in area.device.completed("swap").items()} == {
        "swap_writeback": 2,
        "free": 6,
        "bio_pool": 2,
        "disk_tags": 10,
    }


def test_a_page_that_is_read_from_swap() -> None:
    """A major fault: a page of free memory, a request, a wait for it; then the slot is free again."""
    linux = kernel()
    area = with_swap(linux, reads=True)
    code = Code()
    area.touch_again(code, linux)
    values = {"free": 21, "swap_reading": 1, "swap_read": 1, "swap_writeback": 0, "kswapd_awake": 0}
    values["swap_cached"] = 0
    present = first_steps(code, **values, swap_slots=99)["touches what is there"]
    assert (present.changes, value(present.takes_ns or 0)) == ((), swap.TOUCH_NS)
    away = first_steps(code, **values, swap_slots=98)
    assert "touches what is there" not in away
    fast, _ = (step for step in code.program("one", 1).steps if step.label == "a page for what is in swap")
    assert changed(fast, **values) == {"free": 20, "swap_reading": 2}
    seen = labelled(code, "is read from swap")
    assert seen.when is not None
    assert [value(seen.when, swap_read=read) for read in (0, 1)] == [0, 1]
    assert seen.waits_for == "a read of disk"
    assert changed(seen, swap_read=1, swap_reading=2, anonymous=4, swap_slots=7) == {
        "swap_read": 0,
        "swap_reading": 1,
        "anonymous": 5,
        "swap_slots": 8,
    }
    read = {"swap_read": 0, "bio_pool": 1, "disk_tags": 9}
    assert {one.name: value(to, **read) for one, to in area.device.completed(SWAP_IN).items()} == {
        "swap_read": 1,
        "bio_pool": 2,
        "disk_tags": 10,
    }


@pytest.mark.parametrize(("slots", "kept"), [(50, True), (49, False)])
def test_what_is_only_read_stays_in_the_swap_cache(slots: int, kept: bool) -> None:
    """Until the area is more than half full: then a slot is given back with the page that was read."""
    linux = kernel()
    area = with_swap(linux, reads=True)
    code = Code()
    area.touch_again(code, linux, writes=False)
    seen = labelled(code, "is read from swap")
    values = {"swap_read": 1, "swap_reading": 2, "anonymous": 4, "swap_slots": slots, "swap_cached": 3}
    assert changed(seen, **values) == {
        "swap_read": 0,
        "swap_reading": 1,
        "anonymous": 4 if kept else 5,
        "swap_slots": slots if kept else slots + 1,
        "swap_cached": 4 if kept else 3,
    }


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


def test_a_group_frees_its_swap_cache() -> None:
    """A daemon with the state may do that too, where anonymous memory has to wait for somebody else."""
    linux = kernel()
    with_swap(linux, reads=True)
    linux.groups["own"] = MemoryGroup(limit=10, version=2, files=False)
    for gfp in (GFP_KERNEL, GFP_NOIO):
        code = Code(group="own")
        mem_cgroup_charge(code, linux, gfp)
        freed = labelled(code, CACHED)
        assert freed.when is not None
        full = {"anonymous": 10, "swap_writeback": 0, "swap_reading": 0, "swap_slots": 9}
        assert [value(freed.when, swap_cached=units, **full) for units in (0, 1)] == [0, 1]


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


def test_a_clean_page_of_a_group_is_freed() -> None:
    """Where there is one, by who is above the limit; else flushers are told to write."""
    linux = kernel()
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    make_backing_device(linux, DiskDriver(linux, "vda", request_ns=1), pool)
    linux.groups["own"] = MemoryGroup(limit=10, version=2, files=True)
    code = Code(group="own")
    mem_cgroup_charge(code, linux, GFP_KERNEL)
    full = {"vda_dirty": 10, "vda_writeback": 0}
    freed = labelled(code, "a clean page of the group is freed")
    told = labelled(code, "flushers are told")
    assert freed.when is not None
    assert told.when is not None
    assert [value(freed.when, clean=clean, **full) for clean in (0, 1)] == [0, 1]
    assert [value(told.when, clean=clean, **full) for clean in (0, 1)] == [1, 0]
    assert changed(freed, clean=3, free=5) == {"clean": 2, "free": 6}
    assert changed(told) == {"vda_sync": 1}
    assert [value(step.takes_ns or 0) for step in (freed, told)] == [reclaim.SCAN_NS] * 2


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


def test_a_driver_says_how_it_hands_a_request_over() -> None:
    """There is no block device without a driver."""
    with pytest.raises(TypeError, match="queue_rq"):
        BlockDriver(kernel(), "any", queue_depth=1, kinds=())  # type: ignore[abstract]


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


def test_a_group_without_swap_waits_for_its_limit() -> None:
    """What it has is anonymous and cannot go anywhere: until somebody has given some back."""
    linux = kernel()
    linux.groups["own"] = MemoryGroup(limit=10, version=2, files=False)
    code = Code(group="own")
    mem_cgroup_charge(code, linux, GFP_KERNEL)
    (waits,) = (step for step in code.program("one", 1).steps if step.waits_for)
    assert waits.when is not None
    assert [value(waits.when, anonymous=units) for units in (9, 10)] == [1, 0]


def test_a_share_of_memory_in_percent() -> None:
    """Whole units, one at least; bytes where these are given."""
    found = [DirtyLimit(0, percent).of(number(1000)) for percent in (20, 1, 0)]
    assert [value(limit) for limit in found] == [200, 10, 1]
    assert value(DirtyLimit(7, 20).of(number(1000))) == 7


@pytest.mark.parametrize(("limit", "background", "waits_at"), [(310, 101, 310 + 77 + 9), (320, 80, 410)])
def test_what_a_quarter_more_is(limit: int, background: int, waits_at: int) -> None:
    """domain_dirty_limits(): a quarter and a 32nd of the limit, the same 32nd on top of the background."""
    linux = kernel()
    linux.domain = DirtyDomain(DirtyLimit(limit, 0), DirtyLimit(background, 0))
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    own = make_backing_device(linux, DiskDriver(linux, "own", request_ns=1), pool)
    code = Code()
    balance_dirty_pages(code, linux, own, realtime=True)
    code.step("goes on")
    freerun = (waits_at + background + background // 4 + limit // 32) // 2
    for dirty, does in (
        (freerun, "goes on"),
        (freerun + 1, "pauses"),
        (waits_at - 1, "pauses"),
        (waits_at, ""),
    ):
        (step,) = first_steps(code, own_dirty=dirty, own_writeback=0).values()
        assert step.label == does


def test_the_lock_of_a_file_whose_blocks_are_found() -> None:
    """i_data_sem: one holder at a time, by number, who allocates under it and gives it back."""
    linux = kernel()
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    own = make_backing_device(linux, DiskDriver(linux, "own", request_ns=1), pool, maps_blocks=True)
    linux.add(Code(), "first")
    code = Code()
    map_blocks(code, linux, own)
    taken = labelled(code, "i_data_sem of a file on own")
    given = [step for step in code.program("one", 1).steps if step.label.endswith("gives it back")]
    assert taken.when is not None
    assert [value(taken.when, own_i_data_sem=holder) for holder in (0, 1, 2)] == [1, 0, 0]
    assert changed(taken) == {"own_i_data_sem": 2}
    assert {step.to for step in given} == {given[0].to}
    assert all(changed(step) == {"own_i_data_sem": 0} for step in given)
    held = [step for step in code.program("one", 1).steps if "ext4_mb_new_blocks" in step.calls]
    assert any("__alloc_pages" in step.calls for step in held)


def test_when_kswapd_goes_on() -> None:
    """While there is something for it; dirty pages of files too, where it may write them."""
    for writes in (False, True):
        linux = kernel()
        pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
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


@pytest.mark.parametrize(
    ("group_version", "gfp", "linux_version", "waits_in"),
    [
        (1, GFP_KERNEL, (6, 1), "folio_wait_writeback"),
        (1, GFP_NOIO, (6, 1), "reclaim_throttle"),
        (2, GFP_KERNEL, (6, 1), "reclaim_throttle"),
        (2, GFP_KERNEL, (5, 16), "reclaim_throttle"),
        (2, GFP_KERNEL, (5, 15), "shrink_inactive_list"),
    ],
)
def test_where_a_group_with_files_waits(
    group_version: int, gfp: int, linux_version: Version, waits_in: str
) -> None:
    """For a page, in a group of version 1 and with __GFP_FS; else between its looks, since 5.16."""
    linux = kernel(linux_version)
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    make_backing_device(linux, DiskDriver(linux, "vda", request_ns=1), pool)
    linux.groups["own"] = MemoryGroup(limit=10, version=group_version, files=True)
    code = Code(group="own")
    mem_cgroup_charge(code, linux, gfp)
    (wait,) = (step for step in code.program("one", 1).steps if step.waits_for)
    assert wait.calls[0] == waits_in
    assert wait.when is not None
    above = {"clean": 0, "vda_dirty": 10, "vda_writeback": 0}
    assert not value(wait.when, **above)
    assert value(wait.when, **{**above, "vda_dirty": 9})
    assert value(wait.when, **{**above, "clean": 1})


@pytest.mark.parametrize(("gfp", "writes"), [(GFP_KERNEL, True), (GFP_NOIO, False)])
def test_a_group_with_anonymous_memory(gfp: int, writes: bool) -> None:
    """It is written to swap by who may do I/O; anybody else waits until somebody has."""
    linux = kernel()
    with_swap(linux)
    linux.groups["own"] = MemoryGroup(limit=10, version=2, files=False)
    code = Code(group="own")
    mem_cgroup_charge(code, linux, gfp)
    steps = code.program("one", 1).steps
    assert any("swap_writepage" in step.calls for step in steps) == writes
    told = [
        step
        for step in steps
        if step.waits_for == "memory of its control group that is being written to swap"
    ]
    assert told
    assert not any("OOM" in step.label for step in steps), "there is no killer"
    linux.kills = True
    killing = Code(group="own")
    mem_cgroup_charge(killing, linux, GFP_KERNEL)
    vain = next(
        step for step in killing.program("one", 1).steps if step.label == "reclaims in vain again and again"
    )
    assert vain.when is not None
    full = {"anonymous": 10, "swap_slots": 0}
    assert value(vain.when, **full, swap_writeback=0)
    assert not value(vain.when, **full, swap_writeback=1), "that comes to an end"
    assert not value(vain.when, anonymous=10, swap_slots=1, swap_writeback=0), "something can be written"
