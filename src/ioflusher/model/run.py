"""A run of the model: virtual time, one course of things, the same for the same seed.

Each task goes on until it waits, takes time, or rests; what it changes wakes those that wait for it. Where
more than one step can be taken, chance decides by their weights.
"""

import random
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush
from typing import Any

from ioflusher.errors import IoflusherError
from ioflusher.model.transitions import SCALAR_NAMES, Expression, Program, Step, TransitionSystem
from ioflusher.model.waiting import who_is_first

# steps at one moment after which a model is thought to go round for ever
_AT_ONCE = 1_000_000


class ModelError(IoflusherError):
    """The model does something that it must not: a variable leaves its range, time stands still."""


class RunOutcome(Enum):
    """How a run ended."""

    DONE = "done"
    FROZEN = "frozen"
    OUT_OF_MEMORY = "out of memory"
    LOST = "lost"
    OUT_OF_TIME = "out of time"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that cannot go on.

    Attributes:
        program: its name.
        pid: its number.
        since_ns: from when on.
        waits_for: what for.
        calls: its stack, the innermost first.
        state: "D" or "S"; "T" where it was stopped.
        flags: its PF_ flags.
        behind: numbers of the tasks one of which has to go on first; empty where nobody can, and where the
            run is done.
        by: for each of them the step that would do it, in the words of its label.
        rests: whether it has nothing to do, or is done.
    """

    program: str
    pid: int
    since_ns: int
    waits_for: str
    calls: tuple[str, ...]
    state: str
    flags: int
    behind: tuple[int, ...]
    by: tuple[str, ...] = ()
    rests: bool = False


@dataclass(frozen=True, slots=True)
class Happened:
    """A step that was taken, for the time line.

    Attributes:
        at_ns: when, in virtual time.
        program: the task's place among the system's programs.
        step: what it did.
        values: of all variables afterwards, in the order of the system's.
    """

    at_ns: int
    program: int
    step: Step
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to.

    Attributes:
        outcome: how it ended.
        at_ns: when, in virtual time.
        steps: how many were taken.
        completed: completed requests by device.
        last_completed_ns: when the last one was.
        longest_ns: the longest time that requests were in flight and none was completed, by device.
        waiting: the tasks that wait, with what and for whom.
        values: all variables in the end, by name.
        samples: (time, values) now and then, in the order of the system's variables.
        killed: whom the OOM killer took; empty for nobody.
        failed: the error with which the workload gave up; empty where it did not.
    """

    outcome: RunOutcome
    at_ns: int
    steps: int
    completed: dict[str, int]
    last_completed_ns: dict[str, int]
    longest_ns: dict[str, int]
    waiting: tuple[Waiting, ...]
    values: dict[str, int]
    samples: tuple[tuple[int, tuple[int, ...]], ...]
    killed: str = ""
    failed: str = ""


@dataclass(frozen=True, slots=True)
class _Option:
    """A step, compiled: what it does to the values, and how long it takes; its variables as bits.

    Its number is its place among those of its point; `ends` is how a run ends with it, if it does.
    """

    step: Step
    number: int
    act: Callable[[list[int]], None] | None
    to: int
    takes: int | Callable[[list[int]], int] | None
    writes: int
    begins: str
    completes: str
    ends: RunOutcome | None


@dataclass(frozen=True, slots=True)
class _Point:
    """A point of a program, compiled.

    Attributes:
        options: the steps that can be taken as soon as their conditions hold.
        only: the one step, where it is the only one and has no condition.
        able: which of them can be taken now, as bits.
        timeouts: the steps that can be taken after a time, with that time.
        reads: the variables that the conditions look at, as bits.
        rests: whether the task may stay here for ever.
    """

    options: tuple[_Option, ...]
    only: _Option | None
    able: Callable[[list[int]], int]
    timeouts: tuple[tuple[_Option, Callable[[list[int]], int]], ...]
    reads: int
    rests: bool


def run(
    system: TransitionSystem,
    *,
    seed: int = 0,
    jitter: float = 0.5,
    stalled_s: float = 15.0,
    limit_s: float = 600.0,
    sample_ns: int = 0,
    on_step: Callable[[Happened], None] | None = None,
) -> RunResult:
    """Play a system.

    Args:
        system: what to play.
        seed: of chance.
        jitter: by which part of it what takes time may take more or less, 0 to 1.
        stalled_s: seconds of virtual time without a completed request of a device with requests, or with
            nothing at all that can go on, after which it is frozen.
        limit_s: seconds of virtual time after which it is out of time.
        sample_ns: how often the variables are noted; 0 for never.
        on_step: told each step that was taken.

    Raises:
        ModelError: the model is wrong.
    """
    return _Run(system, seed, jitter, sample_ns, on_step).play(int(stalled_s * 1e9), int(limit_s * 1e9))


def follow(system: TransitionSystem, way: Iterable[tuple[int, Step]]) -> RunResult:
    """Take the steps of a way as a run takes its own, without time or chance: what a counterexample comes to.

    Args:
        system: what to play.
        way: the number of a task and its step, in order; a time-out may be taken at once.

    Returns:
        Done, frozen where nobody can take a step, and out of time where somebody still can.

    Raises:
        ModelError: a step that cannot be taken where the way has it.
    """
    return _Run(system, 0, 0, 0, None).follow(way)


class _Run:
    def __init__(
        self,
        system: TransitionSystem,
        seed: int,
        jitter: float,
        sample_ns: int,
        on_step: Callable[[Happened], None] | None,
    ) -> None:
        self.system = system
        self.index = {variable.name: number for number, variable in enumerate(system.variables)}
        self.values = [variable.initial for variable in system.variables]
        self.functions: dict[str, Callable[[list[int]], int]] = {}  # the same text is compiled once
        self.effects: dict[str, Callable[[list[int]], None]] = {}
        self.points = [self._compiled(program) for program in system.programs]
        self.in_flight = [self._function(self._text(flying)) for _, flying in system.in_flight]
        self.at = [0] * len(system.programs)
        self.since = [0] * len(system.programs)
        self.random = random.Random(seed)
        self.jitter = jitter
        self.now = 0
        self.completed: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.longest: dict[str, int] = {}
        self.flying: dict[str, int] = {}  # requests of a device that are not completed
        self.moved: dict[str, int] = {}  # when it had none, or completed one
        self.sample_ns = self.sampled_ns = sample_ns
        self.samples: list[tuple[int, tuple[int, ...]]] = []
        self.on_step = on_step

    def play(self, stalled_ns: int, limit_ns: int) -> RunResult:
        """The loop of events: what can go on at this moment, then what is due next."""
        values, at, points, chance = self.values, self.at, self.points, self.random.random
        shortest, spread = 1 - self.jitter, 2 * self.jitter
        ready = deque(range(len(at)))
        # when, in which order, who, with which step, as a time-out of which stay at its point (0: of none)
        due: list[tuple[int, int, int, _Option, int]] = []
        waits: dict[int, int] = {}  # the tasks that wait, and for which variables
        stays = [0] * len(at)
        awaited = 0  # the variables that somebody waits for, or more
        on_step, sampled = self.on_step, self.sample_ns > 0
        sequence = steps = standing = moved_at = 0
        working = {number for number, program in enumerate(self.system.programs) if program.works}
        worked = True  # whether one of them may have come to rest
        due_task, decided = 0, None  # whose time has come, with the step that it had decided upon
        while True:
            while ready or decided is not None:
                task = ready.popleft() if decided is None else due_task
                while True:
                    point = points[task][at[task]]
                    option = decided or point.only
                    if option is None:
                        able = point.able(values)
                        if not able:
                            waits[task] = point.reads
                            awaited |= point.reads
                            worked = worked or (point.rests and task in working)
                            self.since[task] = self.now
                            stays[task] += 1
                            for option, after in point.timeouts:
                                sequence += 1
                                heappush(due, (self.now + after(values), sequence, task, option, stays[task]))
                            break
                        # one bit: that step; several: by their weights
                        option = point.options[able.bit_length() - 1]
                        if able & (able - 1):
                            option = _by_weight(point.options, able, chance())
                    if option.takes is not None and decided is None:
                        takes = option.takes if isinstance(option.takes, int) else option.takes(values)
                        sequence += 1
                        lasts = int(takes * (shortest + spread * chance()))
                        heappush(due, (self.now + lasts, sequence, task, option, 0))
                        worked = worked or (point.rests and task in working)
                        break
                    decided = None
                    if option.act is not None:
                        option.act(values)
                        if option.writes & awaited:
                            awaited = _wake(waits, option.writes, ready)
                    at[task] = option.to
                    steps += 1
                    if steps - standing > _AT_ONCE:
                        name = self.system.programs[task].name
                        raise ModelError(f"time stands still at {self.now} ns: {name} goes round")
                    if on_step is not None:
                        on_step(Happened(self.now, task, option.step, tuple(values)))
                    if option.begins:
                        self._begin(option.begins)
                    if option.completes:
                        self._complete(option.completes)
                        moved_at = self.now
                    elif option.ends is not None:
                        return self._result(option.ends, steps, waits, option.step)
            if worked and all(points[number][at[number]].rests for number in working):
                return self._result(RunOutcome.DONE, steps, waits)
            worked = False
            if not due:
                return self._result(RunOutcome.FROZEN, steps, waits)
            when, _, due_task, option, stay = heappop(due)
            if stay and not (due_task in waits and stays[due_task] == stay):
                continue  # it went on before its time was up
            if when - moved_at > stalled_ns:
                if any(count(values) for count in self.in_flight):
                    return self._result(RunOutcome.FROZEN, steps, waits)
                moved_at = when
            if when > limit_ns:
                return self._result(RunOutcome.OUT_OF_TIME, steps, waits)
            while sampled and self.sampled_ns <= when:
                self.samples.append((self.sampled_ns, tuple(values)))
                self.sampled_ns += self.sample_ns
            if when > self.now:
                self.now, standing = when, steps
            waits.pop(due_task, None)
            point = points[due_task][at[due_task]]
            if stay or option.step.when is None or point.able(values) >> option.number & 1:
                decided = option
            else:  # what it decided upon is gone: it decides again
                ready.append(due_task)

    def follow(self, way: Iterable[tuple[int, Step]]) -> RunResult:
        """Each step in its turn, then who can still go on."""
        taken = 0
        for task, step in way:
            option = self._takable(task).get(step)
            if option is None:
                name = self.system.programs[task].name
                raise ModelError(
                    f"step {taken + 1} of the way, {name}'s {step.label!r}, cannot be taken there"
                )
            if option.act is not None:
                option.act(self.values)
            self.at[task] = option.to
            taken += 1
            if option.begins:
                self._begin(option.begins)
            if option.completes:
                self._complete(option.completes)
        waits = {
            task: self.points[task][point].reads
            for task, point in enumerate(self.at)
            if not self._takable(task)
        }
        working = (task for task, program in enumerate(self.system.programs) if program.works)
        if all(self.points[task][self.at[task]].rests for task in working):
            return self._result(RunOutcome.DONE, taken, waits)
        stuck = len(waits) == len(self.at)
        return self._result(RunOutcome.FROZEN if stuck else RunOutcome.OUT_OF_TIME, taken, waits)

    def _takable(self, task: int) -> dict[Step, _Option]:
        """The steps that a task can take now, time-outs among them."""
        point = self.points[task][self.at[task]]
        able = point.able(self.values)
        now = (option for option in point.options if able >> option.number & 1)
        late = (option for option, _ in point.timeouts)
        return {option.step: option for option in (*now, *late) if self._holds(option.step.when)}

    def _holds(self, when: Expression | None) -> bool:
        return when is None or bool(self._function(self._text(when))(self.values))

    def _begin(self, device: str) -> None:
        if not self.flying.get(device, 0):
            self.moved[device] = self.now
        self.flying[device] = self.flying.get(device, 0) + 1

    def _complete(self, device: str) -> None:
        self.flying[device] = self.flying.get(device, 1) - 1
        waited = self.now - self.moved.get(device, 0)
        self.longest[device] = max(self.longest.get(device, 0), waited)
        self.last[device] = self.moved[device] = self.now
        self.completed[device] = self.completed.get(device, 0) + 1

    def _result(
        self, outcome: RunOutcome, steps: int, waits: dict[int, int], last: Step | None = None
    ) -> RunResult:
        values = dict(zip(self.index, self.values, strict=True))
        behind: dict[int, dict[int, str]] = {task: {} for task in waits}
        if outcome is not RunOutcome.DONE:  # it takes as long as a short run
            behind = who_is_first(self.system, self.at, values, tuple(waits))
        pids = [program.pid for program in self.system.programs]
        waiting = []
        for number, program in enumerate(self.system.programs):
            point = self.points[number][self.at[number]]
            if number not in waits:
                continue
            ways = [option.step for option in point.options]
            told = next((step for step in ways if step.waits_for), None)
            if told is None:
                continue  # it sleeps until a time-out
            waiting.append(
                Waiting(
                    program.name,
                    program.pid,
                    self.since[number],
                    told.waits_for,
                    told.calls,
                    _state(told),
                    program.flags,
                    tuple(pids[other] for other in behind[number]),
                    tuple(behind[number].values()),
                    point.rests,
                )
            )
        return RunResult(
            outcome,
            self.now,
            steps,
            dict(self.completed),
            dict(self.last),
            dict(self.longest),
            tuple(waiting),
            values,
            tuple(self.samples),
            last.kills if last else "",
            last.fails if last else "",
        )

    def _compiled(self, program: Program) -> list[_Point]:
        count = 1 + max((max(step.at, step.to) for step in program.steps), default=0)
        steps_at = program.steps_at()
        return [self._point(steps_at.get(point, ()), point in program.rests) for point in range(count)]

    def _point(self, steps: tuple[Step, ...], rests: bool) -> _Point:
        now = [step for step in steps if step.after_ns is None]
        options = tuple(self._option(step, number) for number, step in enumerate(now))
        reads = self._bits(name for step in now if step.when is not None for name in step.when.reads)
        able = " | ".join(
            f"({'1' if step.when is None else self._text(step.when)}) << {number}"
            for number, step in enumerate(now)
        )
        timeouts = tuple(
            (self._option(step, 0), self._function(self._text(step.after_ns)))
            for step in steps
            if step.after_ns is not None
        )
        only = options[0] if len(now) == 1 and now[0].when is None else None
        return _Point(options, only, self._function(able or "0"), timeouts, reads, rests)

    def _option(self, step: Step, number: int) -> _Option:
        return _Option(
            step,
            number,
            self._effect(step),
            step.to,
            self._time(step.takes_ns),
            self._bits(variable.name for variable, _ in step.changes),
            step.begins,
            step.completes,
            RunOutcome.OUT_OF_MEMORY if step.kills else RunOutcome.LOST if step.fails else None,
        )

    def _time(self, takes_ns: Expression | None) -> int | Callable[[list[int]], int] | None:
        if takes_ns is None or takes_ns.reads:
            return None if takes_ns is None else self._function(self._text(takes_ns))
        return self._function(takes_ns.text)([])

    def _bits(self, names: Iterable[str]) -> int:
        found = 0
        for name in names:
            found |= 1 << self.index[name]
        return found

    def _text(self, expression: Expression) -> str:
        return re.sub(
            r"[A-Za-z_]\w*",
            lambda found: f"v[{self.index[found[0]]}]" if found[0] in self.index else found[0],
            expression.text,
        )

    def _function(self, text: str) -> Callable[[list[int]], int]:
        made = self.functions.get(text)
        if made is None:
            made = self.functions[text] = eval(f"lambda v: {text}", dict(SCALAR_NAMES))
        return made

    def _effect(self, step: Step) -> Callable[[list[int]], None] | None:
        if not step.changes:
            return None
        places = ", ".join(f"v[{self.index[variable.name]}]" for variable, _ in step.changes)
        values = ", ".join(self._text(value) for _, value in step.changes)
        text = f"{places} = {values}"
        made = self.effects.get(text)
        if made is None:
            space: dict[str, Any] = dict(SCALAR_NAMES)
            exec(f"def act(v):\n    {text}\n", space)
            made = self.effects[text] = space["act"]
        return made


def _state(step: Step) -> str:
    """The letter of the kernel for a task that waits for this step."""
    if step.calls[:1] == ("do_signal_stop",):
        return "T"
    return "S" if step.interruptible else "D"


def _wake(waits: dict[int, int], written: int, ready: deque[int]) -> int:
    """Have those go on who wait for what was written; returns what the others wait for."""
    awaited = 0
    for task, reads in list(waits.items()):
        if reads & written:
            del waits[task]
            ready.append(task)
        else:
            awaited |= reads
    return awaited


def _by_weight(options: tuple[_Option, ...], able: int, chance: float) -> _Option:
    """One of the steps that can be taken, by their weights."""
    among = [option for number, option in enumerate(options) if able >> number & 1]
    left = chance * sum(option.step.weight for option in among)
    for option in among:
        left -= option.step.weight
        if left < 0:
            return option
    return among[-1]
