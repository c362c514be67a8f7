"""Entries, time and what goes on, from histograms alone."""

from hypothesis import given
from hypothesis import strategies as st

from ioflusher.kernel.stall import SelfWait
from ioflusher.kernel.trace_hist import Histogram, HistogramEntry
from ioflusher.watch.sample import ReclaimCount
from ioflusher.watch.thread_counts import Counting, Histograms, ReclaimHistograms, ThreadCounts, added

Entries = dict[tuple[int, ...], tuple[int, int]]
NAMES = ((0xCC0, "GFP_KERNEL"), (0xC00, "GFP_NOIO"), (0x40, "__GFP_IO"), (0x80, "__GFP_FS"))
KERNEL, NOIO = 0xCC0, 0xC00


def histogram(entries: Entries, dropped: int = 0) -> Histogram:
    """Hits and sums by key."""
    return Histogram({key: HistogramEntry(*value) for key, value in entries.items()}, dropped)


def look(at: float, begin: Entries, end: Entries, dirty: Entries | None = None) -> Histograms:
    """What was read at that second; sums of microseconds."""
    return Histograms(
        at,
        ReclaimHistograms(histogram(begin), histogram(end)),
        throttled=histogram({}),
        dirty=histogram(dirty or {}),
    )


def test_entries_by_flags() -> None:
    """Names and what they allow, and the time of all together."""
    seen = look(
        10,
        {(7, KERNEL): (2, 3_000_000), (7, NOIO): (1, 5_000_000)},
        {(7,): (3, 8_500_000)},
    )
    counts = Counting(NAMES).take(seen)[7]
    assert counts.reclaim == (
        ReclaimCount("GFP_KERNEL", io=True, fs=True, cgroup=False, entered=2),
        ReclaimCount("GFP_NOIO", io=False, fs=False, cgroup=False, entered=1),
    )
    assert (counts.reclaim_s, counts.wait, counts.throttled_s) == (0.5, None, 0.0)
    assert (counts.dirty_pauses, counts.dirty_paused_s) == (0, 0.0)


def test_reclaim_that_goes_on() -> None:
    """One more beginning than ends: it has the time until now, and began when the sum says."""
    counting = Counting(NAMES)
    assert counting.take(look(10, {}, {})) == {}
    counts = counting.take(look(14, {(7, KERNEL): (1, 12_000_000)}, {}))[7]
    assert (counts.reclaim_s, counts.wait, counts.wait_s) == (2.0, SelfWait.RECLAIM, 2.0)
    counts = counting.take(look(20, {(7, KERNEL): (1, 12_000_000)}, {}))[7]
    assert (counts.reclaim_s, counts.wait_s) == (8.0, 8.0)
    counts = counting.take(look(22, {(7, KERNEL): (1, 12_000_000)}, {(7,): (1, 21_000_000)}))[7]
    assert (counts.reclaim_s, counts.wait) == (9.0, None)


def test_several_began_since_the_last_look() -> None:
    """Which of them goes on nobody knows: it is told as one of now, and the time is exact all the same."""
    counting = Counting(NAMES)
    begin: Entries = {(7, KERNEL): (3, 11_000_000 + 12_000_000 + 13_000_000)}
    counts = counting.take(look(14, begin, {(7,): (2, 11_500_000 + 12_500_000)}))[7]
    assert (counts.reclaim_s, counts.wait, counts.wait_s) == (2.0, SelfWait.RECLAIM, 0.0)
    counts = counting.take(look(15, begin, {(7,): (2, 11_500_000 + 12_500_000)}))[7]
    assert (counts.reclaim_s, counts.wait_s) == (3.0, 1.0)


def test_an_end_without_a_beginning() -> None:
    """The thread was in reclaim when it was first followed: that end is left out, for good."""
    counting = Counting(NAMES)
    counts = counting.take(look(10, {}, {(7,): (1, 9_000_000)}))[7]
    assert (counts.reclaim_s, counts.wait) == (0.0, None)
    counts = counting.take(look(14, {(7, KERNEL): (1, 12_000_000)}, {(7,): (2, 9_000_000 + 12_250_000)}))[7]
    assert (counts.reclaim_s, counts.wait) == (0.25, None)


def test_an_end_without_a_beginning_among_others() -> None:
    """Beginnings that were counted have their time, once what the strange end had is known."""
    counting = Counting(NAMES)
    ends = 9_000_000 + 12_250_000
    counts = counting.take(look(13, {(7, KERNEL): (1, 12_000_000)}, {(7,): (2, ends)}))[7]
    assert (counts.reclaim_s, counts.wait) == (0.0, None)
    begin: Entries = {(7, KERNEL): (2, 12_000_000 + 15_000_000)}
    counts = counting.take(look(16, begin, {(7,): (3, ends + 15_500_000)}))[7]
    assert (counts.reclaim_s, counts.wait) == (0.5, None)


def test_reclaim_that_began_after_the_clock_was_read() -> None:
    """The histograms are read a little later: it has taken no time yet, and never a negative one."""
    counts = Counting(NAMES).take(look(14, {(7, KERNEL): (1, 15_000_000)}, {}))[7]
    assert (counts.reclaim_s, counts.wait, counts.wait_s) == (0.0, SelfWait.RECLAIM, 0.0)


def test_what_had_no_place_is_counted_of_all() -> None:
    """Beginnings, ends, those of control groups, and the two others, which not every kernel has."""
    kinds = ReclaimHistograms(histogram({}, 1), histogram({}, 2))
    groups = ReclaimHistograms(histogram({}, 4), histogram({}, 8))
    assert Histograms(10, kinds, groups).dropped == 15
    assert Histograms(10, kinds, groups, histogram({}, 16), histogram({}, 32)).dropped == 63


def test_one_pause_is_one() -> None:
    """Also the first that is ever seen."""
    assert Counting(NAMES).take(look(10, {}, {}, {(7,): (1, 200)}))[7].wait is SelfWait.DIRTY_THROTTLING


def test_dirty_throttling() -> None:
    """Pauses that go on from look to look; one who had none lately is through."""
    counting = Counting(NAMES)
    waits = []
    for at, pauses in ((10.0, 0), (11.0, 3), (12.0, 8), (12.1, 8), (13.0, 8), (14.0, 9)):
        counts = counting.take(look(at, {}, {}, {(7,): (pauses, pauses * 200)}))[7]
        waits.append((counts.wait, round(counts.wait_s, 2)))
    throttled = SelfWait.DIRTY_THROTTLING
    assert waits == [
        (None, 0),
        (throttled, 0),
        (throttled, 1),
        (throttled, 1.1),
        (None, 0),
        (throttled, 0),
    ]
    assert (counts.dirty_pauses, counts.dirty_paused_s) == (9, 1.8)


def test_what_the_kernel_does_not_tell() -> None:
    """Unknown, not nothing."""
    seen = Histograms(10, ReclaimHistograms())
    assert Counting.none(seen) == ThreadCounts(reclaim_s=0.0)
    assert Counting.none(look(10, {}, {})) == ThreadCounts((), 0.0, 0.0, 0, 0.0)


def test_counts_over_histograms_that_were_begun_anew() -> None:
    """Both parts together."""
    kernel = ReclaimCount("GFP_KERNEL", io=True, fs=True, cgroup=False, entered=2)
    before = ThreadCounts((kernel,), 1.0, 0.5, 4, 0.25, SelfWait.RECLAIM, 3.0)
    assert added(before, ThreadCounts((kernel,), 0.5, None, 1, 0.25)) == ThreadCounts(
        (ReclaimCount("GFP_KERNEL", io=True, fs=True, cgroup=False, entered=4),), 1.5, None, 5, 0.5
    )


@given(st.lists(st.tuples(st.integers(1, 2000), st.booleans()), max_size=40))
def test_time_is_exact_and_never_goes_back(steps: list[tuple[int, bool]]) -> None:
    """Against a thread that enters and leaves reclaim as it likes, looked at now and then."""
    counting = Counting(NAMES)
    now_us, since, spent, told = 0, None, 0, 0.0
    begin, end = [0, 0], [0, 0]
    for passed, looked in steps:
        now_us += passed
        if since is None:
            since, begin = now_us, [begin[0] + 1, begin[1] + now_us]
        else:
            spent, end = spent + now_us - since, [end[0] + 1, end[1] + now_us]
            since = None
        if looked:
            seen = look(now_us / 1e6, {(7, KERNEL): (begin[0], begin[1])}, {(7,): (end[0], end[1])})
            counts = counting.take(seen)[7]
            assert counts.reclaim_s is not None
            assert abs(counts.reclaim_s * 1e6 - spent) <= 1  # microseconds are whole
            assert counts.reclaim_s >= told
            assert (counts.wait is SelfWait.RECLAIM) == (since is not None)
            told = counts.reclaim_s
