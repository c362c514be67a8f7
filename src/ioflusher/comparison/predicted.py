"""What the model says: the same scenario for several seeds of chance."""

from collections.abc import Iterable

from ioflusher.comparison.summary import HalfRun
from ioflusher.kernel.task_flags import Version
from ioflusher.kernlog.reading.frames import Frame
from ioflusher.kernlog.stacks.waits import StackKind, explain_stack
from ioflusher.model.halves import ModelHalf, play_half, serves
from ioflusher.model.run import RunOutcome
from ioflusher.scenario.records import Scenario

# /proc/PID/stack, which the lab reads, leaves functions of the scheduler's section out, and these are of it:
# stack_trace_consume_entry_nosched(), kernel/stacktrace.c; kernel/locking/mutex.c
_SCHEDULER_SECTION = {"mutex_lock", "__mutex_lock", "io_schedule", "schedule", "schedule_timeout"}
_OUTCOMES = {
    RunOutcome.FROZEN: "frozen",
    RunOutcome.DONE: "finished",
    RunOutcome.OUT_OF_TIME: "out of time",
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


def _half_run(half: ModelHalf) -> HalfRun:
    result = half.result
    daemons = {program.pid for program in half.system.programs if serves(program)}
    kinds = []
    for task in result.waiting:
        if half.frozen and task.pid in daemons:
            calls = (name for name in task.calls if name not in _SCHEDULER_SECTION)
            frames = tuple(Frame(name, None, None, None, reliable=True) for name in calls)
            kind = explain_stack(frames).kind
            if kind not in (StackKind.IDLE, StackKind.OTHER):
                kinds.append(kind.value)
    return HalfRun(
        outcome=_OUTCOMES[result.outcome],
        frozen_after_s=max(result.last_completed_ns.values(), default=0) / 1e9 if half.frozen else None,
        longest_request_s=None if half.frozen else max(result.longest_ns.values(), default=0) / 1e9,
        waits=tuple(kinds),
    )
