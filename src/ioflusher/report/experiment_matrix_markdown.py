"""A matrix as Markdown, for documents such as docs/benchmarks.md: the command, the kernels, the tables."""

from collections.abc import Iterable

from ioflusher.lab.matrix.result import MatrixResult
from ioflusher.report.experiment_matrix_text import (
    MISFITS,
    NEAR_MISS_HEADINGS,
    after_words,
    axis_columns,
    axis_labels,
    enough_sentence,
    half_words_of_cell,
    misfit_lines,
    missing_line,
    near_miss_rows_of,
    played_on,
    summary,
)


def matrix_markdown(result: MatrixResult, *, command: str) -> str:
    """The matrix as a section's text; `command` plays it again."""
    parts = [f"`{command}`: {summary(result)}. {played_on(result)}", _cells(result)]
    if result.plan.hardening:
        parts += _judgements(result)
    if rows := near_miss_rows_of(result):
        parts += ["How near the halves that lived came to freezing:", _table(NEAR_MISS_HEADINGS, rows)]
    if misfits := misfit_lines(result):
        parts.append(_list(MISFITS, misfits))
    if result.missing:
        parts.append(_list("Not measured to the end", map(missing_line, result.missing)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(result: MatrixResult) -> str:
    rows = [
        (
            *axis_labels(cell),
            half_words_of_cell(cell.tally.without),
            after_words(cell.tally.without),
            half_words_of_cell(cell.tally.with_),
            after_words(cell.tally.with_),
            cell.contrast.value,
        )
        for cell in result.cells
        if cell.kept_as
    ]
    heading = (
        *axis_columns(result),
        "without",
        "after, s (min, median, max)",
        "with",
        "after, s (min, median, max)",
        "shows",
    )
    return _table(heading, rows) if rows else ""


def _judgements(result: MatrixResult) -> list[str]:
    rows = [
        (
            judgement.name,
            verdict.hardening,
            f"{verdict.sufficient.answer.value}: {verdict.sufficient.why}",
            f"{verdict.necessary.answer.value}: {verdict.necessary.why}",
        )
        for judgement in result.judgements
        for verdict in judgement.verdicts
    ]
    if not rows:
        return []
    enough = (f"{one.name}: {enough_sentence(one)}" for one in result.judgements if one.verdicts)
    return [_table(("where", "hardening", "sufficient", "necessary"), rows), _list("", enough)]


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [_row(heading), _row("---" for _ in heading), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _list(heading: str, lines: Iterable[str]) -> str:
    items = "\n".join(f"- {line}" for line in lines)
    return f"{heading}:\n\n{items}" if heading else items
