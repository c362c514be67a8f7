"""The IO_FLUSHER state of every thread of a process, read from /proc without privilege."""

import os
from pathlib import Path

from ioflusher.flag.errors import FlagError, NoSuchProcessError, StateUnreadableError
from ioflusher.kernel.coverage import Coverage
from ioflusher.kernel.task import Bits, Thread, parse_stat

__all__ = [
    "Bits",
    "Coverage",
    "CoverageError",
    "Thread",
    "coverage",
    "require_coverage",
    "thread_state",
    "thread_states",
]


class CoverageError(FlagError):
    """Not every thread of a process carries the state.

    Attributes:
        coverage: what was found.
        threads: the threads that lack a bit or both.
    """

    def __init__(self, coverage: Coverage) -> None:
        self.coverage = coverage
        self.threads = tuple(thread for thread in coverage.threads if not thread.io_flusher)
        names = ", ".join(
            f"{thread.tid} {thread.comm!r}{' (half set)' if thread.bits is Bits.ONE else ''}"
            for thread in self.threads
        )
        super().__init__(
            f"{len(self.threads)} of {len(coverage.threads)} threads of process {coverage.pid} "
            f"lack the IO_FLUSHER state: {names}",
            hint=f"start it under `ioflusher run`, or `ioflusher set {coverage.pid}` now",
        )


def coverage(pid: int | None = None, *, proc: Path = Path("/proc")) -> Coverage:
    """For every living thread of process `pid` (None: this process) whether it carries the state.

    Raises:
        NoSuchProcessError: where there is no such process, or it ended, if only meanwhile.
        StateUnreadableError: where /proc may not be read.
    """
    states = thread_states(pid, proc=proc)
    living = tuple(state for state in states if not state.ended)
    if not living:
        raise NoSuchProcessError(pid or os.getpid())
    return Coverage(pid=os.getpid() if pid is None else pid, threads=living)


def require_coverage(pid: int | None = None) -> None:
    """Make sure that every thread of process `pid` (None: this process) carries the state.

    Raises:
        CoverageError: where a thread lacks it; the message names each.
        NoSuchProcessError, StateUnreadableError: see `coverage`.
    """
    found = coverage(pid)
    if not found.complete:
        raise CoverageError(found)


def thread_states(pid: int | None = None, *, proc: Path = Path("/proc")) -> tuple[Thread, ...]:
    """Every thread of process `pid` (None: this process), lowest number first.

    A thread that ends meanwhile is left out. `proc` is the proc file system to read.

    Raises:
        NoSuchProcessError: where there is no such process, or it ended meanwhile.
        StateUnreadableError: where /proc may not be read.
    """
    directory = f"{proc}/{'self' if pid is None else pid}/task"
    try:
        tids = sorted(map(int, os.listdir(directory)))
    except (FileNotFoundError, ProcessLookupError) as error:
        if pid is None:
            raise StateUnreadableError(directory, error) from error
        raise NoSuchProcessError(pid) from error
    except OSError as error:
        raise StateUnreadableError(directory, error) from error
    states = tuple(state for tid in tids if (state := thread_state(f"{directory}/{tid}")) is not None)
    if not states:
        raise NoSuchProcessError(pid or 0)
    return states


def thread_state(directory: str) -> Thread | None:
    """The state of the thread whose directory below /proc this is, or None where it is gone.

    Raises:
        StateUnreadableError: where it may not be read.
    """
    try:
        with open(f"{directory}/stat", "rb", buffering=0) as file:
            return parse_stat(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise StateUnreadableError(f"{directory}/stat", error) from error
