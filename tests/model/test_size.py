"""What a daemon needs: the combinations, the smallest ones that are enough, the reserve."""

from unittest.mock import Mock

import pytest

from ioflusher.model import size as sizes
from ioflusher.model.explore import Bounds, Exploration, Stopped, Verdict, explore
from ioflusher.model.scale import Scale
from ioflusher.model.size import Measure, Sizing, TriedMeasures, _whole, size
from ioflusher.model.transitions import TransitionSystem
from ioflusher.model.whole import WholeRuns
from ioflusher.report.model_size import answer_lines
from ioflusher.scenario.file import builtin_scenarios, parse_scenario

STATE, REALTIME, LOCKED = Measure.STATE, Measure.REALTIME, Measure.LOCKED


@pytest.fixture(scope="module")
def swap() -> Sizing:
    """Swap on nbd, the daemon forwards to a server outside."""
    scenario = parse_scenario(builtin_scenarios()["swap-on-nbd"])
    # smaller than the verb takes it, for time
    return size(scenario, version=(6, 12), scale=Scale(scenario.workload.size // 5, queue_depth=1))


def test_what_is_enough(swap: Sizing) -> None:
    """The state, or real time with a reserve; locked memory is not: a send takes memory of the kernel's."""
    assert set(swap.sufficient) == {frozenset((STATE,)), frozenset((REALTIME,))}
    assert swap.necessary == frozenset()
    assert swap.known
    verdicts = {one.measures: one.exploration.verdict for one in swap.tried}
    assert len(verdicts) == 8
    assert verdicts[frozenset((LOCKED,))] is verdicts[frozenset()] is Verdict.FREEZE


def test_a_way_to_the_freeze(swap: Sizing) -> None:
    """What is not enough has a counterexample that ends in the daemon's own reclaim."""
    nothing = next(one.exploration for one in swap.tried if not one.measures)
    assert nothing.freeze is not None
    ends = {program.name: standing for program, standing in nothing.freeze.named(nothing.system)}
    daemon = next(standing for name, standing in ends.items() if "daemon" in name)
    assert "try_to_free_pages" in daemon.calls
    assert "swap_writepage" in daemon.calls


def test_the_reserve(swap: Sizing) -> None:
    """One request at a time, so what one takes: 1,280 KiB at most."""
    assert (swap.reserve, swap.reserve_bytes) == (1, 1280 << 10)


def test_what_was_not_covered_is_not_enough() -> None:
    """A bound on states: neither enough nor known."""
    scenario = parse_scenario(builtin_scenarios()["swap-on-nbd"])
    found = size(scenario, version=(6, 12), bounds=Bounds(states=2000))
    assert not found.known
    assert found.sufficient == ()
    assert found.reserve is None


def test_a_small_instance_is_too_kind() -> None:
    """One unit of work reaches no limit: the exploration finds nothing, a run of the whole does."""
    scenario = parse_scenario(builtin_scenarios()["ext4-on-nbd-throttled"])
    found = size(scenario, version=(6, 12), scale=Scale(1 << 20, queue_depth=1, work_units=1))
    by_measures = {one.measures: one for one in found.tried}
    nothing, state = by_measures[frozenset()], by_measures[frozenset((STATE,))]
    assert nothing.exploration.verdict is state.exploration.verdict is Verdict.NO_FREEZE
    assert nothing.whole is not None
    assert nothing.whole.frozen == tuple(range(nothing.whole.seeds))
    assert nothing.known
    assert not nothing.enough
    assert state.enough
    # domain_dirty_limits() lets a real-time task go on at a quarter more than stops the writer
    assert set(found.sufficient) == {frozenset((STATE,)), frozenset((REALTIME,))}


def test_the_whole_has_the_reserve_that_is_advised() -> None:
    """As much more below the min watermark as the answer says, of which a real-time task may have a part."""
    scenario = parse_scenario(builtin_scenarios()["swap-on-nbd"])
    base = int(scenario.kernel.sysctl["vm.min_free_kbytes"]) * 1024
    for version, part in (((6, 12), 2), ((6, 2), 4), ((6, 1), 2)):
        more = {}
        for measures in (frozenset[Measure](), frozenset((REALTIME,))):
            system = _whole(scenario, measures, 3, version)
            more[bool(measures)] = next(int(each.units.text) for each in system.levels if each.name == "min")
        unit = Scale().unit_bytes
        assert more == {False: base // unit, True: (base + part * 3 * (1280 << 10)) // unit}


def tried(
    *measures: Measure, verdict: Verdict = Verdict.NO_FREEZE, stopped: Stopped = Stopped.COVERED
) -> TriedMeasures:
    """A combination of which that was found; no run of the whole froze."""
    exploration = Mock(verdict=verdict, stopped=stopped, freeze=None)
    return TriedMeasures(
        frozenset(measures), exploration, None if verdict is Verdict.FREEZE else WholeRuns(5, ())
    )


def sizing(*all_tried: TriedMeasures) -> Sizing:
    """An answer out of these."""
    return Sizing("any", (6, 12), Scale(), all_tried, None, ())


def test_what_is_not_known_may_be_enough() -> None:
    """A measure is necessary where all without it is known to freeze, not where that was not covered."""
    freeze, unknown, both = Verdict.FREEZE, Verdict.NOT_COVERED, tried(STATE, LOCKED)
    nothing, state = tried(verdict=freeze), tried(STATE, verdict=freeze)
    assert sizing(nothing, state, both).necessary == {STATE, LOCKED}
    assert sizing(nothing, tried(STATE, verdict=unknown), both).necessary == {STATE}
    assert sizing(tried(verdict=unknown), state, both).necessary == frozenset()
    assert sizing(nothing, tried(STATE, verdict=unknown)).necessary == frozenset()


def test_an_interruption_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is tried, nothing is called necessary, and no reserve is looked for."""
    explored: list[TransitionSystem] = []

    def interrupted_at_the_second(system: TransitionSystem, bounds: Bounds) -> Exploration:
        explored.append(system)
        if len(explored) == 1:
            return explore(system, bounds)
        return tried(verdict=Verdict.NOT_COVERED, stopped=Stopped.INTERRUPTED).exploration

    monkeypatch.setattr(sizes, "explore", interrupted_at_the_second)
    scenario = parse_scenario(builtin_scenarios()["swap-on-nbd"])
    found = size(scenario, version=(6, 12), scale=Scale(scenario.workload.size // 5, queue_depth=1))
    assert len(explored) == len(found.tried) == 2
    assert (found.interrupted, found.known, found.reserves) == (True, False, ())
    assert found.necessary == frozenset()
    assert "Necessary: none is shown to be." in answer_lines(found)
