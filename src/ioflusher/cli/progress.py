"""A line on standard error that tells how far work is, where that is a terminal."""

import sys
import time
from types import TracebackType

import click

# work that is done sooner needs no line
_PATIENCE_SECONDS = 0.5
_EVERY_SECONDS = 0.1


class ProgressLine:
    """Shows "N of M things" in place; wiped away at the end. Does nothing where nobody looks."""

    def __init__(self, things: str) -> None:
        self._things = things
        self._watched = sys.stderr.isatty()
        self._next = time.monotonic() + _PATIENCE_SECONDS
        self._shown = False

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)

    def show(self, done: int, there_are: int) -> None:
        """How far the work is; cheap to call often."""
        if not self._watched or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY_SECONDS
        self._shown = True
        click.echo(f"\r\x1b[K{done} of {there_are} {self._things}", nl=False, err=True)
