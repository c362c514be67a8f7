"""When a device that user space serves has stalled: one rule for `watch`, `rescue` and `guard`. Pure.

A *stall* is a request that has waited for so many seconds while a thread of its daemon waits for itself: for
memory in reclaim, in dirty throttling, for a page. That is the deadlock, or so near to it that waiting longer
helps nobody. A slow device alone is none: its daemon then waits for its own disk or network.

The kernel tells nobody the age of a request; it follows from two numbers of /sys/block, completed and in
flight. If fewer requests have completed since some moment than were in flight then, one of those must still
wait (pigeonhole), and is at least as old as that moment. For a device that stands still that is the age
itself, to the interval of the looks; for one on which others overtake a single lost request it is a lower
bound. It never says too much, needs no privilege and no trace.
"""

from collections import deque
from collections.abc import Collection
from enum import Enum

STALLED_S = 5.0
# A look every half second for ten minutes; older ones say nothing new as long as one of them holds.
_MOST = 1200


class SelfWait(Enum):
    """What a thread of a daemon can be in that only requests of its own device end; the plainest first."""

    DIRTY_THROTTLING = "dirty throttling"
    RECLAIM = "direct reclaim"
    PAGE_LOCK = "page lock"


_PLAINEST = tuple(SelfWait)


def stall(
    oldest_s: float | None, waits: Collection[SelfWait | None], *, stalled_s: float = STALLED_S
) -> SelfWait | None:
    """By which wait a device has stalled; None where it has not, or nobody can tell.

    Args:
        oldest_s: the least age of its oldest request in seconds; None for unknown.
        waits: those of the threads of its daemons; None for a thread that waits for something else.
        stalled_s: how old a request has to be.
    """
    if oldest_s is None or oldest_s < stalled_s:
        return None
    return next((wait for wait in _PLAINEST if wait in waits), None)


class RequestAge:
    """Follows one device. Standard library only; holds at most `_MOST` numbers."""

    def __init__(self) -> None:
        # (when, completed + in flight): a request of then waits while `completed` is below that sum
        self._looks: deque[tuple[float, int]] = deque()
        self._completed = 0

    def look(self, monotonic: float, completed: int, in_flight: int) -> float:
        """The least age in seconds of the oldest request in flight; 0.0 with none."""
        if completed < self._completed:
            self._looks.clear()  # the device was set up anew
        self._completed = completed
        # the sums never fall but when `inflight` is read late; the first that holds is the oldest
        while self._looks and self._looks[0][1] <= completed:
            self._looks.popleft()
        if in_flight <= 0:
            self._looks.clear()
            return 0.0
        if len(self._looks) == _MOST:
            del self._looks[1]  # the oldest stays: it has the age
        self._looks.append((monotonic, completed + in_flight))
        return monotonic - self._looks[0][0]
