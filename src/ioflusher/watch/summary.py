"""A daemon in a few numbers: what its threads did, added up. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ioflusher.kernel.stall import SelfWait
from ioflusher.watch.sample import SEEN_WAITS, DaemonSample, DeviceSample, MachineSample, ReclaimCount


@dataclass(frozen=True, slots=True)
class DaemonSummary:
    """Sums over threads; None where it is known of none.

    Attributes:
        covered, to_cover: threads with the state, and those that need it.
        with_io, without_io: entries into reclaim with I/O allowed, and without, the most frequent first.
        waits: what threads are in now: what, how many, the longest in seconds.
        devices: those that it serves and that are known.
    """

    covered: int
    to_cover: int
    with_io: tuple[ReclaimCount, ...]
    without_io: tuple[ReclaimCount, ...]
    reclaim_s: float | None
    throttled_s: float | None
    dirty_pauses: int | None
    dirty_paused_s: float | None
    waits: tuple[tuple[SelfWait, int, float], ...]
    devices: tuple[DeviceSample, ...]


def summary(daemon: DaemonSample, sample: MachineSample) -> DaemonSummary:
    """Of a daemon in its sample."""
    entries = merged(count for thread in daemon.threads for count in thread.reclaim)
    to_cover = daemon.to_cover
    known = {device.name: device for device in sample.devices}
    waits = []
    for wait in SEEN_WAITS:
        lasting = [thread.wait_s for thread in daemon.threads if thread.wait is wait]
        if lasting:
            waits.append((wait, len(lasting), max(lasting)))
    return DaemonSummary(
        covered=sum(thread.io_flusher for thread in to_cover),
        to_cover=len(to_cover),
        with_io=tuple(count for count in entries if count.io),
        without_io=tuple(count for count in entries if not count.io),
        reclaim_s=_total([thread.reclaim_s for thread in daemon.threads]),
        throttled_s=_total([thread.throttled_s for thread in daemon.threads]),
        dirty_pauses=_whole([thread.dirty_pauses for thread in daemon.threads]),
        dirty_paused_s=_total([thread.dirty_paused_s for thread in daemon.threads]),
        waits=tuple(waits),
        devices=tuple(known[name] for name in daemon.devices if name in known),
    )


def merged(counts: Iterable[ReclaimCount]) -> list[ReclaimCount]:
    """Those of the same kind added up, the most frequent first."""
    sums: dict[ReclaimCount, int] = {}
    for count in counts:
        kind = replace(count, entered=0)
        sums[kind] = sums.get(kind, 0) + count.entered
    return [replace(kind, entered=number) for kind, number in sorted(sums.items(), key=lambda item: -item[1])]


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _whole(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
