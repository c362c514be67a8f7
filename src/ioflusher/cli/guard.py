"""`ioflusher guard`: a small resident service that ends freezes."""

import os
import sys

import click

from ioflusher.cli.messages import print_error
from ioflusher.cli.size_parameter import size
from ioflusher.rescue.guard.settings import GuardPolicy, GuardSettings


@click.command()
@click.option(
    "--policy",
    type=click.Choice([policy.value for policy in GuardPolicy]),
    default=GuardPolicy.LOSSLESS.value,
    show_default=True,
    help="report: keep what was seen; lossless: do what loses nothing; more: as far as --allow-loss goes.",
)
@click.option("--allow-loss", metavar="DEVICE", multiple=True, help="What `more` may do more for.")
@click.option(
    "--stalled",
    type=click.FloatRange(0.5, 600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="For how long no request may have completed.",
)
@click.option(
    "--reserve", type=size, default="0", metavar="SIZE", help="Memory to hold, and give back in a freeze."
)
@click.option("--history", metavar="FILE", help="Keep what was seen there, on a disk that nobody serves.")
@click.option("--priority", type=click.IntRange(1, 99), default=10, show_default=True, help="SCHED_RR.")
@click.option("--unit", is_flag=True, help="Print a hardened systemd unit with these options.")
def guard(
    policy: str,
    allow_loss: tuple[str, ...],
    stalled: float,
    reserve: int,
    history: str | None,
    priority: int,
    unit: bool,
) -> None:
    """Watch for freezes and end them.

    A resident service: locked in memory, real time, in the IO_FLUSHER state, the standard library alone. It
    watches the devices that processes of this machine serve, keeps stacks, memory and a short history where
    they survive (FILE, the kernel's log, pstore's /dev/pmsg0), and then acts by its policy.

    Exit status: 0 ended by SIGTERM, 2 it cannot work here.
    """
    if allow_loss and policy != GuardPolicy.MORE.value:
        raise click.UsageError("--allow-loss goes with --policy more")
    settings = GuardSettings(
        policy=GuardPolicy(policy),
        allow_loss=tuple(name.removeprefix("/dev/") for name in allow_loss),
        stalled_s=stalled,
        reserve=reserve,
        history=os.path.abspath(history) if history else None,
        priority=priority,
    )
    if unit:
        from ioflusher.cli.unit import program
        from ioflusher.rescue.guard.unit import unit_text

        click.echo(unit_text(program(), settings), nl=False)
        return
    if os.geteuid() != 0:
        print_error("guard needs root", "systemd: ioflusher guard --unit")
        sys.exit(2)
    argv = [sys.executable, "-m", "ioflusher.rescue.guard", settings.dump()]
    sys.stdout.flush()
    os.execv(sys.executable, argv)
