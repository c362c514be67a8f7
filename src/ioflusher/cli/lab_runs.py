"""`ioflusher lab runs` and `lab show`: the runs that are kept, listed and printed again."""

import json
import sys
from pathlib import Path

import click

from ioflusher.cli.console import output_console
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.lab_options import run_argument
from ioflusher.cli.messages import complain, remark


@click.command("runs")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def runs_command(as_json: bool) -> None:
    """List the runs that are kept, the newest first.

    They are kept in $XDG_STATE_HOME/ioflusher (default ~/.local/state/ioflusher), the last 10,000; a line
    stands for one `lab run` with all of its runs.

    Exit status: 0 the list is printed, 2 some of what is kept could not be read and was left out.
    """
    from ioflusher.lab.store import ExperimentStore, StoreError
    from ioflusher.report.experiment_list import experiment_lines, experiment_list_record

    store = ExperimentStore()
    unreadable: list[StoreError] = []
    experiments = store.experiments(unreadable.append)
    if as_json:
        click.echo(json.dumps(experiment_list_record(experiments)))
    elif experiments:
        click.echo("\n".join(experiment_lines(experiments)))
    elif not unreadable:
        remark(f"no runs are kept in {store.path}")
    for error in unreadable:
        complain(error)
    if unreadable:
        sys.exit(ExitStatus.FAILED)


@click.command("show")
@run_argument
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
@click.option(
    "--report",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the HTML report and its pictures there instead.",
)
def show_command(run: tuple[int, int | None], as_json: bool, report: Path | None) -> None:
    """Print a kept RUN again, as `lab run` printed it.

    RUN is a number from `ioflusher lab runs`; 17.3 is the third run of number 17.
    """
    from ioflusher.lab.store import ExperimentStore
    from ioflusher.report.experiment_html import write_report
    from ioflusher.report.experiment_json import experiment_record
    from ioflusher.report.experiment_text import print_experiment

    if as_json and report is not None:
        raise click.UsageError("--json and --report contradict each other")
    experiment = ExperimentStore().load(*run)
    if report is not None:
        click.echo(f"report: {write_report(experiment, report)}")
    elif as_json:
        click.echo(json.dumps(experiment_record(experiment, kept_as=run[0])))
    else:
        print_experiment(experiment, output_console())
