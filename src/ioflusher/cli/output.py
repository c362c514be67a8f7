"""Standard output: all of it is written, or an error says why not."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ioflusher.errors import IoflusherError


class OutputError(IoflusherError):
    """Standard output could not be written."""


@contextmanager
def writing_output() -> Iterator[None]:
    """What is written to standard output below is flushed at the end.

    Raises:
        OutputError: the disk is full, say.
        BrokenPipeError: the reader went away; click ends the program for it, without a word.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _give_up()
        raise OutputError(f"cannot write to standard output: {error.strerror}", errno=error.errno) from error


def _give_up() -> None:
    """Have what still waits go nowhere, or the interpreter tries, and complains, once more when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
