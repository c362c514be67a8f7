"""The program as a user calls it: through its real entry in this process, or in a process of its own."""

import gc
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from ioflusher.cli.main import main

PROGRAM = [sys.executable, "-m", "ioflusher"]
DEADLINE = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call of the program ended.

    Attributes:
        status: its exit status.
        stdout: what it wrote there.
        stderr: what it wrote there.
    """

    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """All that a user saw."""
        return self.stdout + self.stderr


def call(*arguments: str | Path, stdin: bytes = b"", crash: bool = False, encoding: str = "utf-8") -> Ended:
    """Run `ioflusher ARGUMENTS` in this process, through the program's real entry.

    An exception that the program would report as its own mistake (status 70) fails the test with its
    traceback, unless `crash` says that it belongs to the test. `encoding` is that of its output.
    """
    words = [str(argument) for argument in arguments]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, newline="", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setattr(os, "execvp", do_not_replace)
        if not crash:
            monkeypatch.setattr("ioflusher.cli.main.internal_error", let_through)
        try:
            main(words)
        except SystemExit as end:
            status = end.code
        finally:
            gc.enable()  # `status` and `snapshot` turn it off for their short lives
            gc.unfreeze()
    assert isinstance(status, int)
    return Ended(status, *(stream.buffer.getvalue().decode(encoding) for stream in (out, err)))


def let_through(error: Exception, **_: object) -> NoReturn:
    """Instead of the report of an internal error: the error."""
    raise error


def do_not_replace(program: str, _: object) -> NoReturn:
    """Instead of execvp(3), which would end the tests."""
    raise AssertionError(f"{program} would replace this process: use start()")


def start(
    *arguments: str | Path,
    stdin: bytes = b"",
    timeout: float = DEADLINE,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run `ioflusher ARGUMENTS` in a process of its own; a status below zero is the signal that ended it."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=timeout,
        env=environment_with(environment or {}),
        check=False,
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def environment_with(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without wishes for colours, and with the changes."""
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**plain, **changes}
