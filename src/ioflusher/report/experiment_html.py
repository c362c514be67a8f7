"""An experiment as one HTML file: the story, a picture, the evidence. Needs the extra `ioflusher[lab]`."""

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ioflusher.errors import IoflusherError
from ioflusher.lab.outcome import Experiment, Half, Outcome, Run
from ioflusher.report.experiment_text import half_sentence
from ioflusher.support.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# told apart by people who do not tell red from green, too
COLOURS = {False: "#c0392b", True: "#1f6fb2"}
NAMES = {False: "without", True: "with"}


def render_html(experiment: Experiment) -> str:
    """The report's text; everything in it is escaped, nothing is loaded from elsewhere."""
    try:
        import jinja2
    except ImportError as error:
        raise _missing(error) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ioflusher.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["printable"] = printable
    pictures = [draw_run(run) for run in experiment.runs]
    return environment.get_template("experiment.html.j2").render(
        experiment=experiment, pictures=pictures, sentence=half_sentence, names=NAMES
    )


def write_report(experiment: Experiment, directory: Path) -> Path:
    """Write SCENARIO.html and the first run's picture SCENARIO.svg; returns the page's path."""
    page = render_html(experiment)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{experiment.scenario}.html"
        path.write_text(page)
        (directory / f"{experiment.scenario}.svg").write_text(draw_run(experiment.runs[0]))
    except OSError as error:
        raise IoflusherError(
            f"the report cannot be written to {directory}: {error.strerror}",
            errno=error.errno,
            hint="choose another place with --report DIR",
        ) from error
    return path


def draw_run(run: Run) -> str:
    """Requests completed and memory free over time, both halves on the same axes, as an SVG element."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise _missing(error) from error
    halves = [half for half in (run.without, run.with_) if half is not None]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ioflusher", "font.size": 10}):
        figure = Figure(figsize=(8, 5.2), layout="constrained")
        requests, memory = figure.subplots(2, 1, sharex=True)
        for half in halves:
            _draw_half(half, requests, memory)
        requests.set_ylabel("requests completed")
        memory.set_ylabel("memory free, MiB")
        memory.set_xlabel("seconds since the workload began")
        for axes in (requests, memory):
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _draw_half(half: Half, requests: "Axes", memory: "Axes") -> None:
    times = [sample.time_s for sample in half.samples]
    colour = COLOURS[half.io_flusher]
    label = f"{NAMES[half.io_flusher]} the state: {half.outcome.value}"
    requests.plot(times, [sample.completed for sample in half.samples], color=colour, label=label, lw=1.8)
    free = [sample.memory_kib.get("MemFree", math.nan) / 1024 for sample in half.samples]
    memory.plot(times, free, color=colour, lw=1.8)
    if half.outcome is Outcome.FROZEN:
        for axes in (requests, memory):
            axes.axvline(half.when_s, color=colour, ls=":", lw=1.2)
        # at the top, where neither curve is at that time
        requests.annotate(
            "frozen from here on",
            (half.when_s, 1),
            xycoords=requests.get_xaxis_transform(),
            xytext=(6, -12),
            textcoords="offset points",
            color=colour,
        )


def _missing(error: ImportError) -> IoflusherError:
    return IoflusherError(
        f"reports need a package that is not installed: {error.name}",
        hint="pip install 'ioflusher[lab]'",
    )
