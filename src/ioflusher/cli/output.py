"""Standard output: all of it is written, or an error says why not."""

import io
import os
import sys
from contextlib import suppress
from typing import Any

from ioflusher.errors import IoflusherError


class OutputError(IoflusherError):
    """Standard output could not be written."""


class StandardOutput(io.FileIO):
    """The file descriptor of standard output, whose failures are told from those of other files.

    Raises:
        OutputError: while it is written: the disk is full, say.
        BrokenPipeError: the reader went away.
    """

    def __init__(self) -> None:
        super().__init__(sys.stdout.fileno(), "wb", closefd=False)

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"cannot write to standard output: {error.strerror}", errno=error.errno
            ) from error


def open_standard_output() -> None:
    """Have sys.stdout be a StandardOutput; one that is closed, or that a test has put there, stays."""
    given = sys.stdout
    if isinstance(given, io.TextIOWrapper) and given is sys.__stdout__:
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(StandardOutput()),
            given.encoding,
            given.errors,
            line_buffering=given.line_buffering,
            write_through=given.write_through,
        )


def flush_output() -> None:
    """Write what still waits.

    Raises:
        OutputError, BrokenPipeError: as StandardOutput.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def discard_output() -> None:
    """Have what still waits go nowhere, or the interpreter tries, and complains, once more when it ends."""
    with suppress(io.UnsupportedOperation):  # in a test, where nothing has to be discarded
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
