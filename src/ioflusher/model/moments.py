"""What every task does at every step of a part of a run: runs, takes its time, rests, waits for what."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from ioflusher.model.transitions import SCALAR_NAMES, Step, TransitionSystem

Doing = Literal["runs", "busy", "rests", "waits"]


@dataclass(frozen=True, slots=True)
class StepTaken:
    """A step of a run or of an exploration's way, with what is known afterwards.

    Attributes:
        at_ns: when, in virtual time; None in an exploration, in which there is no time.
        program: the task's place among the system's programs.
        step: what it did.
        values: of all variables afterwards, in the order of the system's.
    """

    at_ns: int | None
    program: int
    step: Step
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TaskMoment:
    """A task at a moment.

    Attributes:
        doing: "runs": it can take a step; "busy": it is in one that takes time; "rests": it has nothing to
            do; "waits": it can take none.
        what: the step that it is about to take, or what it waits for.
        calls: the functions that it is in, the innermost first.
        interruptible: whether it waits in state S.
    """

    doing: Doing
    what: str
    calls: tuple[str, ...]
    interruptible: bool = False


def moments(
    system: TransitionSystem, points: Sequence[int], steps: Sequence[StepTaken]
) -> Iterator[tuple[TaskMoment, ...]]:
    """What each task does after each of the steps.

    Args:
        system: what was played.
        points: where each task stood before the first of the steps.
        steps: a part of a run.
    """
    at = list(points)
    busy: dict[int, Step] = {}  # tasks in a step that takes time
    ahead = _next_steps(steps)
    looks = [_Looks(program.steps_at(), program.rests) for program in system.programs]
    names = [variable.name for variable in system.variables]
    for number, taken in enumerate(steps):
        at[taken.program] = taken.step.to
        busy.pop(taken.program, None)
        values = dict(zip(names, taken.values, strict=True))
        found = []
        for task, look in enumerate(looks):
            coming = ahead[number].get(task)
            if coming is not None and coming.takes_ns is not None and _holds(coming, values):
                busy.setdefault(task, coming)
            if task in busy:
                found.append(TaskMoment("busy", busy[task].label, busy[task].calls))
            else:
                found.append(look.at(at[task], values))
        yield tuple(found)


def _next_steps(steps: Sequence[StepTaken]) -> list[dict[int, Step]]:
    """For each place in the steps, the next step that each task takes behind it."""
    found: list[dict[int, Step]] = []
    coming: dict[int, Step] = {}
    for taken in reversed(steps):
        found.append(dict(coming))
        coming[taken.program] = taken.step
    return found[::-1]


@dataclass(slots=True)
class _Looks:
    """What a task is seen to do at a point of its program."""

    steps_at: Mapping[int, tuple[Step, ...]]
    rests: frozenset[int]
    _idle: dict[int, TaskMoment] = field(default_factory=dict)

    def at(self, point: int, values: Mapping[str, int]) -> TaskMoment:
        """At this point with these values."""
        ways = [step for step in self.steps_at.get(point, ()) if step.after_ns is None]
        for step in ways:
            if _holds(step, values):
                return TaskMoment("busy" if step.takes_ns is not None else "runs", step.label, step.calls)
        if point not in self._idle:
            told = next((step for step in ways if step.waits_for), None) or next(iter(ways), None)
            what, calls = (told.waits_for, told.calls) if told else ("", ())
            doing: Doing = "rests" if point in self.rests else "waits"
            self._idle[point] = TaskMoment(doing, what, calls, told is None or told.interruptible)
        return self._idle[point]


def _holds(step: Step, values: Mapping[str, int]) -> bool:
    return step.when is None or bool(_condition(step.when.text)(values))


@cache
def _condition(text: str) -> Callable[[Mapping[str, int]], int]:
    code = compile(text, "<model>", "eval")
    return lambda values: eval(code, dict(SCALAR_NAMES), dict(values))
