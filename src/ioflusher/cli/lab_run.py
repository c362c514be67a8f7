"""`ioflusher lab run`, `lab list` and `lab setup`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ioflusher.cli.lab_options import accelerator_option, kernel_option, progress_line

if TYPE_CHECKING:
    from ioflusher.lab.channel import Event
    from ioflusher.lab.outcome import Experiment
    from ioflusher.lab.scenario import Scenario
    from ioflusher.lab.session import Lab, Progress

EXIT_NO_CONTRAST = 1


@click.command("run")
@click.argument("scenario")
@click.option("--runs", type=click.IntRange(1, 1000), default=1, show_default=True, help="How often.")
@click.option("--only", type=click.Choice(["with", "without"]), help="Play one half alone.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Directory for the HTML report and its picture.",
)
@kernel_option
@accelerator_option
def run_command(
    scenario: str,
    runs: int,
    only: str | None,
    as_json: bool,
    report: Path,
    kernel: str | None,
    accelerator: str | None,
) -> None:
    """Play SCENARIO: the same machine without and with the IO_FLUSHER state.

    SCENARIO is a name from `ioflusher lab list` or a TOML file. Exit status: 0 frozen without and alive
    with (or, with --only, that half as expected), 1 anything else, 2 the work could not be done.
    """
    from rich.console import Console

    from ioflusher.lab.qemu import Accelerator
    from ioflusher.lab.scenario import find_scenario
    from ioflusher.lab.session import Lab
    from ioflusher.report.experiment_html import write_report
    from ioflusher.report.experiment_json import experiment_record
    from ioflusher.report.experiment_text import print_experiment

    found, text = find_scenario(scenario)
    chosen = Accelerator(accelerator) if accelerator else None
    with progress_line() as progress, Lab(kernel, accelerator=chosen, progress=progress) as lab:
        experiment = _play(lab, found, text, runs, only, progress)
    page = write_report(experiment, report)
    if as_json:
        click.echo(json.dumps(experiment_record(experiment)))
    else:
        print_experiment(experiment, Console(highlight=False, markup=False, emoji=False))
        click.echo(f"\nreport: {page}")
    sys.exit(0 if _as_expected(experiment, only) else EXIT_NO_CONTRAST)


def _play(
    lab: "Lab",
    scenario: "Scenario",
    text: str,
    runs: int,
    only: str | None,
    progress: "Progress",
) -> "Experiment":
    from ioflusher.lab.experiment import run_pair
    from ioflusher.lab.outcome import Experiment
    from ioflusher.support.sizes import format_size
    from ioflusher.support.text import counted

    done = []
    for number in range(1, runs + 1):
        count = f"run {number} of {runs}, " if runs > 1 else ""

        def watch(io_flusher: bool, event: "Event", count: str = count) -> None:
            half = f"{count}{'with' if io_flusher else 'without'} the state"
            if event.kind == "phase":
                progress(f"{half}: {event.data['name']}")
            elif event.kind == "begin":
                progress(f"{half}: the work begins")
            elif event.kind == "sample":
                free = event.data["memory_kib"].get("MemFree", 0) // 1024
                progress(
                    f"{half}: the work begins | {event.data['completed']} requests completed, "
                    f"{event.data['in_flight']} in flight, {free} MiB free"
                )

        progress(f"{count}booting")
        done.append(run_pair(lab, scenario, text, only=only, watch=watch))
    processors = counted(scenario.machine.cpus, "CPU")
    return Experiment(
        scenario=scenario.name,
        title=scenario.title,
        served=scenario.served,
        pressed=scenario.pressed,
        kernel=lab.kernel.release,
        accelerator={"tcg": "emulated", "kvm": "KVM"}[lab.accelerator.value],
        machine=f"{format_size(scenario.machine.memory)}, {processors}",
        runs=tuple(done),
    )


def _as_expected(experiment: "Experiment", only: str | None) -> bool:
    if only == "without":
        return all(run.without is not None and run.without.witness is not None for run in experiment.runs)
    if only == "with":
        return all(run.with_ is not None and run.with_.lived for run in experiment.runs)
    return all(run.proved for run in experiment.runs)


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_command(as_json: bool) -> None:
    """List the scenarios that come with the package."""
    from ioflusher.lab.scenario import builtin_scenarios, parse_scenario

    scenarios = [parse_scenario(text, origin=name) for name, text in builtin_scenarios().items()]
    if as_json:
        click.echo(json.dumps([{"name": s.name, "title": s.title, "served": s.served} for s in scenarios]))
        return
    width = max(len(s.name) for s in scenarios)
    for s in scenarios:
        click.echo(f"{s.name:{width}}  {s.title}")


@click.command("setup")
@kernel_option
def setup_command(kernel: str | None) -> None:
    """Install what the lab needs from the distribution's packages, fetch the kernel, try KVM.

    Packages are installed as root or with sudo where they are missing; else it says which they are.
    """
    from ioflusher.lab.session import Lab
    from ioflusher.lab.setup import install_missing

    with progress_line() as progress:
        installed = install_missing(progress)
        with Lab(kernel, progress=progress) as lab:
            release, accelerator = lab.kernel.release, lab.accelerator.value
    if installed:
        click.echo(f"installed: {' '.join(installed)}")
    click.echo(f"ready: Linux {release}, QEMU with {accelerator}")
