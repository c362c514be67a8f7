"""`ioflusher lab list` and `lab setup`."""

import json

import click

from ioflusher.cli.lab_options import kernel_option, progress_line
from ioflusher.cli.lab_scenario import complete_scenario, read_scenario


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_command(as_json: bool) -> None:
    """List the scenarios that come with the package."""
    from ioflusher.scenario.file import builtin_scenarios, parse_scenario

    scenarios = [parse_scenario(text, origin=name) for name, text in builtin_scenarios().items()]
    if as_json:
        click.echo(json.dumps([{"name": s.name, "title": s.title, "served": s.served} for s in scenarios]))
        return
    width = max(len(s.name) for s in scenarios)
    for s in scenarios:
        click.echo(f"{s.name:{width}}  {s.title}")


@click.command("setup")
@click.argument("scenarios", metavar="[SCENARIO]...", nargs=-1, shell_complete=complete_scenario)
@kernel_option
def setup_command(scenarios: tuple[str, ...], kernel: str | None) -> None:
    """Install what the lab needs from the distribution's packages, fetch the kernel, try KVM.

    Of each SCENARIO that is named, also its kernel, and the packages of its daemon and of what stands between
    the daemon and its device. Packages are installed as root or with sudo where they are missing; else it
    says which they are.
    """
    from ioflusher.lab.session import Lab
    from ioflusher.lab.setup import install_missing

    wanted = [read_scenario(name) for name in scenarios]
    with progress_line() as progress:
        installed = install_missing(progress, wanted)
        ready = {}
        # a lab for each kernel that one of them needs
        for scenario in {s.machine.kernel: s for s in wanted}.values() if wanted else (None,):
            with Lab(kernel, progress=progress, scenario=scenario) as lab:
                ready[lab.kernel.release] = lab.accelerator.value
    if installed:
        click.echo(f"installed: {' '.join(installed)}")
    for release, accelerator in ready.items():
        click.echo(f"ready: Linux {release}, QEMU with {accelerator}")
