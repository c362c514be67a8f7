"""How near a daemon came to waiting for itself: counted in the guest, sent as it is, kept with its half."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReclaimEntries:
    """Direct reclaim that the daemon's threads entered under the same flags.

    Attributes:
        gfp_flags: the flags by the names that the guest's kernel prints, as in GFP_NOIO|__GFP_NOWARN.
        io, fs: whether __GFP_IO and __GFP_FS are among them.
        cgroup: whether a memory cgroup was at its limit, and not the machine.
        entered: how often.
        spent_s: seconds in it, by the clock; what has not ended counts until it was looked at.
    """

    gfp_flags: str
    io: bool
    fs: bool
    cgroup: bool
    entered: int
    spent_s: float


@dataclass(frozen=True, slots=True)
class NearMisses:
    """How near a daemon came to waiting for itself since the workload began; None: the kernel does not say.

    Attributes:
        reclaim: direct reclaim inside its threads, those that it started meanwhile included.
        throttled_s: seconds that they slept in reclaim; they are a part of what reclaim took.
        dirty_pauses, dirty_paused_s: pauses that balance_dirty_pages() made them take, and their length.
        longest_request_s: seconds from the issue of the device's slowest request to its completion, or to
            the last look where it was in flight.
        oldest_in_flight_s: age of the oldest request in flight at the last look; 0 where there was none.
        events_lost: whether the kernel dropped events, so that every number is a lower bound.
    """

    reclaim: tuple[ReclaimEntries, ...] | None = None
    throttled_s: float | None = None
    dirty_pauses: int | None = None
    dirty_paused_s: float | None = None
    longest_request_s: float | None = None
    oldest_in_flight_s: float | None = None
    events_lost: bool = False

    def reclaim_with_io(self) -> int | None:
        """How often direct reclaim was entered with __GFP_IO; None where it is not known."""
        return None if self.reclaim is None else sum(each.entered for each in self.reclaim if each.io)
