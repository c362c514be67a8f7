"""What looks at /proc alone find out."""

from ioflusher.kernel.stall import SelfWait
from ioflusher.kernel.task import Thread
from ioflusher.kernel.task_flags import PF_KTHREAD, PF_MEMALLOC, PF_MEMALLOC_NOFS, PF_MEMALLOC_NOIO
from ioflusher.watch.sample import ReclaimCount
from ioflusher.watch.sampled_counts import SampledCounting, in_reclaim


def one(flags: int = 0, state: str = "D") -> dict[int, Thread]:
    return {7: Thread(7, "worker", state, flags)}


def test_reclaim_is_a_flag() -> None:
    """Newly there counts once, however long it stays; what is allowed is as its flags say."""
    counting = SampledCounting()
    counting.take(10, one(PF_MEMALLOC), {})
    counting.take(11, one(PF_MEMALLOC), {})
    counts = counting.of(7, 11)
    assert counts.reclaim == (ReclaimCount("", io=True, fs=True, cgroup=False, entered=1),)
    assert (counts.wait, counts.wait_s) == (SelfWait.RECLAIM, 1)
    assert (counts.reclaim_s, counts.dirty_pauses) == (None, None)  # nobody measured
    counting.take(12, one(), {})
    counting.take(13, one(PF_MEMALLOC | PF_MEMALLOC_NOIO), {})
    counting.take(14, one(), {})
    counting.take(15, one(PF_MEMALLOC | PF_MEMALLOC_NOFS), {})
    assert [(count.io, count.fs, count.entered) for count in counting.of(7, 15).reclaim] == [
        (False, False, 1),
        (True, False, 1),
        (True, True, 1),
    ]


def test_a_kernel_thread_is_none() -> None:
    """kswapd has the flag all its life."""
    assert not in_reclaim(Thread(1, "kswapd0", "S", PF_MEMALLOC | PF_KTHREAD))


def test_throttling_is_where_it_waits() -> None:
    """Seen by those who may see wchan; "0" says that one may not, and then it is unknown."""
    counting = SampledCounting()
    counting.take(10, one(), {7: b"0"})
    assert counting.of(7, 10).dirty_pauses is None
    counting.take(11, one(), {7: b"balance_dirty_pages"})
    counts = counting.of(7, 12)
    assert (counts.wait, counts.wait_s, counts.dirty_pauses) == (SelfWait.DIRTY_THROTTLING, 1, 1)
    counting.take(12, one(), {7: b"folio_wait_bit_common"})
    counts = counting.of(7, 12)
    assert (counts.wait, counts.wait_s, counts.dirty_pauses) == (None, 0.0, 1)


def test_a_thread_that_ended() -> None:
    """Its number may come again: nothing of it is kept."""
    counting = SampledCounting()
    counting.take(10, one(PF_MEMALLOC), {})
    counting.take(11, {}, {})
    assert counting.of(7, 11).reclaim == ()
