"""What the program says on standard error: errors, and remarks that --quiet leaves out.

What these quote (file names, names of processes, words of the user) cannot steer a terminal.
"""

import click

from ioflusher.cli.preferences import preferences
from ioflusher.errors import IoflusherError
from ioflusher.support.text import printable


def complain(error: IoflusherError) -> None:
    """Print an error and what can be done about it."""
    print_error(str(error), error.hint)


def print_error(text: str, hint: str | None = None) -> None:
    """Print that something could not be done, line breaks as they are and everything else escaped."""
    click.echo(f"ioflusher: {escaped(text)}", err=True)
    if hint:
        click.echo(f"  hint: {escaped(hint)}", err=True)


def remark(text: str) -> None:
    """Print what is good to know beside the result; nothing with --quiet."""
    if not preferences().quiet:
        print_error(text)


def escaped(text: str) -> str:
    """The text with everything but its line breaks made safe for a terminal."""
    return "\n".join(map(printable, text.split("\n")))
