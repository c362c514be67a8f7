"""The `ioflusher` program: runs a verb, prints what went wrong, and ends with a status of exit_status.py."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from ioflusher import __version__
from ioflusher.cli.exit_status import ExitStatus
from ioflusher.cli.messages import complain, escaped, print_error
from ioflusher.cli.output import OutputError, discard_output, flush_output, open_standard_output
from ioflusher.cli.preferences import Preferences, with_preferences
from ioflusher.cli.verbs import VerbGroup
from ioflusher.errors import IoflusherError
from ioflusher.support.signals import Terminated

if TYPE_CHECKING:
    from types import TracebackType

COMPLETION_VARIABLE = "_IOFLUSHER_COMPLETE"


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ioflusher")
def cli() -> None:
    """Keep user-space storage daemons out of the memory-reclaim deadlock.

    The IO_FLUSHER state (prctl PR_SET_IO_FLUSHER, Linux 5.6) tells the kernel not to start I/O
    on behalf of a thread's own allocations. This program sets it, shows it and proves what it does.
    """


with_preferences(cli)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the `ioflusher` program: runs it with the arguments, or those of the process, and exits.

    Raises:
        SystemExit: always, with a status of `ExitStatus` or that of the command which `run` started.
    """
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        from ioflusher.cli.completion import complete

        sys.exit(complete(instruction))
    preferences = Preferences()
    open_standard_output()
    try:
        sys.exit(status_of(sys.argv[1:] if arguments is None else arguments, preferences))
    finally:
        preferences.debug = False  # ends the printing of commands


def status_of(arguments: Sequence[str], preferences: Preferences) -> int:
    """Run a verb; what it raises becomes words on standard error and a status."""
    try:
        status = call(arguments, preferences)
        flush_output()
        return status
    except click.ClickException as error:
        show_usage_error(error)
        return ExitStatus.FAILED
    except Terminated as end:
        print_error(f"ended by {end}")
        return 128 + end.number
    except (click.Abort, KeyboardInterrupt):
        print_error("interrupted")
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        discard_output()
        return ExitStatus.READER_GONE
    except MemoryError:
        print_error("out of memory")
        return ExitStatus.FAILED
    except OutputError as error:
        discard_output()
        complain(error)
        return ExitStatus.FAILED
    except IoflusherError as error:
        if preferences.debug:
            print_traceback(error)
        complain(error)
        return ExitStatus.FAILED
    except Exception as error:
        internal_error(error, debug=preferences.debug)
        return ExitStatus.INTERNAL_ERROR


def call(arguments: Sequence[str], preferences: Preferences) -> int:
    """Run a verb to its end and return its status."""
    # not Command.main(), which takes an EOFError for Ctrl-C and ends with 1 when standard output is closed
    try:
        with cli.make_context("ioflusher", list(arguments), obj=preferences) as context:
            cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or ExitStatus.DONE
        raise TypeError(f"a verb ended with {end.code!r} for a status") from end
    return ExitStatus.DONE


def show_usage_error(error: click.ClickException) -> None:
    """Print how the command is used, where that is known, and what was wrong."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        click.echo(context.get_usage(), err=True)
        click.echo(f"Try '{context.command_path} --help' for help.\n", err=True)
    click.echo(f"Error: {escaped(error.format_message())}", err=True)


def internal_error(error: Exception, *, debug: bool) -> None:
    """Print that this program made a mistake: one line, or with `debug` the traceback as well."""
    if debug:
        print_traceback(error)
    seen = "the traceback is above" if debug else "run it again with --debug to see the traceback"
    what = " ".join(f"{type(error).__name__}: {error}".split())
    print_error(f"internal error: {what} ({_place(error.__traceback__)}); {seen}")


def print_traceback(error: Exception) -> None:
    """Print where the error came from."""
    import traceback

    click.echo(escaped("".join(traceback.format_exception(error))), err=True, nl=False)


def _place(traceback: "TracebackType | None") -> str:
    """File and line of this package in which an error arose."""
    place = "unknown place"
    while traceback is not None:
        _, package, name = traceback.tb_frame.f_code.co_filename.rpartition("/ioflusher/")
        if package:
            place = f"{name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place
