"""Reclaim and throttling as far as /proc shows them without a trace: at the moment of a look.

A user thread carries PF_MEMALLOC while it is in direct reclaim (__perform_reclaim() of mm/page_alloc.c), for
everybody to see; that it is paused in balance_dirty_pages() its wchan says, to those who may ptrace it. What
begins and ends between two looks is never seen, so counts are of looks that found it newly there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ioflusher.kernel.stall import SelfWait
from ioflusher.kernel.task import Thread
from ioflusher.kernel.task_flags import PF_MEMALLOC, PF_MEMALLOC_NOFS, PF_MEMALLOC_NOIO
from ioflusher.watch.sample import ReclaimCount
from ioflusher.watch.thread_counts import ThreadCounts

THROTTLING = b"balance_dirty_pages"


def in_reclaim(thread: Thread) -> bool:
    """Whether it is in direct reclaim; before anybody could count, too."""
    return bool(thread.flags & PF_MEMALLOC) and not thread.kernel_thread


@dataclass(slots=True)
class _Seen:
    reclaim: dict[tuple[bool, bool], int] = field(default_factory=dict)
    pauses: int = 0
    paused_known: bool = False
    wait: SelfWait | None = None
    since: float = 0.0


@dataclass(slots=True)
class SampledCounting:
    """Follows what looks have found. Pure."""

    _threads: dict[int, _Seen] = field(default_factory=dict)

    def take(self, now: float, threads: Mapping[int, Thread], wchans: Mapping[int, bytes]) -> None:
        """One look: threads by number, and the wchan of those in state D where it could be read."""
        for tid in self._threads.keys() - threads.keys():
            del self._threads[tid]
        for tid, thread in threads.items():
            seen = self._threads.setdefault(tid, _Seen())
            wait = None
            if in_reclaim(thread):
                wait = SelfWait.RECLAIM
            elif wchans.get(tid, b"").startswith(THROTTLING):
                wait = SelfWait.DIRTY_THROTTLING
            # "0" is what those get who may not know
            seen.paused_known = seen.paused_known or wchans.get(tid, b"0") not in (b"0", b"")
            if wait is seen.wait:
                continue
            seen.wait, seen.since = wait, now
            if wait is SelfWait.RECLAIM:
                allowed = _allowed(thread)
                seen.reclaim[allowed] = seen.reclaim.get(allowed, 0) + 1
            elif wait is SelfWait.DIRTY_THROTTLING:
                seen.pauses += 1

    def of(self, tid: int, now: float) -> ThreadCounts:
        """What is known of a thread."""
        seen = self._threads.get(tid, _Seen())
        return ThreadCounts(
            reclaim=tuple(
                ReclaimCount("", io=io, fs=fs, cgroup=False, entered=number)
                for (io, fs), number in sorted(seen.reclaim.items())
            ),
            dirty_pauses=seen.pauses if seen.paused_known else None,
            wait=seen.wait,
            wait_s=now - seen.since if seen.wait else 0.0,
        )


def _allowed(thread: Thread) -> tuple[bool, bool]:
    """Whether its allocations may start I/O and enter file systems, as far as its flags say."""
    noio = bool(thread.flags & PF_MEMALLOC_NOIO)
    return not noio, not noio and not thread.flags & PF_MEMALLOC_NOFS
