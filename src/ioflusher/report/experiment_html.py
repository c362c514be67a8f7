"""An experiment as one HTML file: the story, pictures, the evidence. Needs the extra `ioflusher[lab]`.

What a picture shows is in experiment_pictures.py, how the page looks in templates/experiment.html.j2.
"""

import contextlib
import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ioflusher.errors import IoflusherError
from ioflusher.lab.outcome import Ending, Experiment, Run, half_words
from ioflusher.report.experiment_near_misses import near_miss_rows
from ioflusher.report.experiment_pictures import NAMES, PICTURES, Picture, svg
from ioflusher.report.experiment_text import (
    ending_sentence,
    fault_words,
    file_system_words,
    guest_memory_words,
    half_sentence,
    played_sentence,
)
from ioflusher.report.page import missing_package, render_template


@dataclass(frozen=True, slots=True)
class _Section:
    """One run as the page shows it: a heading, the run, and its pictures with their SVG elements."""

    heading: str
    run: Run
    pictures: tuple[tuple[Picture[Run], str], ...]


def check_report(directory: Path) -> None:
    """Prove, before there is anything to report, that a report can be made and written to the directory.

    Raises:
        IoflusherError: a package is missing, or no file can be made there; nothing is left behind.
    """
    for package in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise missing_package(ImportError(f"No module named '{package}'", name=package))
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise unwritable_report(directory, error) from error
    finally:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def warm_up() -> None:
    """Load what draws pictures and draw one, which takes a second; an error shows when there is a report."""
    with contextlib.suppress(Exception):
        import jinja2  # noqa: F401

        svg(PICTURES[0], Run(None, None))


def write_report(experiment: Experiment, directory: Path) -> Path:
    """Write SCENARIO.html and the first run's pictures as SVG files beside it; returns the page's path.

    Raises:
        IoflusherError: a package is missing, or a file cannot be written.
    """
    sections = _sections(experiment)
    page = _render(experiment, sections)
    name = experiment.plan.scenario
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{name}.html"
        path.write_text(page, "utf-8", errors="backslashreplace")
        for picture, text in sections[0].pictures if sections else ():
            # the first one had no name of its own before there were others
            file = f"{name}.svg" if picture is PICTURES[0] else f"{name}-{picture.name}.svg"
            (directory / file).write_text(text, "utf-8", errors="backslashreplace")
    except OSError as error:
        raise unwritable_report(directory, error) from error
    return path


def render_html(experiment: Experiment) -> str:
    """The report's text; everything in it is escaped, nothing is loaded from elsewhere."""
    return _render(experiment, _sections(experiment))


def _sections(experiment: Experiment) -> list[_Section]:
    """Every run with its pictures, each drawn once."""
    headed = [
        (f"Run {number} of {experiment.plan.runs}", run)
        for number, run in enumerate(experiment.runs, start=1)
    ]
    if experiment.unfinished:
        headed.append(("A run that did not come to its end", experiment.unfinished))
    try:
        return [
            _Section(heading, run, tuple((picture, svg(picture, run)) for picture in PICTURES))
            for heading, run in headed
        ]
    except ImportError as error:
        raise missing_package(error) from error


def _render(experiment: Experiment, sections: list[_Section]) -> str:
    return render_template(
        "experiment.html.j2",
        experiment=experiment,
        plan=experiment.plan,
        ending=None if experiment.ending is Ending.COMPLETE else ending_sentence(experiment),
        sections=sections,
        sentence=half_sentence,
        words=half_words,
        fault_words=fault_words,
        played=played_sentence,
        near_misses=near_miss_rows,
        file_system=file_system_words,
        guest_memory=guest_memory_words,
        names=NAMES,
    )


def unwritable_report(directory: Path, error: OSError) -> IoflusherError:
    """What is said where a report's files cannot be made."""
    return IoflusherError(
        f"the report cannot be written to {directory}: {error.strerror}",
        errno=error.errno,
        hint="choose another place with --report DIR",
    )
