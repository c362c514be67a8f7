"""`ioflusher lab`: real kernels in virtual machines."""

import sys
from pathlib import Path

import click

from ioflusher.cli.command_argument import command_argument
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.interruption import heed_signals
from ioflusher.cli.lab_explain import explain_command
from ioflusher.cli.lab_kernels import kernels_command
from ioflusher.cli.lab_matrix import matrix_command
from ioflusher.cli.lab_minimise import minimise_command
from ioflusher.cli.lab_options import (
    accelerator_option,
    current_directory_shares,
    kernel_option,
    progress_line,
)
from ioflusher.cli.lab_profile import profile_command
from ioflusher.cli.lab_replay import replay_command
from ioflusher.cli.lab_run import run_command
from ioflusher.cli.lab_runs import runs_command, show_command
from ioflusher.cli.lab_setup import list_command, setup_command
from ioflusher.cli.lab_shell import shell_command
from ioflusher.cli.messages import print_error


@click.group()
@click.pass_context
def lab(context: click.Context) -> None:
    """Boot real kernels in virtual machines.

    For experiments, and for commands tried in a guest. Guests see this machine's programs read-only, run as
    root with all capabilities, and need no root here.
    """
    heed_signals(context)


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@kernel_option
@accelerator_option
@click.option("--memory", metavar="SIZE", default="1G", show_default=True, help="The guest's memory.")
@click.option("--cpus", type=click.IntRange(1, 64), default=1, show_default=True, help="Its processors.")
@click.option(
    "--load", metavar="MODULE", multiple=True, help='Kernel module, with options: "nbd nbds_max=2".'
)
@click.option(
    "--share", type=click.Path(exists=True, path_type=Path), multiple=True, help="One more directory."
)
@click.option("--disk", metavar="FILE|SIZE", multiple=True, help="A disk: an image, or an empty one of SIZE.")
@click.option("--network", is_flag=True, help="QEMU's user network; 10.0.2.2 is this machine's loopback.")
@click.option("--timeout", type=float, default=600.0, show_default=True, help="Seconds for the command.")
@click.option("--time", "show_times", is_flag=True, help="Say on standard error how long it took.")
@command_argument
def exec_command(
    kernel: str | None,
    accelerator: str | None,
    memory: str,
    cpus: int,
    load: tuple[str, ...],
    share: tuple[Path, ...],
    disk: tuple[str, ...],
    network: bool,
    timeout: float,
    show_times: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND of this machine in a fresh guest, as root with all capabilities.

    What it prints is streamed, its exit status is returned. The guest's root is this machine's system
    directories, this Python and the current directory, under a layer that takes writes and goes with it.
    """
    from ioflusher.lab.disks import guest_disks, parse_disk
    from ioflusher.lab.errors import CommandTimeout
    from ioflusher.lab.execute import execute
    from ioflusher.lab.qemu import Accelerator
    from ioflusher.lab.session import Guest, Lab
    from ioflusher.support.sizes import parse_size

    chosen = Accelerator(accelerator) if accelerator else None
    shares = (*share, *current_directory_shares())
    disks_wanted = [parse_disk(text) for text in disk]
    with progress_line(quiet=True) as progress, guest_disks(disks_wanted) as disks:
        guest = Guest(parse_size(memory), cpus, load, disks, network)
        with Lab(kernel, accelerator=chosen, shares=shares, progress=progress) as ready:
            progress("booting")
            try:
                done = execute(
                    ready,
                    command,
                    guest=guest,
                    timeout_s=timeout,
                    stdin=None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.fileno(),
                    on_start=lambda: progress("running"),
                )
            except CommandTimeout as error:
                print_error(str(error))
                sys.exit(ExitStatus.TIMED_OUT)
    if done.message:
        print_error(done.message)
    if show_times:
        click.echo(f"booted in {done.boot_s:.1f} s, ran for {done.run_s:.1f} s", err=True)
    sys.exit(done.status)


for _command in (
    explain_command,
    kernels_command,
    list_command,
    matrix_command,
    minimise_command,
    profile_command,
    replay_command,
    run_command,
    runs_command,
    setup_command,
    shell_command,
    show_command,
):
    lab.add_command(_command)
