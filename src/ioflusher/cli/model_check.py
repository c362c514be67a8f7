"""`ioflusher model check`: whether the model allows what a kept run did."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.lab_options import progress_line, run_argument, run_name
from ioflusher.support.text import printable

if TYPE_CHECKING:
    from ioflusher.comparison.check import CheckedHalf


@click.command("check")
@run_argument
@click.option(
    "--states",
    type=click.IntRange(min=1),
    default=5_000_000,
    show_default=True,
    help="At most so many states of an exploration.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
def check_command(run: tuple[int, int | None], states: int, as_json: bool) -> None:
    """Say whether the model allows what a kept RUN did: that it froze or lived, and where its daemon waited.

    RUN is a number from `ioflusher lab runs`; 17.3 is the third run of number 17. Every order of steps of a
    small instance of the run's scenario is explored.

    Exit status: 0 all of it is allowed, 1 something is not, so that the model is wrong; 2 something is not
    known, or the run could not be read.
    """
    from ioflusher.comparison.check import Allowance, check_half
    from ioflusher.lab.kernels.releases import version
    from ioflusher.lab.store import ExperimentStore
    from ioflusher.model.explore import Bounds

    experiment = ExperimentStore().load(*run)
    plan = experiment.plan
    kernel = version(plan.kernel)
    found: list[tuple[int, CheckedHalf]] = []
    with progress_line(quiet=as_json) as say:
        for number, one in enumerate(experiment.runs, start=run[1] or 1):
            for half in one.halves:
                name = "with" if half.io_flusher else "without"
                say(f"exploring {plan.scenario}, run {number}, {name} the state")
                found.append((number, check_half(plan.definition, half, kernel, Bounds(states=states))))
    if as_json:
        click.echo(json.dumps(_record(plan.scenario, plan.kernel, found), indent=2))
    else:
        click.echo(f"{run_name(run)}: {printable(plan.scenario)} on {printable(plan.kernel)}")
        for number, checked in found:
            _print(number, checked)
    allowances = {checked.allowance for _, checked in found}
    if Allowance.NOT_ALLOWED in allowances:
        sys.exit(ExitStatus.FOUND)
    sys.exit(ExitStatus.DONE if allowances == {Allowance.ALLOWED} else ExitStatus.FAILED)


def _print(number: int, half: "CheckedHalf") -> None:
    name = "with" if half.io_flusher else "without"
    click.echo(f"run {number}, {name} the state: {half.allowance.value}")
    for deed in half.deeds:
        click.echo(f"  {printable(deed.what)}: {deed.allowance.value}, {printable(deed.why)}")
    if not half.deeds:
        click.echo("  the half was lost: nothing was observed")


def _record(scenario: str, kernel: str, found: "list[tuple[int, CheckedHalf]]") -> dict[str, Any]:
    return {
        "scenario": scenario,
        "kernel": kernel,
        "halves": [
            {
                "run": number,
                "io_flusher": half.io_flusher,
                "allowance": half.allowance.value,
                "deeds": [
                    {"what": deed.what, "allowance": deed.allowance.value, "why": deed.why}
                    for deed in half.deeds
                ],
            }
            for number, half in found
        ],
    }
