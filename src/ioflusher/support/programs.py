"""The one place that runs programs: no input, messages in English, a deadline, failures told apart.

`run` is for a program whose output is wanted and that must succeed, `call` where its status is an answer,
`start` for one that goes on beside us. All three close its standard input and fix its locale.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ioflusher.errors import IoflusherError
from ioflusher.support.text import text_of

# where Debian keeps depmod and mkfs, which a user's PATH often lacks
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
# of what a failed program wrote, so many of its last lines are in the message
_LAST_LINES = 6


class ProgramError(IoflusherError):
    """A program could not be run, or not to a good end."""


class ProgramMissingError(ProgramError):
    """There is no such program, or it may not be executed."""


class ProgramTimeoutError(ProgramError):
    """A program was still running when its time was up; it was killed."""


class ProgramFailedError(ProgramError):
    """A program ended with a status other than 0.

    Attributes:
        status: its exit status, negative for the signal that ended it.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended.

    Attributes:
        command: as it can be repeated in a shell.
        status: its exit status, negative for the signal that ended it.
        output: what it wrote to standard output; bytes that are no UTF-8 are \\xNN.
        errors: what it wrote to standard error, empty where that was put into `output`.
    """

    command: str
    status: int
    output: str
    errors: str


def locate(name: str) -> str | None:
    """Absolute path of a program, from PATH and from where system programs lie; None where there is none."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}")


def find_program(name: str, *, package: str, installer: str | None = None) -> str:
    """Absolute path of a program.

    Args:
        name: of the program.
        package: the distribution's package that brings it, for the hint.
        installer: a command that installs it too, for the hint.

    Raises:
        ProgramMissingError: it is not installed; the hint says how to change that.
    """
    path = locate(name)
    if path is None:
        first = f"run `{installer}` as root, or " if installer else ""
        raise ProgramMissingError(
            f"the program {name} is not installed", hint=f"{first}install the package {package}"
        )
    return path


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with messages in English, and `extra`."""
    return {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}


def call(
    argv: Sequence[str],
    *,
    deadline_s: float,
    cwd: Path | None = None,
    extra: Mapping[str, str] | None = None,
    merged: bool = False,
) -> Finished:
    """Run a program to its end, whatever its status.

    Args:
        argv: the program and its arguments; no shell reads them.
        deadline_s: seconds after which it is killed.
        cwd: directory to run it in, None for this process's.
        extra: environment variables besides this process's.
        merged: put what it writes to standard error into `output`, in the order in which it was written.

    Raises:
        ProgramMissingError: there is no such program, or it may not be executed.
        ProgramTimeoutError: it took longer than `deadline_s`.
    """
    shown = shlex.join(argv)
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            env=environment(extra),
            cwd=cwd,
            timeout=deadline_s,
        )
    except subprocess.TimeoutExpired as error:
        said = _last_lines(text_of(error.stderr or error.stdout or b""))
        raise ProgramTimeoutError(f"`{shown}` was still running after {deadline_s:g} s{said}") from error
    except OSError as error:
        raise _not_started(argv, error) from error
    return Finished(shown, done.returncode, text_of(done.stdout), text_of(done.stderr or b""))


def run(argv: Sequence[str], *, deadline_s: float, cwd: Path | None = None) -> str:
    """What a program printed that ended with status 0; see `call`.

    Raises:
        ProgramMissingError: there is no such program, or it may not be executed.
        ProgramTimeoutError: it took longer than `deadline_s` seconds.
        ProgramFailedError: it exited with another status or died of a signal; the message holds the command
            as it can be repeated in a shell and the last lines that it wrote.
    """
    done = call(argv, deadline_s=deadline_s, cwd=cwd)
    if done.status:
        how = f"died of signal {-done.status}" if done.status < 0 else f"exited {done.status}"
        raise ProgramFailedError(
            f"`{done.command}` {how}{_last_lines(done.errors or done.output)}", status=done.status
        )
    return done.output


def start(argv: Sequence[str], *, output: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start a program that goes on beside this process; it writes both its outputs to the file `output`.

    It has a process group of its own: a Ctrl-C on the terminal is the caller's to handle. So are its deadline
    and its end.

    Raises:
        ProgramMissingError: there is no such program, or it may not be executed.
    """
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(),
            process_group=0,
        )
    except OSError as error:
        raise _not_started(argv, error) from error


def _not_started(argv: Sequence[str], error: OSError) -> ProgramMissingError:
    if isinstance(error, FileNotFoundError) and error.filename in (None, argv[0]):
        return ProgramMissingError(f"no such program: {argv[0]}", errno=error.errno)
    return ProgramMissingError(f"cannot run {argv[0]}: {error.strerror or error}", errno=error.errno)


def _last_lines(text: str) -> str:
    lines = text.strip().splitlines()[-_LAST_LINES:]
    return ":\n" + "\n".join(lines) if lines else ""
