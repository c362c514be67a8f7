"""`ioflusher lab run`: checks first what the end needs, then plays, keeps and prints."""

import io
import json
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from ioflusher.cli.console import error_console, output_console
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.interruption import interrupted_status
from ioflusher.cli.lab_options import (
    ProgressLine,
    accelerator_option,
    kernel_option,
    progress_line,
)
from ioflusher.cli.lab_scenario import daemon_options, read_scenario, scenario_argument, with_daemon_options
from ioflusher.cli.messages import complain, print_error, remark
from ioflusher.cli.output import OutputError, flush_output
from ioflusher.errors import IoflusherError

if TYPE_CHECKING:
    from ioflusher.lab.follower import OnReport
    from ioflusher.lab.messages import GuestReport
    from ioflusher.lab.outcome import Experiment, Half, OneHalf, Plan
    from ioflusher.lab.repeat import RunKeeper
    from ioflusher.lab.store import ExperimentStore
    from ioflusher.scenario.records import Scenario

DEFAULT_REPORT = Path("reports")
report_option = click.option(
    "--report",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Directory for the HTML report and its pictures; default: {DEFAULT_REPORT}, where the extra "
    "ioflusher[lab] is installed.",
)


@click.command("run")
@scenario_argument
@click.option("--runs", type=click.IntRange(1, 1000), default=1, show_default=True, help="How often.")
@click.option("--only", type=click.Choice(["with", "without"]), help="Play one half alone.")
@click.option(
    "--sequential",
    is_flag=True,
    help="Play one half after the other; default: both at once, under the same load, where this machine has "
    "the processors and the memory.",
)
@daemon_options
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
@report_option
@kernel_option
@accelerator_option
def run_command(
    scenario: str,
    runs: int,
    only: "OneHalf | None",
    sequential: bool,
    daemon: str | None,
    kind: str | None,
    setup: tuple[str, ...],
    share: tuple[Path, ...],
    as_json: bool,
    report: Path | None,
    kernel: str | None,
    accelerator: str | None,
) -> None:
    """Play SCENARIO: the same machine without and with the IO_FLUSHER state.

    SCENARIO is a name from `ioflusher lab list`, a TOML file or - for standard input. Every run is kept
    with its evidence as soon as it has ended: `ioflusher lab runs` lists them, `lab show` prints one
    again. Ctrl-C ends the experiment and reports the runs so far.

    With --daemon any program of this machine is the daemon: guests see it, the system's directories, the
    current directory and what --share adds. The words of CMD are split as by a shell, and no shell runs. Its
    placeholders are those of its kind (docs/lab.md): for nbd {socket}, and {file} or {remote}.

    Exit status: 0 frozen without and alive with, or as the scenario expects of this kernel (with --only, that
    half); 1 anything else, 2 the work could not be done, 130 Ctrl-C.
    """
    found, shares = with_daemon_options(read_scenario(scenario), daemon, kind, setup, share)
    experiment = play(
        found,
        shares=shares,
        runs=runs,
        only=only,
        sequential=sequential,
        as_json=as_json,
        report=report,
        kernel=kernel,
        accelerator=accelerator,
    )
    exit_early(experiment)
    sys.exit(ExitStatus.DONE if experiment.as_expected else ExitStatus.FOUND)


class Sequel(Protocol):
    """What a verb adds to the experiment that it plays."""

    def begins(self, plan: "Plan") -> None:
        """Called before the first boot, when it is known what will be played."""
        ...

    def record(self, experiment: "Experiment") -> dict[str, Any]:
        """What the JSON has besides the experiment."""
        ...

    def lines(self, experiment: "Experiment") -> Iterable[str]:
        """What is printed behind the experiment."""
        ...


def play(
    found: "Scenario",
    *,
    runs: int,
    only: "OneHalf | None",
    as_json: bool,
    report: Path | None,
    kernel: str | None,
    accelerator: str | None,
    sequential: bool = False,
    shares: tuple[Path, ...] = (),
    sequel: Sequel | None = None,
) -> "Experiment":
    """Check what the end needs, play, keep and print: what every verb does that plays a scenario.

    Raises:
        IoflusherError: it cannot be played, or not be printed.
    """
    from ioflusher.lab.qemu import Accelerator
    from ioflusher.lab.repeat import RunKeeper, plan_runs, play_runs
    from ioflusher.lab.session import Lab
    from ioflusher.lab.setup import check_programs, daemon_files

    check_programs(found)
    _check_output()
    directory = _report_directory(report)
    keeper = RunKeeper(_store(), on_error=_not_kept)
    chosen = Accelerator(accelerator) if accelerator else None
    shares = (*shares, *daemon_files(found))
    with (
        progress_line() as progress,
        Lab(kernel, accelerator=chosen, shares=shares, progress=progress, scenario=found) as lab,
    ):
        at_once = only is None and not sequential and _room_for_both(found)
        plan = plan_runs(lab, found, only=only, runs=runs, at_once=at_once)
        if sequel is not None:
            sequel.begins(plan)
        prepare = _Preparation(directory is not None, halves=2 if at_once else 1)
        with _crash_says_where(keeper):
            experiment = play_runs(
                lab,
                plan,
                keeper=keeper,
                on_half=lambda number, half: _print_line(progress, number, runs, half, to_stderr=as_json),
                on_report=lambda number: prepare.beside(_report_progress(progress, number, runs)),
            )
    with _crash_says_where(keeper):
        _print_all(experiment, keeper.experiment, sequel, as_json=as_json)
        if directory is not None:
            _write_report(experiment, directory, asked=report is not None, to_stderr=as_json)
    return experiment


def _room_for_both(scenario: "Scenario") -> bool:
    """Whether both halves can be played at once; why not is said."""
    from ioflusher.lab.capacity import this_machine, why_in_turn

    reason = why_in_turn(scenario, this_machine())
    if reason is not None:
        remark(f"one half is played after the other: {reason}")
    return reason is None


def _check_output() -> None:
    """See that there is a standard output; characters that it does not have become escapes.

    Raises:
        OutputError: it is closed.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed, so nothing could be printed in the end")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _report_directory(asked: Path | None) -> Path | None:
    """Where the report goes; None where none was asked for and none can be made, which is said.

    Raises:
        IoflusherError: one was asked for and cannot be made.
    """
    from ioflusher.report.experiment_html import check_report

    try:
        check_report(asked or DEFAULT_REPORT)
    except IoflusherError as error:
        if asked is not None:
            raise
        remark(f"there will be no HTML report: {error}" + (f" ({error.hint})" if error.hint else ""))
        return None
    return asked or DEFAULT_REPORT


def _store() -> "ExperimentStore | None":
    """The store, proved writable; None where it is not, which is said: the runs are printed all the same."""
    from ioflusher.lab.store import ExperimentStore, StoreError

    try:
        store = ExperimentStore()
        store.check()
    except StoreError as error:
        print_error(f"the runs will be printed, but not kept: {error}", error.hint)
        return None
    return store


def _not_kept(error: IoflusherError) -> None:
    print_error(f"this run is not kept: {error}", error.hint)


def _print_line(progress: ProgressLine, number: int, runs: int, half: "Half", *, to_stderr: bool) -> None:
    from ioflusher.report.experiment_text import print_half

    with progress.hidden():
        print_half(number, runs, half, error_console() if to_stderr else output_console())
        flush_output()


def _report_progress(progress: ProgressLine, number: int, runs: int) -> "OnReport":
    """What turns the reports of a run's guests into texts of the progress line."""
    from ioflusher.lab.messages import DeviceFrozen, Sampled, SettingUp, WorkBegan, WorkEnded

    count = f"run {number} of {runs}, " if runs > 1 else ""
    progress(f"{count}booting")
    latest: dict[bool, str] = {}

    def show(io_flusher: bool, report: "GuestReport") -> None:
        half = f"{count}{'with' if io_flusher else 'without'} the state"
        match report:
            case SettingUp(step=step):
                text = f"{half}: {step}"
            case WorkBegan():
                text = f"{half}: the work begins"
            case Sampled():
                free = report.memory_kib.get("MemFree", 0) // 1024
                text = (
                    f"{half}: the work begins | {report.completed} requests completed, "
                    f"{report.in_flight} in flight, {free} MiB free"
                )
            case DeviceFrozen() | WorkEnded():
                latest.pop(io_flusher, None)
                return
            case _:
                return
        latest[io_flusher] = text
        progress(text, beside=latest.get(not io_flusher, ""))

    return show


class _Preparation:
    """What the HTML report needs, loaded while guests work: in frozen ones a processor has nothing to do.

    Args:
        wanted: whether there will be a report.
        halves: how many have to be at work.
    """

    def __init__(self, wanted: bool, *, halves: int) -> None:
        self._halves = halves if wanted else 0

    def beside(self, show: "OnReport") -> "OnReport":
        """The `OnReport`, and this."""
        from ioflusher.lab.messages import WorkBegan
        from ioflusher.report.experiment_html import warm_up

        def heed(io_flusher: bool, report: "GuestReport") -> None:
            show(io_flusher, report)
            if isinstance(report, WorkBegan) and self._halves:
                self._halves -= 1
                if not self._halves:
                    threading.Thread(target=warm_up, name="report").start()

        return heed


@contextmanager
def _crash_says_where(keeper: "RunKeeper") -> Iterator[None]:
    """Whatever ends the block early, it is said where the runs so far are."""
    try:
        yield
    except BaseException:
        if keeper.experiment is not None:
            print_error(f"what was measured is kept: `ioflusher lab show {keeper.experiment}`")
        raise


def _print_all(
    experiment: "Experiment", kept_as: int | None, sequel: Sequel | None, *, as_json: bool
) -> None:
    from ioflusher.report.experiment_json import experiment_record
    from ioflusher.report.experiment_text import print_experiment

    if as_json:
        added = {} if sequel is None else sequel.record(experiment)
        click.echo(json.dumps({**experiment_record(experiment, kept_as=kept_as), **added}))
    else:
        if experiment.runs or experiment.unfinished:
            click.echo()
        print_experiment(experiment, output_console())
        for line in () if sequel is None else sequel.lines(experiment):
            click.echo(line)
        if kept_as is not None:
            click.echo(f"\nkept as run {kept_as}: `ioflusher lab show {kept_as}` prints it again")
    flush_output()


def _write_report(experiment: "Experiment", directory: Path, *, asked: bool, to_stderr: bool) -> None:
    """Write the report; only one that was asked for must succeed. Nothing measured, no report."""
    from ioflusher.report.experiment_html import write_report

    if not experiment.runs and not experiment.unfinished:
        return
    try:
        page = write_report(experiment, directory)
    except IoflusherError as error:
        if asked:
            raise
        complain(error)
        return
    if to_stderr:
        remark(f"report: {page}")
    else:
        click.echo(f"report: {page}")


def exit_early(experiment: "Experiment") -> None:
    """End with the status of an experiment that did not come to its end; come back from one that did."""
    from ioflusher.lab.outcome import Ending

    match experiment.ending:
        case Ending.INTERRUPTED:
            print_error("interrupted")
            sys.exit(interrupted_status())
        case Ending.FAILED:
            print_error(experiment.error or "the lab failed")
            sys.exit(ExitStatus.FAILED)
