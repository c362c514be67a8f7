"""Per-thread state from /proc."""

import os
import threading
from pathlib import Path

import pytest

from ioflusher.flag import threads
from ioflusher.flag.errors import NoSuchProcessError, StateUnreadableError
from ioflusher.flag.threads import (
    Bits,
    CoverageError,
    Thread,
    coverage,
    require_coverage,
    thread_states,
)


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
    assert [(s.tid, s.comm, s.io_flusher, s.flags) for s in states] == [
        (7, "main", True, 0x180000),
        (9, "x", False, 0),
        (10, "w) S 1", False, 0x80000),
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


def test_coverage_tells_both_one_and_none(tmp_path: Path) -> None:
    """Threads are sorted by how many of the two bits they carry; the FUSE state (NOFS) is half of it."""
    proc = fake_proc(
        tmp_path, 7, {7: (b"m", 0x180000), 8: (b"a", 0x80000), 9: (b"f", 0x140000), 10: (b"n", 0)}
    )
    found = coverage(7, proc=proc)
    assert not found.complete
    assert [t.tid for t in found.having(Bits.BOTH)] == [7]
    assert [t.tid for t in found.having(Bits.ONE)] == [8, 9]
    assert [t.tid for t in found.having(Bits.NONE)] == [10]


def test_a_dead_main_thread_does_not_count(tmp_path: Path) -> None:
    """A main thread that returned before the others stays as a zombie; nobody can or need cover it."""
    proc = fake_proc(tmp_path, 7, {7: (b"m", 0), 8: (b"w", 0x180000)})
    stat = proc / "7" / "task" / "7" / "stat"
    stat.write_bytes(stat.read_bytes().replace(b") S ", b") Z "))
    assert coverage(7, proc=proc).complete
    assert len(thread_states(7, proc=proc)) == 2


def test_require_coverage_names_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error lists each thread that lacks the state, escaped, and says what to do."""
    proc = fake_proc(tmp_path, 7, {7: (b"m", 0x180000), 8: (b"half\x1b[31m", 0x80000), 9: (b"none", 0)})
    monkeypatch.setattr(threads, "coverage", lambda pid: coverage(pid, proc=proc))
    with pytest.raises(CoverageError, match="2 of 3 threads of process 7") as caught:
        require_coverage(7)
    assert [t.tid for t in caught.value.threads] == [8, 9]
    assert "(half set)" in str(caught.value)
    assert "9 'none'" in str(caught.value)
    assert str(caught.value).isprintable()
    assert "ioflusher set 7" in (caught.value.hint or "")


def test_kernel_workers_are_known() -> None:
    """io_uring's workers show among the process's threads; their flag tells them."""
    worker = Thread(tid=1, comm="iou-wrk-7", state="S", flags=0x00404050)
    assert worker.kernel_worker
    assert not Thread(tid=1, comm="x", state="S", flags=0x00400040).kernel_worker
