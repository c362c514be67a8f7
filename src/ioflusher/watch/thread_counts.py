"""What a thread did in reclaim and in dirty throttling, from the kernel's histograms. Pure.

The histograms have, of each thread, how often direct reclaim began and ended, and the *sums* of the moments
at which it did. Time spent is then the difference of the sums, and with a reclaim that has not ended "now"
once more: exact, however many there were, in two numbers a thread. Sums wrap at 2**64, differences do not
mind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ioflusher.kernel.stall import SelfWait
from ioflusher.kernel.trace_events import flags_text
from ioflusher.kernel.trace_hist import Histogram
from ioflusher.watch.sample import ReclaimCount

_Number = TypeVar("_Number", int, float)
_WORD = 1 << 64
_EMPTY = Histogram({}, 0)
# a pause is at most 200 ms (MAX_PAUSE of mm/page-writeback.c), after which a thread still over the limit has
# the next: whoever had one so short ago is in throttling
PAUSE_S = 0.3


@dataclass(frozen=True, slots=True)
class ReclaimHistograms:
    """Direct reclaim of one kind: begin by (thread, gfp_flags), end by thread, both with microseconds."""

    begin: Histogram = _EMPTY
    end: Histogram = _EMPTY


@dataclass(frozen=True, slots=True)
class Histograms:
    """What was read in one look, the ends of reclaim before the beginnings.

    Attributes:
        monotonic: seconds by the clock of the histograms, after everything was read.
        reclaim: of the machine; cgroup: of memory cgroups.
        throttled: by thread, microseconds; None where the kernel has no such event.
        dirty: by thread, milliseconds; None likewise.
    """

    monotonic: float
    reclaim: ReclaimHistograms
    cgroup: ReclaimHistograms = ReclaimHistograms()
    throttled: Histogram | None = None
    dirty: Histogram | None = None

    @property
    def dropped(self) -> int:
        """Events that had no place."""
        kinds = (self.reclaim.begin, self.reclaim.end, self.cgroup.begin, self.cgroup.end)
        return sum(each.dropped for each in (*kinds, self.throttled or _EMPTY, self.dirty or _EMPTY))


@dataclass(frozen=True, slots=True)
class ThreadCounts:
    """What one thread did; the fields are those of `ThreadSample`."""

    reclaim: tuple[ReclaimCount, ...] = ()
    reclaim_s: float | None = None
    throttled_s: float | None = None
    dirty_pauses: int | None = None
    dirty_paused_s: float | None = None
    wait: SelfWait | None = None
    wait_s: float = 0.0


@dataclass(slots=True)
class _Reclaim:
    """One kind of reclaim of one thread, as the look before left it."""

    begun: int = 0
    begun_us: int = 0
    # of ends without a beginning: the thread was in reclaim when it was first followed
    strange: int = 0
    strange_us: int = 0
    spent_us: int = 0
    since_us: int | None = None  # of one that goes on, at the latest


@dataclass(slots=True)
class _Dirty:
    pauses: int = 0
    risen: float = -1e9
    since: float | None = None


@dataclass(slots=True)
class Counting:
    """Follows the histograms from look to look.

    Attributes:
        gfp_names: (bits, name) of the flags of allocations, as the kernel prints them.
    """

    gfp_names: Sequence[tuple[int, str]] = ()
    _reclaim: dict[tuple[int, bool], _Reclaim] = field(default_factory=dict)
    _dirty: dict[int, _Dirty] = field(default_factory=dict)

    def take(self, seen: Histograms) -> Mapping[int, ThreadCounts]:
        """What each thread has done until now, by its number."""
        entries: dict[int, list[ReclaimCount]] = {}
        spent: dict[int, int] = {}
        waits: dict[int, tuple[SelfWait, float]] = {}
        now_us = int(seen.monotonic * 1e6)
        for cgroup, kind in ((False, seen.reclaim), (True, seen.cgroup)):
            begun: dict[int, tuple[int, int]] = {}
            for (tid, flags), entry in kind.begin.entries.items():
                entries.setdefault(tid, []).append(self._count(flags, cgroup, entry.hits))
                hits, total = begun.get(tid, (0, 0))
                begun[tid] = hits + entry.hits, (total + entry.sum) % _WORD
            for tid in begun.keys() | {tid for (tid,) in kind.end.entries}:
                end = kind.end.entries.get((tid,))
                state = self._reclaim.setdefault((tid, cgroup), _Reclaim())
                _follow(state, begun.get(tid, (0, 0)), (end.hits, end.sum) if end else (0, 0), now_us)
                spent[tid] = spent.get(tid, 0) + state.spent_us
                if state.since_us is not None:
                    waits[tid] = SelfWait.RECLAIM, max(0.0, (now_us - state.since_us) / 1e6)
        dirty = seen.dirty.entries if seen.dirty else {}
        for (tid,), entry in dirty.items():
            since = self._pauses(tid, entry.hits, seen.monotonic)
            if since is not None:
                waits.setdefault(tid, (SelfWait.DIRTY_THROTTLING, since))
        throttled = seen.throttled.entries if seen.throttled else {}
        found = {}
        for tid in entries.keys() | spent.keys() | {t for (t,) in dirty} | {t for (t,) in throttled}:
            pauses, slept = dirty.get((tid,)), throttled.get((tid,))
            wait, wait_s = waits.get(tid, (None, 0.0))
            found[tid] = ThreadCounts(
                reclaim=tuple(
                    sorted(entries.get(tid, ()), key=lambda count: (count.gfp_flags, count.cgroup))
                ),
                reclaim_s=spent.get(tid, 0) / 1e6,
                throttled_s=None if seen.throttled is None else (slept.sum if slept else 0) / 1e6,
                dirty_pauses=None if seen.dirty is None else pauses.hits if pauses else 0,
                dirty_paused_s=None if seen.dirty is None else (pauses.sum if pauses else 0) / 1e3,
                wait=wait,
                wait_s=wait_s,
            )
        return found

    @staticmethod
    def none(seen: Histograms) -> ThreadCounts:
        """Of a thread that is not in any histogram."""
        return ThreadCounts(
            reclaim_s=0.0,
            throttled_s=None if seen.throttled is None else 0.0,
            dirty_pauses=None if seen.dirty is None else 0,
            dirty_paused_s=None if seen.dirty is None else 0.0,
        )

    def _count(self, flags: int, cgroup: bool, entered: int) -> ReclaimCount:
        return ReclaimCount(
            gfp_flags=flags_text(flags, self.gfp_names),
            io=any(flags & bits for bits, name in self.gfp_names if name == "__GFP_IO"),
            fs=any(flags & bits for bits, name in self.gfp_names if name == "__GFP_FS"),
            cgroup=cgroup,
            entered=entered,
        )

    def _pauses(self, tid: int, pauses: int, now: float) -> float | None:
        """For how long the thread has been paused again and again; None where it is not now."""
        state = self._dirty.setdefault(tid, _Dirty())
        if pauses > state.pauses:
            state.pauses, state.risen = pauses, now
            state.since = now if state.since is None else state.since
        elif now - state.risen > PAUSE_S:
            state.since = None
        return None if state.since is None else now - state.since


def _follow(state: _Reclaim, begun: tuple[int, int], ended: tuple[int, int], now_us: int) -> None:
    """One kind of reclaim of one thread since the look before."""
    if ended[0] - state.strange > begun[0]:
        # the ends were read first, so one more of them began before anybody counted: it is left out
        state.strange = ended[0] - begun[0]
        state.strange_us = (ended[1] - begun[1] - state.spent_us) % _WORD
    going_on = begun[0] - (ended[0] - state.strange)
    spent = ended[1] - state.strange_us - begun[1] + going_on * now_us
    # what began between the two reads counts for as long as these took; time spent never goes back
    state.spent_us = max(state.spent_us, spent % _WORD if spent % _WORD < _WORD // 2 else 0)
    new = begun[0] - state.begun
    if not going_on:
        state.since_us = None
    elif new == 1:
        state.since_us = (begun[1] - state.begun_us) % _WORD
    elif new or state.since_us is None:
        state.since_us = now_us  # the last of several: nobody knows since when
    state.begun, state.begun_us = begun


def added(before: ThreadCounts, since: ThreadCounts) -> ThreadCounts:
    """What was counted until a histogram was begun anew, and what since then."""
    entered = {(each.gfp_flags, each.cgroup): each for each in before.reclaim}
    for each in since.reclaim:
        old = entered.get((each.gfp_flags, each.cgroup))
        number = each.entered + (old.entered if old else 0)
        entered[each.gfp_flags, each.cgroup] = replace(each, entered=number)
    return replace(
        since,
        reclaim=tuple(entered[key] for key in sorted(entered)),
        reclaim_s=_sum(before.reclaim_s, since.reclaim_s),
        throttled_s=_sum(before.throttled_s, since.throttled_s),
        dirty_pauses=_sum(before.dirty_pauses, since.dirty_pauses),
        dirty_paused_s=_sum(before.dirty_paused_s, since.dirty_paused_s),
    )


def _sum(first: _Number | None, second: _Number | None) -> _Number | None:
    return None if first is None or second is None else first + second
