"""Inside the guest: how near the daemons came to waiting for themselves, from the kernel's own events.

Three things tell a daemon that lives by luck from one that cannot freeze: whether its threads entered direct
reclaim with I/O or file systems allowed, how long they were throttled, and how long the device's slowest
request took. `NearMissCounter` is pure; `NearMissWatch` feeds it from two tracefs instances: one records the
daemons' threads alone, the other one the device's requests, whoever makes them.
"""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ioflusher.kernel.trace_events import TraceEvent, flags_text
from ioflusher.lab.guest.tracing import TraceInstance
from ioflusher.lab.near_misses import NearMisses, ReclaimEntries

BUFFER_KIB = 256  # for each processor; an event takes 30 to 110 bytes, and there is a look every half second

# include/trace/events/vmscan.h: what begins and ends direct reclaim; a memory cgroup has events of its own
RECLAIM = {
    "mm_vmscan_direct_reclaim_begin": "mm_vmscan_direct_reclaim_end",
    "mm_vmscan_memcg_reclaim_begin": "mm_vmscan_memcg_reclaim_end",
}
# reclaim that sleeps: in reclaim_throttle() since 5.16 (8cd7c588decf), before in congestion_wait() and others
THROTTLED = (
    "vmscan/mm_vmscan_throttled",
    "writeback/writeback_congestion_wait",
    "writeback/writeback_wait_iff_congested",
)
DIRTY = "writeback/balance_dirty_pages"
ISSUE, COMPLETE = "block_rq_issue", "block_rq_complete"
REQUEST = ("sector", "rwbs", "nr_sector")
FLUSH_SECTOR = (1 << 64) - 1  # of a flush when it completes; 0 when it is issued (blk_rq_trace_sector)


class NearMissCounter:
    """Counts what the events say.

    Args:
        gfp_names: (bits, name) of the flags of allocations, as the kernel prints them; None where it does not
            tell of direct reclaim.
        throttled: whether it tells of sleeps in reclaim.
        dirty: whether it tells of pauses for dirty pages.
    """

    def __init__(self, *, gfp_names: Sequence[tuple[int, str]] | None, throttled: bool, dirty: bool) -> None:
        self._gfp_names = gfp_names
        self._has_throttled = throttled
        self._has_dirty = dirty
        self._throttled_us = 0
        self._dirty_pauses = 0
        self._dirty_paused_ms = 0
        self._reclaim: dict[tuple[int, bool], list[int]] = {}  # (flags, of a cgroup): times entered, ns
        self._reclaiming: dict[int, tuple[tuple[int, bool], int]] = {}  # by thread: which, since when
        self._in_flight: dict[tuple[int, bytes] | None, int] = {}  # by request: since when
        self._longest_ns: int | None = None
        self._later: list[TraceEvent] = []
        self._lost = False

    def feed(self, events: Iterable[TraceEvent], *, lost: bool, until_ns: int) -> None:
        """Take events in any order; those after `until_ns` are kept for the next call.

        Each processor has a buffer of its own, and those that are read later hold events of the meantime:
        what belongs together would come apart.
        """
        if lost:
            # what was going on before the gap may have ended in it
            self._lost = True
            self._reclaiming.clear()
            self._in_flight.clear()
        known = sorted([*self._later, *events], key=lambda event: event.time_ns)
        self._later = [event for event in known if event.time_ns > until_ns]
        for event in known[: len(known) - len(self._later)]:
            self._take(event)

    def _take(self, event: TraceEvent) -> None:
        if event.name == ISSUE:
            # one that was put back and is issued again began the first time
            self._in_flight.setdefault(_request(event), event.time_ns)
        elif event.name == COMPLETE:
            began_ns = self._in_flight.pop(_request(event), None)
            if began_ns is not None:
                self._longest_ns = max(self._longest_ns or 0, event.time_ns - began_ns)
        elif event.name in RECLAIM.values():
            which, since_ns = self._reclaiming.pop(event.tid, (None, 0))
            if which is not None:
                self._reclaim[which][1] += event.time_ns - since_ns
        else:
            (value,) = event.values
            assert isinstance(value, int)
            if event.name in RECLAIM:
                which = value, event.name.startswith("mm_vmscan_memcg")
                self._reclaim.setdefault(which, [0, 0])[0] += 1
                self._reclaiming[event.tid] = which, event.time_ns
            elif event.name != "balance_dirty_pages":
                self._throttled_us += value
            elif value > 0:  # in milliseconds; else it only says that there was none
                self._dirty_pauses += 1
                self._dirty_paused_ms += value

    def report(self, now_ns: int) -> NearMisses:
        """What was counted; what has not ended counts as long as it has lasted."""
        oldest_ns = max((now_ns - began_ns for began_ns in self._in_flight.values()), default=0)
        longest_ns = self._longest_ns
        if self._in_flight:
            longest_ns = max(longest_ns or 0, oldest_ns)
        return NearMisses(
            reclaim=None if self._gfp_names is None else tuple(self._reclaim_entries(now_ns)),
            throttled_s=round(self._throttled_us / 1e6, 3) if self._has_throttled else None,
            dirty_pauses=self._dirty_pauses if self._has_dirty else None,
            dirty_paused_s=round(self._dirty_paused_ms / 1e3, 3) if self._has_dirty else None,
            # a device whose driver has no requests, or none that the kernel tells of, is not a fast one
            longest_request_s=None if longest_ns is None else round(longest_ns / 1e9, 3),
            oldest_in_flight_s=None if longest_ns is None else round(oldest_ns / 1e9, 3),
            events_lost=self._lost,
        )

    def _reclaim_entries(self, now_ns: int) -> Iterator[ReclaimEntries]:
        names = self._gfp_names or ()
        for which, (entered, spent_ns) in self._reclaim.items():
            flags, cgroup = which
            still_ns = sum(
                now_ns - since_ns for other, since_ns in self._reclaiming.values() if other == which
            )
            yield ReclaimEntries(
                gfp_flags=flags_text(flags, names),
                io=any(flags & bits for bits, name in names if name == "__GFP_IO"),
                fs=any(flags & bits for bits, name in names if name == "__GFP_FS"),
                cgroup=cgroup,
                entered=entered,
                spent_s=round((spent_ns + still_ns) / 1e9, 3),
            )


def _request(event: TraceEvent) -> tuple[int, bytes] | None:
    """What a request's issue and completion have in common; None for the end of what is no request."""
    sector, rwbs, count = event.values
    assert isinstance(sector, int)
    assert isinstance(rwbs, bytes)
    if sector == FLUSH_SECTOR:
        sector = 0
    elif not count and event.name == COMPLETE:
        return None  # of what a flush was a part of; its data is long complete
    return sector, rwbs.partition(b"\0")[0]  # what follows the text's end is not cleared


class NearMissWatch:
    """Counts near misses of some daemons and of the device that they serve.

    What the kernel does not tell is unknown: all of it without tracefs, a count without its event, the
    requests of what is no block device.
    """

    def __init__(self, daemons: Callable[[], Sequence[int]], device: str) -> None:
        self._daemons = daemons
        self._device = device
        self._followed: set[int] = set()
        self._instances: list[TraceInstance] = []
        self._threads: TraceInstance | None = None
        self._counter = NearMissCounter(gfp_names=None, throttled=False, dirty=False)

    def begin(self) -> None:
        """Count from here on."""
        with contextlib.suppress(OSError):
            self._begin_threads()
        with contextlib.suppress(OSError):
            self._begin_requests()

    def _begin_threads(self) -> None:
        threads = TraceInstance("ioflusher-threads", buffer_kib=BUFFER_KIB)
        self._threads = threads
        self._follow_new_daemons()
        gfp_names = None
        for begin, end in RECLAIM.items():
            found = threads.want(f"vmscan/{begin}", ("gfp_flags",))
            threads.want(f"vmscan/{end}", ())
            names = found.flag_names.get("gfp_flags", ()) if found is not None else ()
            if {"__GFP_IO", "__GFP_FS"} <= {name for _, name in names}:
                gfp_names = names
        throttled = [threads.want(event, ("usec_delayed",)) for event in THROTTLED]
        dirty = threads.want(DIRTY, ("pause",))
        threads.open()
        self._instances.append(threads)
        self._counter = NearMissCounter(
            gfp_names=gfp_names, throttled=any(throttled), dirty=dirty is not None
        )

    def _begin_requests(self) -> None:
        number = os.stat(self._device)
        if not stat.S_ISBLK(number.st_mode):
            return
        # MKDEV() of include/linux/kdev_t.h
        only = f"dev == {os.major(number.st_rdev) << 20 | os.minor(number.st_rdev)}"
        requests = TraceInstance("ioflusher-requests", buffer_kib=BUFFER_KIB)
        for event in (ISSUE, COMPLETE):
            requests.want(f"block/{event}", REQUEST, only=only)
        requests.open()
        self._instances.append(requests)

    def _follow_new_daemons(self) -> None:
        """Daemons may start later than the workload; what a followed one starts is followed by the kernel."""
        new = [pid for pid in self._daemons() if pid not in self._followed]
        if self._threads is None or not new:
            return
        self._followed.update(new)
        tids = list(threads_below(new))
        if tids:
            self._threads.follow(tids)

    def read(self) -> NearMisses:
        """What was counted until now."""
        with contextlib.suppress(OSError):
            self._follow_new_daemons()
        now_ns = time.monotonic_ns()
        events: list[TraceEvent] = []
        lost = False
        for instance in self._instances:
            more, some_lost = instance.read()
            events += more
            lost = lost or some_lost
        self._counter.feed(events, lost=lost, until_ns=now_ns)
        return self._counter.report(now_ns)


def threads_below(pids: Iterable[int], proc: Path = Path("/proc")) -> Iterator[int]:
    """Every thread of the processes and of their descendants, those that are there."""
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        try:
            tids = os.listdir(proc / str(pid) / "task")
        except OSError:
            continue  # it is gone
        for tid in tids:
            yield int(tid)
            # CONFIG_PROC_CHILDREN, as distributions have it
            with contextlib.suppress(OSError):
                waiting += map(int, (proc / str(pid) / "task" / tid / "children").read_text().split())
