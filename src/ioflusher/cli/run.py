"""`ioflusher run`: start a command in the IO_FLUSHER state."""

import os
import signal
import sys
from typing import NoReturn

import click

from ioflusher.cli.command_argument import command_argument
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.hardening_options import hardening
from ioflusher.cli.messages import print_error, remark
from ioflusher.flag import FlagError, set_io_flusher
from ioflusher.harden import Settings, become, drop_ambient_capability, find_identity


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--require/--best-effort",
    default=True,
    help="Refuse to start if the state cannot be set (default), or say so and go on.",
)
@click.option("--user", metavar="USER", help="Become this user (name or number) before the command starts.")
@click.option("--group", metavar="GROUP", help="Become this group; default: the user's.")
@click.option(
    "--drop-capability",
    is_flag=True,
    help="Keep CAP_SYS_RESOURCE from the command where it came by the ambient set.",
)
@command_argument
@hardening
def run(
    require: bool,
    user: str | None,
    group: str | None,
    drop_capability: bool,
    settings: Settings,
    command: tuple[str, ...],
) -> None:
    """Run a command in the IO_FLUSHER state.

    All threads and children of COMMAND have it. The state is kept across execve, inherited by threads and
    children, and survives a change of user, so this covers programs in any language, and they need no
    capability. The command replaces this process: its exit status and signals are its own.

    Exit status: the command's; 127 if it is not found, 126 if it cannot be executed, 2 if something that was
    asked for cannot be done.
    """
    identity = find_identity(user, group) if user is not None or group is not None else None
    settings.apply()
    try:
        set_io_flusher(True)
    except FlagError as error:
        if require:
            raise
        remark(f"going on without the state: {error}")
    if drop_capability:
        drop_ambient_capability()
    if identity is not None:
        become(identity)
    execute(command)


def execute(command: tuple[str, ...]) -> NoReturn:
    """Replace this process by the command. Exits 127 (not found) or 126 (other reasons) as a shell does."""
    # Python ignores these at its start; an ignored signal would stay ignored in the command.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print_error(f"cannot execute {command[0]!r}: {error.strerror}")
        sys.exit(ExitStatus.NOT_FOUND if isinstance(error, FileNotFoundError) else ExitStatus.NOT_EXECUTABLE)
