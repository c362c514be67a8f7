"""What all reports of the model say in the same words: halves, tasks, memory, times."""

from collections.abc import Iterator, Sequence
from functools import cache
from types import CodeType
from typing import Protocol

from ioflusher.model.halves import ModelHalf
from ioflusher.model.run import Happened, RunOutcome, Waiting
from ioflusher.model.transitions import SCALAR_NAMES, Expression
from ioflusher.scenario.records import Scenario
from ioflusher.support.text import counted

MIB = 1 << 20


def half_outcome(half: ModelHalf) -> str:
    """How a half ended, a sentence without its subject."""
    result = half.result
    served = ", ".join(
        f"{counted(number, 'request')} of {device}" for device, number in result.completed.items()
    )
    if result.outcome is RunOutcome.FROZEN:
        last = max(result.last_completed_ns.values(), default=0)
        if not served:
            return "FROZEN before a request was completed"
        return f"FROZEN after {seconds(last)}: {served} completed, then no more"
    if result.outcome is RunOutcome.OUT_OF_MEMORY:
        return f"OUT OF MEMORY after {seconds(result.at_ns)}: the OOM killer takes {result.killed}"
    if result.outcome is RunOutcome.LOST:
        return f"LOST after {seconds(result.at_ns)}: the workload gives up with {result.failed}"
    words = "done" if result.outcome is RunOutcome.DONE else "OUT OF TIME, neither done nor frozen,"
    longest = max(result.longest_ns.values(), default=0)
    rest = f": {served} completed, at most {seconds(longest)} between two" if served else ""
    return f"{words} after {seconds(result.at_ns)}{rest}"


class JudgedHalf(Protocol):
    """A half that was played, or explored."""

    @property
    def name(self) -> str: ...

    @property
    def io_flusher(self) -> bool: ...

    def came_out_as(self, outcome: str) -> bool: ...


def as_expected(
    scenario: Scenario, version: tuple[int, int], halves: Sequence[JudgedHalf]
) -> tuple[bool, str]:
    """Whether all came out as the scenario has it of this kernel, and what it has: "frozen without, ..."."""
    table = scenario.expected_of(version)
    wanted = {
        False: table.without_state if table else "frozen",
        True: table.with_state if table else "finished",
    }
    good = all(half.came_out_as(wanted[half.io_flusher]) for half in halves)
    return good, ", ".join(f"{wanted[half.io_flusher]} {half.name}" for half in halves)


def verdict(scenario: Scenario, version: tuple[int, int], halves: tuple[ModelHalf, ...]) -> tuple[bool, str]:
    """Whether all came out as the scenario has it of this kernel, and a sentence that says so."""
    good, expected = as_expected(scenario, version, halves)
    table = scenario.expected_of(version)
    kernel = ".".join(map(str, version))
    why = f": {table.why}" if table else ""
    if good:
        return True, f"That is what the scenario expects of Linux {kernel}, {expected}{why}"
    return False, f"The scenario expects of Linux {kernel}: {expected}{why}"


def task_words(task: Waiting) -> str:
    """Name and number: "nbd-daemon (6)"."""
    return f"{task.program} ({task.pid})"


def blocked(half: ModelHalf) -> tuple[Waiting, ...]:
    """The tasks that wait for others, those of the circle first; what rests or is no task is left out."""
    hardware = hardware_pids(half)
    cycle = half.cycle
    others = [task for task in half.result.waiting if task not in cycle]
    return (*cycle, *(task for task in others if not task.rests and task.pid not in hardware))


def hardware_pids(half: ModelHalf) -> frozenset[int]:
    """Numbers of what is no task."""
    return frozenset(program.pid for program in half.system.programs if program.hardware)


def names_by_pid(half: ModelHalf) -> dict[int, str]:
    """Each program with its number: "nbd-daemon (6)"."""
    return {program.pid: f"{program.name} ({program.pid})" for program in half.system.programs}


def firsts(half: ModelHalf, task: Waiting) -> tuple[tuple[int, str], ...]:
    """Who has to go on before a task can, each with the step that would do it; the circle's next one first.

    A step that others wait for as well is up to whoever is in the circle: that one comes first.
    """
    cycle = [member.pid for member in half.cycle]
    after = cycle[(cycle.index(task.pid) + 1) % len(cycle)] if task.pid in cycle else None
    pairs = tuple(zip(task.behind, task.by, strict=True))
    return tuple(sorted(pairs, key=lambda pair: (pair[0] != after, pair[0] not in cycle)))


def wait_sentence(half: ModelHalf, task: Waiting) -> str:
    """What a task waits for, and on whom that is up."""
    names = names_by_pid(half)
    pairs = firsts(half, task)
    if not pairs:
        return f"waits for {task.waits_for}, which nobody can bring about"
    pid, deed = pairs[0]
    who = f"{names[pid]} itself" if pid == task.pid else names[pid]
    more = f" (or {', '.join(names[other] for other, _ in pairs[1:])})" if len(pairs) > 1 else ""
    return f"waits for {task.waits_for}: that takes {who}{more}, in the step: {deed}"


def memory_rows(half: ModelHalf) -> Iterator[tuple[str, int]]:
    """Every kind of memory that there is in the end, in bytes."""
    for variable in half.system.variables:
        value = half.result.values[variable.name]
        if variable.unit == "memory" and value:
            yield variable.what, value * half.system.unit_bytes


def value_of(expression: Expression, values: dict[str, int]) -> int:
    """A number of the system at some values of its variables."""
    return int(eval(_code(expression.text), dict(SCALAR_NAMES), dict(values)))


@cache
def _code(text: str) -> CodeType:
    return compile(text, "<model>", "eval")


def in_flight(half: ModelHalf) -> dict[str, int]:
    """Requests that are not completed in the end, by device."""
    return {device: value_of(count, half.result.values) for device, count in half.system.in_flight}


def last_steps(half: ModelHalf, most: int) -> tuple[list[Happened], int]:
    """The steps from the last completed request on that say something, and how many are left out behind.

    Where those are fewer than asked for, steps before fill up.
    """
    told = [step for step in half.steps if step.step.label]
    last = max((number for number, step in enumerate(told) if step.step.completes), default=0)
    behind = told[last:]
    if len(behind) >= most:
        return behind[:most], len(behind) - most
    return told[-most:], 0


def seconds(nanoseconds: int) -> str:
    """A time in seconds, to a tenth of a millisecond below a second."""
    value = nanoseconds / 1e9
    return f"{value:.4f} s" if value < 1 else f"{value:.3f} s"


def mebibytes(size: int) -> str:
    """A size in MiB."""
    value = size / MIB
    return f"{value:.0f} MiB" if value >= 10 or value == int(value) else f"{value:.1f} MiB"
