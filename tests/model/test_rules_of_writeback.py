"""The rules of dirty pages: where limits lie, who is throttled, what a flusher does."""

from fractions import Fraction

import pytest

from ioflusher.kernel.task_flags import PF_LOCAL_THROTTLE, Version
from ioflusher.model.block import DiskDriver
from ioflusher.model.code import Code
from ioflusher.model.linux import Linux
from ioflusher.model.transitions import Program, number
from ioflusher.model.writeback import (
    BackingDevice,
    DirtyDomain,
    DirtyLimit,
    _pause,
    _share,
    add_flusher,
    balance_dirty_pages,
    make_backing_device,
    map_blocks,
)
from tests.model.one_rule import (
    UNIT,
    after,
    bio_pool,
    changed,
    first_steps,
    kernel,
    labelled,
    value,
    with_swap,
)


def test_what_ends_the_wait_for_less_dirty_memory() -> None:
    """Less than the limit; its own device below its share, with the state; or nothing of its own."""
    linux = kernel()
    pool = bio_pool(linux)
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
    pool = bio_pool(linux)
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
    pool = bio_pool(linux)
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


def flusher() -> Program:
    """That of the first of two devices, whose limits are 64 and 32 units."""
    linux = kernel()
    pool = bio_pool(linux)
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
    pool = bio_pool(linux)
    strict = make_backing_device(linux, DiskDriver(linux, "fuse", request_ns=1), pool, strictlimit=True)
    other = make_backing_device(linux, DiskDriver(linux, "vda", request_ns=1), pool)
    limits = [number(limit) for limit in (1, 99, 100, 199)]
    assert [value(_share(linux, strict, limit, left=limit)) for limit in limits] == [0, 0, 1, 1]
    assert [value(_share(linux, other, limit, left=limit)) for limit in limits] == [1, 49, 50, 99]


def two_devices(version: Version = (6, 12)) -> tuple[Linux, BackingDevice]:
    """A kernel that counts what its devices write, and the first of two of them."""
    linux = kernel(version)
    linux.in_full = True
    pool = bio_pool(linux)
    devices = [DiskDriver(linux, name, request_ns=1) for name in ("own", "other")]
    own, _ = [make_backing_device(linux, device, pool) for device in devices]
    return linux, own


@pytest.mark.parametrize(
    ("own", "other", "share"), [(1, 1, 16), (0, 5, 0), (5, 0, 32), (1, 31, 1), (1, 32, 0), (3, 1, 24)]
)
def test_a_share_is_the_part_of_what_was_written(own: int, other: int, share: int) -> None:
    """__wb_calc_thresh(): of the limit, 32 here, as much as the device has of all completions."""
    linux, backing = two_devices()
    of = _share(linux, backing, number(32), left=number(32))
    assert value(of, own_written=own, other_written=other) == share


@pytest.mark.parametrize(
    ("version", "dirty", "share"),
    [((6, 13), 0, 0), ((6, 14), 0, 4), ((6, 14), 8, 3), ((6, 14), 32, 0), ((6, 14), 90, 0)],
)
def test_since_6_14_a_share_has_a_floor(version: Version, dirty: int, share: int) -> None:
    """An eighth of what is left of the limit, for a device that has written next to nothing."""
    linux, backing = two_devices(version)
    of = _share(linux, backing, number(32), left=number(32 - dirty))
    assert value(of, own_written=0, other_written=9) == share
    assert value(of, own_written=9, other_written=0) == 32, "more than the floor stays more"


@pytest.mark.parametrize(("version", "free"), [((6, 13), []), ((6, 14), [0])])
def test_the_floor_of_a_share_ends_a_pause(version: Version, free: list[int]) -> None:
    """12 units below the limit, 9 of the ceiling: of a device that has written nothing one is free."""
    linux, backing = two_devices(version)
    code = Code(flags=PF_LOCAL_THROTTLE)
    balance_dirty_pages(code, linux, backing)
    steps = code.program("one", 1).steps_at()[0]
    goes_on = next(step.when for step in steps if not step.label and step.when)
    values = {"own_writeback": 0, "other_writeback": 0, "own_written": 0, "other_written": 9}
    able = [own for own in range(5) if value(goes_on, own_dirty=own, other_dirty=52 - own, **values)]
    assert able == free


def test_whose_share_ends_whose_pause() -> None:
    """PF_LOCAL_THROTTLE goes by what the own device has written: of all of it 48 units, of nothing none."""
    linux, backing = two_devices()
    code = Code(flags=PF_LOCAL_THROTTLE)
    balance_dirty_pages(code, linux, backing)
    steps = code.program("one", 1).steps_at()[0]
    goes_on = next(step.when for step in steps if not step.label and step.when)
    values = {"own_writeback": 0, "other_dirty": 64, "other_writeback": 0}
    cases = ((47, 9, 0, 1), (48, 9, 0, 0), (23, 5, 5, 1), (24, 5, 5, 0), (0, 0, 9, 0))
    for own, written, other, free in cases:
        told = value(goes_on, own_dirty=own, own_written=written, other_written=other, **values)
        assert told == free, (own, written, other)


def test_a_flusher_begins_above_what_its_device_has_of_the_background() -> None:
    """A device that has written a quarter of all has 8 of the 32 units of the background limit."""
    linux, backing = two_devices()
    add_flusher(linux, backing)
    (step,) = linux.system("one").programs[-1].steps_at()[0]
    assert step.when is not None
    values = {"own_writeback": 0, "other_dirty": 0, "own_sync": 0, "own_written": 1, "other_written": 3}
    assert [value(step.when, own_dirty=dirty, **values) for dirty in (1, 8, 9)] == [0, 0, 1]


@pytest.mark.parametrize(("version", "dirty", "begins"), [((6, 13), 1, 1), ((6, 14), 3, 0), ((6, 14), 4, 1)])
def test_the_floor_of_a_share_lets_a_flusher_wait(version: Version, dirty: int, begins: int) -> None:
    """A device that has written nothing: at once, and since 6.14 above an eighth of what is left of 32."""
    linux, backing = two_devices(version)
    add_flusher(linux, backing)
    (step,) = linux.system("one").programs[-1].steps_at()[0]
    assert step.when is not None
    values = {"own_writeback": 0, "other_dirty": 0, "own_sync": 0, "own_written": 0, "other_written": 3}
    assert value(step.when, own_dirty=dirty, **values) == begins


def test_what_is_written_counts_once_it_is_completed() -> None:
    """From what mkfs wrote on, a unit for each request."""
    linux, backing = two_devices()
    written = backing.written
    assert written is not None
    assert written.initial == linux.units(160 << 10)
    linux.unit_bytes = 1024
    of_kibibytes = make_backing_device(linux, DiskDriver(linux, "third", request_ns=1), backing.pool).written
    assert of_kibibytes is not None
    assert of_kibibytes.initial == 160, "in a unit that does not round it away"
    assert value(backing.device.completions["write"][written], own_written=7) == 8


def test_what_a_completed_write_gives_back() -> None:
    """Its page is clean, and no more under writeback; the bio goes back to the pool."""
    linux = kernel()
    pool = bio_pool(linux)
    backing = make_backing_device(linux, DiskDriver(linux, "vda", request_ns=1), pool)
    values = {"vda_writeback": 3, "clean": 5, "bio_pool": 1, "vda_tags": 9}
    assert after(backing.device.completed("write"), **values) == {
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
    assert (found["own_i_data_sem"], found["own_preallocated"]) == ((0, 63), (0, 64))


def test_what_a_backing_device_is_by_default() -> None:
    """No strict limit, no copies, no lock for its blocks, and reclaim does not write it: ext4 on a disk."""
    linux = kernel()
    pool = bio_pool(linux)
    own = make_backing_device(linux, DiskDriver(linux, "own", request_ns=1), pool)
    assert (own.strictlimit, own.temporary, own.blocks, own.reclaim_writes) == (False, False, None, False)
    code = Code()
    map_blocks(code, linux, own, number(1))
    assert code.program("one", 1).steps == ()


def test_of_temporary_pages_what_is_being_written_does_not_count() -> None:
    """They are copies: the page itself is clean, and only what is dirty counts, for the limits too."""
    for temporary, dirty, limit in ((False, 7, 107), (True, 3, 103)):
        linux = kernel()
        linux.domain = DirtyDomain(DirtyLimit(0, 100), DirtyLimit(0, 10))
        make_backing_device(
            linux, DiskDriver(linux, "fuse", request_ns=1), bio_pool(linux), temporary=temporary
        )
        values = {"free": 24, "clean": 100, "fuse_dirty": 3, "fuse_writeback": 4}
        assert value(linux.domain.dirty, **values) == dirty
        assert value(linux.domain.reclaimable, **values) == 3
        assert value(linux.domain.limits(linux)[0], **values) == limit


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
    pool = bio_pool(linux)
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
    pool = bio_pool(linux)
    own = make_backing_device(linux, DiskDriver(linux, "own", request_ns=1), pool, maps_blocks=True)
    linux.add(Code(), "first")
    code = Code()
    chunk = linux.variable("chunk", 0, 32)
    map_blocks(code, linux, own, chunk)
    taken = labelled(code, "i_data_sem of a file on own")
    given = [step for step in code.program("one", 1).steps if step.label.endswith("gives it back")]
    assert taken.when is not None
    assert [value(taken.when, own_i_data_sem=holder) for holder in (0, 1, 2)] == [1, 0, 0]
    assert changed(taken) == {"own_i_data_sem": 2}
    program = code.program("one", 1)
    after = program.steps_at()[taken.to]
    for left, ahead in ((5, True), (4, False)):
        values = {"own_preallocated": left, "chunk": 5}
        able = [step for step in after if step.when is None or value(step.when, **values)]
        assert ("blocks set aside" in able[0].label) == ahead
        if ahead:
            assert changed(able[0], **values) == {"own_preallocated": 0}
    kept = [step for step in program.steps if step.label.endswith("sets blocks aside")]
    assert kept
    assert all(changed(step, own_preallocated=4, chunk=5) == {"own_preallocated": 63} for step in kept)
    assert {step.to for step in given} == {given[0].to}
    assert all(changed(step) == {"own_i_data_sem": 0} for step in given)
    held = [step for step in code.program("one", 1).steps if "ext4_mb_new_blocks" in step.calls]
    assert any("__alloc_pages" in step.calls for step in held)
