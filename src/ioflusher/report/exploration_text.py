"""An exploration for people to read on a terminal."""

from collections.abc import Iterator

from ioflusher.model.explore import Freeze, Standing, Stands
from ioflusher.model.explore.halves import ExploredHalf
from ioflusher.model.transitions import Program, TransitionSystem
from ioflusher.report.exploration_words import STANDS, effort, instance, outcome, told, verdict, whole_words
from ioflusher.report.wrapping import stack_lines, wrapped
from ioflusher.scenario.records import Scenario
from ioflusher.support.text import printable


def render_exploration(
    scenario: Scenario, version: tuple[int, int], halves: tuple[ExploredHalf, ...]
) -> Iterator[str]:
    """Lines for the terminal, safe to print."""
    kernel = ".".join(map(str, version))
    yield f"{scenario.name}: {printable(scenario.title)}"
    yield f"every order of steps in the model of Linux {kernel}: {instance(halves[0])}"
    yield ""
    width = max(len(half.name) for half in halves)
    for half in halves:
        yield f"{half.name:{width}} the state: {outcome(half.exploration)}"
        yield from wrapped(whole_words(half.exploration, half.whole), "    ", "    ")
        yield from wrapped(effort(half.exploration), "    ", "    ")
    yield ""
    yield from wrapped(printable(verdict(scenario, version, halves)[1]) + ".")
    for half in halves:
        if half.exploration.freeze is not None:
            yield from _freeze(half, half.exploration.freeze)


def _freeze(half: ExploredHalf, freeze: Freeze) -> Iterator[str]:
    system = half.exploration.system
    yield ""
    yield f"The way to a freeze {half.name} the state{', the shortest' if freeze.shortest else ''}:"
    names = [f"{program.name} ({program.pid})" for program in system.programs]
    width = max(len(name) for name in names)
    doomed = freeze.doomed_after
    shown = doomed is None  # whether the line was drawn behind which it is too late
    if doomed == 0:
        yield "  -- from the beginning nothing can avoid it"
        shown = True
    for number, taken in told(freeze.way):
        if doomed is not None and not shown and number > doomed:
            yield "  -- from here on nothing can avoid it"
            shown = True
        yield f"  {number:4}  {printable(names[taken.task]):{width}}  {printable(taken.step.label)}"
    if freeze.round:
        yield "  -- and then for ever:"
        for number, taken in told(freeze.round):
            yield f"  {number:4}  {printable(names[taken.task]):{width}}  {printable(taken.step.label)}"
    yield ""
    yield f"In the end, {half.name} the state:"
    for program, standing in freeze.named(system):
        if not program.hardware and standing.how is not Stands.RESTS:
            yield from _task(program, standing)
    yield ""
    yield from wrapped(_memory(system, freeze))


def _task(program: Program, standing: Standing) -> Iterator[str]:
    words = STANDS[standing.how]
    if standing.waits_for:
        words += f" for {' or '.join(standing.waits_for)}, state {'S' if standing.interruptible else 'D'}"
    yield from wrapped(printable(f"{program.name} ({program.pid}) {words}"), "  ", "      ")
    yield from stack_lines(standing.calls)


def _memory(system: TransitionSystem, freeze: Freeze) -> str:
    last = freeze.way[-1].values if freeze.way else tuple(variable.initial for variable in system.variables)
    rows = [
        f"{value} {variable.what}"
        for variable, value in zip(system.variables, last, strict=True)
        if variable.unit == "memory" and value
    ]
    return f"Memory, in units: {', '.join(rows)}."
