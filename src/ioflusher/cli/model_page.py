"""`ioflusher model page`: a page in which a person steps through the end of a scenario's halves."""

import sys
from pathlib import Path

import click

from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.lab_scenario import scenario_argument
from ioflusher.cli.model_options import kernel_option, read_modelled, seed_option
from ioflusher.cli.output import output_option, write_result


@click.command("page")
@scenario_argument
@kernel_option
@seed_option
@output_option
def page_command(scenario: str, kernel: tuple[int, int] | None, seed: int, output: Path | None) -> None:
    """Write a page that steps through the end of SCENARIO, forwards and backwards.

    It shows the half that froze and the same time in the other one: tasks and their stacks, memory against
    its watermarks and limits, the queues. One HTML file that loads nothing; needs the extra ioflusher[lab].
    """
    from ioflusher.model.halves import play_halves
    from ioflusher.report.model_page import render_page

    found, version = read_modelled(scenario, kernel)
    write_result(render_page(found, version, play_halves(found, version=version, seed=seed)), output)
    sys.exit(ExitStatus.DONE)
