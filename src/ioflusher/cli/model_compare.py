"""`ioflusher model compare`: what the model says of scenarios beside what real kernels did."""

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from ioflusher.cli.console import output_console
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.lab_options import progress_line, since_option
from ioflusher.cli.lab_scenario import complete_scenario, read_scenario
from ioflusher.cli.messages import print_error
from ioflusher.cli.model_options import chosen_kernel, kernel_option
from ioflusher.errors import IoflusherError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ioflusher.comparison.compare import Comparison
    from ioflusher.lab.outcome import Run
    from ioflusher.scenario.records import Scenario


@click.command("compare")
@click.argument("scenarios", metavar="[SCENARIO]...", nargs=-1, shell_complete=complete_scenario)
@kernel_option
@click.option("--seeds", type=click.IntRange(1, 1000), default=10, show_default=True, help="Runs of a half.")
@since_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
@click.option("--markdown", is_flag=True, help="Print a table in Markdown, for a document.")
def compare_command(
    scenarios: tuple[str, ...],
    kernel: tuple[int, int] | None,
    seeds: int,
    since: datetime | None,
    as_json: bool,
    markdown: bool,
) -> None:
    """Play each SCENARIO in the model and compare that with the kept runs of `ioflusher lab run`.

    Without a SCENARIO all that come with the package are compared. All kept runs count that played the same
    scenario on a kernel of the same version, with --since those that began later. Where prediction and
    observation differ, the model is wrong, or chance decides.

    Exit status: 0 alike, 1 some differ, 2 of some nothing is kept, or the model has them not.
    """
    from ioflusher.comparison.observed import kept_runs
    from ioflusher.lab.store import ExperimentStore, store_path
    from ioflusher.report.model_comparison import comparison_markdown, comparison_record, print_comparison
    from ioflusher.scenario.file import builtin_scenarios

    if as_json and markdown:
        raise click.UsageError("--json and --markdown contradict each other")
    store = ExperimentStore(store_path())
    found: list[Comparison] = []
    missing = False
    with progress_line(quiet=as_json or markdown or len(scenarios) == 1) as say:
        for name in scenarios or sorted(builtin_scenarios()):
            say(f"playing {name}")
            scenario = read_scenario(name)
            try:
                version = chosen_kernel(kernel, scenario)
                runs = kept_runs(store, scenario, version, since=since.timestamp() if since else 0.0)
                found.append(_compared(runs, scenario, version, seeds))
            except IoflusherError as error:
                print_error(str(error), error.hint)
                missing = True
    if as_json:
        click.echo(json.dumps([comparison_record(one) for one in found], indent=2))
    elif markdown:
        click.echo(comparison_markdown(found), nl=False)
    else:
        for one in found:
            print_comparison(one, output_console())
    for one in found:
        if not one.observed:
            missing = True
            print_error(
                f"nothing is kept of {one.scenario} on Linux {one.kernel}",
                f"play it: ioflusher lab run {one.scenario} --kernel {one.kernel}",
            )
    if missing:
        sys.exit(ExitStatus.FAILED)
    sys.exit(ExitStatus.DONE if all(one.alike for one in found) else ExitStatus.FOUND)


def _compared(
    runs: "Sequence[Run]", scenario: "Scenario", version: tuple[int, int], seeds: int
) -> "Comparison":
    from ioflusher.comparison.compare import Comparison, compared
    from ioflusher.comparison.observed import observed_halves
    from ioflusher.comparison.predicted import predicted_halves

    halves = tuple(
        compared(
            observed_halves(runs, io_flusher=io_flusher),
            predicted_halves(scenario, version, range(seeds), io_flusher=io_flusher),
            io_flusher=io_flusher,
        )
        for io_flusher in (False, True)
    )
    return Comparison(scenario.name, ".".join(map(str, version)), halves)
