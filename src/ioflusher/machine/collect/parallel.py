"""Many processes read on several processors: most of the time goes by in the kernel, call by call."""

import heapq
import os
from collections import defaultdict
from dataclasses import replace

import msgspec

from ioflusher.kernel.task import Thread
from ioflusher.machine.collect.proc_files import read_small
from ioflusher.machine.collect.processes import ProcessReader, Wanted, main_thread
from ioflusher.machine.collect.unreadable_notes import Noted, Notes
from ioflusher.machine.process import Process

# Below so many threads for each a second process costs more than it brings: a fork, and the way back.
THREADS_EACH = 2500
MOST_SHARES = 8

# A process, and which part of its threads of how many parts.
_Piece = tuple[int, int, int]
_Found = tuple[list[tuple[_Piece, Process]], Noted]


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
            processes, noted = msgspec.msgpack.decode(data, type=_Found)
            found += processes
            notes.merge(noted)
        else:  # killed, or out of memory: nothing of it counts
            found += _read(reader, share, wanted)
    whole = [process for piece, process in found if piece[2] == 1]
    parts = [process for piece, process in found if piece[2] > 1]
    return whole + [process for process in _joined(parts) if wanted(process.threads)]


def _read(reader: ProcessReader, share: list[_Piece], wanted: Wanted) -> list[tuple[_Piece, Process]]:
    """The pieces of a share; whether a process is wanted is only known when its parts are together."""
    processes = ((piece, _read_piece(reader, piece, wanted)) for piece in share)
    return [(piece, process) for piece, process in processes if process is not None]


def _read_piece(reader: ProcessReader, piece: _Piece, wanted: Wanted) -> Process | None:
    pid, part, parts = piece
    return reader.read_bare(pid, wanted) if parts == 1 else reader.read_bare(pid, part=(part, parts))


def _joined(parts: list[Process]) -> list[Process]:
    """The processes of which these are parts."""
    # the part with the main thread comes first: it has the name
    by_pid: defaultdict[int, list[Process]] = defaultdict(list)
    for process in sorted(parts, key=lambda part: main_thread(part.pid, part.threads).tid != part.pid):
        by_pid[process.pid].append(process)
    return [
        replace(pieces[0], threads=tuple(sorted(_threads_of(pieces), key=lambda thread: thread.tid)))
        for pieces in by_pid.values()
    ]


def _threads_of(processes: list[Process]) -> list[Thread]:
    return [thread for process in processes for thread in process.threads]


def _start(reader: ProcessReader, share: list[_Piece], wanted: Wanted, notes: Notes) -> tuple[int, int]:
    """Have a child read its share: its number, and the pipe that brings what it found."""
    receive, send = os.pipe()
    child = os.fork()
    if child:
        os.close(send)
        return child, receive
    status = 1
    try:
        found: _Found = (_read(reader, share, wanted), notes.noted())
        with open(send, "wb") as file:
            file.write(msgspec.msgpack.encode(found))
        status = 0
    finally:
        os._exit(status)  # nothing of the parent's is to be done twice


def _shares(proc: str, pids: list[int]) -> list[list[_Piece]]:
    """The processes in as many shares as are worth it, of about equally many threads."""
    count = min(len(os.sched_getaffinity(0)), _threads_of_machine(proc) // THREADS_EACH, MOST_SHARES)
    if count < 2:
        return [[(pid, 0, 1) for pid in pids]]
    pieces = [piece for pid in pids for piece in _pieces(pid, _thread_count(proc, pid), count)]
    shares: list[tuple[int, list[_Piece]]] = [(0, []) for _ in range(count)]
    for threads, piece in sorted(pieces, reverse=True):
        filled, share = shares[0]
        share.append(piece)
        heapq.heapreplace(shares, (filled + threads, share))
    return [share for _, share in shares]


def _pieces(pid: int, threads: int, count: int) -> list[tuple[int, _Piece]]:
    """A process whole, or in `count` parts where it has very many threads; each with its threads' number."""
    parts = count if threads >= 2 * THREADS_EACH else 1
    return [(threads // parts, (pid, part, parts)) for part in range(parts)]


def _thread_count(proc: str, pid: int) -> int:
    """How many threads a process has: its directory `task` has so many below it."""
    try:
        return os.stat(f"{proc}/{pid}/task").st_nlink - 2
    except OSError:
        return 1


def _threads_of_machine(proc: str) -> int:
    """How many threads there are at all, from /proc/loadavg; 0 for unknown."""
    try:
        return int(read_small(f"{proc}/loadavg").split()[3].partition(b"/")[2])
    except (OSError, ValueError, IndexError):
        return 0
