"""The small instance of XFS on a kernel as the state was made for: it has the freeze, and can be covered."""

import pytest

from ioflusher.kernel.task_flags import Version
from ioflusher.model.build import build
from ioflusher.model.explore import Exploration, Stopped, Verdict, explore
from ioflusher.model.halves import play_half
from ioflusher.model.scale import small
from ioflusher.scenario.file import find_scenario
from ioflusher.scenario.settings import with_settings


def explored(version: Version, *, io_flusher: bool) -> Exploration:
    """Every order of steps."""
    scenario = find_scenario("xfs-on-nbd-5.8")
    system = build(scenario, io_flusher=io_flusher, version=version, scale=small(scenario))
    return explore(system, threads=1)


def test_the_trace_that_brought_the_state_is_reachable() -> None:
    """All that reclaim wait for the log below xfs_reclaim_inode(), and it for the daemon; memory is clean."""
    found = explored((5, 8), io_flusher=False)
    assert found.freeze is not None
    stands = {program.name: standing for program, standing in found.freeze.named(found.system)}
    for name in ("nbd-daemon", "writer", "kswapd0"):
        assert stands[name].waits_for == ("the log of XFS on nbd0",)
        assert "xfs_reclaim_inode" in stands[name].calls
    assert "skb_page_frag_refill" in stands["nbd-daemon"].calls
    values = dict(
        zip((each.name for each in found.system.variables), found.freeze.way[-1].values, strict=True)
    )
    assert values["clean"] > 0, "there was memory to be had without XFS"
    assert values["free"] == 1, "the min watermark, of which a unit is left"


@pytest.mark.parametrize(("version", "io_flusher"), [((5, 8), True), ((5, 9), False)])
def test_the_state_and_release_5_9_each_take_it_away(version: Version, io_flusher: bool) -> None:
    """Everything is covered and no freeze is there: the claim of the commit that brought the state."""
    found = explored(version, io_flusher=io_flusher)
    assert (found.verdict, found.stopped) == (Verdict.NO_FREEZE, Stopped.COVERED)
    assert found.states > 300_000
    reclaimed = {
        program.name
        for program in found.system.programs
        for step in program.steps
        if "xfs_reclaim_inode" in step.calls
    }
    assert ("nbd-daemon" in reclaimed) is False


@pytest.mark.parametrize(
    ("version", "io_flusher", "freezes"),
    [
        ((5, 6), False, True),
        ((5, 7), False, True),
        ((5, 8), False, True),
        ((5, 8), True, False),
        ((5, 9), False, False),
    ],
)
def test_the_trace_that_brought_the_state_at_full_size(
    version: tuple[int, int], io_flusher: bool, freezes: bool
) -> None:
    """With a larger reader than the packaged one, which is set for 5.8: the daemon reclaims inodes."""
    scenario = with_settings(find_scenario("xfs-on-nbd-5.8"), {"pressure.size": "190M"})
    half = play_half(scenario, io_flusher=io_flusher, version=version)
    assert half.frozen is freezes
    stacks = [task.calls for task in half.result.waiting if "nbd-daemon" in task.program]
    assert any("xfs_reclaim_inode" in calls for calls in stacks) is freezes
