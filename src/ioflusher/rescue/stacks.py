"""What a daemon's threads wait for, by their kernel stacks."""

import os
from collections.abc import Iterable
from pathlib import Path

from ioflusher.kernel.stall import SelfWait
from ioflusher.kernel.task import parse_stat
from ioflusher.kernlog.reading.frames import parse_proc_stack
from ioflusher.kernlog.stacks.anatomy import Wait, dissect
from ioflusher.kernlog.stacks.waits import SELF_WAITS, StackKind, explain_stack
from ioflusher.rescue.freeze import WaitingThread

_PAGE_WAITS = frozenset({Wait.PAGE_LOCK, Wait.PAGE, Wait.WRITEBACK, Wait.INODE})


def wait_of(stack: str, comm: str) -> SelfWait | None:
    """What the thread of this stack waits for, if that may be the device that its process serves."""
    frames = parse_proc_stack(stack)
    kind = explain_stack(frames, comm).kind
    if kind is StackKind.DIRTY_THROTTLED:
        return SelfWait.DIRTY_THROTTLING
    if kind in SELF_WAITS or kind is StackKind.RECLAIM_SPINNING:
        return SelfWait.RECLAIM
    return SelfWait.PAGE_LOCK if dissect(frames, comm).wait in _PAGE_WAITS else None


def read_threads(pids: Iterable[int], root: Path = Path("/")) -> tuple[WaitingThread, ...]:
    """The threads of these processes and where they stand; those that ended are left out."""
    found = []
    for pid in pids:
        directory = root / "proc" / str(pid) / "task"
        try:
            numbers = sorted(map(int, os.listdir(directory)))
        except OSError:
            continue
        for tid in numbers:
            try:
                thread = parse_stat((directory / str(tid) / "stat").read_bytes())
                text = (directory / str(tid) / "stack").read_text()
            except (OSError, ValueError):
                continue
            wait = wait_of(text, thread.comm)
            functions = tuple(frame.function for frame in parse_proc_stack(text))
            covered = thread.io_flusher or thread.kernel_worker
            found.append(WaitingThread(pid, tid, thread.comm, thread.state, wait, functions, covered))
    return tuple(found)
