"""`ioflusher run`: start a command in the IO_FLUSHER state."""

import os
import signal
import sys
from typing import NoReturn

import click

from ioflusher.flag import FlagError, set_io_flusher

EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--require/--best-effort",
    default=True,
    help="Refuse to start if the state cannot be set (default), or say so and go on.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(require: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND with the IO_FLUSHER state on all of its threads and children.

    The state is kept across execve and inherited by threads and children, so this covers programs in
    any language. The command replaces this process: its exit status and signals are its own.
    """
    try:
        set_io_flusher(True)
    except FlagError as error:
        if require:
            raise
        click.echo(f"ioflusher: going on without the state: {error}", err=True)
    execute(command)


def execute(command: tuple[str, ...]) -> NoReturn:
    """Replace this process by the command. Exits 127 (not found) or 126 (other reasons) as a shell does."""
    # Python ignores these at its start; an ignored signal would stay ignored in the command.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        click.echo(f"ioflusher: cannot execute {command[0]!r}: {error.strerror}", err=True)
        sys.exit(EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE)
