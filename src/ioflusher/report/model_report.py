"""A run of the model in a directory: the page that steps through its end, and its pictures."""

from collections.abc import Sequence
from pathlib import Path

from ioflusher.model.halves import ModelHalf, sampled
from ioflusher.report.experiment_html import unwritable_report
from ioflusher.report.figure import figure_svg
from ioflusher.report.model_page import render_page
from ioflusher.report.model_pictures import MODEL_PICTURES
from ioflusher.report.page import missing_package
from ioflusher.scenario.records import Scenario


def write_model_report(
    scenario: Scenario, version: tuple[int, int], halves: Sequence[ModelHalf], directory: Path
) -> Path:
    """Write SCENARIO-model.html, and each picture as SVG and PNG beside it; returns the page's path.

    Raises:
        IoflusherError: a package is missing, or a file cannot be written.
    """
    page = render_page(scenario, version, halves)
    noted = [sampled(scenario, half) for half in halves]
    path = directory / f"{scenario.name}-model.html"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(page, "utf-8", errors="backslashreplace")
        for picture in MODEL_PICTURES:
            figure = picture.draw(noted)
            file = directory / f"{scenario.name}-model-{picture.name}.svg"
            file.write_text(figure_svg(picture.name, lambda figure=figure: figure), "utf-8")  # type: ignore[misc]
            figure.savefig(file.with_suffix(".png"), dpi=120)
    except ImportError as error:
        raise missing_package(error) from error
    except OSError as error:
        raise unwritable_report(directory, error) from error
    return path
