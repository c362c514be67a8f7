"""Errors as the program prints them: on standard error, and what they quote cannot steer a terminal."""

import click

from ioflusher.errors import IoflusherError
from ioflusher.support.text import printable


def complain(error: IoflusherError) -> None:
    """Print an error and what can be done about it."""
    say(str(error), error.hint)


def say(text: str, hint: str | None = None) -> None:
    """Print words of the program, line breaks as they are and everything else escaped."""
    click.echo(f"ioflusher: {_escaped(text)}", err=True)
    if hint:
        click.echo(f"  hint: {_escaped(hint)}", err=True)


def _escaped(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))
