"""Spin as the judge: the same states as an exploration's, and models written by hand from the source."""

from pathlib import Path

import pytest

from ioflusher.model.build import build
from ioflusher.model.explore import NO_REDUCTIONS, Verdict, explore
from ioflusher.model.scale import Scale, small
from ioflusher.model.transitions import TransitionSystem
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from tests.model.small_systems import dining, writers
from tests.model.spin import Asked, promela, spin

pytestmark = pytest.mark.needs("spin", "gcc")

BY_HAND = Path(__file__).parent / "promela"


def half(name: str, *, io_flusher: bool, scale: Scale | None = None) -> TransitionSystem:
    """A half of a packaged scenario on Linux 6.12, small."""
    scenario = parse_scenario(builtin_scenarios()[name])
    return build(scenario, io_flusher=io_flusher, version=(6, 12), scale=scale or small(scenario))


SYSTEMS = {
    "dining": lambda: dining(5),
    "no freeze": lambda: dining(5, ordered=True),
    "daemon that needs memory": lambda: writers(3, pages=2, needs_pages=True),
    "daemon that looks again": lambda: writers(2, pages=2, needs_pages=True, pauses=True),
    "swap-on-nbd": lambda: half("swap-on-nbd", io_flusher=False, scale=Scale(64 << 20, 2, 4)),
    "ext4-on-nbd-throttled": lambda: half(
        "ext4-on-nbd-throttled", io_flusher=True, scale=Scale(2 << 20, 1, 5)
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_spin_counts_the_same_states(name: str, tmp_path: Path) -> None:
    """States, transitions (spin counts one more, into the first state) and deadlocks of the same system."""
    system = SYSTEMS[name]()
    judge = spin(promela(system), tmp_path)
    found = explore(system, reductions=NO_REDUCTIONS, whole=True)
    assert (found.states, found.transitions, found.deadlocks) == (
        judge.states,
        judge.transitions - 1,
        judge.errors,
    )


@pytest.mark.parametrize(
    ("name", "macros", "frozen"),
    [
        ("ext4-on-nbd-throttled", {"IO_FLUSHER": 0}, True),
        ("ext4-on-nbd-throttled", {"IO_FLUSHER": 1}, False),
        ("swap-on-nbd", {"IO_FLUSHER": 0}, True),
        ("swap-on-nbd", {"IO_FLUSHER": 1}, False),
        # nothing but anonymous memory: the state does not help (LAB: frozen in both halves)
        ("swap-on-nbd", {"IO_FLUSHER": 1, "READER": 0}, True),
        ("xfs-on-nbd-5.8", {"IO_FLUSHER": 0}, True),
        ("xfs-on-nbd-5.8", {"IO_FLUSHER": 1}, False),
        ("xfs-on-nbd-5.8", {"IO_FLUSHER": 0, "SINCE_5_9": 1}, False),
    ],
)
def test_models_written_by_hand(name: str, macros: dict[str, int], frozen: bool, tmp_path: Path) -> None:
    """What spin says of the mechanism as it was written from the kernel's source, without our code."""
    model = (BY_HAND / f"{name}.pml").read_text()
    judge = spin(model, tmp_path, Asked(whole=False, end_states=False), **macros)
    assert bool(judge.errors) is frozen


@pytest.mark.parametrize("io_flusher", [False, True])
@pytest.mark.parametrize("name", ["ext4-on-nbd-throttled", "swap-on-nbd"])
def test_our_model_says_the_same(name: str, io_flusher: bool) -> None:
    """A freeze is reachable without the state and not with it, as in the model written by hand."""
    found = explore(half(name, io_flusher=io_flusher))
    assert found.verdict is (Verdict.NO_FREEZE if io_flusher else Verdict.FREEZE)
    if found.freeze is not None:
        daemon = dict((program.name, standing) for program, standing in found.freeze.named(found.system))
        expected = "balance_dirty_pages" if name.startswith("ext4") else "try_to_free_pages"
        assert expected in daemon["nbd-daemon"].calls


def test_our_xfs_says_the_same() -> None:
    """Reclaim of inodes waits before 5.9, in the function that the lab saw, and not since."""
    scenario = parse_scenario(builtin_scenarios()["xfs-on-nbd-5.8"])
    scale = Scale(scenario.workload.size // 6, queue_depth=1, work_units=3)
    found = explore(build(scenario, io_flusher=False, version=(6, 12), scale=scale))
    assert found.verdict is Verdict.NO_FREEZE
    found = explore(build(scenario, io_flusher=False, version=(5, 8), scale=scale))
    assert found.freeze is not None
    daemon = dict((program.name, standing) for program, standing in found.freeze.named(found.system))
    assert "xfs_iunpin_wait" in daemon["nbd-daemon"].calls
