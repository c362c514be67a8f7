"""Many processes read on several processors: most of the time goes by in the kernel, call by call."""

import heapq
import os
from collections.abc import Callable

import msgspec

from ioflusher.machine.collect_processes import ProcessReader
from ioflusher.machine.notes import Noted, Notes, read_small
from ioflusher.machine.process import Process, Thread

# Below so many threads for each a second process costs more than it brings: a fork, and the way back.
THREADS_EACH = 2500
MOST_SHARES = 8

Wanted = Callable[[tuple[Thread, ...]], bool]


_Share = tuple[list[Process], Noted]


def read_processes(reader: ProcessReader, pids: list[int], wanted: Wanted, notes: Notes) -> list[Process]:
    """Those of the processes that are still there and whose threads are wanted, in no order.

    They are read as `reader.read_bare` does; what could not be read is in `notes`, which is the reader's.
    """
    own, *others = _shares(reader.proc, pids)
    started = [(share, *_start(reader, share, wanted, notes)) for share in others]
    found = _read(reader, own, wanted)
    for share, child, pipe in started:
        with open(pipe, "rb") as file:
            data = file.read()
        if os.waitpid(child, 0)[1] == 0:
            processes, noted = msgspec.msgpack.decode(data, type=_Share)
            found += processes
            notes.merge(noted)
        else:  # killed, or out of memory: nothing of it counts
            found += _read(reader, share, wanted)
    return found


def _read(reader: ProcessReader, pids: list[int], wanted: Wanted) -> list[Process]:
    processes = (reader.read_bare(pid, wanted) for pid in pids)
    return [process for process in processes if process is not None]


def _start(reader: ProcessReader, pids: list[int], wanted: Wanted, notes: Notes) -> tuple[int, int]:
    """Have a child read its share: its number, and the pipe that brings what it found."""
    receive, send = os.pipe()
    child = os.fork()
    if child:
        os.close(send)
        return child, receive
    status = 1
    try:
        share: _Share = (_read(reader, pids, wanted), notes.noted())
        with open(send, "wb") as file:
            file.write(msgspec.msgpack.encode(share))
        status = 0
    finally:
        os._exit(status)  # nothing of the parent's is to be done twice


def _shares(proc: str, pids: list[int]) -> list[list[int]]:
    """The processes in as many shares as are worth it, of about equally many threads."""
    count = min(len(os.sched_getaffinity(0)), _threads_of_machine(proc) // THREADS_EACH, MOST_SHARES)
    if count < 2:
        return [pids]
    shares: list[tuple[int, list[int]]] = [(0, []) for _ in range(count)]
    for threads, pid in sorted(((_threads(proc, pid), pid) for pid in pids), reverse=True):
        filled, share = shares[0]
        share.append(pid)
        heapq.heapreplace(shares, (filled + threads, share))
    return [share for _, share in shares]


def _threads(proc: str, pid: int) -> int:
    """How many threads a process has: its directory `task` has so many below it."""
    try:
        return os.stat(f"{proc}/{pid}/task").st_nlink - 2
    except OSError:
        return 1


def _threads_of_machine(proc: str) -> int:
    """How many threads there are at all, as /proc/loadavg tells; 0 where it does not."""
    try:
        return int(read_small(f"{proc}/loadavg").split()[3].partition(b"/")[2])
    except (OSError, ValueError, IndexError):
        return 0
