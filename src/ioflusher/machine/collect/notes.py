"""What a collector could not read, said once a kind; and the bounds that it keeps."""

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ioflusher.machine.unreadable import Unreadable

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a snapshot may take; what is cut off is said in `Snapshot.unreadable`.

    Attributes:
        seconds: for all processes together.
        answer_seconds: for one read that the kernel may hold up: of memory maps and command lines, which
            wait for a lock that a frozen process may hold, and of the sockets.
        threads, descriptors, files: of one process.
        argument_bytes: of one command line.
        text_bytes: of any one file of /proc.
    """

    seconds: float = 60.0
    answer_seconds: float = 2.0
    threads: int = 50_000
    descriptors: int = 200_000
    files: int = 4_096
    argument_bytes: int = 4_096
    text_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True)
class Noted:
    """What `Notes` hold: (what, why) of the machine, ((name, why), pids) of processes, and `refused`."""

    machine: list[tuple[str, str]]
    processes: list[tuple[tuple[str, str], list[int]]]
    refused: bool


class Notes:
    """Collects what could not be read. Calling it notes something of the machine."""

    def __init__(self) -> None:
        self._machine: dict[tuple[str, str], None] = {}
        self._processes: dict[tuple[str, str], list[int]] = {}
        self.refused = False  # whether something of a process needs more privilege

    def __call__(self, what: str, why: str) -> None:
        """Note something of the machine: a path or words, and the reason."""
        self._machine[what, why] = None

    def of_process(self, pid: int, name: str, why: str | OSError) -> None:
        """Note a file of /proc/PID, by its name there."""
        if isinstance(why, OSError):
            self.refused |= why.errno in (errno.EACCES, errno.EPERM)
            why = why.strerror or str(why)
        self._processes.setdefault((name, why), []).append(pid)

    def noted(self) -> Noted:
        """All that was noted, to be merged elsewhere."""
        return Noted(list(self._machine), list(self._processes.items()), self.refused)

    def merge(self, noted: Noted) -> None:
        """Take over what was noted elsewhere; what was noted here too counts once."""
        self._machine |= dict.fromkeys(noted.machine)
        for kind, pids in noted.processes:
            self._processes.setdefault(kind, []).extend(pids)
        self.refused |= noted.refused

    def unreadable(self, apart: Iterable[int] = ()) -> tuple[Unreadable, ...]:
        """The records: one a kind, and one for each process of `apart`."""
        apart = frozenset(apart)
        records = [Unreadable(what, why) for what, why in self._machine]
        for (name, why), noted in self._processes.items():
            pids = sorted(set(noted))
            alone = [pid for pid in pids if pid in apart or len(pids) == 1]
            others = len(pids) - len(alone)
            records += [Unreadable(f"/proc/{pid}/{name}".rstrip("/"), why, pid) for pid in alone]
            if others:
                many = "process" if others == 1 else "processes"
                records.append(Unreadable(f"{f'/proc/PID/{name}'.rstrip('/')} of {others} {many}", why))
        return tuple(sorted(records, key=lambda record: (record.pid or 0, record.what, record.why)))


def read_text(path: str, limit: int) -> bytes:
    """The first `limit` bytes of a file of /proc or /sys, whose length nobody knows before.

    Raises:
        OSError: as the system says.
    """
    with open(path, "rb", buffering=0) as file:
        first = file.read(min(limit, 1 << 16)) or b""
        # a file of /proc may come in pieces of any length
        pieces, length = [first], len(first)
        while pieces[-1] and length < limit:
            pieces.append(file.read(min(limit - length, 1 << 20)) or b"")
            length += len(pieces[-1])
    return b"".join(pieces)


def read_small(path: str | bytes, directory: int | None = None) -> bytes:
    """A file of /proc that is shorter than a page, in one read; the cheap way.

    `path` may be relative to `directory`, a descriptor.

    Raises:
        OSError: as the system says.
    """
    descriptor = os.open(path, os.O_RDONLY, dir_fd=directory)
    try:
        return os.read(descriptor, 8192)
    finally:
        os.close(descriptor)


def within(seconds: float, action: Callable[[], Result]) -> Result:
    """What `action` returns, if it does so in time; else it is left behind in a thread of its own.

    Raises:
        TimeoutError: where it did not.
        Exception: what `action` raises.
    """
    import threading  # costs a millisecond, and most programs never wait

    results: list[Result] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(action())
        except Exception as error:  # handed to the caller below
            errors.append(error)

    # A daemon thread does not keep the program from ending; the kernel's wait ends with the program.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:g} s")
    return results[0]


def prefix(root: Path) -> str:
    """What to put before "/proc" and "/sys": nothing for this machine itself."""
    return root.as_posix().rstrip("/")
