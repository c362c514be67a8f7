"""The rules of requests, their pool, swap and control groups: what a step changes, and when it may."""

import pytest

from ioflusher.kernel.task_flags import PF_MEMALLOC, Version
from ioflusher.model import reclaim, swap
from ioflusher.model.block import BIO_POOL_SIZE, SWAP_IN, BlockDriver, DiskDriver, bio_alloc_bioset, bio_put
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_KERNEL, GFP_NOIO
from ioflusher.model.linux import Linux
from ioflusher.model.memcg import MemoryGroup, mem_cgroup_charge
from ioflusher.model.swap import SwapArea
from ioflusher.model.transitions import Expression
from ioflusher.model.writeback import make_backing_device
from tests.model.one_rule import (
    CACHED,
    SWAP,
    UNIT,
    after,
    bio_pool,
    changed,
    first_steps,
    kernel,
    labelled,
    value,
    ways_of,
    with_swap,
)


@pytest.mark.parametrize(("elements", "then"), [(0, 1), (1, 2), (BIO_POOL_SIZE, BIO_POOL_SIZE)])
def test_the_bio_pool_is_filled_up_first(elements: int, then: int) -> None:
    """An element that comes back is kept where one is missing, else freed."""
    pool = bio_pool(kernel())
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
    pool = bio_pool(linux)
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
    pool = bio_pool(linux)
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


def test_what_is_in_swap() -> None:
    """What is still being written or already being read needs no fault; a unit and a slot are enough."""
    linux = kernel()
    device = DiskDriver(linux, "disk", request_ns=1, kinds=("swap", SWAP_IN))
    pool = bio_pool(linux)
    swap = SwapArea(linux, device, pool, size=100 * UNIT)
    assert value(swap.swapped, swap_slots=40, swap_writeback=10, swap_reading=3, swap_cached=5) == 42
    assert [value(swap.can_take, swap_slots=slots, anonymous=1) for slots in (0, 1)] == [0, 1]
    assert [value(swap.can_take, swap_slots=1, anonymous=units) for units in (0, 1)] == [0, 1]
    assert (swap.swappiness, swap.lru_gen) == (60, False), "as a kernel has it"


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
    assert after(device.taken_up("write"), disk_writes=3) == {"disk_writes": 2}


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
    assert after(area.device.completed("swap"), **written) == {
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
    assert after(area.device.completed(SWAP_IN), **read) == {
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


def test_a_clean_page_of_a_group_is_freed() -> None:
    """Where there is one, by who is above the limit; else flushers are told to write."""
    linux = kernel()
    pool = bio_pool(linux)
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


def test_a_driver_says_how_it_hands_a_request_over() -> None:
    """There is no block device without a driver."""
    with pytest.raises(TypeError, match="queue_rq"):
        BlockDriver(kernel(), "any", queue_depth=1, kinds=())  # type: ignore[abstract]


def test_a_group_without_swap_waits_for_its_limit() -> None:
    """What it has is anonymous and cannot go anywhere: until somebody has given some back, or is killed."""
    linux = kernel()
    linux.groups["own"] = MemoryGroup(limit=10, version=2, files=False)
    code = Code(group="own")
    mem_cgroup_charge(code, linux, GFP_KERNEL)
    (waits,) = (step for step in code.program("one", 1).steps if step.waits_for)
    assert waits.when is not None
    assert [value(waits.when, anonymous=units) for units in (9, 10)] == [1, 0]
    linux.kills = True
    assert [value(killing(linux, GFP_KERNEL), anonymous=units) for units in (9, 10)] == [0, 1]


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
    pool = bio_pool(linux)
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
    vain = killing(linux, gfp)
    full = {"anonymous": 10, "swap_slots": 0}
    assert value(vain, **full, swap_writeback=0)
    assert not value(vain, **full, swap_writeback=1), "that comes to an end"
    able = value(vain, anonymous=10, swap_slots=1, swap_writeback=0)
    assert able != writes, "what can be written is, by who may"


def killing(linux: Linux, gfp: int) -> Expression:
    """When a charge of this mask brings the killer of its control group, whatever the mask."""
    code = Code(group="own")
    mem_cgroup_charge(code, linux, gfp)
    step = labelled(code, "reclaims in vain again and again")
    assert step.when is not None
    assert value(step.takes_ns or 0) == 68_000_000
    return step.when
