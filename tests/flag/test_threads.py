"""Per-thread state from /proc."""

import os
import threading
from pathlib import Path

import pytest

from ioflusher.flag.errors import NoSuchProcessError, StateUnreadableError
from ioflusher.flag.threads import thread_states


def fake_proc(root: Path, pid: int, threads: dict[int, tuple[bytes, int]]) -> Path:
    """A proc file system with one process; a thread's value is its name and its flags."""
    for tid, (comm, flags) in threads.items():
        directory = root / str(pid) / "task" / str(tid)
        directory.mkdir(parents=True)
        (directory / "stat").write_bytes(b"%d (%s) S 1 1 1 0 -1 %d 0 0\n" % (tid, comm, flags))
    return root


def test_every_thread_is_told(tmp_path: Path) -> None:
    """Both bits, one bit and none are three different answers, in the order of the numbers."""
    proc = fake_proc(tmp_path, 7, {10: (b"w) S 1", 0x80000), 7: (b"main", 0x180000), 9: (b"x", 0)})
    states = thread_states(7, proc=proc)
    assert [(s.tid, s.comm, s.io_flusher, int(s.flags)) for s in states] == [
        (7, b"main", True, 0x180000),
        (9, b"x", False, 0),
        (10, b"w) S 1", False, 0x80000),
    ]


def test_a_thread_that_ended_is_left_out(tmp_path: Path) -> None:
    """A directory whose stat is gone is a thread that ended between two reads."""
    proc = fake_proc(tmp_path, 7, {7: (b"main", 0)})
    (proc / "7" / "task" / "8").mkdir()
    assert [s.tid for s in thread_states(7, proc=proc)] == [7]


def test_no_such_process(tmp_path: Path) -> None:
    """A number without a process raises, and the error carries the number."""
    with pytest.raises(NoSuchProcessError) as caught:
        thread_states(7, proc=tmp_path)
    assert caught.value.pid == 7


def test_no_proc_is_not_an_empty_answer(tmp_path: Path) -> None:
    """Where proc is not mounted, asking for oneself is an error of its own."""
    with pytest.raises(StateUnreadableError):
        thread_states(proc=tmp_path)


@pytest.mark.live
def test_own_threads() -> None:
    """A thread that runs is listed under its native number, together with the main thread."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        tids = {state.tid for state in thread_states()}
    finally:
        stop.set()
        thread.join()
    assert {os.getpid(), thread.native_id} <= tids
