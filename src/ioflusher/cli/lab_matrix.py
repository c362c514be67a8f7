"""`ioflusher lab matrix`: a plan's combinations, played as far as they are missing, tallied and judged."""

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.cluster import dask_client
from ioflusher.cli.console import error_console, output_console
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.interruption import interrupted_status
from ioflusher.cli.lab_options import accelerator_option, kernel_option, progress_line, since_option
from ioflusher.cli.messages import print_error, remark
from ioflusher.cli.preferences import preferences
from ioflusher.cli.source import read_standard_input
from ioflusher.support.text import counted, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ioflusher.lab.matrix.cells import Cell
    from ioflusher.lab.matrix.plan import MatrixPlan
    from ioflusher.lab.matrix.play import Played, Workers
    from ioflusher.lab.matrix.prepare import PreparedCell
    from ioflusher.lab.matrix.result import MatrixResult
    from ioflusher.lab.matrix.work import Task
    from ioflusher.lab.store import ExperimentStore


def _names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from ioflusher.lab.matrix.plan import builtin_plans

    return [name for name in builtin_plans() if name.startswith(incomplete)]


@click.command("matrix")
@click.argument("plan", shell_complete=_names)
@click.option("--runs", type=click.IntRange(1, 1000), help="How often; default: the plan's.")
@click.option("--jobs", type=click.IntRange(min=1), help="Runs at once; default: what fits this machine.")
@click.option("--dask", metavar="ADDRESS", help="Play on the workers of this Dask scheduler.")
@click.option("--sequential", is_flag=True, help="Play the halves of each run one after the other.")
@click.option("--kept", is_flag=True, help="Play nothing: show what is measured.")
@click.option("--again", is_flag=True, help="Measure everything anew: what is kept does not count.")
@since_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
@click.option("--markdown", is_flag=True, help="Print it as Markdown, for a document.")
@click.option(
    "--report",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for an HTML report with pictures.",
)
@kernel_option
@accelerator_option
def matrix_command(
    plan: str,
    runs: int | None,
    jobs: int | None,
    dask: str | None,
    sequential: bool,
    kept: bool,
    again: bool,
    since: datetime | None,
    as_json: bool,
    markdown: bool,
    report: Path | None,
    kernel: str | None,
    accelerator: str | None,
) -> None:
    """Measure all combinations of PLAN.

    PLAN is the name of one that comes with the package (daemons, hardening, kernels), a TOML file or - for
    standard input. Each run is kept as soon as its halves have ended, and what is kept is not played again:
    after Ctrl-C the same command goes on.

    Exit status: 0 all is measured, and with the state the work was always done; 1 with the state it was not
    always done; 2 something is not measured; 130 Ctrl-C.
    """
    from dataclasses import replace

    from ioflusher.lab.matrix.prepare import prepare_cells
    from ioflusher.lab.matrix.result import matrix_result
    from ioflusher.lab.matrix.tally import check_statistics
    from ioflusher.lab.matrix.work import missing_tasks
    from ioflusher.lab.qemu import Accelerator
    from ioflusher.lab.store import ExperimentStore
    from ioflusher.lab.trials import measured_runs
    from ioflusher.report.experiment_html import check_report

    _check_options(as_json, markdown, kept, again, since)
    check_statistics()
    if report is not None:
        check_report(report)
    found, cells = _read(plan)
    if runs is not None:
        found = replace(found, runs=runs)
    store = ExperimentStore()
    if not kept:
        store.check()
    with progress_line() as progress:
        prepared = prepare_cells(
            cells,
            kernel=kernel,
            accelerator=Accelerator(accelerator) if accelerator else None,
            download=not kept,
            sequential=sequential,
            progress=progress,
        )
    trials = {one.trial.key: one.trial for one in prepared if one.trial}
    began = time.time() if again else since.timestamp() if since else 0.0
    measured = measured_runs(store, trials, since=began)
    have = {key: [half for one in kept for half in one.run.halves] for key, kept in measured.items()}
    tasks = missing_tasks(trials.values(), have, runs=found.runs, only=found.only)
    errors: dict[str, str] = {}
    interrupted = False
    if not kept:
        _say_what_is_to_come(prepared, tasks)
        if tasks:
            errors, interrupted = _play(tasks, jobs, dask, store)
            measured = measured_runs(store, trials, since=began)
    result = matrix_result(found, prepared, measured, errors)
    command = _command(plan, runs, kernel, accelerator)
    _print(result, command, interrupted=interrupted, as_json=as_json, markdown=markdown)
    if report is not None:
        _write_report(result, report, command, to_stderr=as_json or markdown)
    if interrupted:
        again_from = f" --since {datetime.fromtimestamp(began):%Y-%m-%dT%H:%M:%S}" if began else ""
        print_error(f"interrupted; `{command}{again_from}` goes on")
        sys.exit(interrupted_status())
    sys.exit(_status(result))


def _check_options(as_json: bool, markdown: bool, kept: bool, again: bool, since: datetime | None) -> None:
    for one, other in (
        (as_json and "--json", markdown and "--markdown"),
        (kept and "--kept", again and "--again"),
        (again and "--again", since and "--since"),
    ):
        if one and other:
            raise click.UsageError(f"{one} and {other} contradict each other")


def _read(wanted: str) -> "tuple[MatrixPlan, tuple[Cell, ...]]":
    """The plan and its cells.

    Raises:
        IoflusherError: it is no plan, or names scenarios that are not there.
    """
    from ioflusher.lab.matrix.cells import plan_cells
    from ioflusher.lab.matrix.plan import PlanError, find_plan, parse_plan
    from ioflusher.scenario.file import find_scenario
    from ioflusher.support.text import text_of
    from ioflusher.support.toml import LARGEST_BYTES

    if wanted == "-":
        plan = parse_plan(text_of(read_standard_input(LARGEST_BYTES)), origin="standard input")
    else:
        plan = find_plan(wanted)
    cells = plan_cells(plan, {name: find_scenario(name) for name in plan.scenarios})
    if not any(cell.scenario for cell in cells):
        raise PlanError(
            f"{plan.name}: none of {counted(len(cells), 'combination')} fits a scenario",
            hint=f"{cells[0].name}: {cells[0].misfit}",
        )
    return plan, cells


def _say_what_is_to_come(prepared: "tuple[PreparedCell, ...]", tasks: "tuple[Task, ...]") -> None:
    """Say before anything boots what does not fit, cannot be played, and how much there is to do."""
    from ioflusher.report.experiment_matrix_text import MISFITS, trouble_lines

    for heading, fits in ((MISFITS, False), ("combinations that cannot be played here", True)):
        lines = trouble_lines(one for one in prepared if one.trouble and one.fits is fits)
        if lines:
            remark("\n  ".join((f"{heading}:", *lines)))
    halves = sum(task.halves for task in tasks)
    playable = sum(one.trial is not None for one in prepared)
    remark(
        f"{counted(len(prepared), 'combination')}, {playable} can be played; "
        f"{counted(halves, 'half', 'halves')} to play"
    )


def _play(
    tasks: "tuple[Task, ...]", jobs: int | None, dask: str | None, store: "ExperimentStore"
) -> tuple[dict[str, str], bool]:
    """Play the tasks; returns what went wrong by trial, and whether Ctrl-C ended it."""
    from ioflusher.lab.matrix.play import play_tasks

    with _workers(tasks, jobs, dask) as (workers, most), _shown_progress(tasks) as progress:
        ended = play_tasks(
            tasks, workers, jobs=most, store=store, on_begin=progress.began, on_played=progress.played
        )
    return ended.errors, ended.interrupted


@contextmanager
def _workers(
    tasks: "tuple[Task, ...]", jobs: int | None, dask: str | None
) -> "Iterator[tuple[Workers, int]]":
    """Where the tasks are played, and how many at once."""
    from ioflusher.lab.capacity import this_machine
    from ioflusher.lab.matrix.play import local_workers
    from ioflusher.lab.matrix.prepare import default_jobs

    if dask is None:
        todo = {task.trial.key: task.trial for task in tasks}
        most = min(jobs or default_jobs(todo.values(), this_machine()), len(tasks))
        with local_workers(most) as workers:
            yield workers, most
        return
    with dask_client(dask) as client:
        from ioflusher.lab.matrix.cluster import cluster_workers

        with cluster_workers(client) as workers:
            yield workers, min(jobs or max(1, sum(client.nthreads().values()) // 2), len(tasks))


class _Shown:
    """Shows a matrix's progress: a bar with the time left on a terminal, elsewhere a line for each run."""

    def __init__(self, tasks: "tuple[Task, ...]") -> None:
        self._halves = sum(task.halves for task in tasks)
        self._done = 0
        self._began = time.monotonic()
        self._running: Counter[str] = Counter()
        self.bar: Progress | None = None
        self.bar_task: TaskID | None = None

    def began(self, task: "Task") -> None:
        """A run begins."""
        self._running[task.trial.name] += 1
        self._update()

    def played(self, played: "Played") -> None:
        """A run has ended."""
        self._running[played.task.trial.name] -= 1
        self._done += played.task.halves
        self._update()
        if played.not_kept:
            print_error(f"this run is not kept: {played.not_kept}")
        if self.bar is None and not preferences().quiet:
            click.echo(self._line(played), err=True)

    def _update(self) -> None:
        if self.bar is not None and self.bar_task is not None:
            running = "; ".join(name for name, number in self._running.items() if number > 0)
            self.bar.update(self.bar_task, completed=self._done, description=printable(running) or "begins")

    def _line(self, played: "Played") -> str:
        from ioflusher.lab.outcome import half_words

        left = ""
        if self._done < self._halves:
            seconds = (time.monotonic() - self._began) / self._done * (self._halves - self._done)
            left = f", {timedelta(seconds=round(seconds))} left"
        halves = ", ".join(
            f"{half_words(half)} {'with' if half.io_flusher else 'without'} after {half.when_s:.1f} s"
            for half in (played.run.halves if played.run else ())
        )
        said = halves or (played.error or "interrupted").partition("\n")[0]
        return printable(f"[{self._done}/{self._halves}{left}] {played.task.trial.name}: {said}")


@contextmanager
def _shown_progress(tasks: "tuple[Task, ...]") -> Iterator[_Shown]:
    shown = _Shown(tasks)
    if preferences().quiet or not sys.stderr.isatty():
        yield shown
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("halves, left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    # halves end every few seconds to minutes: the pace is that of the last hour
    with Progress(*columns, console=error_console(), speed_estimate_period=3600) as bar:
        shown.bar = bar
        shown.bar_task = bar.add_task("begins", total=sum(task.halves for task in tasks))
        yield shown


def _command(plan: str, runs: int | None, kernel: str | None, accelerator: str | None) -> str:
    words = ["ioflusher", "lab", "matrix", plan]
    for option, value in (("--runs", runs), ("--kernel", kernel), ("--accelerator", accelerator)):
        if value is not None:
            words += [option, str(value)]
    return shlex.join(words)


def _print(result: "MatrixResult", command: str, *, interrupted: bool, as_json: bool, markdown: bool) -> None:
    if as_json:
        from ioflusher.report.experiment_matrix_json import matrix_record

        ending = "interrupted" if interrupted else "complete" if not result.missing else "incomplete"
        click.echo(json.dumps(matrix_record(result, command=command, ending=ending)))
    elif markdown:
        from ioflusher.report.experiment_matrix_markdown import matrix_markdown

        click.echo(matrix_markdown(result, command=command), nl=False)
    else:
        from ioflusher.report.experiment_matrix_text import print_matrix

        print_matrix(result, output_console())


def _write_report(result: "MatrixResult", directory: Path, command: str, *, to_stderr: bool) -> None:
    from ioflusher.report.experiment_matrix_html import write_matrix_report

    page = write_matrix_report(result, directory, command=command)
    if to_stderr:
        remark(f"report: {page}")
    else:
        click.echo(f"report: {page}")


def _status(result: "MatrixResult") -> ExitStatus:
    if result.not_alive:
        return ExitStatus.FOUND
    return ExitStatus.FAILED if result.missing else ExitStatus.DONE
