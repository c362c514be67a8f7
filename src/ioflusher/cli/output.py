"""Where results go: standard output or a file, in the form that was asked for. All of it, or an error."""

import functools
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from ioflusher.cli.file_parameters import DASH, OutputFile
from ioflusher.errors import IoflusherError

_Command = TypeVar("_Command", bound=Callable[..., Any])


class OutputError(IoflusherError):
    """A result could not be written."""


def output_option(command: _Command) -> _Command:
    """Adds `--output FILE`: the parameter `output`, None for standard output."""
    return click.option(
        "--output",
        "-o",
        metavar="FILE",
        type=OutputFile(),
        callback=lambda context, parameter, path: None if path == DASH else path,
        help="Write it to FILE, which appears whole or not at all; - is standard output.",
    )(command)


def format_option(*forms: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds `--format` with these forms, the first of them by default, and `--json`: the parameter `form`."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_form(*, form: str | None, as_json: bool, **others: Any) -> None:
            if as_json and form not in (None, "json"):
                raise click.UsageError("--json and --format contradict each other")
            command(form="json" if as_json else form or forms[0], **others)

        chosen = click.option(
            "--format", "form", type=click.Choice(forms), help=f"How to print it; {forms[0]} by default."
        )
        short = click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
        return chosen(short(with_form))

    return add


def write_result(data: str | bytes, output: Path | None, *, private: bool = False) -> None:
    """Write a result to the file, or to standard output for None.

    Args:
        data: text becomes UTF-8, lone surrogates escapes.
        output: nobody ever sees half of it. A device or a pipe is written as it is; where a link leads, the
            file there is replaced.
        private: have nobody but its owner read the file.

    Raises:
        OutputError: where it cannot be written.
    """
    raw = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    if output is None:
        sys.stdout.buffer.write(raw)
        sys.stdout.flush()
        return
    import tempfile  # not above: every verb loads this file, and few write one

    temporary = None
    try:
        if output.exists() and not output.is_file():
            output.write_bytes(raw)
            return
        place = output.resolve()
        descriptor, temporary = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        with open(descriptor, "wb") as file:
            file.write(raw)
            if not private:
                os.fchmod(file.fileno(), 0o666 & ~_umask())
        os.replace(temporary, place)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(f"cannot write {output}: {error.strerror}", errno=error.errno) from error


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


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
