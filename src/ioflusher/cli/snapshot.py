"""`ioflusher snapshot`: record this machine, so that it can be judged elsewhere and later."""

import gc
import sys
from pathlib import Path

import click

from ioflusher.cli.messages import remark
from ioflusher.cli.output import output_option, write_result
from ioflusher.cli.progress import progress_bar
from ioflusher.machine.codec import dump_snapshot
from ioflusher.machine.collect.limits import SnapshotLimits
from ioflusher.machine.collect.machine import collect


@click.command()
@output_option
@click.option(
    "--arguments", is_flag=True, help="Record the command lines of all processes too. They may hold secrets."
)
@click.option(
    "--root",
    metavar="DIRECTORY",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/"),
    help="Read proc/ and sys/ below this directory, a recorded tree, instead of this machine.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=SnapshotLimits().seconds,
    show_default=True,
    help="Stop reading processes after so long, and say in the snapshot how many were left out.",
)
@click.option("--force", is_flag=True, help="Write to standard output even where that is a terminal.")
def snapshot(output: Path | None, arguments: bool, root: Path, timeout: float, force: bool) -> None:
    """Record this machine, to be judged elsewhere.

    As JSON: what `audit` and `map` need, from /proc, /sys and its sockets.

    \b
        ioflusher snapshot > host.json

    Reads only. Records no environment and no command lines unless asked. Run it as root to have all of it;
    what could not be read is in the snapshot, and told on standard error.
    """
    if output is None and sys.stdout.isatty() and not force:
        raise click.UsageError(
            "a snapshot is long JSON, not for a terminal: redirect it, as in "
            "`ioflusher snapshot > host.json`, or use --output FILE or --force"
        )
    # The records live until the program ends: there is no garbage to look for among them.
    gc.disable()
    with progress_bar("reading processes") as show:
        taken = collect(root, arguments=arguments, limits=SnapshotLimits(seconds=timeout), progress=show)
    data = dump_snapshot(taken)
    write_result(data, output, private=True)
    if taken.unreadable:
        remark(
            f"{len(taken.unreadable)} things could not be read; they are listed in the snapshot"
            + ("" if taken.system.privileged else " (some need root with CAP_SYS_PTRACE)")
        )
