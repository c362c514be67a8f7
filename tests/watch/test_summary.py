"""A daemon's threads added up."""

from ioflusher.kernel.stall import SelfWait
from ioflusher.watch.summary import merged, summary
from tests.watch.samples import COVERED, KERNEL, NOIO, entries, sample, thread


def test_entries_of_a_kind_are_added_and_the_most_frequent_come_first() -> None:
    """Over all threads."""
    assert merged([entries(NOIO, 4), entries(KERNEL, 2), entries(KERNEL, 3), entries(NOIO, 2)]) == [
        entries(NOIO, 6),
        entries(KERNEL, 5),
    ]


def test_threads_are_added_up() -> None:
    """Known numbers alone; of waits how many and the longest; who needs no state is not counted for it."""
    held = {"wait": SelfWait.RECLAIM}
    threads = (
        thread(11, flags=COVERED, reclaim_s=0.5, reclaim=(entries(KERNEL, 1),), **held, wait_s=2.0),
        thread(12, **held, wait_s=3.0, dirty_pauses=4, dirty_paused_s=0.8),
        thread(13, aside=True, dirty_pauses=None, dirty_paused_s=None, reclaim=(entries(NOIO, 2),)),
    )
    now = sample(*threads, oldest_s=1.5)
    found = summary(now.daemons[0], now)
    assert (found.covered, found.to_cover) == (1, 2)
    assert (found.with_io, found.without_io) == ((entries(KERNEL, 1),), (entries(NOIO, 2),))
    assert (found.reclaim_s, found.throttled_s) == (0.5, None)
    assert (found.dirty_pauses, found.dirty_paused_s) == (4, 0.8)
    assert found.waits == ((SelfWait.RECLAIM, 2, 3.0),)
    assert [device.name for device in found.devices] == ["nbd0"]
