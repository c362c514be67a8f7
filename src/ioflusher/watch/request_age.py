"""How old a device's oldest request is, from two numbers of /sys/block alone: completed and in flight.

The kernel tells nobody the age of a request. But if fewer requests have completed since some moment than
were in flight then, one of those must still wait (pigeonhole), and is at least as old as that moment. For a
device that stands still that is the age itself, to the interval of the looks; for one on which others
overtake a single lost request it is a lower bound. It never says too much, needs no privilege and no trace.
"""

from collections import deque

# A look every half second for ten minutes; older ones say nothing new as long as one of them holds.
_MOST = 1200


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
