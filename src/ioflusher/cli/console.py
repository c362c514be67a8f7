"""Standard output and standard error for text with colours."""

import sys
from typing import TextIO

from rich.console import Console

from ioflusher.cli.preferences import preferences


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the program to end, as for all other output."""
        raise


def output_console() -> Console:
    """Standard output. What is printed is taken as it is: rich looks for no markup, emoji or numbers."""
    return _console(sys.stdout)


def error_console() -> Console:
    """Standard error, alike."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    colored = preferences().colored(stream)
    console = _Console(
        file=stream,
        # a file that gets colours counts as a terminal; for the rest rich looks for itself
        force_terminal=True if colored else stream.isatty(),
        color_system="auto" if colored else None,
        no_color=not colored,
        highlight=False,
        markup=False,
        emoji=False,
    )
    if colored and console.color_system is None:  # --color always for a dumb terminal
        console = _Console(
            file=stream,
            force_terminal=True,
            color_system="standard",
            no_color=False,
            highlight=False,
            markup=False,
            emoji=False,
        )
    return console
