"""A matrix as one HTML file with its pictures. Needs the extra `ioflusher[lab]`.

What a picture shows is in experiment_matrix_pictures.py, how the page looks in templates/matrix.html.j2.
"""

from pathlib import Path

from ioflusher.lab.matrix.result import MatrixResult
from ioflusher.report.experiment_html import unwritable_report
from ioflusher.report.experiment_matrix_pictures import MATRIX_PICTURES
from ioflusher.report.experiment_matrix_text import (
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
from ioflusher.report.experiment_pictures import Picture
from ioflusher.report.figure import figure_svg
from ioflusher.report.page import missing_package, render_template


def write_matrix_report(result: MatrixResult, directory: Path, *, command: str) -> Path:
    """Write PLAN.html and its pictures as SVG files beside it; returns the page's path.

    Raises:
        IoflusherError: a package is missing, or a file cannot be written.
    """
    pictures = _pictures(result)
    page = _render(result, pictures, command)
    name = f"matrix-{result.plan.name}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{name}.html"
        path.write_text(page, "utf-8", errors="backslashreplace")
        for picture, text in pictures:
            (directory / f"{name}-{picture.name}.svg").write_text(text, "utf-8", errors="backslashreplace")
    except OSError as error:
        raise unwritable_report(directory, error) from error
    return path


def render_matrix_html(result: MatrixResult, *, command: str) -> str:
    """The report's text; everything in it is escaped, nothing is loaded from elsewhere."""
    return _render(result, _pictures(result), command)


def _pictures(result: MatrixResult) -> list[tuple[Picture[MatrixResult], str]]:
    """The pictures, where there is anything to see."""
    if not any(cell.kept_as for cell in result.cells):
        return []
    try:
        return [
            (picture, figure_svg(f"matrix {picture.name}", lambda draw=picture.draw: draw(result)))  # type: ignore[misc]
            for picture in MATRIX_PICTURES
        ]
    except ImportError as error:
        raise missing_package(error) from error


def _render(result: MatrixResult, pictures: list[tuple[Picture[MatrixResult], str]], command: str) -> str:
    return render_template(
        "matrix.html.j2",
        plan=result.plan,
        command=command,
        summary=summary(result),
        played_on=played_on(result),
        columns=axis_columns(result),
        cells=[cell for cell in result.cells if cell.kept_as],
        labels=axis_labels,
        half=half_words_of_cell,
        after=after_words,
        judgements=[one for one in result.judgements if one.verdicts],
        enough=enough_sentence,
        near_miss_headings=NEAR_MISS_HEADINGS,
        near_misses=near_miss_rows_of(result),
        misfits=misfit_lines(result),
        missing=[missing_line(cell) for cell in result.missing],
        pictures=pictures,
    )
