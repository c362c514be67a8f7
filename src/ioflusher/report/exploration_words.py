"""What reports of an exploration say in the same words."""

from ioflusher.model.explore import Exploration, FreezeKind, Stands, Stopped, Taken, Verdict
from ioflusher.model.explore.halves import ExploredHalf
from ioflusher.model.transitions import TransitionSystem
from ioflusher.model.whole import WholeRuns
from ioflusher.report.model_words import as_expected
from ioflusher.scenario.records import Scenario
from ioflusher.support.sizes import format_size
from ioflusher.support.text import counted


def outcome(found: Exploration) -> str:
    """What is known, without its subject."""
    if found.freeze is not None:
        kind = "a deadlock" if found.freeze.kind is FreezeKind.DEADLOCK else "a livelock"
        return f"A FREEZE IS REACHABLE, {kind}, in {counted(len(found.freeze.way), 'step')}"
    if found.verdict is Verdict.NO_FREEZE:
        return str(found.verdict.value)
    why = f"; {found.stopped.value}" if found.stopped is not Stopped.COVERED else ""
    return f"NOT COVERED: no freeze was found in what was followed, which is not everything{why}"


def whole_words(found: Exploration, whole: WholeRuns) -> str:
    """What runs at full size say to an exploration of a small instance."""
    size = f"the instance is small; of {counted(whole.seeds, 'run')} at full size"
    if not whole.frozen:
        return f"{size} none freezes"
    if len(whole.frozen) == whole.seeds:
        frozen = "all freeze"
    else:
        frozen = f"{len(whole.frozen)} freeze (seed {whole.frozen[0]})"
    if found.freeze is None:
        covered = found.stopped is Stopped.COVERED
        why = "that takes more than the instance has" if covered else "what was not followed may have it"
        return f"{size} {frozen.upper()}: {why}"
    return f"{size} {frozen}, too"


def effort(found: Exploration) -> str:
    """States, transitions, depth, time and memory."""
    return (
        f"{found.states:,} states, {found.transitions:,} transitions, depth {found.depth}, "
        f"{found.seconds:.1f} s ({found.states_per_second:,.0f} states a second on "
        f"{counted(found.threads, 'thread')}), {format_size(found.bytes)} "
        f"({found.bytes_per_state:.0f} bytes a state)"
    )


def instance(half: ExploredHalf) -> str:
    """How large it was."""
    scale = half.scale
    parts = [f"a unit of memory is {format_size(scale.unit_bytes)}"]
    if scale.work_units:
        parts.append(f"{counted(scale.work_units, 'unit')} of work")
    if scale.queue_depth:
        parts.append(f"queue depth {scale.queue_depth}")
    return ", ".join(parts)


def verdict(
    scenario: Scenario, version: tuple[int, int], halves: tuple[ExploredHalf, ...]
) -> tuple[bool, str]:
    """Whether all came out as the scenario has it of this kernel, and a sentence that says so."""
    good, expected = as_expected(scenario, version, halves)
    kernel = ".".join(map(str, version))
    if good:
        return True, f"That agrees with what the scenario expects of Linux {kernel}: {expected}"
    return False, f"The scenario expects of Linux {kernel}: {expected}"


def told(way: tuple[Taken, ...]) -> list[tuple[int, Taken]]:
    """The steps of a way that say something, each with its number from 1."""
    return [(number, taken) for number, taken in enumerate(way, 1) if taken.step.label]


def changes(system: TransitionSystem, taken: Taken) -> dict[str, int]:
    """What a step changed, and the values after it."""
    values = dict(zip((variable.name for variable in system.variables), taken.values, strict=True))
    return {variable.name: values[variable.name] for variable, _ in taken.step.changes}


STANDS = {
    Stands.RESTS: "has nothing to do",
    Stands.WAITS: "waits",
    Stands.GOES_ROUND: "goes round for ever",
}
