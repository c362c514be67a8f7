"""`ioflusher model sweep`: a scenario over all combinations of a few settings."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.cluster import dask_client
from ioflusher.cli.console import error_console, output_console
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.file_parameters import OutputFile
from ioflusher.cli.lab_scenario import read_scenario, scenario_argument
from ioflusher.cli.model_options import chosen_kernel, kernel_option
from ioflusher.cli.output import write_result
from ioflusher.cli.preferences import preferences

if TYPE_CHECKING:
    from concurrent.futures import Executor


@click.command("sweep")
@scenario_argument
@click.option(
    "--over",
    "axes",
    metavar="KEY=VALUES",
    multiple=True,
    required=True,
    help="A key of the scenario and its values: queue_depth=1..256 (doubling), machine.memory=256M..1G:64M "
    "or device.use=ext4,xfs. Give it again for a further one.",
)
@kernel_option
@click.option("--seeds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Runs of a half.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; default: one for each processor.")
@click.option("--dask", metavar="ADDRESS", help="Play on the workers of this Dask scheduler.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
@click.option(
    "--picture",
    metavar="FILE",
    type=OutputFile(),
    help="Draw which part of the runs froze, for one or two keys: FILE.svg or FILE.png.",
)
def sweep_command(
    scenario: str,
    axes: tuple[str, ...],
    kernel: tuple[int, int] | None,
    seeds: int,
    jobs: int | None,
    dask: str | None,
    as_json: bool,
    picture: Path | None,
) -> None:
    """Play SCENARIO in the model for all combinations of a few settings: who freezes where.

    Exit status: 0 everything was played, 1 some combination is no scenario or the model has it not, 2 nothing
    could be played.
    """
    from ioflusher.model.sweep import SweepCell, parse_axis, sweep
    from ioflusher.report.model_sweep import print_sweep, sweep_record

    found = read_scenario(scenario)
    parsed = tuple(parse_axis(axis) for axis in axes)
    _check(axes, tuple(axis.key for axis in parsed), picture)
    version = chosen_kernel(kernel, found)
    total = 1
    for axis in parsed:
        total *= len(axis.values)
    with _executor(jobs, dask) as executor, _progress(total) as advance:

        def on_cell(_: SweepCell) -> None:
            advance()

        cells = sweep(found, parsed, executor, version=version, seeds=seeds, on_cell=on_cell)
    if as_json:
        record = sweep_record(found.name, ".".join(map(str, version)), parsed, cells)
        click.echo(json.dumps(record, indent=2))
    else:
        print_sweep(parsed, cells, output_console())
    if picture is not None:
        from ioflusher.report.figure import figure_file
        from ioflusher.report.model_sweep import phase_picture

        drawn = figure_file("sweep", lambda: phase_picture(found.name, parsed, cells), picture.suffix)
        write_result(drawn, picture)
    if all(cell.without is None for cell in cells):
        sys.exit(ExitStatus.FAILED)
    sys.exit(ExitStatus.FOUND if any(cell.without is None for cell in cells) else ExitStatus.DONE)


def _check(axes: tuple[str, ...], keys: tuple[str, ...], picture: Path | None) -> None:
    for key in keys:
        if keys.count(key) > 1:
            raise click.UsageError(f"--over {key} is given twice")
    if picture is not None and len(axes) > 2:
        raise click.UsageError(f"--picture shows one or two keys, and {len(axes)} are given")
    if picture is not None and picture.suffix not in (".svg", ".png"):
        raise click.UsageError(f"--picture: expected FILE.svg or FILE.png, found {picture.name!r}")


@contextmanager
def _executor(jobs: int | None, dask: str | None) -> "Iterator[Executor]":
    """What plays the combinations; where the block is left by an exception, no other one is begun."""
    if dask is None:
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(jobs) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return
    with dask_client(dask) as client, client.get_executor(pure=False) as executor:
        yield executor


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    if preferences().quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("combinations"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_console(), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
