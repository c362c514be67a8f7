"""The `ioflusher` command: finds the verb, prints errors, exits.

Verbs are loaded when they are called, so that `ioflusher run` does not wait for what `ioflusher lab` needs.
"""

import importlib
import sys

import click

from ioflusher import __version__
from ioflusher.cli.complaint import complain
from ioflusher.errors import IoflusherError

# verb -> (module below ioflusher.cli, attribute)
VERBS: dict[str, tuple[str, str]] = {
    "audit": ("audit", "audit"),
    "container": ("container", "container"),
    "diagnose": ("diagnose", "diagnose"),
    "lab": ("lab", "lab"),
    "map": ("map_", "map_"),
    "nbd": ("nbd", "nbd"),
    "run": ("run", "run"),
    "set": ("set_", "set_state"),
    "snapshot": ("snapshot", "snapshot"),
    "status": ("status", "status"),
    "unit": ("unit", "unit"),
    "unset": ("set_", "unset_state"),
}

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A click group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = VERBS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"ioflusher.cli.{entry[0]}")
        command: click.Command = getattr(module, entry[1])
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ioflusher")
def cli() -> None:
    """Keep user-space storage daemons out of the memory-reclaim deadlock.

    The IO_FLUSHER state (prctl PR_SET_IO_FLUSHER, Linux 5.6) tells the kernel not to start I/O
    on behalf of a thread's own allocations. This program sets it, shows it and proves what it does.
    """


def main() -> None:
    """Entry point of the `ioflusher` program.

    Exit status: what the verb says; 2 for wrong usage or work that could not be done; 130 on Ctrl-C.
    """
    try:
        sys.exit(cli.main(prog_name="ioflusher", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("ioflusher: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        click.echo("ioflusher: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except IoflusherError as error:
        complain(error)
        sys.exit(EXIT_ERROR)
