"""Explorations: every state, the right verdict, the shortest way, and what the tasks do at its end."""

import signal
import threading
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from ioflusher.model.explore import (
    NO_REDUCTIONS,
    Bounds,
    Exploration,
    FreezeKind,
    ModelError,
    Progress,
    Reductions,
    Stands,
    Stopped,
    Verdict,
    explore,
)
from ioflusher.model.explore.halves import replay
from ioflusher.model.run import RunOutcome, follow
from ioflusher.model.transitions import Program, Step, TransitionSystem, Variable, number
from tests.model import oracle
from tests.model.small_systems import dining, systems, writers

quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def replayed(found: Exploration) -> list[oracle.State]:
    """The states of the way and the round, gone through by the oracle's own evaluation of each step."""
    assert found.freeze is not None
    states = [oracle.beginning(found.system)]
    for each in (*found.freeze.way, *found.freeze.round):
        after = oracle.taken(found.system, states[-1], each.task, each.step)
        assert after == (each.points, each.values)
        states.append(after)
    return states


@quick
@given(systems())
def test_it_finds_what_the_plainest_search_finds(system: TransitionSystem) -> None:
    """Same states, transitions and depth, same verdict, same shortest length, on one thread and on two."""
    truth = oracle.search(system)
    stuck = [state for state in truth.doomed if not truth.following[state]]
    for threads in (1, 2):
        found = explore(system, reductions=NO_REDUCTIONS, threads=threads)
        if not truth.doomed:
            assert (found.verdict, found.stopped) == (Verdict.NO_FREEZE, Stopped.COVERED)
        else:
            assert found.verdict is Verdict.FREEZE
        if stuck:
            assert found.freeze is not None
            assert found.freeze.kind is FreezeKind.DEADLOCK
            shortest = min(truth.depth[state] for state in stuck)
            assert len(found.freeze.way) == shortest
            assert found.states == sum(depth <= shortest + 1 for depth in truth.depth.values())
            assert replayed(found)[-1] in stuck
        else:
            assert (found.states, found.transitions) == (len(truth.depth), truth.transitions)
            assert found.depth == max(truth.depth.values())
        if truth.doomed:
            assert found.freeze is not None
            states = replayed(found)
            after = found.freeze.doomed_after
            assert after == min(place for place, state in enumerate(states) if state in truth.doomed)
            if not stuck:
                assert found.freeze.kind is FreezeKind.LIVELOCK
                assert after == min(truth.depth[state] for state in truth.doomed)
                assert states[-1] == states[len(found.freeze.way)]
                assert len(found.freeze.round) > 0


REDUCTIONS = [
    Reductions(alike=True, alone=False, merged=False),
    Reductions(alike=False, alone=True, merged=False),
    Reductions(alike=False, alone=False, merged=True),
    Reductions(),
]


@quick
@given(system=systems())
def test_a_reduction_changes_no_verdict(system: TransitionSystem) -> None:
    """The same kind of freeze or none; a freeze that it finds is one, by the oracle's own steps."""
    truth = oracle.search(system)
    whole = explore(system, reductions=NO_REDUCTIONS, threads=1)
    for reductions in REDUCTIONS:
        with pytest.MonkeyPatch.context() as monkeypatch:
            # what is doomed is found by chance and a second search, too
            monkeypatch.setattr("ioflusher.model.explore.way.FEW", 2)
            found = explore(system, reductions=reductions, threads=1)
        assert_same(whole, found, truth)


def assert_same(whole: Exploration, found: Exploration, truth: oracle.Found) -> None:
    """What was found with reductions is what was found without."""
    assert found.verdict is whole.verdict
    if whole.freeze is None:
        assert found.states <= whole.states
        return
    assert found.freeze is not None
    assert found.freeze.kind is whole.freeze.kind
    states = replayed(found)
    assert found.freeze.doomed_after == min(
        place for place, state in enumerate(states) if state in truth.doomed
    )
    if found.freeze.kind is FreezeKind.DEADLOCK:
        assert not truth.following[states[-1]]
        if not found.reductions.merged:
            assert len(found.freeze.way) == len(whole.freeze.way)
    else:
        assert states[-1] == states[len(found.freeze.way)]


def test_tasks_that_wait_in_a_circle() -> None:
    """Each holds the lock on its left and waits for the one on its right, in the function that it is in."""
    found = explore(dining(4))
    assert found.freeze is not None
    assert found.freeze.kind is FreezeKind.DEADLOCK
    assert [each.step.label for each in found.freeze.way] == ["takes one"] * 4
    assert {each.task for each in found.freeze.way} == {0, 1, 2, 3}
    assert found.freeze.way[-1].values == (0, 0, 0, 0)
    assert found.freeze.doomed_after == 4
    assert [
        (task.name, standing.how, standing.waits_for, standing.calls)
        for task, standing in found.freeze.named(found.system)
    ] == [(f"task{each}", Stands.WAITS, (f"lock {(each + 1) % 4}",), ("eat",)) for each in range(4)]


def test_locks_in_one_order_do_not_freeze() -> None:
    """Nothing is found because nothing is there: all was covered."""
    found = explore(dining(4, ordered=True), reductions=NO_REDUCTIONS)
    assert (found.verdict, found.stopped, found.freeze) == (Verdict.NO_FREEZE, Stopped.COVERED, None)
    assert found.states == len(oracle.search(dining(4, ordered=True)).depth)


def test_a_daemon_that_needs_what_only_it_gives_back() -> None:
    """The last page goes to the writers, and the daemon, which would free it, waits for one."""
    found = explore(writers(3, pages=2, needs_pages=True))
    assert found.freeze is not None
    daemon = found.freeze.standing[-1]
    assert (daemon.how, daemon.waits_for, daemon.calls) == (
        Stands.WAITS,
        ("a free page",),
        ("alloc_pages", "daemon"),
    )
    assert found.freeze.way[-1].values[0] == 0
    # with no page left and requests of its own to serve nothing helps; the daemon has yet to ask
    assert found.freeze.doomed_after is not None
    assert found.freeze.doomed_after < len(found.freeze.way)
    assert explore(writers(3, pages=2, needs_pages=False)).verdict is Verdict.NO_FREEZE


def test_a_daemon_that_looks_again_for_ever() -> None:
    """Nobody stands still, and nothing gets done: a freeze all the same."""
    found = explore(writers(3, pages=2, needs_pages=True, pauses=True))
    assert found.stopped is Stopped.COVERED
    assert found.freeze is not None
    assert found.freeze.kind is FreezeKind.LIVELOCK
    assert found.freeze.shortest
    assert {each.step.label for each in found.freeze.round} <= {
        "pauses, looks again",
        "pauses",
        "looks again",
    }
    assert found.freeze.standing[-1].how is Stands.GOES_ROUND
    assert explore(writers(3, pages=2, needs_pages=False, pauses=True)).verdict is Verdict.NO_FREEZE


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        (Bounds(states=50), Stopped.STATES),
        (Bounds(bytes=1000), Stopped.BYTES),
        (Bounds(depth=3), Stopped.DEPTH),
    ],
    ids=("states", "bytes", "depth"),
)
def test_what_was_not_covered_is_not_judged(bounds: Bounds, why: Stopped) -> None:
    """A bound ends the search, and it does not say that there is no freeze."""
    found = explore(dining(6, ordered=True), bounds, threads=1)
    assert (found.verdict, found.stopped, found.freeze) == (Verdict.NOT_COVERED, why, None)


def test_a_freeze_within_the_bounds_counts() -> None:
    """Where everything that follows a state is known, it is judged, though the rest is not."""
    counter = Variable("counter", 0, 100_000)
    trap = Variable("trap", 0, 1)
    steps = (
        Step(0, 0, when=(counter < 100_000) & trap.is_(0), changes=((counter, counter + 1),)),
        Step(0, 1, when=counter.is_(100_000)),
        Step(0, 2, when=counter.is_(2), changes=((trap, number(1)),)),
        Step(2, 2),
    )
    system = TransitionSystem("trap", (counter, trap), (Program("task", 1, 0, steps, frozenset((1,)), True),))
    found = explore(system, Bounds(depth=10))
    assert (found.verdict, found.stopped) == (Verdict.FREEZE, Stopped.DEPTH)
    assert found.freeze is not None
    assert (len(found.freeze.way), found.freeze.shortest) == (3, False)


def test_ctrl_c_returns_what_was_covered() -> None:
    """An interrupt while it runs: states so far, and no verdict."""
    seen: list[Progress] = []
    before = set(threading.enumerate())

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            signal.raise_signal(signal.SIGINT)

    found = explore(
        dining(13, ordered=True), NO_BOUNDS, reductions=NO_REDUCTIONS, watch=watch, watch_seconds=0.05
    )
    assert (found.verdict, found.stopped) == (Verdict.NOT_COVERED, Stopped.INTERRUPTED)
    assert 0 < seen[0].states <= seen[-1].states <= found.states
    assert seen[-1].states_per_second > 0
    assert set(threading.enumerate()) <= before


NO_BOUNDS = Bounds(states=1 << 32)


def test_a_step_that_leaves_a_range_is_named() -> None:
    """Which step of which task, which variable, and the state that it was taken from."""
    free = Variable("free", 2, 2)
    task = Program("kswapd0", 7, 0, (Step(0, 0, changes=((free, free - 1),), label="takes a page"),))
    with pytest.raises(ModelError, match=r"kswapd0's step 'takes a page' takes free out of 0..2") as caught:
        explore(TransitionSystem("leaves", (free,), (task,)))
    assert "from the state free=0 kswapd0@0" in str(caught.value)


def test_a_number_out_of_range_is_named() -> None:
    """A plain number that a variable never has."""
    free = Variable("free", 2, 2)
    task = Program("kswapd0", 7, 0, (Step(0, 0, changes=((free, number(5)),), label="frees"),))
    with pytest.raises(ModelError, match="step 'frees' takes free out of"):
        explore(TransitionSystem("leaves", (free,), (task,)))


def test_a_division_by_zero_is_named() -> None:
    """The state in which it happens."""
    free = Variable("free", 2, 2)
    steps = (Step(0, 0, when=(number(4) // free) >= 0, changes=((free, free - 1),)),)
    with pytest.raises(ModelError, match="divides by zero, from the state free=0"):
        explore(TransitionSystem("divides", (free,), (Program("task", 1, 0, steps),)))


def test_tasks_that_are_not_alike() -> None:
    """Said to be alike, and not: an error in the model."""
    free = Variable("free", 2, 2)
    tasks = tuple(
        Program(f"task{each}", each, 0, (Step(0, 1, changes=((free, number(each)),)),), alike="task")
        for each in (1, 2)
    )
    with pytest.raises(
        ModelError, match=r"task2 .2. is said to be 'task' like task1 .1., but their programs"
    ):
        explore(TransitionSystem("unlike", (free,), tasks))


def test_alike_tasks_are_counted_once() -> None:
    """Which of three writers is where does not matter: fewer states, same end."""
    system = writers(3, pages=3, needs_pages=False)
    whole = explore(system, reductions=NO_REDUCTIONS)
    found = explore(system, reductions=Reductions(alone=False, merged=False))
    assert found.verdict is whole.verdict is Verdict.NO_FREEZE
    truth = oracle.search(system)
    assert whole.states == len(truth.depth)
    assert found.states == len(
        {(tuple(sorted(points[:3])), points[3:], values) for points, values in truth.depth}
    )


def test_wide_numbers_do_not_overflow() -> None:
    """Products of large variables are calculated in a type that holds them."""
    pages = Variable("pages", 0, 70_000)
    steps = (
        Step(0, 0, when=(pages * pages) < 4_000_000_000, changes=((pages, pages + 1_000),)),
        Step(0, 1, when=(pages * pages) >= 4_000_000_000),
    )
    found = explore(
        TransitionSystem("wide", (pages,), (Program("task", 1, 0, steps, frozenset((1,)), True),))
    )
    assert found.verdict is Verdict.NO_FREEZE
    assert found.states == 66  # 0 to 64,000 by thousands, and the rest


@quick
@given(systems())
def test_the_engine_of_runs_goes_the_way_to_a_freeze(system: TransitionSystem) -> None:
    """Step by step, into the same state, with all reductions; it is stuck there if that is a deadlock."""
    found = explore(system)
    replay(found)
    if found.freeze is None or found.freeze.kind is not FreezeKind.DEADLOCK:
        return
    way = found.freeze.way
    end = follow(system, [(taken.task, taken.step) for taken in way])
    assert (end.outcome, end.steps) == (RunOutcome.FROZEN, len(way))


def test_a_way_that_cannot_be_gone_is_an_error() -> None:
    """A step that is left out: what needs it cannot be taken, and the error has its number and its task."""
    found = explore(dining(3, ordered=False))
    assert found.freeze is not None
    way = [(taken.task, taken.step) for taken in found.freeze.way]
    with pytest.raises(ModelError, match=f"step {len(way) + 1} of the way, .* cannot be taken there"):
        follow(found.system, [*way, way[-1]])
    shorter = replace(found, freeze=replace(found.freeze, way=found.freeze.way[:-1]))
    with pytest.raises(ModelError, match="a run of the way to the freeze is out of time"):
        replay(shorter)
    elsewhere = replace(found.freeze.way[-1], values=tuple(each + 1 for each in found.freeze.way[-1].values))
    wrong = replace(found.freeze, way=(*found.freeze.way[:-1], elsewhere))
    with pytest.raises(ModelError, match="ends in another state"):
        replay(replace(found, freeze=wrong))


def test_a_way_to_the_end_is_done() -> None:
    """One step, after which the only task that works rests."""
    one = Variable("one", 0, 1)
    step = Step(0, 1, changes=((one, number(1)),))
    system = TransitionSystem("one step", (one,), (Program("worker", 1, 0, (step,), frozenset((1,)), True),))
    assert follow(system, [(0, step)]).outcome is RunOutcome.DONE
    assert follow(system, []).outcome is RunOutcome.OUT_OF_TIME
