"""A progress bar on standard error, where that is a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click

from ioflusher.cli.preferences import preferences


class Show(Protocol):
    """Tells what is done, and how much there is."""

    def __call__(self, done: int, there_are: int) -> None: ...


@contextmanager
def progress_bar(label: str, *, show: bool = True) -> Iterator[Show]:
    """A bar until the end of the block; nothing where nobody looks, with --quiet, or where `show` says so."""
    if preferences().quiet or not (show and sys.stderr.isatty()):
        yield lambda done, there_are: None
        return
    with click.progressbar(length=0, label=label, file=sys.stderr) as bar:

        def update(done: int, there_are: int) -> None:
            bar.length = there_are
            bar.update(done - bar.pos)

        yield update
