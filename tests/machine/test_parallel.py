"""Processes read on several processors: the same as read on one, whatever becomes of the children."""

import os
from pathlib import Path
from unittest import mock

import pytest
from tests.machine.recorded import Recorded

from ioflusher.machine.collect import parallel
from ioflusher.machine.collect.device_numbers import DeviceNumbers
from ioflusher.machine.collect.limits import SnapshotLimits
from ioflusher.machine.collect.processes import ProcessReader
from ioflusher.machine.collect.unreadable_notes import Notes
from ioflusher.machine.process import Process

# pytest may have threads; the program has none when it forks
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

PIDS = list(range(800, 830))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Thirty processes on a machine with three processors, each worth a share."""
    machine = Recorded(tmp_path)
    for pid in PIDS:
        machine.process(pid, b"daemon \xff\n", threads={pid: b"main", pid + 1000: b"worker"})
    machine.write("proc/803/status", "rubbish\n")
    machine.write("proc/804/oom_score_adj", "rubbish\n")
    machine.write("proc/loadavg", "0.00 0.00 0.00 1/900 7\n")
    monkeypatch.setattr(parallel, "THREADS_EACH", 300)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    return machine


def read(machine: Recorded, *more: int, without: int = 805) -> tuple[dict[int, Process], Notes]:
    """All processes by number but one, and what was noted."""
    notes = Notes()
    proc = f"{machine.root}/proc"
    reader = ProcessReader(proc, notes, DeviceNumbers(str(machine.root), notes), SnapshotLimits())
    pids = [*PIDS, *more]
    found = parallel.read_processes(reader, pids, lambda threads: threads[0].tid != without, notes)
    assert len({process.pid for process in found}) == len(found)
    return {process.pid: process for process in found}, notes


def test_the_same_as_on_one_processor(machine: Recorded) -> None:
    """The records, and the notes, are those of a single reader."""
    with mock.patch("os.fork", wraps=os.fork) as fork:
        several, noted = read(machine)
        assert fork.call_count == 2
        (machine.root / "proc/loadavg").unlink()
        alone, noted_alone = read(machine)
        assert fork.call_count == 2
    assert several == alone
    assert sorted(several) == [pid for pid in PIDS if pid not in (803, 805)]
    assert noted.unreadable() == noted_alone.unreadable()
    assert len(noted.unreadable()) == 2


def test_the_threads_of_a_large_process_are_shared(machine: Recorded) -> None:
    """It comes back whole, in order, under its main thread's name; wanted or not by all its threads.

    Thread numbers go round at pid_max: some are lower than the process's own.
    """
    threads = {3000 + number: b"worker" for number in range(500)} | {4000: b"main"}
    threads |= {4001 + number: b"worker" for number in range(400)}
    machine.process(4000, b"main", threads=threads)
    found, _ = read(machine, 4000)
    assert found[4000].comm == "main"
    assert [thread.tid for thread in found[4000].threads] == [*threads]
    assert 4000 not in read(machine, 4000, without=3000)[0]


def test_a_small_process_has_its_main_threads_name(machine: Recorded) -> None:
    """Also where another thread has a lower number."""
    machine.process(900, b"main", threads={77: b"worker", 900: b"main"})
    assert read(machine, 900)[0][900].comm == "main"


def test_a_child_that_fails_is_made_good(machine: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a child cannot bring home is read again."""
    whole, _ = read(machine)

    def fail(notes: Notes) -> None:
        raise MemoryError

    monkeypatch.setattr(Notes, "noted", fail)
    again, notes = read(machine)
    assert again == whole
    assert len(notes.unreadable()) == 2


def test_shares_are_of_equal_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in threads; every process is in one of them, or a part of it in each where it is very large."""
    monkeypatch.setattr(parallel, "THREADS_EACH", 300)
    counts = {1: 590, 2: 300, 3: 200, 4: 100, 5: 1, 6: 700}
    for pid, count in counts.items():
        for tid in range(count):
            (tmp_path / f"{pid}/task/{tid}").mkdir(parents=True)
    (tmp_path / "loadavg").write_text("0 0 0 1/6000 9\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    parts = parallel._shares(str(tmp_path), [*counts])
    pieces = [(pid, 0, 1) for pid in range(1, 6)] + [(6, 0, 2), (6, 1, 2)]
    assert sorted(piece for part in parts for piece in part) == pieces
    sizes = sorted(sum(counts[pid] // of for pid, _, of in part) for part in parts)
    assert sum(sizes) == 590 + 601 + 700
    assert sizes[1] - sizes[0] <= 100
