"""The IO_FLUSHER state of every thread of a process, read from /proc without privilege."""

from dataclasses import dataclass
from pathlib import Path

from ioflusher.flag.errors import NoSuchProcessError, StateUnreadableError
from ioflusher.kernel.task import TaskFlags, TaskStat, parse_stat


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


def thread_states(pid: int | None = None, *, proc: Path = Path("/proc")) -> tuple[ThreadState, ...]:
    """Every thread of process `pid` (None: this process), lowest number first.

    A thread that ends meanwhile is left out. `proc` is the proc file system to read.

    Raises:
        NoSuchProcessError: where there is no such process, or it ended meanwhile.
        StateUnreadableError: where /proc may not be read.
    """
    directory = proc / ("self" if pid is None else str(pid)) / "task"
    try:
        tids = sorted(int(entry.name) for entry in directory.iterdir())
    except FileNotFoundError as error:
        if pid is None:
            raise StateUnreadableError(str(directory), error) from error
        raise NoSuchProcessError(pid) from error
    except OSError as error:
        raise StateUnreadableError(str(directory), error) from error
    states = tuple(state for tid in tids if (state := _thread(directory, tid)) is not None)
    if not states:
        raise NoSuchProcessError(pid or 0)
    return states


def _thread(directory: Path, tid: int) -> ThreadState | None:
    """The thread's state, or None where it is gone."""
    path = directory / str(tid) / "stat"
    try:
        stat: TaskStat = parse_stat(path.read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise StateUnreadableError(str(path), error) from error
    return ThreadState(tid=tid, comm=stat.comm, state=stat.state, flags=stat.flags)
