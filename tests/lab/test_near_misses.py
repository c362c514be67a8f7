"""Near misses from events: what counts, what has not ended, what is lost, and what is not known."""

from pathlib import Path

import pytest

from ioflusher.kernel.trace_events import TraceEvent
from ioflusher.lab.guest.near_misses import FLUSH_SECTOR, NearMissCounter, threads_below
from ioflusher.lab.near_misses import NearMisses, ReclaimEntries

NAMES = (
    (0xCC0, "GFP_KERNEL"),
    (0xC40, "GFP_NOFS"),
    (0xC00, "GFP_NOIO"),
    (0x40, "__GFP_IO"),
    (0x80, "__GFP_FS"),
)
KERNEL, NOFS, NOIO = 0xCC0, 0xC40, 0xC00
S = 1_000_000_000


def counter() -> NearMissCounter:
    return NearMissCounter(gfp_names=NAMES, throttled=True, dirty=True)


def begin(time_ns: int, tid: int, flags: int, kind: str = "direct") -> TraceEvent:
    return TraceEvent(time_ns, f"mm_vmscan_{kind}_reclaim_begin", tid, (flags,))


def end(time_ns: int, tid: int, kind: str = "direct") -> TraceEvent:
    return TraceEvent(time_ns, f"mm_vmscan_{kind}_reclaim_end", tid, ())


def request(time_ns: int, what: str, sector: int, rwbs: bytes = b"W\0", count: int = 8) -> TraceEvent:
    return TraceEvent(time_ns, f"block_rq_{what}", 9, (sector, rwbs, count))


def counted(*events: TraceEvent, at_ns: int = 100 * S) -> NearMisses:
    """What is reported of these events."""
    found = counter()
    found.feed(events, lost=False, until_ns=at_ns)
    return found.report(at_ns)


def test_reclaim_is_split_by_flags_and_cgroup() -> None:
    """Each kind of entry with its names, what it allows, how often and how long; two threads may be in it."""
    found = counted(
        begin(1 * S, 1, KERNEL),
        begin(2 * S, 2, NOIO),
        end(3 * S, 1),
        begin(4 * S, 1, KERNEL),
        end(5 * S, 2),
        end(6 * S, 1),
        begin(7 * S, 1, NOFS, "memcg"),
        end(7 * S + S // 2, 1, "memcg"),
    )
    assert found.reclaim == (
        ReclaimEntries("GFP_KERNEL", io=True, fs=True, cgroup=False, entered=2, spent_s=4),
        ReclaimEntries("GFP_NOIO", io=False, fs=False, cgroup=False, entered=1, spent_s=3),
        ReclaimEntries("GFP_NOFS", io=True, fs=False, cgroup=True, entered=1, spent_s=0.5),
    )
    assert found.reclaim_with_io() == 3


def test_reclaim_that_has_not_ended_counts_until_now() -> None:
    """A thread that stands in reclaim is what a frozen daemon looks like; the end of none is no entry."""
    found = counted(end(1 * S, 3), begin(90 * S, 1, KERNEL), at_ns=98 * S)
    assert found.reclaim == (ReclaimEntries("GFP_KERNEL", True, True, False, entered=1, spent_s=8),)


def test_what_was_not_entered_is_none_and_what_is_not_told_is_unknown() -> None:
    """An empty list where the kernel tells of reclaim; None for each thing that it does not tell of."""
    assert counted() == NearMisses(
        reclaim=(),
        throttled_s=0,
        dirty_pauses=0,
        dirty_paused_s=0,
        longest_request_s=None,
        oldest_in_flight_s=None,
    )
    nothing = NearMissCounter(gfp_names=None, throttled=False, dirty=False)
    assert nothing.report(5) == NearMisses()
    assert NearMisses().reclaim_with_io() is None


def test_throttling_adds_up() -> None:
    """Sleeps in reclaim in microseconds, pauses for dirty pages in milliseconds; no pause is none."""
    found = counted(
        TraceEvent(1, "mm_vmscan_throttled", 1, (20_000,)),
        TraceEvent(2, "writeback_congestion_wait", 1, (4_000,)),
        *(TraceEvent(3, "balance_dirty_pages", 1, (pause,)) for pause in (200, 0, -4, 8)),
    )
    assert (found.throttled_s, found.dirty_pauses, found.dirty_paused_s) == (0.024, 2, 0.208)


def test_the_slowest_request() -> None:
    """From its issue to its completion, by sector and direction; one left in flight may be the slowest."""
    events = (
        request(1 * S, "issue", 8),
        request(2 * S, "issue", 8, b"R\0"),
        request(3 * S, "complete", 8, b"R\0W"),
        request(4 * S, "complete", 8, b"W\0xx"),
    )
    found = counted(*events)
    assert (found.longest_request_s, found.oldest_in_flight_s) == (3, 0), (
        "what follows the NUL is not cleared"
    )
    found = counted(*events, request(90 * S, "issue", 16), request(95 * S, "issue", 24))
    assert (found.longest_request_s, found.oldest_in_flight_s) == (10, 10)
    found = counted(*events, request(98 * S, "issue", 16))
    assert (found.longest_request_s, found.oldest_in_flight_s) == (3, 2)
    assert counted(request(99 * S, "issue", 16)).longest_request_s == 1


def test_a_request_that_is_put_back_began_the_first_time() -> None:
    """Issued, put back and issued again: its age counts from the first."""
    found = counted(request(1 * S, "issue", 8), request(5 * S, "issue", 8), request(6 * S, "complete", 8))
    assert found.longest_request_s == 5


def test_flushes() -> None:
    """A flush completes at no sector; the end of what it was a part of, without data, completes nothing."""
    found = counted(
        request(1 * S, "issue", 0, b"FF\0", 0),
        request(2 * S, "issue", 0, b"WS\0", 8),
        request(3 * S, "complete", 0, b"WS\0", 0),
        request(4 * S, "complete", FLUSH_SECTOR, b"FF\0", 0),
    )
    assert (found.longest_request_s, found.oldest_in_flight_s) == (98, 98), "the write is in flight"
    found = counted(
        request(1 * S, "issue", 0, b"FF\0", 0), request(4 * S, "complete", FLUSH_SECTOR, b"FF\0", 0)
    )
    assert (found.longest_request_s, found.oldest_in_flight_s) == (3, 0)


def test_processors_are_read_one_after_another() -> None:
    """What happened while they were read waits for the next look: an end is never taken before its begin."""
    found = counter()
    found.feed([request(12 * S, "complete", 8)], lost=False, until_ns=10 * S)
    assert found.report(10 * S).longest_request_s is None
    found.feed([request(11 * S, "issue", 8)], lost=False, until_ns=20 * S)
    assert (found.report(20 * S).longest_request_s, found.report(20 * S).oldest_in_flight_s) == (1, 0)


def test_lost_events_make_lower_bounds() -> None:
    """What was going on before a gap is forgotten: it may have ended in the gap; and it is said."""
    found = counter()
    found.feed([begin(1 * S, 1, KERNEL), request(1 * S, "issue", 8)], lost=False, until_ns=2 * S)
    assert not found.report(2 * S).events_lost
    found.feed([begin(50 * S, 2, KERNEL), end(51 * S, 2)], lost=True, until_ns=60 * S)
    report = found.report(60 * S)
    assert report.events_lost
    assert report.reclaim == (ReclaimEntries("GFP_KERNEL", True, True, False, entered=2, spent_s=1),)
    assert report.longest_request_s is None


def test_threads_of_daemons_and_of_their_children(tmp_path: Path) -> None:
    """Every thread of a process and of all that descend from it; one that is gone is passed over."""
    children = {(1, 1): "20", (1, 2): "", (20, 20): "30 31", (30, 30): "", (40, 40): ""}
    for (pid, tid), text in children.items():
        directory = tmp_path / str(pid) / "task" / str(tid)
        directory.mkdir(parents=True)
        (directory / "children").write_text(text)
    assert sorted(threads_below([1, 99], tmp_path)) == [1, 2, 20, 30]


@pytest.mark.parametrize("name", ["__GFP_IO", "__GFP_FS"])
def test_what_flags_allow_is_the_kernels_word(name: str) -> None:
    """The bits are those that this kernel gives the names, whatever another one gives them."""
    found = NearMissCounter(gfp_names=((0x1000, name),), throttled=False, dirty=False)
    found.feed([begin(1, 1, 0x1000), begin(2, 2, 0xFFF)], lost=False, until_ns=3)
    reclaim = found.report(3).reclaim
    assert reclaim is not None
    assert [(each.io, each.fs) for each in reclaim] == [
        (name == "__GFP_IO", name == "__GFP_FS"),
        (False, False),
    ]
