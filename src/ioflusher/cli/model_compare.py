"""`ioflusher model compare`: what the model says of a scenario beside what real kernels did."""

import json
import sys

import click

from ioflusher.cli.console import output_console
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.lab_scenario import read_scenario, scenario_argument
from ioflusher.cli.messages import print_error
from ioflusher.cli.model_options import chosen_kernel, kernel_option


@click.command("compare")
@scenario_argument
@kernel_option
@click.option("--seeds", type=click.IntRange(1, 1000), default=10, show_default=True, help="Runs of a half.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
def compare_command(scenario: str, kernel: tuple[int, int] | None, seeds: int, as_json: bool) -> None:
    """Play SCENARIO in the model and compare that with the kept runs of `ioflusher lab run`.

    All kept runs count that played the same scenario on a kernel of the same version. Where prediction and
    observation differ, the model is wrong, or chance decides.

    Exit status: 0 alike, 1 they differ, 2 nothing is kept of this scenario on this kernel.
    """
    from ioflusher.comparison.compare import Comparison, compared
    from ioflusher.comparison.observed import kept_runs, observed_halves
    from ioflusher.comparison.predicted import predicted_halves
    from ioflusher.lab.store import ExperimentStore, store_path
    from ioflusher.report.model_comparison import comparison_record, print_comparison

    found = read_scenario(scenario)
    version = chosen_kernel(kernel, found)
    runs = kept_runs(ExperimentStore(store_path()), found, version)
    halves = []
    for io_flusher in (False, True):
        observed = observed_halves(runs, io_flusher=io_flusher)
        predicted = predicted_halves(found, version, range(seeds), io_flusher=io_flusher)
        halves.append(compared(observed, predicted, io_flusher=io_flusher))
    comparison = Comparison(found.name, ".".join(map(str, version)), tuple(halves))
    if as_json:
        click.echo(json.dumps(comparison_record(comparison), indent=2))
    else:
        print_comparison(comparison, output_console())
    if not any(half.observed.runs for half in halves):
        print_error(
            f"nothing is kept of {found.name} on Linux {comparison.kernel}",
            f"play it: ioflusher lab run {scenario} --kernel {comparison.kernel}",
        )
        sys.exit(ExitStatus.FAILED)
    sys.exit(ExitStatus.DONE if comparison.alike else ExitStatus.FOUND)
