"""The pictures of a run of the model: memory and queues over time. Needs the extra `ioflusher[lab]`.

A further picture is a function from halves to a matplotlib Figure and a row in MODEL_PICTURES.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ioflusher.model.halves import ModelHalf
from ioflusher.report.experiment_pictures import COLOURS, Picture
from ioflusher.report.model_words import MIB, half_outcome, value_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# free memory lies on top, in the lightest one
_FREE = "#dce9f4"
_KINDS = ("#5a9fd4", "#8f7cc3", "#e0a100", "#d9602b", "#5aa469", "#b5577f", "#7d8894", "#3b6e8f")
_STYLES = ("-", "--", ":", "-.")


def memory_and_queues(halves: Sequence[ModelHalf]) -> "Figure":
    """A row for each half: memory by kind, what has watermarks or limits against those, requests in flight.

    Halves have the same axes. A half that froze stays as it is to the end of the other one.

    Args:
        halves: each with samples.
    """
    from matplotlib.figure import Figure

    subjects = list(dict.fromkeys(level.what for half in halves for level in half.system.levels))
    columns = 2 + len(subjects)
    figure = Figure(figsize=(4.2 * columns, 3.1 * len(halves) + 0.6), layout="constrained")
    grid = figure.subplots(len(halves), columns, sharex=True, sharey="col", squeeze=False)
    end_s = max(half.result.at_ns for half in halves) / 1e9
    for row, half in zip(grid, halves, strict=True):
        seconds, samples = _course(half, end_s)
        _draw_memory(row[0], half, seconds, samples)
        for axes, subject in zip(row[1:], subjects, strict=False):
            _draw_levels(axes, half, subject, seconds, samples)
        _draw_in_flight(row[-1], half, seconds, samples)
        row[0].set_title(
            f"{half.name} the state: {half_outcome(half)}", loc="left", color=COLOURS[half.io_flusher]
        )
        row[0].title.set_in_layout(False)  # it is wider than its column
        for axes in row:
            axes.set_xlim(0, end_s)
            axes.spines[["top", "right"]].set_visible(False)
            if half.frozen:
                axes.axvspan(half.result.at_ns / 1e9, end_s, color="#c0392b", alpha=0.08, lw=0, zorder=0)
    for axes in grid[-1]:  # what holds for one of a column holds for all of it
        axes.set_xlabel("seconds of virtual time")
        axes.set_ylim(bottom=0)
    for axes, subject in zip(grid[-1][1:], subjects, strict=False):
        _near_the_marks(axes, halves, subject)
    return figure


def _course(half: ModelHalf, end_s: float) -> tuple[list[float], list[dict[str, int]]]:
    """The times of the samples and the variables then, the end of the run included."""
    names = [variable.name for variable in half.system.variables]
    seconds = [when / 1e9 for when, _ in half.result.samples]
    samples = [dict(zip(names, values, strict=True)) for _, values in half.result.samples]
    seconds.append(half.result.at_ns / 1e9)
    samples.append(half.result.values)
    if half.frozen:
        seconds.append(end_s)
        samples.append(half.result.values)
    return seconds, samples


def _draw_memory(axes: "Axes", half: ModelHalf, seconds: list[float], samples: list[dict[str, int]]) -> None:
    """Memory by kind, stacked; what there never is any of is left out."""
    unit = half.system.unit_bytes / MIB
    kinds = [variable for variable in half.system.variables if variable.unit == "memory"]
    kinds = [kind for kind in kinds if any(sample[kind.name] for sample in samples)]
    kinds.sort(key=lambda kind: kind.name == "free")
    axes.stackplot(
        seconds,
        *([sample[kind.name] * unit for sample in samples] for kind in kinds),
        labels=[kind.what for kind in kinds],
        colors=[
            _FREE if kind.name == "free" else _KINDS[number % len(_KINDS)]
            for number, kind in enumerate(kinds)
        ],
    )
    axes.set_ylabel("memory, MiB")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1], labels[::-1], fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False
    )


def _draw_levels(
    axes: "Axes", half: ModelHalf, subject: str, seconds: list[float], samples: list[dict[str, int]]
) -> None:
    """Something and the marks that decide when it crosses them."""
    unit = half.system.unit_bytes / MIB
    levels = [level for level in half.system.levels if level.what == subject]
    if levels:
        course = [value_of(levels[0].of, sample) * unit for sample in samples]
        axes.plot(seconds, course, color=COLOURS[half.io_flusher], lw=1.6)
    for level, style in zip(levels, _STYLES, strict=False):
        marks = [value_of(level.units, sample) * unit for sample in samples]
        axes.plot(seconds, marks, color="#566573", ls=style, lw=1, label=level.name)
    axes.set_ylabel(f"{subject.partition(',')[0]}, MiB")
    axes.legend(fontsize=7, loc="lower right", framealpha=0.85)


def _near_the_marks(axes: "Axes", halves: Sequence[ModelHalf], subject: str) -> None:
    """Cut off what is far above all marks, where the course comes near them at some time."""
    marks = [(level, half) for half in halves for level in half.system.levels if level.what == subject]
    highest = max(value_of(level.units, half.result.values) * half.system.unit_bytes for level, half in marks)
    lowest = min(value_of(level.of, half.result.values) * half.system.unit_bytes for level, half in marks)
    if lowest < 2 * highest:
        axes.set_ylim(top=min(axes.get_ylim()[1], 4 * highest / MIB))


def _draw_in_flight(
    axes: "Axes", half: ModelHalf, seconds: list[float], samples: list[dict[str, int]]
) -> None:
    """Requests that are not completed, of each device."""
    for number, (device, count) in enumerate(half.system.in_flight):
        course = [value_of(count, sample) for sample in samples]
        colour = COLOURS[half.io_flusher] if not number else _KINDS[-number - 1]
        axes.plot(seconds, course, color=colour, lw=1.4, alpha=0.9, label=device, zorder=3 - number)
    axes.set_ylabel("requests in flight")
    axes.legend(fontsize=7, loc="upper right", framealpha=0.85)


MODEL_PICTURES = (
    Picture(
        "memory-and-queues",
        "Memory by kind, free and dirty memory against their marks, and requests in flight, without and with "
        "the state",
        memory_and_queues,
    ),
)
