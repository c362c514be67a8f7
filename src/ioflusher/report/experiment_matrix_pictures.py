"""The pictures of a matrix's report, one function each. Needs the extra `ioflusher[lab]`.

A further picture is a function from a MatrixResult to a matplotlib Figure and a row in MATRIX_PICTURES.
"""

from typing import TYPE_CHECKING

from ioflusher.lab.matrix.result import CellResult, MatrixResult
from ioflusher.report.experiment_matrix_text import axis_labels, varying_axes
from ioflusher.report.experiment_pictures import COLOURS, NAMES, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_INCHES = 0.42
_OFFSETS = {False: -0.17, True: 0.17}  # of a half's row within its cell's


def rates(result: MatrixResult) -> "Figure":
    """How often each cell froze, without and with the state, with 95 % confidence intervals."""
    cells = _measured(result)
    figure, axes = _figure(cells, result)
    for io_flusher in (False, True):
        for row, cell in enumerate(cells):
            half = cell.tally.half(io_flusher)
            interval = half.frozen.interval
            if interval is None:
                continue
            share = 100 * half.frozen.count / half.frozen.of
            low, high = (100 * bound for bound in interval)
            axes.errorbar(
                [share],
                [row + _OFFSETS[io_flusher]],
                xerr=[[share - low], [high - share]],
                fmt="o",
                color=COLOURS[io_flusher],
                capsize=3,
                ms=6,
                lw=1.6,
                # a half that neither froze nor lived is not told by the rate of frozen ones
                markerfacecolor="white" if half.other.count else COLOURS[io_flusher],
            )
    axes.set_xlim(-3, 103)
    axes.set_xlabel("frozen, % of halves; bars: 95 % confidence\nopen circle: some neither froze nor lived")
    return figure


def times(result: MatrixResult) -> "Figure":
    """When the halves of each cell froze, and when those that lived had finished."""
    cells = _measured(result)
    figure, axes = _figure(cells, result)
    for io_flusher in (False, True):
        for row, cell in enumerate(cells):
            half, height = cell.tally.half(io_flusher), row + _OFFSETS[io_flusher]
            colour = COLOURS[io_flusher]
            axes.plot(
                half.froze_after_s, [height] * len(half.froze_after_s), "x", color=colour, ms=7, mew=1.8
            )
            axes.plot(
                half.lived_after_s,
                [height] * len(half.lived_after_s),
                "o",
                color=colour,
                ms=6,
                markerfacecolor="none",
            )
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds since the workload began; x: frozen from then on, o: all done and verified")
    return figure


def _measured(result: MatrixResult) -> list[CellResult]:
    return [cell for cell in result.cells if cell.kept_as]


def _figure(cells: list[CellResult], result: MatrixResult) -> "tuple[Figure, Axes]":
    """Axes with a row for each cell, the first one at the top, and the halves' colours explained."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(9, 1.6 + _ROW_INCHES * len(cells)), layout="constrained")
    axes = figure.subplots()
    names = [", ".join(cell_words(result, cell)) for cell in cells]
    axes.set_yticks(range(len(cells)), names)
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.grid(alpha=0.3, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        handles=[
            Line2D([], [], color=COLOURS[one], marker="o", lw=0, label=f"{NAMES[one]} the state")
            for one in (False, True)
        ],
        loc="outside upper center",
        ncols=2,
        frameon=False,
    )
    return figure, axes


def cell_words(result: MatrixResult, cell: CellResult) -> tuple[str, ...]:
    """What tells a cell from the others: its labels on the axes that vary."""
    labels = dict(
        zip(("scenario", *(axis.name for axis in result.plan.axes)), axis_labels(cell), strict=True)
    )
    return tuple(
        label
        if label not in ("true", "false") and not label.isdigit()
        else f"{axis.rpartition('.')[2]} {label}"
        for axis, label in labels.items()
        if axis in varying_axes(result)
    ) or (labels["scenario"],)


MATRIX_PICTURES = (
    Picture(
        "rates",
        "How often each cell froze, without and with the state, with 95 % confidence intervals",
        rates,
    ),
    Picture("times", "When the halves of each cell froze, or had done all work", times),
)
