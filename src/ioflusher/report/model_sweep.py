"""A sweep as a table, as JSON, and as a picture of who freezes where."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ioflusher.model.sweep import SweepAxis, SweepCell, SweptHalf
from ioflusher.report.tables import print_table
from ioflusher.support.sizes import format_size
from ioflusher.support.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# keys whose values are bytes
_BYTES = ("memory", "size", "bytes", "chunk", "reserve")
MOST_TICKS = 12


def print_sweep(axes: tuple[SweepAxis, ...], cells: tuple[SweepCell, ...], console: Console) -> None:
    """A row for each combination."""
    table = Table(box=None, padding=(0, 2), show_edge=False, pad_edge=False)
    for axis in axes:
        table.add_column(Text(_short(axis, axes)), justify="right", no_wrap=True)
    for heading in ("without", "with"):
        table.add_column(heading, no_wrap=True)
    for cell in cells:
        shown = [Text(value_text(axis, value)) for axis, value in zip(axes, cell.values, strict=True)]
        if cell.without is None or cell.with_ is None:
            table.add_row(*shown, Text(f"not played: {printable(cell.why_not)}"), "")
        else:
            table.add_row(*shown, half_text(cell.without), half_text(cell.with_))
    print_table(table, console)


def _short(axis: SweepAxis, axes: tuple[SweepAxis, ...]) -> str:
    """The last part of a key, where no other one ends so."""
    last = axis.key.rpartition(".")[2]
    return printable(axis.key if sum(each.key.endswith(last) for each in axes) > 1 else last)


def half_text(half: SweptHalf) -> Text:
    """A half in a few words."""
    if not half.frozen:
        if half.done == half.seeds:
            return Text(f"done, at most {half.longest_s:.3g} s between two requests", style="green")
        return Text(f"{half.seeds - half.done} of {half.seeds} out of time or memory", style="yellow")
    style = "bold red" if half.frozen == half.seeds else "yellow"
    return Text(f"froze {half.frozen} of {half.seeds}", style=style)


def value_text(axis: SweepAxis, value: Any) -> str:
    """A value as people write it: 8 MiB for bytes."""
    last = axis.key.rpartition(".")[2]
    if isinstance(value, int) and not isinstance(value, bool) and last.endswith(_BYTES):
        return format_size(value)
    return printable(str(value))


def sweep_record(
    scenario: str, kernel: str, axes: tuple[SweepAxis, ...], cells: tuple[SweepCell, ...]
) -> dict[str, Any]:
    """Everything, for programs; times in seconds of virtual time."""
    return {
        "scenario": scenario,
        "kernel": kernel,
        "axes": [{"key": axis.key, "values": list(axis.values)} for axis in axes],
        "cells": [
            {
                "values": dict(zip((axis.key for axis in axes), cell.values, strict=True)),
                "without": _half(cell.without),
                "with": _half(cell.with_),
                "not_played_because": cell.why_not or None,
            }
            for cell in cells
        ],
    }


def _half(half: SweptHalf | None) -> dict[str, Any] | None:
    if half is None:
        return None
    return {"runs": half.seeds, "frozen": half.frozen, "done": half.done, "longest_s": half.longest_s}


def phase_picture(scenario: str, axes: tuple[SweepAxis, ...], cells: tuple[SweepCell, ...]) -> "Figure":
    """Which part of the runs froze, over one or two axes: a colour for each combination, both halves.

    Raises:
        ValueError: more than two axes.
    """
    from matplotlib.figure import Figure

    if len(axes) > 2:
        raise ValueError("a picture has two axes")
    down = axes[0] if len(axes) == 2 else None
    across = axes[-1]
    rows = len(down.values) if down else 1
    columns = len(across.values)
    height = min(14.0, 2.2 + 0.34 * rows)
    width = min(18.0, 3.6 + 0.72 * columns)
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, name in zip(panels, ("without", "with"), strict=True):
        grid = [[float("nan")] * columns for _ in range(rows)]
        for cell in cells:
            half = cell.without if name == "without" else cell.with_
            if half is not None:
                grid[cell.place[0] if down else 0][cell.place[-1]] = half.frozen / half.seeds
        image = panel.imshow(grid, cmap="YlOrRd", vmin=0, vmax=1, aspect="auto", origin="lower")
        panel.set_title(f"{name} the state", fontsize=11)
        panel.set_facecolor("#d0d0d0")  # what could not be played
        _ticks(panel.xaxis, across)
        panel.set_xlabel(across.key)
        if down:
            _ticks(panel.yaxis, down)
        else:
            panel.set_yticks([])
    if down:
        panels[0].set_ylabel(down.key)
    bar = figure.colorbar(image, ax=panels, shrink=0.9)
    bar.set_label("part of the runs that froze")
    figure.suptitle(scenario, fontsize=12)
    return figure


def _ticks(axis: Any, swept: SweepAxis) -> None:
    step = -(-len(swept.values) // MOST_TICKS)
    places = list(range(0, len(swept.values), step))
    axis.set_ticks(places, [value_text(swept, swept.values[place]) for place in places])
    if axis.axis_name == "x":
        for label in axis.get_ticklabels():
            label.set_rotation(45)
            label.set_ha("right")
            label.set_rotation_mode("anchor")
