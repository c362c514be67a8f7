"""Reclaim and throttling of some threads, counted by the kernel: histograms in a tracefs instance of our own.

Only the threads that are followed are counted, and those that they make (set_event_pid with event-fork): the
kernel filters. A histogram has a place for each thread and set of flags; one that is full drops events, says
how many, and is then begun anew.
"""

import contextlib
import errno
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ioflusher.kernel.trace_events import TraceFormatError, parse_trace_format
from ioflusher.kernel.trace_hist import Histogram, parse_histogram
from ioflusher.watch.instance import TRACEFS, OwnInstance
from ioflusher.watch.thread_counts import Counting, Histograms, ReclaimHistograms, ThreadCounts, added

# include/trace/events/vmscan.h, writeback.h
BEGIN, END = "vmscan/mm_vmscan_direct_reclaim_begin", "vmscan/mm_vmscan_direct_reclaim_end"
CGROUP_BEGIN, CGROUP_END = "vmscan/mm_vmscan_memcg_reclaim_begin", "vmscan/mm_vmscan_memcg_reclaim_end"
# reclaim_throttle() since 5.16 (8cd7c588decf)
THROTTLED = "vmscan/mm_vmscan_throttled"
DIRTY = "writeback/balance_dirty_pages"
_SIZE = 2048  # threads and flags of each histogram
TRIGGERS = {
    # the ends first: they are read first, too
    END: f"hist:keys=common_pid:vals=common_timestamp.usecs:size={_SIZE}:clock=mono",
    CGROUP_END: f"hist:keys=common_pid:vals=common_timestamp.usecs:size={_SIZE}:clock=mono",
    BEGIN: f"hist:keys=common_pid,gfp_flags:vals=common_timestamp.usecs:size={_SIZE}:clock=mono",
    CGROUP_BEGIN: f"hist:keys=common_pid,gfp_flags:vals=common_timestamp.usecs:size={_SIZE}:clock=mono",
    THROTTLED: f"hist:keys=common_pid:vals=usec_delayed:size={_SIZE}",
    DIRTY: f"hist:keys=common_pid:vals=pause:size={_SIZE} if pause > 0",
}
NEEDED = (BEGIN, END)
_LARGEST = 1 << 20  # of a histogram's text


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted since the beginning.

    Attributes:
        threads: by number, those that did anything.
        others: what any other thread did: nothing, as far as it would be known.
        lost: events that nobody could count.
    """

    threads: Mapping[int, ThreadCounts]
    others: ThreadCounts
    lost: int = 0


class KernelCounts:
    """Counts from its making on.

    Attributes:
        missing: events that this kernel does not have.

    Raises:
        OSError: without tracefs, without the right to use it, or where the kernel has no histogram triggers.
    """

    def __init__(self, tracefs: Path = TRACEFS) -> None:
        self._instance = OwnInstance(tracefs)
        self._files: dict[str, int] = {}
        self._followed: frozenset[int] = frozenset()
        self._before: dict[int, ThreadCounts] = {}
        self._lost = 0
        self.missing: list[str] = []
        try:
            self._counting = Counting(self._gfp_names())
            # nobody is followed yet: without a thread in set_event_pid everybody would be
            self._instance.write("options/event-fork", "1")
            self._follow_only({os.getpid()})
            for event, trigger in TRIGGERS.items():
                self._begin(event, trigger)
        except OSError:
            self.close()
            raise

    def _gfp_names(self) -> tuple[tuple[int, str], ...]:
        with contextlib.suppress(TraceFormatError):
            return parse_trace_format(self._instance.read(f"events/{BEGIN}/format")).flag_names.get(
                "gfp_flags", ()
            )
        return ()

    def _begin(self, event: str, trigger: str) -> None:
        if not self._instance.has(f"events/{event}/hist"):
            if event in NEEDED:
                why = "this kernel has no histogram triggers (CONFIG_HIST_TRIGGERS)"
                raise OSError(errno.EOPNOTSUPP, why, event)
            self.missing.append(event)
            return
        try:
            self._instance.write(f"events/{event}/trigger", trigger)
            self._files[event] = self._instance.open(f"events/{event}/hist")
        except OSError:
            if event in NEEDED:
                raise
            self.missing.append(event)

    def _follow_only(self, tids: Iterable[int]) -> None:
        self._instance.write("set_event_pid", " ".join(map(str, tids)) + "\n")

    def follow(self, tids: Collection[int]) -> None:
        """Count these threads, all that are of interest now, and those that they make."""
        new = frozenset(tids) - self._followed
        if new:
            self._instance.write("set_event_pid", " ".join(map(str, sorted(new))) + "\n", append=True)
        # a number that is not there any more may come again as another thread's
        self._followed = frozenset(tids)

    def read(self) -> Counted:
        """What was counted until now."""
        seen = self._histograms()
        counts = dict(self._counting.take(seen))
        for tid, before in self._before.items():
            counts[tid] = added(before, counts.get(tid) or Counting.none(seen))
        if seen.dropped:
            self._begin_anew(counts)
            self._lost += seen.dropped
        return Counted(counts, Counting.none(seen), self._lost)

    def _begin_anew(self, counts: Mapping[int, ThreadCounts]) -> None:
        """Empty histograms: the kernel never frees the place of a thread that has ended."""
        self._before = {tid: found for tid, found in counts.items() if tid in self._followed}
        self._counting = Counting(self._counting.gfp_names)
        self._close_files()
        for event, trigger in TRIGGERS.items():
            with contextlib.suppress(OSError):
                self._instance.write(f"events/{event}/trigger", f"!{trigger}")
            self._begin(event, trigger)

    def _histograms(self) -> Histograms:
        found = {event: self._histogram(file) for event, file in self._files.items()}
        empty = Histogram({}, 0)
        return Histograms(
            monotonic=time.monotonic(),
            reclaim=ReclaimHistograms(found[BEGIN], found[END]),
            cgroup=ReclaimHistograms(found.get(CGROUP_BEGIN, empty), found.get(CGROUP_END, empty)),
            throttled=found.get(THROTTLED),
            dirty=found.get(DIRTY),
        )

    def _histogram(self, file: int) -> Histogram:
        parts = []
        length = 0
        while length < _LARGEST and (part := os.pread(file, 1 << 16, length)):
            parts.append(part)
            length += len(part)
        return parse_histogram(b"".join(parts))

    def close(self) -> None:
        """Nothing is counted any more, and nothing of it is left in the kernel."""
        self._close_files()
        self._instance.close()

    def _close_files(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()
