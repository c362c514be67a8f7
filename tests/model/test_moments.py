"""What tasks do at each step: as the conditions of their programs have it."""

from ioflusher.model.code import Code
from ioflusher.model.halves import KEPT_BEFORE, play_half
from ioflusher.model.moments import StepTaken, moments
from ioflusher.model.run import Happened, run
from ioflusher.model.transitions import TransitionSystem, Variable
from ioflusher.scenario.file import builtin_scenarios, parse_scenario


def test_runs_is_busy_waits_and_rests() -> None:
    """A giver that takes its time, a taker that waits for it and is done."""
    given = Variable("given", 0, 1)
    giver, taker = Code(), Code()
    giver.step("begins", {given: 0})
    giver.step("works", {given: 1}, takes_ns=7)
    with taker.call("mutex_lock"):
        taker.step("takes", {given: 0}, when=given > 0, waits_for="the other")
    programs = (giver.program("giver", 1, works=True), taker.program("taker", 2, works=True))
    system = TransitionSystem("two", (given,), programs)
    happened: list[Happened] = []
    run(system, on_step=happened.append)
    steps = [StepTaken(one.at_ns, one.program, one.step, one.values) for one in happened]
    found = [
        [(task.doing, task.what, task.calls) for task in tasks] for tasks in moments(system, (0, 0), steps)
    ]
    done, waiting = ("rests", "", ()), ("waits", "the other", ("mutex_lock",))
    assert found[-3:] == [
        [("busy", "works", ()), waiting],
        [done, ("runs", "takes", ("mutex_lock",))],
        [done, done],
    ]


def test_the_end_of_a_freeze_is_what_the_run_says() -> None:
    """Who waits for what after the last step is what the engine's own result has, in both scenarios."""
    for name in ("ext4-on-nbd-throttled", "swap-on-nbd"):
        half = play_half(parse_scenario(builtin_scenarios()[name]), io_flusher=False, version=(6, 12))
        steps = [StepTaken(one.at_ns, one.program, one.step, one.values) for one in half.steps]
        *_, last = moments(half.system, half.points, steps)
        expected = {
            (task.program, task.pid): (task.waits_for, task.calls, task.state, task.rests)
            for task in half.result.waiting
        }
        found = {
            (program.name, program.pid): (
                task.what,
                task.calls,
                "S" if task.interruptible else "D",
                task.doing == "rests",
            )
            for program, task in zip(half.system.programs, last, strict=True)
            if task.doing in ("waits", "rests") and task.what
        }
        assert expected == found


def test_the_points_before_the_kept_steps() -> None:
    """They are where the steps that are not kept had led to."""
    scenario = parse_scenario(builtin_scenarios()["swap-on-nbd"])
    half = play_half(scenario, io_flusher=True, version=(6, 12), around_ns=2_000_000_000)
    everything: list[Happened] = []
    run(half.system, stalled_s=scenario.frozen.stalled_s, on_step=everything.append)
    points = [0] * len(half.system.programs)
    for one in everything[: half.first]:
        points[one.program] = one.step.to
    assert half.points == tuple(points)
    assert tuple(everything[half.first : half.first + len(half.steps)]) == half.steps
    assert sum(one.at_ns <= 2_000_000_000 for one in half.steps) == KEPT_BEFORE
