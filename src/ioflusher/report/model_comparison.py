"""Prediction beside observation: as a table, and as JSON."""

from collections.abc import Iterable
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ioflusher.comparison.compare import Agreement, ComparedHalf, Comparison
from ioflusher.comparison.summary import FigureSpread, HalfSummary
from ioflusher.report.tables import print_table
from ioflusher.support.text import counted, printable

_STYLES = {
    Agreement.ALIKE: "green",
    Agreement.PARTLY: "yellow",
    Agreement.DIFFERENT: "bold red",
    Agreement.UNKNOWN: "",
}


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Both halves: what real kernels did, what the model says, and how the two go together."""
    title = f"{printable(comparison.scenario)} on Linux {comparison.kernel}"
    console.print(Text(title, style="bold"), soft_wrap=True)
    table = Table(box=None, padding=(0, 2), show_edge=False, pad_edge=False)
    for heading in ("", "real kernels", "the model", ""):
        table.add_column(heading, no_wrap=True)
    for half in comparison.halves:
        _add(table, half)
    print_table(table, console)


def _add(table: Table, half: ComparedHalf) -> None:
    seen, said = half.observed, half.predicted
    name = "with" if half.io_flusher else "without"
    table.add_row(
        Text(f"{name} the state", style="bold"), counted(seen.runs, "run"), counted(said.runs, "run"), ""
    )
    table.add_row("  came out", _counts(seen.outcomes), _counts(said.outcomes), _word(half.outcome))
    if seen.waits or said.waits:
        table.add_row("  the daemon waits", _counts(seen.waits), _counts(said.waits), _word(half.waits))
    for label, one, other in (
        ("  froze after", seen.frozen_after_s, said.frozen_after_s),
        ("  longest request", seen.longest_request_s, said.longest_request_s),
    ):
        if one is not None or other is not None:
            table.add_row(label, _spread(one), _spread(other), "")


def _counts(counts: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{printable(name)} {number}" for name, number in counts) or "-"


def _spread(spread: FigureSpread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.median:.3g} s ({spread.lowest:.3g} to {spread.highest:.3g})"


def _word(agreement: Agreement) -> Text:
    word = "" if agreement is Agreement.UNKNOWN else agreement.value
    return Text(word, style=_STYLES[agreement])


def comparison_markdown(comparisons: Iterable[Comparison]) -> str:
    """A row for each scenario: what came out on real kernels and in the model, and where the daemon waits."""
    heads = (
        "scenario",
        "Linux",
        "without: real",
        "the model",
        "the daemon waits",
        "with: real",
        "the model",
        "",
    )
    rows = [heads, ("---",) * len(heads)]
    for one in comparisons:
        without, with_ = one.halves
        differs = [half.outcome.value for half in one.halves if half.outcome is not Agreement.ALIKE]
        waits = _counts(without.observed.waits)
        if without.waits is not Agreement.ALIKE:
            waits = f"{waits}; the model: {_counts(without.predicted.waits)}"
        cells = (
            *(_counts(each) for each in (without.observed.outcomes, without.predicted.outcomes)),
            waits,
            *(_counts(each) for each in (with_.observed.outcomes, with_.predicted.outcomes)),
        )
        rows.append((f"`{one.scenario}`", one.kernel, *cells, ", ".join(differs) or "alike"))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Everything, for programs; times in seconds, those of the model in virtual ones."""
    return {
        "scenario": comparison.scenario,
        "kernel": comparison.kernel,
        "alike": comparison.alike,
        "halves": [
            {
                "io_flusher": half.io_flusher,
                "outcome": half.outcome.value,
                "waits": half.waits.value,
                "observed": _summary(half.observed),
                "predicted": _summary(half.predicted),
            }
            for half in comparison.halves
        ],
    }


def _summary(summary: HalfSummary) -> dict[str, Any]:
    return {
        "runs": summary.runs,
        "outcomes": dict(summary.outcomes),
        "daemon_waits": dict(summary.waits),
        "frozen_after_s": msgspec.to_builtins(summary.frozen_after_s),
        "longest_request_s": msgspec.to_builtins(summary.longest_request_s),
    }
