"""A run of the model for people to read on a terminal."""

from collections.abc import Iterator

from ioflusher.model.halves import ModelHalf
from ioflusher.model.run import Waiting
from ioflusher.report.model_words import (
    blocked,
    half_outcome,
    in_flight,
    last_steps,
    mebibytes,
    memory_rows,
    names_by_pid,
    seconds,
    task_words,
    verdict,
    wait_sentence,
)
from ioflusher.report.wrapping import stack_lines, wrapped
from ioflusher.scenario.records import Scenario
from ioflusher.support.text import counted, printable

STEPS_SHOWN = 16


def render_model(
    scenario: Scenario, version: tuple[int, int], halves: tuple[ModelHalf, ...], seed: int
) -> Iterator[str]:
    """Lines for the terminal, safe to print."""
    kernel = ".".join(map(str, version))
    yield f"{scenario.name}: {printable(scenario.title)}"
    yield f"in the model of Linux {kernel}, virtual time, seed {seed}"
    for note in halves[0].system.notes:
        yield from wrapped(f"note: {printable(note)}", "", "  ")
    yield ""
    width = max(len(half.name) for half in halves)
    for half in halves:
        yield f"{half.name:{width}} the state: {half_outcome(half)}"
    yield ""
    yield from wrapped(printable(verdict(scenario, version, halves)[1]))
    for half in halves:
        if half.frozen:
            yield from _freeze(half)


def _freeze(half: ModelHalf) -> Iterator[str]:
    yield ""
    yield f"The last steps {half.name} the state, from the last completed request on:"
    steps, left_out = last_steps(half, STEPS_SHOWN)
    names = names_by_pid(half)
    programs = half.system.programs
    width = max((len(names[programs[step.program].pid]) for step in steps), default=0)
    for step in steps:
        name = names[programs[step.program].pid]
        yield f"  {step.at_ns / 1e9:12.6f} s  {printable(name):{width}}  {printable(step.step.label)}"
    if left_out:
        yield f"  ... and {counted(left_out, 'further step')} by which no request is completed"
    yield ""
    yield f"Who waits {half.name} the state:"
    for task in blocked(half):
        yield from _task(half, task)
    yield ""
    yield from _circle(half)
    yield ""
    memory = ", ".join(f"{mebibytes(size)} {what}" for what, size in memory_rows(half))
    yield from wrapped(f"Memory: {memory}.")
    flying = ", ".join(f"{number} of {device}" for device, number in in_flight(half).items())
    yield f"Requests in flight: {flying}."


def _task(half: ModelHalf, task: Waiting) -> Iterator[str]:
    sentence = f"{task_words(task)}, state {task.state} since {seconds(task.since_ns)}, "
    yield from wrapped(printable(sentence + wait_sentence(half, task)), "  ", "      ")
    yield from stack_lines(task.calls)


def _circle(half: ModelHalf) -> Iterator[str]:
    """The circle, or that there is none."""
    cycle = half.cycle
    if not cycle:
        hopeless = any(not task.behind for task in blocked(half))
        yield "No circle: nobody can bring about what they wait for." if hopeless else "No circle."
        return
    names = [task_words(task) for task in (*cycle, cycle[0])]
    yield f"The circle: {printable(' -> '.join(names))}"
