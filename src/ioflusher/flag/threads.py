"""The IO_FLUSHER state of every thread of a process, read from /proc without privilege."""

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ioflusher.flag.errors import FlagError, NoSuchProcessError, StateUnreadableError
from ioflusher.kernel.task import PF_IO_FLUSHER, PF_IO_WORKER, PF_USER_WORKER, TaskFlags, parse_stat


class Bits(Enum):
    """How many of the state's two bits a thread carries."""

    BOTH = "both"
    ONE = "one"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ThreadState:
    """One thread as /proc/PID/task/TID/stat showed it.

    Attributes:
        tid: the thread's number; the main thread's is the process number.
        comm: its name, raw bytes of the machine: escape them before they reach a terminal.
        state: the letter of its run state (R S D T t Z X I).
        flags: its PF_* bits.
    """

    tid: int
    comm: bytes
    state: str
    flags: TaskFlags

    @property
    def io_flusher(self) -> bool:
        """Whether it carries both bits of the state."""
        return self.flags.io_flusher

    @property
    def bits(self) -> Bits:
        """Whether it carries both bits of the state, one, or none."""
        if self.flags.io_flusher:
            return Bits.BOTH
        return Bits.ONE if self.flags & PF_IO_FLUSHER else Bits.NONE

    @property
    def kernel_worker(self) -> bool:
        """Whether the kernel runs it for the process (io_uring, vhost): it never executes the program."""
        return bool(self.flags & (PF_IO_WORKER | PF_USER_WORKER))

    @property
    def ended(self) -> bool:
        """Whether it is dead and waits to be collected, as a main thread that returned before the others."""
        return self.state in ("Z", "X")


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which threads of a process carry the state.

    Attributes:
        pid: the process.
        threads: its threads that live, lowest number first.
    """

    pid: int
    threads: tuple[ThreadState, ...]

    @property
    def complete(self) -> bool:
        """Whether every thread carries both bits."""
        return all(thread.io_flusher for thread in self.threads)

    def having(self, bits: Bits) -> tuple[ThreadState, ...]:
        """The threads that carry so many of the two bits."""
        return tuple(thread for thread in self.threads if thread.bits is bits)


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
            f"{thread.tid} {thread.comm.decode('utf-8', 'backslashreplace')!r}"
            f"{' (half set)' if thread.bits is Bits.ONE else ''}"
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


def thread_states(pid: int | None = None, *, proc: Path = Path("/proc")) -> tuple[ThreadState, ...]:
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


def thread_state(directory: str) -> ThreadState | None:
    """The state of the thread whose directory below /proc this is, or None where it is gone.

    Raises:
        StateUnreadableError: where it may not be read.
    """
    try:
        with open(f"{directory}/stat", "rb", buffering=0) as file:
            stat = parse_stat(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise StateUnreadableError(f"{directory}/stat", error) from error
    return ThreadState(tid=stat.pid, comm=stat.comm, state=stat.state, flags=stat.flags)
