"""`ioflusher lab explain`: `diagnose` on what a kept run left behind."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.lab_options import run_argument, run_name
from ioflusher.cli.output import format_option, output_option, write_result

if TYPE_CHECKING:
    from ioflusher.lab.outcome import OneHalf


@click.command("explain")
@run_argument
@click.option("--only", type=click.Choice(["with", "without"]), help="Explain these halves alone.")
@click.option("--all", "everything", is_flag=True, help="Show tasks that wait for work or run, too.")
@format_option("text", "json", "html")
@output_option
def explain_command(
    run: tuple[int, int | None], only: "OneHalf | None", everything: bool, form: str, output: Path | None
) -> None:
    """Explain a kept RUN as `ioflusher diagnose` does.

    What it explains are the stacks of the daemon and the kernel's console.
    RUN is a number from `ioflusher lab runs`; 17.3 is the third run of number 17.

    Exit status: 0 no recursion found, 1 recursion found, 2 the run could not be read.
    """
    from ioflusher.cli.diagnose import exit_status, rendered
    from ioflusher.kernlog.fleet import Options
    from ioflusher.lab.errors import LabError
    from ioflusher.lab.explain import explain_experiment
    from ioflusher.lab.store import ExperimentStore

    name = run_name(run)
    experiment = ExperimentStore().load(*run)
    results = list(explain_experiment(experiment, name, Options(everything=everything), only=only))
    if not results:
        raise LabError(f"{name} has no half {only} the state", hint="leave --only away")
    write_result(rendered(form, results), output)
    sys.exit(exit_status(results))
