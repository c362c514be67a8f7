"""A matrix on a terminal, and the words that all its reports share."""

from collections.abc import Iterable
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ioflusher.lab.matrix.judgement import Answer, ContextJudgement, Shown, set_words
from ioflusher.lab.matrix.prepare import PreparedCell
from ioflusher.lab.matrix.result import CellResult, Contrast, MatrixResult
from ioflusher.lab.matrix.tally import HalfTally, NearMissTally, Rate, Spread
from ioflusher.report.tables import print_table, table_width
from ioflusher.support.text import counted, printable

_STYLES = {
    Contrast.CONTRAST: "bold green",
    Contrast.AT_TIMES: "bold yellow",
    Contrast.FROZEN_TOO: "bold red",
    Contrast.OTHERWISE: "bold yellow",
}
_ANSWER_STYLES = {Answer.YES: "bold green", Answer.NO: "", Answer.NOT_SHOWN: "bold yellow"}
NEAR_MISS_HEADINGS = (
    "cell",
    "half",
    "reclaim with I/O, entries",
    "paused for dirty pages, s",
    "asleep in reclaim, s",
    "slowest request, s",
)
LONGEST_LABEL = 36
MISFITS = "combinations that do not fit a scenario"
LEGEND = "how often, and where the probability lies with 95 % confidence; after seconds: least, median, most"


def print_matrix(result: MatrixResult, console: Console) -> None:
    """Print the cells, what they show of hardenings, and what is not measured."""
    measured = [cell for cell in result.cells if cell.kept_as]
    if measured:
        _print_cells(result, measured, console)
        console.print(Text(LEGEND), soft_wrap=True)
    if result.plan.hardening and measured:
        for judgement in result.judgements:
            if judgement.verdicts:
                console.print(Text(f"\n{printable(judgement.name)}", style="bold"), soft_wrap=True)
                print_table(_judgement(judgement), console)
                console.print(Text(enough_sentence(judgement)), soft_wrap=True)
    rows = near_miss_rows_of(result)
    if rows:
        console.print(Text("\nhow near the halves that lived came to freezing:", style="bold"))
        table = Table(*NEAR_MISS_HEADINGS, box=None, padding=(0, 2), show_edge=False, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        print_table(table, console)
    if misfits := misfit_lines(result):
        console.print(Text(f"\n{MISFITS}:", style="bold"))
        for line in misfits:
            console.print(Text(f"  {line}"), soft_wrap=True)
    if result.missing:
        console.print(
            Text(f"\n{counted(len(result.missing), 'cell')} not measured to the end:", style="bold")
        )
        for cell in result.missing:
            console.print(Text(f"  {missing_line(cell)}"), soft_wrap=True)
    console.print(Text(f"\n{summary(result)}", style="bold"))


def axis_columns(result: MatrixResult) -> tuple[str, ...]:
    """The axes as a table's columns: a scenario's name, then the axes."""
    return ("scenario", *(axis.name for axis in result.plan.axes))


def axis_labels(cell: CellResult) -> tuple[str, ...]:
    """What stands in these columns for a cell; long labels are cut."""
    labels = (cell.prepared.cell.scenario_name, *(label for _, label in cell.prepared.cell.coordinates))
    return tuple(
        printable(label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 3] + "...")
        for label in labels
    )


def varying_axes(result: MatrixResult) -> tuple[str, ...]:
    """The columns of `axis_columns` in which the measured cells differ."""
    rows = [axis_labels(cell) for cell in result.cells if cell.kept_as]
    return tuple(
        name
        for name, labels in zip(axis_columns(result), zip(*rows, strict=True), strict=True)
        if len(set(labels)) > 1
    )


def played_on(result: MatrixResult) -> str:
    """Kernels and accelerators of the cells that were measured, and how intervals are made."""
    plans = [cell.prepared.trial.plan for cell in result.cells if cell.kept_as and cell.prepared.trial]
    kernels = ", ".join(dict.fromkeys(plan.kernel for plan in plans)) or "none yet"
    how = " and ".join(dict.fromkeys(plan.accelerator for plan in plans))
    return f"Kernels: {kernels}{f'; {how}' if how else ''}. Intervals: 95 % confidence (Clopper and Pearson)."


def near_miss_rows_of(result: MatrixResult) -> list[tuple[str, ...]]:
    """Rows for `NEAR_MISS_HEADINGS`: what is known of the halves that lived."""
    rows = []
    for cell in result.cells:
        for half in (cell.tally.without, cell.tally.with_):
            found = half.near_misses
            if found is not None:
                rows.append((printable(cell.prepared.cell.name), *_near_miss_words(half.io_flusher, found)))
    return rows


def _near_miss_words(io_flusher: bool, found: NearMissTally) -> tuple[str, ...]:
    more = "at least " if found.lower_bounds else ""
    return (
        f"{'with' if io_flusher else 'without'}, {counted(found.halves, 'half', 'halves')}",
        more + _spread_words(found.reclaim_with_io, "{:.0f}"),
        more + _spread_words(found.dirty_paused_s, "{:.1f}"),
        more + _spread_words(found.throttled_s, "{:.1f}"),
        more + _spread_words(found.slowest_request_s, "{:.2f}"),
    )


def _spread_words(spread: Spread | None, form: str) -> str:
    if spread is None:
        return "unknown"
    least, most = form.format(spread.least), form.format(spread.most)
    return least if least == most else f"{least} to {most}"


def half_fates(half: HalfTally) -> tuple[tuple[str, Rate], ...]:
    """What became of a cell's half, only what was seen: "frozen", "lived" and others, with their rates."""
    found = [(word, rate) for word, rate in (("frozen", half.frozen), ("lived", half.lived)) if rate.count]
    found += [(words, Rate(count, len(half.halves))) for words, count in half.other_words]
    return tuple(found)


def rate_words(rate: Rate) -> str:
    """A rate with its interval: "3 of 3 (29-100 %)"."""
    interval = rate.interval
    if interval is None:
        return "-"
    return f"{rate.count} of {rate.of} ({100 * interval[0]:.0f}-{100 * interval[1]:.0f} %)"


def half_words_of_cell(half: HalfTally) -> str:
    """A cell's half in words: "frozen 3 of 3 (29-100 %)"."""
    return ", ".join(f"{word} {rate_words(rate)}" for word, rate in half_fates(half)) or "-"


def after_words(half: HalfTally) -> str:
    """When it froze or had finished: the least, the median and the most of seconds; "-" for neither."""
    times = half.froze_after_s or half.lived_after_s
    if not times:
        return "-"
    if len(times) == 1:
        return f"{times[0]:.1f}"
    return f"{times[0]:.1f}, {median(times):.1f}, {times[-1]:.1f}"


def misfit_lines(result: MatrixResult) -> list[str]:
    """The combinations that are no scenario, and why."""
    return trouble_lines(cell.prepared for cell in result.cells if not cell.prepared.fits)


def trouble_lines(cells: Iterable[PreparedCell]) -> list[str]:
    """A line for all cells of a scenario that have the same trouble, with what they have in common."""
    groups: dict[tuple[str, str], list[PreparedCell]] = {}
    for one in cells:
        groups.setdefault((one.cell.scenario_name, one.trouble), []).append(one)
    lines = []
    for (scenario, trouble), alike in groups.items():
        common = [
            f"{axis} {label}"
            for axis, label in alike[0].cell.coordinates
            if all(one.cell.label(axis) == label for one in alike)
        ]
        number = f" ({len(alike)} combinations)" if len(alike) > 1 else ""
        lines.append(printable(f"{', '.join((scenario, *common))}{number}: {trouble}"))
    return lines


def missing_line(cell: CellResult) -> str:
    """A cell that lacks halves: how many there are, and why no more where that is known."""
    without, with_ = len(cell.tally.without.halves), len(cell.tally.with_.halves)
    why = f": {cell.trouble}" if cell.trouble else ""
    return printable(f"{cell.prepared.cell.name}: {without} without, {with_} with the state measured{why}")


def summary(result: MatrixResult) -> str:
    """The whole in one line, no stronger than what was seen."""
    cells = [cell for cell in result.cells if cell.kept_as]
    if not cells:
        return "Nothing is measured yet."
    played = {cell.prepared.trial.key: cell.tally for cell in cells if cell.prepared.trial}
    halves = sum(len(tally.half(one).halves) for tally in played.values() for one in (False, True))
    kinds = [cell.contrast for cell in cells]
    words = ", ".join(f"{kinds.count(kind)} {kind.value}" for kind in Contrast if kind in kinds)
    return f"{counted(len(cells), 'cell')}, {counted(halves, 'half', 'halves')}: {words}"


def _print_cells(result: MatrixResult, cells: list[CellResult], console: Console) -> None:
    """A line for each cell; three on a terminal that is too narrow for that."""
    table = _cells(result, cells)
    if not console.is_terminal or table_width(table, console) <= console.width:
        print_table(table, console)
        return
    for cell in cells:
        console.print(
            Text.assemble((printable(cell.prepared.cell.name), "bold"), ": ", _shows(cell)), soft_wrap=True
        )
        for name, half in (("without", cell.tally.without), ("with", cell.tally.with_)):
            after = f" after {after_words(half)} s" if half.froze_after_s or half.lived_after_s else ""
            console.print(Text(f"  {name:7}  {half_words_of_cell(half)}{after}"), soft_wrap=True)


def _shows(cell: CellResult) -> Text:
    return Text(cell.contrast.value, style=_STYLES.get(cell.contrast, ""))


def _cells(result: MatrixResult, cells: list[CellResult]) -> Table:
    table = Table(box=None, padding=(0, 2), show_edge=False, pad_edge=False)
    for heading in (*axis_columns(result), "without", "after, s", "with", "after, s", "shows"):
        table.add_column(heading, no_wrap=True)
    for cell in cells:
        shows = _shows(cell)
        without, with_ = cell.tally.without, cell.tally.with_
        table.add_row(
            *axis_labels(cell),
            half_words_of_cell(without),
            after_words(without),
            half_words_of_cell(with_),
            after_words(with_),
            shows,
        )
    return table


def _judgement(judgement: ContextJudgement) -> Table:
    table = Table(box=None, padding=(0, 2), show_edge=False, pad_edge=False)
    for heading in ("hardening", "sufficient", "necessary"):
        table.add_column(heading, overflow="fold")
    for verdict in judgement.verdicts:
        table.add_row(printable(verdict.hardening), _shown(verdict.sufficient), _shown(verdict.necessary))
    return table


def _shown(shown: Shown) -> Text:
    return Text.assemble((shown.answer.value, _ANSWER_STYLES[shown.answer]), f": {printable(shown.why)}")


def enough_sentence(judgement: ContextJudgement) -> str:
    """With which hardenings it lived, as a sentence."""
    if not judgement.enough:
        return "it lived with none of the measured sets of hardenings"
    return "it lived with " + "; with ".join(printable(set_words(names)) for names in judgement.enough)
