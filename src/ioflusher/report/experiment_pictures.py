"""The pictures of an experiment's report, one function each. Needs the extra `ioflusher[lab]`.

A further picture is a function from a Run to a matplotlib Figure and a row in PICTURES. The HTML report shows
all of them for every run, in the order of the table.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from ioflusher.lab.outcome import Half, HalfOutcome, Run, half_words
from ioflusher.report.figure import figure_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Shown = TypeVar("Shown")
# told apart by people who do not tell red from green, too
COLOURS = {False: "#c0392b", True: "#1f6fb2"}
NAMES = {False: "without", True: "with"}


def requests_and_memory(run: Run) -> "Figure":
    """Requests completed and memory free over time, both halves on the same axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.2), layout="constrained")
    requests, memory = figure.subplots(2, 1, sharex=True)
    for half in run.halves:
        _draw_half(half, requests, memory)
    requests.set_ylabel("requests completed")
    memory.set_ylabel("memory free, MiB")
    memory.set_xlabel("seconds since the workload began")
    for axes in (requests, memory):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if run.halves:  # matplotlib warns of a legend of nothing, on standard error
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def _draw_half(half: Half, requests: "Axes", memory: "Axes") -> None:
    times = [sample.time_s for sample in half.samples]
    colour = COLOURS[half.io_flusher]
    label = f"{NAMES[half.io_flusher]} the state: {half_words(half)}"
    requests.plot(times, [sample.completed for sample in half.samples], color=colour, label=label, lw=1.8)
    free = [sample.memory_kib.get("MemFree", math.nan) / 1024 for sample in half.samples]
    memory.plot(times, free, color=colour, lw=1.8)
    if half.outcome is HalfOutcome.FROZEN:
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


@dataclass(frozen=True, slots=True)
class Picture(Generic[Shown]):
    """A picture of a run, or of whatever `draw` takes.

    Attributes:
        name: a word for a file's name.
        caption: what it shows, for whoever does not see it, too.
        draw: makes it.
    """

    name: str
    caption: str
    draw: Callable[[Shown], "Figure"]


PICTURES = (
    Picture(
        "requests-and-memory",
        "Requests completed and memory free over time, without and with the state",
        requests_and_memory,
    ),
)


def svg(picture: Picture[Run], run: Run) -> str:
    """The picture as an SVG element, the same for the same run. Raises ImportError without matplotlib."""
    return figure_svg(picture.name, lambda: picture.draw(run))
