"""`ioflusher model explore`: every order of steps of a small instance of a scenario."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.console import error_console
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.lab_scenario import scenario_argument
from ioflusher.cli.messages import remark
from ioflusher.cli.model_options import (
    chosen_halves,
    diagram_option,
    halves_options,
    kernel_option,
    read_modelled,
)
from ioflusher.cli.output import write_result
from ioflusher.cli.preferences import preferences
from ioflusher.cli.size_parameter import size
from ioflusher.errors import IoflusherError

if TYPE_CHECKING:
    from ioflusher.model.explore import Progress
    from ioflusher.model.explore.halves import ExploredHalf


@click.command("explore")
@scenario_argument
@kernel_option
@halves_options
@click.option(
    "--work", metavar="UNITS", type=click.IntRange(min=1), help="Units of work; more than one needs."
)
@click.option(
    "--queue-depth", metavar="N", type=click.IntRange(min=1), help="Requests that the device takes."
)
@click.option(
    "--states",
    metavar="N",
    type=click.IntRange(1, 4_000_000_000),
    default=20_000_000,
    show_default=True,
    help="Stop at so many states.",
)
@click.option(
    "--memory", metavar="SIZE", type=size, default="2G", show_default=True, help="Stop at so much memory."
)
@click.option(
    "--depth", metavar="STEPS", type=click.IntRange(min=0), help="Follow so many steps; default: all."
)
@click.option("--threads", metavar="N", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--all-states", is_flag=True, help="Let no state stand for others that come to the same.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
@diagram_option
def explore_command(
    scenario: str,
    kernel: tuple[int, int] | None,
    without_state: bool,
    with_state: bool,
    work: int | None,
    queue_depth: int | None,
    states: int,
    memory: int,
    depth: int | None,
    threads: int,
    all_states: bool,
    as_json: bool,
    diagram: Path | None,
) -> None:
    """Follow every order of steps of SCENARIO in the model: can it freeze, and by which way?

    SCENARIO is a name from `ioflusher lab list`, a TOML file or - for standard input. What is explored is a
    small instance: a few units of memory, a queue of a few requests; what runs at full size say is told with
    it. Ctrl-C ends it with what was covered; what was not covered is never called free of freezes.

    Exit status: 0 a freeze is reachable without and none with the state, or as the scenario expects of this
    kernel (with --without or --with, that half); 1 anything else, 2 the model has not what the scenario is
    about.
    """
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        raise IoflusherError(
            f"an exploration needs a package that is not installed: {error.name}",
            hint="pip install 'ioflusher[model]'",
        ) from error
    from ioflusher.model.explore import NO_REDUCTIONS, Bounds, Reductions, Stopped
    from ioflusher.model.explore.halves import ExploredHalf, explore_half
    from ioflusher.model.scale import small
    from ioflusher.report.exploration_words import verdict

    found, version = read_modelled(scenario, kernel)
    scale = small(found)
    scale = replace(scale, work_units=work or scale.work_units, queue_depth=queue_depth or scale.queue_depth)
    explored: list[ExploredHalf] = []
    for io_flusher in chosen_halves(without_state=without_state, with_state=with_state):
        with _progress("with" if io_flusher else "without", states) as watch:
            half = explore_half(
                found,
                io_flusher=io_flusher,
                version=version,
                scale=scale,
                bounds=Bounds(states, memory, depth),
                reductions=NO_REDUCTIONS if all_states else Reductions(),
                threads=threads,
                watch=watch,
            )
        explored.append(half)
        if half.exploration.stopped is Stopped.INTERRUPTED:
            break
    halves = tuple(explored)
    if as_json:
        from ioflusher.report.exploration_json import exploration_record

        click.echo(json.dumps(exploration_record(found, version, halves)))
    else:
        from ioflusher.report.exploration_text import render_exploration

        for line in render_exploration(found, version, halves):
            click.echo(line)
    if diagram is not None:
        _draw(halves, diagram)
    if halves[-1].exploration.stopped is Stopped.INTERRUPTED:
        sys.exit(ExitStatus.INTERRUPTED)
    good, _ = verdict(found, version, halves)
    sys.exit(ExitStatus.DONE if good else ExitStatus.FOUND)


def _draw(halves: "tuple[ExploredHalf, ...]", file: Path) -> None:
    """Draw the way to the first freeze that was found."""
    from ioflusher.report.exploration_words import outcome
    from ioflusher.report.model_diagram import FORMS, exploration_diagram

    frozen = next((half for half in halves if half.exploration.freeze is not None), None)
    if frozen is None:
        remark(f"{file} is not written: no freeze was found")
        return
    found = frozen.exploration
    title = f"{found.system.name}, {frozen.name} the state: {outcome(found)}"
    write_result(FORMS[file.suffix](exploration_diagram(found, title)), file)


@contextmanager
def _progress(name: str, bound: int) -> "Iterator[Callable[[Progress], None] | None]":
    """States, depth and rate, on a terminal; the bar is the part of the states that are allowed."""
    if preferences().quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn("{task.description}"), BarColumn(), console=error_console(), transient=True) as bar:
        task = bar.add_task(name, total=bound)

        def watch(progress: "Progress") -> None:
            words = (
                f"{name} the state: {progress.states:,} states, {progress.states_per_second:,.0f}/s, "
                f"depth {progress.depth}, {progress.waiting:,} to follow"
            )
            bar.update(task, completed=progress.states, description=words)

        yield watch
