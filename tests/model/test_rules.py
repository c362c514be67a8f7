"""The rules themselves: who may go below a watermark, what a step may change, where limits lie."""

from fractions import Fraction

import pytest

from ioflusher.kernel.task_flags import PF_KTHREAD, PF_LOCAL_THROTTLE, PF_MEMALLOC, Version
from ioflusher.model.block import BIO_POOL_SIZE, SWAP_IN, BioPool, DiskDriver, bio_alloc_bioset, bio_put
from ioflusher.model.build import build
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_ATOMIC, GFP_KERNEL, GFP_NOIO, Gfp
from ioflusher.model.linux import Linux
from ioflusher.model.memory import OBJECTS, kmem_cache_alloc, make_zone, watermark
from ioflusher.model.oom import _daemon_points
from ioflusher.model.reclaim import allow_direct_reclaim, can_be_throttled
from ioflusher.model.run import Happened, run
from ioflusher.model.swap import SwapArea
from ioflusher.model.transitions import SCALAR_NAMES, Expression, Number, TransitionSystem, number
from ioflusher.model.writeback import (
    DirtyDomain,
    DirtyLimit,
    _pause,
    balance_dirty_pages,
    make_backing_device,
)
from ioflusher.scenario.file import builtin_scenarios, find_scenario
from ioflusher.scenario.settings import with_settings

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
    ("min_free", "size", "marks"), [(16, 400, (16, 20, 24)), (2, 400, (2, 3, 4)), (2, 6000, (2, 8, 14))]
)
def test_where_the_watermarks_lie(min_free: int, size: int, marks: tuple[int, int, int]) -> None:
    """A quarter of min between them, or a thousandth of the memory, and one unit at least."""
    zone = kernel(min_free=min_free, size=size).zone
    assert (zone.wmark_min, zone.wmark_low, zone.wmark_high) == marks
    assert (zone.free.initial, zone.clean.initial, zone.anonymous.initial) == (size - 100, 100, 0)


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
    tiny = kernel(min_free=1)
    tiny.realtime = True
    assert not can_be_throttled(tiny, 0)


def test_what_is_in_swap() -> None:
    """What is still being written or already being read needs no fault; a unit and a slot are enough."""
    linux = kernel()
    device = DiskDriver(linux, "disk", request_ns=1, kinds=("swap", SWAP_IN))
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE))
    swap = SwapArea(linux, device, pool, size=100 * UNIT)
    assert value(swap.swapped, swap_slots=40, swap_writeback=10, swap_reading=3) == 47
    assert [value(swap.can_take, swap_slots=slots, anonymous=1) for slots in (0, 1)] == [0, 1]
    assert [value(swap.can_take, swap_slots=1, anonymous=units) for units in (0, 1)] == [0, 1]
    assert swap.swappiness == 60, "as a kernel has it"


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
    flags: int = 0, *, realtime: bool = False, strict: bool = False, dirty: int, own: int, written: int = 0
) -> set[str]:
    """What a task may do that has made a page dirty: of two devices, whose dirty pages are these."""
    linux = kernel()
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
    assert value(_pause(linux, dirty, number(1), number(1)), dirty=1) == unit_ns, "limits of a unit"


@pytest.mark.parametrize("name", builtin_scenarios())
def test_no_unit_of_memory_comes_or_goes(name: str) -> None:
    """Whatever a step does; and no variable leaves its range."""
    scenario = find_scenario(name)
    variants: list[dict[str, object]] = [{}]
    if scenario.device.use == "swap":
        variants += [{"workload.passes": 2}, {"pressure.kind": "anonymous", "pressure.size": 60 << 20}]
    for settings in variants:
        for io_flusher in (False, True):
            _watch(build(with_settings(scenario, settings), io_flusher=io_flusher, version=(6, 1)))


def _watch(system: TransitionSystem) -> None:
    limits = [(variable.low, variable.high) for variable in system.variables]
    memory = [place for place, variable in enumerate(system.variables) if variable.unit == "memory"]
    total = sum(system.variables[place].initial for place in memory)

    def look(one: Happened) -> None:
        assert sum(one.values[place] for place in memory) == total, one.step
        assert all(low <= now <= high for now, (low, high) in zip(one.values, limits, strict=True)), one.step

    run(system, on_step=look, limit_s=20)
