"""`ioflusher model size`: what a scenario's daemon needs in order not to freeze."""

import json
import sys
from typing import TYPE_CHECKING

import click

from ioflusher.cli.console import output_console
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.lab_options import progress_line
from ioflusher.cli.lab_scenario import scenario_argument
from ioflusher.cli.model_options import kernel_option, read_modelled
from ioflusher.cli.size_parameter import size as size_of

if TYPE_CHECKING:
    from ioflusher.model.size import TriedMeasures


@click.command("size")
@scenario_argument
@kernel_option
@click.option(
    "--states",
    type=click.IntRange(min=1),
    default=5_000_000,
    show_default=True,
    help="At most so many states of a combination.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    default="1G",
    show_default=True,
    type=size_of,
    help="At most so much memory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
def size_command(
    scenario: str, kernel: tuple[int, int] | None, states: int, memory: int, as_json: bool
) -> None:
    """Say what SCENARIO's daemon needs: which hardening is necessary, which is enough, how large a reserve.

    Every combination of the state, real-time scheduling with a reserve, and locked memory is explored: all
    orders of steps of a small instance. Where no freeze is in that, the scenario is played at full size, too.
    A way to a freeze is what `ioflusher model explore` shows. Ctrl-C ends it with what was covered.

    Exit status: 0 some combination is enough, 1 none is, 2 not everything was covered.
    """
    from ioflusher.model.explore import Bounds
    from ioflusher.model.size import size
    from ioflusher.report.model_size import measures_text, print_sizing, sizing_record, tried_words

    found, version = read_modelled(scenario, kernel)
    with progress_line(quiet=as_json) as say:
        say("exploring combinations")

        def on_tried(tried: "TriedMeasures") -> None:
            say(f"{measures_text(tried.measures)}: {tried_words(tried)}")

        bounds = Bounds(states=states, bytes=memory)
        sizing = size(found, version=version, bounds=bounds, on_tried=on_tried)
    if as_json:
        click.echo(json.dumps(sizing_record(sizing), indent=2))
    else:
        print_sizing(sizing, output_console())
    if sizing.interrupted:
        sys.exit(ExitStatus.INTERRUPTED)
    if not sizing.known:
        sys.exit(ExitStatus.FAILED)
    sys.exit(ExitStatus.DONE if sizing.sufficient else ExitStatus.FOUND)
