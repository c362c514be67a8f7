"""How near a half's daemon came to waiting for itself, in words for every form of a report."""

from collections.abc import Sequence

from ioflusher.lab.near_misses import NearMisses, ReclaimEntries
from ioflusher.lab.outcome import Half
from ioflusher.support.text import counted, printable

UNKNOWN = "unknown"
NEVER = "never entered"


def near_miss_rows(half: Half) -> list[tuple[str, str]]:
    """Label and words of each thing that is counted; what is not known is said to be unknown."""
    found = half.near_misses or NearMisses()
    rows = [
        ("reclaim, I/O allowed", _reclaim(found.reclaim, io=True)),
        ("reclaim without I/O", _reclaim(found.reclaim, io=False)),
        ("throttled", _throttled(found)),
        ("slowest request", _slowest(found)),
    ]
    return [(label, _bounded(words) if found.events_lost else words) for label, words in rows]


def _bounded(words: str) -> str:
    """The words where the kernel dropped events."""
    if words == UNKNOWN:
        return words
    return f"{NEVER} as far as is known: the kernel dropped events" if words == NEVER else f"at least {words}"


def _reclaim(reclaim: Sequence[ReclaimEntries] | None, *, io: bool) -> str:
    """Entries into direct reclaim with __GFP_IO or without it, and their flags."""
    if reclaim is None:
        return UNKNOWN
    found = sorted((each for each in reclaim if each.io == io), key=lambda each: -each.entered)
    if not found:
        return NEVER
    times = counted(sum(each.entered for each in found), "entry", "entries")
    spent_s = sum(each.spent_s for each in found)
    without_fs = sum(each.entered for each in found if not each.fs)
    no_fs = f", {without_fs} of them without file systems" if io and without_fs else ""
    flags = ", ".join(
        f"{printable(each.gfp_flags)}{' in a cgroup' if each.cgroup else ''} {each.entered}" for each in found
    )
    return f"{times}{no_fs}, {spent_s:.2f} s ({flags})"


def _throttled(found: NearMisses) -> str:
    """Pauses for dirty pages, and sleeps in reclaim."""
    if found.dirty_pauses is None and found.throttled_s is None:
        return UNKNOWN
    dirty, in_reclaim = _time(found.dirty_paused_s), _time(found.throttled_s)
    pauses = f" ({counted(found.dirty_pauses, 'pause')})" if found.dirty_pauses else ""
    return f"{dirty} for dirty pages{pauses}, {in_reclaim} in reclaim"


def _time(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{seconds:.2f} s"


def _slowest(found: NearMisses) -> str:
    if found.longest_request_s is None:
        return UNKNOWN
    oldest = f"; the oldest in flight {found.oldest_in_flight_s:.2f} s" if found.oldest_in_flight_s else ""
    return f"{found.longest_request_s:.2f} s{oldest}"
