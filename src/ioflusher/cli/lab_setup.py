"""`ioflusher lab list` and `lab setup`."""

import json

import click

from ioflusher.cli.lab_options import kernel_option, progress_line


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_command(as_json: bool) -> None:
    """List the scenarios that come with the package."""
    from ioflusher.lab.scenario_file import builtin_scenarios, parse_scenario

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
