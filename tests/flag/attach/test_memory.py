"""Locking the memory of a running process: what is called for which figures, and what is read to decide."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ioflusher.flag.attach import MemoryOutcome, ThreadOutcome, ThreadResult, memory, memory_figures
from ioflusher.flag.attach.arch import Call, CallName
from ioflusher.flag.attach.memory import fetch_swapped, lock_process_memory, swapped_pages
from ioflusher.flag.attach.memory_figures import (
    MemoryUnreadableError,
    MemoryView,
    group_room_kib,
    parse_lock_limit,
    read_memory,
)
from ioflusher.kernel.lock_plan import LockFigures
from ioflusher.kernel.maps import Mapping
from ioflusher.kernel.smaps import MappedMemory
from ioflusher.kernel.syscalls import MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT

MIB = 1024
POPULATE, ON_FAULT = MCL_CURRENT | MCL_FUTURE, MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT
ROOMY = LockFigures(
    mapped_kib=100 * MIB,
    resident_kib=10 * MIB,
    swapped_kib=0,
    absent_kib=64 * MIB,
    total_kib=1000 * MIB,
    available_kib=600 * MIB,
)
Views = Callable[..., list[int]]


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[MemoryOutcome, list[Call], list[int]]]:
    """Locks a process of which each look shows the next figures; the outcome, the calls, how many fetches."""

    def lock_(
        *looks: LockFigures | Exception, result: ThreadResult = ThreadResult.DONE, dry_run: bool = False
    ) -> tuple[MemoryOutcome, list[Call], list[int]]:
        left, calls, fetches = list(looks), list[Call](), list[int]()

        def look(*_: object) -> MemoryView:
            found = left.pop(0)
            if isinstance(found, Exception):
                raise found
            return MemoryView(found, ())

        def call(one: Call) -> ThreadOutcome:
            calls.append(one)
            return ThreadOutcome(7, "x", result, "" if result is ThreadResult.DONE else "the thread says no")

        def fetch(pid: int, *_: object) -> str:
            fetches.append(pid)
            return "the time was up"

        monkeypatch.setattr(memory, "read_memory", look)
        monkeypatch.setattr(memory, "fetch_swapped", fetch)
        outcome = lock_process_memory(7, call, 1.0, dry_run=dry_run, proc=Path("/proc"))
        return outcome, calls, fetches

    return lock_


Lock = Callable[..., tuple[MemoryOutcome, list[Call], list[int]]]


def flags(calls: list[Call]) -> list[int]:
    """What mlockall was called with, each time."""
    assert all(call.name is CallName.MLOCKALL for call in calls)
    return [call.arguments[0] for call in calls]


def test_with_room_it_is_populated_and_given_the_time(lock: Lock) -> None:
    """One call; 64 MiB may take two seconds more."""
    outcome, calls, fetches = lock(ROOMY)
    assert (flags(calls), calls[0].seconds, fetches) == ([POPULATE], 2.0, [])
    assert outcome.outcome is ThreadResult.DONE
    assert outcome.method is not None
    assert outcome.method.value == POPULATE


def test_without_room_nothing_is_populated(lock: Lock) -> None:
    """The call that allocates nothing, and the figures as the reason."""
    outcome, calls, fetches = lock(replace(ROOMY, available_kib=100 * MIB))
    assert (flags(calls), calls[0].seconds, fetches) == ([ON_FAULT], 0.0, [])
    assert (outcome.outcome, "64 MiB, more than half" in outcome.detail) == (ThreadResult.DONE, True)


def test_what_is_in_swap_comes_back_before_anything_is_populated(lock: Lock) -> None:
    """Never populated while pages are in swap; afterwards, as far as there is room."""
    swapped = replace(ROOMY, swapped_kib=5 * MIB)
    outcome, calls, fetches = lock(swapped, ROOMY)
    assert (flags(calls), fetches) == ([ON_FAULT, POPULATE], [7])
    assert outcome.outcome is ThreadResult.DONE
    outcome, calls, fetches = lock(swapped, replace(ROOMY, available_kib=100 * MIB))
    assert (flags(calls), fetches) == ([ON_FAULT], [7])
    assert (outcome.outcome, "more than half" in outcome.detail) == (ThreadResult.DONE, True)


def test_what_stays_in_swap_is_said(lock: Lock) -> None:
    """Locked, but not whole: where there is no room to bring it back, nobody tries."""
    swapped = replace(ROOMY, swapped_kib=70 * MIB, available_kib=130 * MIB)
    outcome, calls, fetches = lock(swapped, swapped)
    assert (flags(calls), fetches) == ([ON_FAULT], [])
    assert outcome.outcome is ThreadResult.PARTIAL
    assert "70 MiB are left in swap" in outcome.detail
    assert "130 MiB are available" in outcome.detail
    outcome, calls, fetches = lock(replace(ROOMY, swapped_kib=9 * MIB), replace(ROOMY, swapped_kib=MIB))
    assert (flags(calls), fetches, outcome.outcome) == ([ON_FAULT], [7], ThreadResult.PARTIAL)
    assert outcome.detail == "1 MiB are left in swap: the time was up"


@pytest.mark.parametrize("dry_run", [True, False])
def test_refused(lock: Lock, dry_run: bool) -> None:
    """No call at all where the process's own mmap would fail afterwards."""
    outcome, calls, _ = lock(replace(ROOMY, limit_kib=64 * MIB), dry_run=dry_run)
    assert (outcome.outcome, outcome.method, calls) == (ThreadResult.REFUSED, None, [])
    assert "RLIMIT_MEMLOCK" in outcome.detail


def test_dry_run(lock: Lock) -> None:
    """The method and the figures, and no call."""
    outcome, calls, _ = lock(ROOMY, dry_run=True)
    assert (outcome.outcome, calls, outcome.figures) == (ThreadResult.WOULD, [], ROOMY)
    assert outcome.method is not None


def test_what_the_thread_says(lock: Lock) -> None:
    """A call that failed is no lock."""
    outcome, calls, fetches = lock(replace(ROOMY, swapped_kib=MIB), result=ThreadResult.FAILED)
    assert (flags(calls), fetches) == ([ON_FAULT], [])
    assert (outcome.outcome, outcome.detail) == (ThreadResult.FAILED, "the thread says no")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (MemoryUnreadableError("its mappings could not be read"), ThreadResult.TIMED_OUT),
        (ProcessLookupError(), ThreadResult.GONE),
        (FileNotFoundError(), ThreadResult.GONE),
        (PermissionError(13, "Permission denied", "/proc/7/smaps"), ThreadResult.DENIED),
    ],
)
def test_what_cannot_be_read(lock: Lock, error: Exception, outcome: ThreadResult) -> None:
    """Without figures nothing is called."""
    found, calls, _ = lock(error)
    assert (found.outcome, calls) == (outcome, [])


def test_bringing_back_stops_when_memory_gets_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at what is free every 64 pages; below an eighth of the machine's memory it ends."""
    touched: list[int] = []
    free = [500, 500, 99, 500]

    def touch(_: int, address: int) -> bool:
        touched.append(address)
        return address % 2 == 0  # every other is not there any more

    monkeypatch.setattr(memory, "swapped_pages", lambda *_: iter(range(1000)))
    monkeypatch.setattr(memory, "machine_memory_kib", lambda _: (800, free.pop(0)))
    monkeypatch.setattr(memory, "process_vm_touch", touch)
    why = fetch_swapped(7, MemoryView(ROOMY, ()), float("inf"), Path("/proc"))
    assert (touched, "99 KiB are available now" in why) == (list(range(128)), True)
    assert fetch_swapped(7, MemoryView(ROOMY, ()), 0.0, Path("/proc")) == "the time was up"
    assert len(touched) == 128
    monkeypatch.setattr(memory, "swapped_pages", lambda *_: iter(()))
    assert fetch_swapped(7, MemoryView(ROOMY, ()), 0.0, Path("/proc")) == ""


def test_swapped_pages(tmp_path: Path) -> None:
    """Bit 62 of an entry of pagemap, of mappings that can be read."""
    page = os.sysconf("SC_PAGESIZE")
    entries = [0, 1 << 62, 1 << 63, 1 << 62 | 5, 1 << 62, 0]
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "pagemap").write_bytes(b"".join(entry.to_bytes(8, "little") for entry in entries))
    readable = MappedMemory(Mapping(page, 4 * page, "rw-p", b""), 0, 8)
    closed = MappedMemory(Mapping(4 * page, 6 * page, "---p", b""), 0, 4)
    found = swapped_pages(7, MemoryView(ROOMY, (readable, closed)), tmp_path)
    assert list(found) == [page, 3 * page]


LIMITS = b"""\
Limit                     Soft Limit           Hard Limit           Units
Max stack size            8388608              unlimited            bytes
Max locked memory         %b              unlimited            bytes
"""


def test_lock_limit() -> None:
    """The soft limit counts."""
    assert parse_lock_limit(LIMITS % b"8388608") == 8 * MIB
    assert parse_lock_limit(LIMITS % b"unlimited") is None
    assert parse_lock_limit(b"") is None


def test_room_in_a_control_group(tmp_path: Path) -> None:
    """The group with the least room counts; its clean page cache is room, dirty pages are none."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "cgroup").write_bytes(b"0::/outer/inner\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.high").write_text(f"{900 << 20}\n")
    (inner / "memory.current").write_text(f"{100 << 20}\n")
    (tmp_path / "outer" / "memory.max").write_text(f"{400 << 20}\n")
    (tmp_path / "outer" / "memory.current").write_text(f"{350 << 20}\n")
    (tmp_path / "outer" / "memory.stat").write_text(
        f"active_file {30 << 20}\ninactive_file {20 << 20}\nfile_dirty {8 << 20}\nfile_writeback {2 << 20}\n"
    )
    mounts = {1: "", 2: str(tmp_path)}
    assert group_room_kib(tmp_path, mounts) == (50 + 40) * MIB
    (tmp_path / "outer" / "memory.max").write_text("max\n")
    assert group_room_kib(tmp_path, mounts) == 800 * MIB
    (inner / "memory.high").write_text("max\n")
    assert group_room_kib(tmp_path, mounts) is None
    assert group_room_kib(tmp_path / "nowhere", mounts) is None


@pytest.mark.live
def test_of_this_process() -> None:
    """Everything that decides can be read here, and the sum of the mappings is VmSize."""
    figures = read_memory(os.getpid(), 5, Path("/proc")).figures
    status = Path("/proc/self/status").read_text()
    size = int(status.partition("VmSize:")[2].split()[0])
    assert figures.mapped_kib == pytest.approx(size, rel=0.05)
    assert None not in (figures.resident_kib, figures.swapped_kib, figures.absent_kib)
    assert figures.available_kib is not None
    assert figures.total_kib is not None
    assert 0 < figures.available_kib < figures.total_kib


def test_mappings_that_do_not_answer(tmp_path: Path) -> None:
    """A pipe that nobody writes to stands for a file whose reading waits for the mmap_lock."""
    (tmp_path / "7").mkdir()
    os.mkfifo(tmp_path / "7" / "smaps")
    with pytest.raises(MemoryUnreadableError, match=r"could not be read in 0\.1 s"):
        memory_figures.read_memory(7, 0.1, tmp_path)
    os.close(os.open(tmp_path / "7" / "smaps", os.O_WRONLY))  # lets the thread end
