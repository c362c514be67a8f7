"""Standard output and standard error for text with colours. rich is loaded when it is used."""

import shutil
import sys
from typing import TYPE_CHECKING, Any, TextIO

from ioflusher.cli.preferences import preferences

if TYPE_CHECKING:
    from rich.console import Console


def prose_width() -> int:
    """Columns for prose on standard output: the terminal's, `WIDTH` at most, and that elsewhere."""
    from ioflusher.report.wrapping import WIDTH

    return max(40, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def output_console() -> "Console":
    """Standard output. What is printed is taken as it is: rich looks for no markup, emoji or numbers."""
    return _console(sys.stdout)


def error_console() -> "Console":
    """Standard error, alike."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to the program to end, as for all other output."""
            raise

    colored = preferences().colored(stream)
    plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "no_color": not colored}
    console = Output(
        file=stream,
        # a file that gets colours counts as a terminal
        force_terminal=True if colored else stream.isatty(),
        color_system="auto" if colored else None,
        **plain,
    )
    if colored and console.color_system is None:  # --color always for a dumb terminal
        console = Output(file=stream, force_terminal=True, color_system="standard", **plain)
    return console
