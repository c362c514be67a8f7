"""What a daemon needs, as text and as JSON."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ioflusher.model.explore import Verdict
from ioflusher.model.size import Measure, Sizing, TriedMeasures, realtime_part
from ioflusher.model.whole import SEEDS
from ioflusher.report.tables import print_table
from ioflusher.support.sizes import format_size
from ioflusher.support.text import counted, printable


def print_sizing(sizing: Sizing, console: Console) -> None:
    """Every combination, then what is enough, what is necessary, and the reserve."""
    table = Table(box=None, padding=(0, 2), show_edge=False, pad_edge=False)
    for heading in ("measures", "", "states"):
        table.add_column(heading, no_wrap=True)
    for tried in sizing.tried:
        exploration = tried.exploration
        table.add_row(
            Text(measures_text(tried.measures)),
            Text(tried_words(tried), style=_style(tried)),
            f"{exploration.states:,}",
        )
    print_table(table, console)
    console.print()
    for line in answer_lines(sizing):
        console.print(Text(line), soft_wrap=True)


def _style(tried: TriedMeasures) -> str:
    if tried.enough:
        return "green"
    return "bold red" if tried.known else "yellow"


def answer_lines(sizing: Sizing) -> list[str]:
    """The answer in sentences."""
    lines = []
    if sizing.sufficient:
        ways = " or ".join(measures_text(one) for one in sizing.sufficient)
        lines.append(f"Enough: {ways}.")
    else:
        lines.append("None of these is shown to be enough.")
    necessary = ", ".join(measures_text((one,)) for one in Measure if one in sizing.necessary)
    none = "none by itself" if sizing.known else "none is shown to be"
    lines.append(f"Necessary: {necessary or none}.")
    if sizing.reserve_bytes is None:
        lines.append("No reserve that was tried is shown to be enough with real-time scheduling alone.")
    else:
        least = sizing.reserve_bytes * realtime_part(sizing.version) >> 10
        lines.append(
            f"The reserve: {counted(sizing.reserve or 0, 'request')}, {format_size(sizing.reserve_bytes)} "
            "with the largest one; a real-time task may have that much where vm.min_free_kbytes is "
            f"{least:,} more."
        )
    if not sizing.known:
        lines.append(
            "Not everything was covered: what is not shown may be so or not; see --states, --memory."
        )
    unit = format_size(sizing.scale.unit_bytes)
    lines.append(
        f"Explored with requests and memory in units of {unit}: every order of steps of a small instance, "
        f"without time. Where no freeze is in that, none of {counted(SEEDS, 'run')} at full size may freeze."
    )
    return lines


def measures_text(measures: Iterable[Measure]) -> str:
    """Measures in words, in their order."""
    chosen = set(measures)
    return " + ".join(measure.value for measure in Measure if measure in chosen) or "nothing"


def tried_words(tried: TriedMeasures) -> str:
    """What was found of a combination, in a few words."""
    exploration, whole = tried.exploration, tried.whole
    if exploration.freeze is not None:
        return f"a freeze in {counted(len(exploration.freeze.way), 'step')}"
    if whole is not None and whole.frozen:
        runs = f"{len(whole.frozen)} of {counted(whole.seeds, 'run')}"
        return f"no freeze found in the small instance, but in {runs} at full size"
    if exploration.verdict is Verdict.NO_FREEZE:
        return "no freeze can be reached"
    return f"not covered: {exploration.stopped.value}"


def sizing_record(sizing: Sizing) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "scenario": sizing.scenario,
        "kernel": ".".join(map(str, sizing.version)),
        "unit_bytes": sizing.scale.unit_bytes,
        "covered": sizing.known,
        "sufficient": [_names(one) for one in sizing.sufficient],
        "necessary": _names(sizing.necessary),
        "reserve_requests": sizing.reserve,
        "reserve_bytes": sizing.reserve_bytes,
        "tried": [_tried(one) for one in sizing.tried],
    }


def _tried(tried: TriedMeasures) -> dict[str, Any]:
    exploration, whole = tried.exploration, tried.whole
    freeze = exploration.freeze
    return {
        "measures": _names(tried.measures),
        "enough": tried.enough,
        "verdict": exploration.verdict.value,
        "runs_at_full_size": whole and {"seeds": whole.seeds, "frozen": list(whole.frozen)},
        "states": exploration.states,
        "way": None
        if freeze is None
        else [
            {
                "task": exploration.system.programs[taken.task].name,
                "step": printable(taken.step.label),
                "calls": list(taken.step.calls),
            }
            for taken in freeze.way
        ],
    }


def _names(measures: Iterable[Measure]) -> list[str]:
    chosen = set(measures)
    return [measure.name.lower() for measure in Measure if measure in chosen]
