"""A sweep: its axes, its cells, and what the dirty limit decides."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from ioflusher.model.sweep import SweepAxis, SweepCell, SweepError, parse_axis, sweep
from ioflusher.scenario.file import builtin_scenarios, parse_scenario

THROTTLED = parse_scenario(builtin_scenarios()["ext4-on-nbd-throttled"])


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as one:
        yield one


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("queue_depth=1..8", SweepAxis("device.queue_depth", (1, 2, 4, 8))),
        ("device.queue_depth=1..6", SweepAxis("device.queue_depth", (1, 2, 4, 6))),
        ("queue_depth=1..7:2", SweepAxis("device.queue_depth", (1, 3, 5, 7))),
        ("machine.memory=256M..768M:256M", SweepAxis("machine.memory", (256 << 20, 512 << 20, 768 << 20))),
        ("lock_memory=true,false", SweepAxis("hardening.lock_memory", (True, False))),
        ("kernel.sysctl.vm.swappiness=60,200", SweepAxis("kernel.sysctl.vm.swappiness", (60, 200))),
    ],
)
def test_an_axis(text: str, axis: SweepAxis) -> None:
    """Lists, doubling ranges, steps, and short names."""
    assert parse_axis(text) == axis


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("queue_depth", "'queue_depth' is no axis"),
        ("queue_depht=1,2", "scenarios have no key 'queue_depht'"),
        ("size=1,2", "'size' may be device.size or workload.size or pressure.size"),
        ("queue_depth=8..1", "expected a range that goes up"),
        ("queue_depth=0..8", "expected a range that goes up, from 1 or more"),
        ("queue_depth=1..8:0", "expected a step"),
        ("queue_depth=1..x", "expected a number or a size such as 8M, found 'x'"),
        ("queue_depth=1,2,1", "has a value twice"),
    ],
)
def test_what_is_no_axis(text: str, message: str) -> None:
    """Said with what was expected."""
    with pytest.raises(SweepError, match=message):
        parse_axis(text)


def test_the_dirty_limit_decides(executor: Executor) -> None:
    """Small limits freeze the half without the state, and none the half with it; every cell is told once."""
    told: list[SweepCell] = []
    limits = SweepAxis("kernel.sysctl.vm.dirty_bytes", (8 << 20, 32 << 20))
    cells = sweep(THROTTLED, [limits], executor, version=(6, 12), seeds=2, on_cell=told.append)
    assert sorted(told, key=lambda cell: cell.place) == list(cells)
    assert [(cell.without.frozen, cell.with_.frozen) for cell in cells if cell.without and cell.with_] == [
        (2, 0),
        (0, 0),
    ]
    assert all(cell.with_ is not None and cell.with_.done == 2 for cell in cells)


def test_a_cell_that_is_no_scenario(executor: Executor) -> None:
    """It is there, with why it cannot be played; the others are played."""
    depths = SweepAxis("device.queue_depth", (0, 64))
    bad, good = sweep(THROTTLED, [depths], executor, version=(6, 12), seeds=1)
    assert bad.without is None
    assert "device.queue_depth" in bad.why_not
    assert good.without is not None


def test_too_many(executor: Executor) -> None:
    """Said before anything is played."""
    axis = SweepAxis("device.queue_depth", tuple(range(1, 400)))
    memory = SweepAxis("machine.memory", tuple(range(400 << 20, 700 << 20, 1 << 20)))
    with pytest.raises(SweepError, match="119,700 combinations; expected at most 100,000"):
        sweep(THROTTLED, [axis, memory], executor, version=(6, 12))
