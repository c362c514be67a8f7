"""What the model says: the same scenario for several seeds of chance."""

from collections.abc import Iterable

from ioflusher.comparison.summary import HalfRun
from ioflusher.kernel.task_flags import Version
from ioflusher.kernlog.reading.frames import Frame
from ioflusher.kernlog.stacks.waits import StackKind, explain_stack
from ioflusher.model.halves import ModelHalf, play_half, serves
from ioflusher.model.run import RunOutcome
from ioflusher.model.transitions import TransitionSystem
from ioflusher.scenario.records import Scenario

# /proc/PID/stack, which the lab reads, leaves functions of the scheduler's section out, and these are of it:
# stack_trace_consume_entry_nosched(), kernel/stacktrace.c; kernel/locking/mutex.c
_SCHEDULER_SECTION = {"mutex_lock", "__mutex_lock", "io_schedule", "schedule", "schedule_timeout"}
_OUTCOMES = {
    RunOutcome.FROZEN: "frozen",
    RunOutcome.DONE: "finished",
    RunOutcome.OUT_OF_MEMORY: "out of memory",
    RunOutcome.OUT_OF_TIME: "out of time",
    RunOutcome.LOST: "lost",
}


def predicted_halves(
    scenario: Scenario, kernel: Version, seeds: Iterable[int], *, io_flusher: bool
) -> tuple[HalfRun, ...]:
    """One half for each seed.

    Raises:
        IoflusherError: the model has not what the scenario is about.
    """
    return tuple(
        _half_run(play_half(scenario, io_flusher=io_flusher, version=kernel, seed=seed)) for seed in seeds
    )


def kinds_of_waits(system: TransitionSystem) -> frozenset[str]:
    """In which kinds of waits the daemon's threads can stand, whatever the course of things."""
    steps = (step for program in system.programs if serves(program) for step in program.steps)
    found = {_kind(step.calls) for step in steps if step.waits_for}
    return frozenset(kind for kind in found if kind is not None)


def _half_run(half: ModelHalf) -> HalfRun:
    result = half.result
    daemons = {program.pid for program in half.system.programs if serves(program)}
    waits = [_kind(task.calls) for task in result.waiting if half.frozen and task.pid in daemons]
    return HalfRun(
        outcome=_OUTCOMES[result.outcome],
        frozen_after_s=max(result.last_completed_ns.values(), default=0) / 1e9 if half.frozen else None,
        longest_request_s=None if half.frozen else max(result.longest_ns.values(), default=0) / 1e9,
        waits=tuple(kind for kind in waits if kind is not None),
    )


def _kind(calls: Iterable[str]) -> str | None:
    """What a stack shows, the innermost function first; None for a thread that waits for work."""
    names = (name for name in calls if name not in _SCHEDULER_SECTION)
    kind = explain_stack(tuple(Frame(name, None, None, None, reliable=True) for name in names)).kind
    return None if kind in (StackKind.IDLE, StackKind.OTHER) else kind.value
