"""What one look at the machine found: the records of `ioflusher watch`, its file, its metrics and its alarms.

Counts go on from one sample to the next: what happened in between is the difference. None is unknown: the
kernel does not tell it, or not to this user. Standard library only: a service that must go on in a frozen
machine judges by the same records.
"""

from dataclasses import dataclass
from enum import Enum

from ioflusher.kernel.stall import SelfWait
from ioflusher.kernel.task_flags import PF_IO_FLUSHER, PF_KTHREAD, PF_MEMALLOC_NOIO

# those that the kernel's counts and /proc show; any other takes the thread's stack
SEEN_WAITS = (SelfWait.RECLAIM, SelfWait.DIRTY_THROTTLING)


class CountedBy(Enum):
    """Who counts reclaim and throttling."""

    KERNEL = "kernel"  # histogram triggers of tracefs: every entry
    SAMPLED = "sampled"  # /proc: only what goes on at the moment of a look


@dataclass(frozen=True, slots=True)
class ReclaimCount:
    """Direct reclaim of one thread with one set of allocation flags.

    Attributes:
        gfp_flags: as the kernel prints them, "GFP_KERNEL|__GFP_COMP"; "" where only sampling saw it.
        io, fs: whether I/O (__GFP_IO) and file systems (__GFP_FS) were allowed.
        cgroup: whether it was the reclaim of a memory cgroup.
        entered: how often.
    """

    gfp_flags: str
    io: bool
    fs: bool
    cgroup: bool
    entered: int


@dataclass(frozen=True, slots=True)
class ThreadSample:
    """One thread of a daemon.

    Attributes:
        tid, comm, state, flags: as /proc/PID/task/TID/stat has them.
        reclaim: entries into direct reclaim.
        reclaim_s: seconds in it, that of now included.
        throttled_s: of these, seconds in which reclaim itself made it sleep (vmscan:mm_vmscan_throttled).
        dirty_pauses, dirty_paused_s: pauses in balance_dirty_pages(), and their length in seconds.
        wait: what it is in now, or, for dirty throttling, was in since the last look.
        wait_s: for how long without an end, at least.
        aside: whether it does no I/O itself (it waits in ioctl(NBD_DO_IT)) and needs no state.
    """

    tid: int
    comm: str
    state: str
    flags: int
    reclaim: tuple[ReclaimCount, ...] = ()
    reclaim_s: float | None = None
    throttled_s: float | None = None
    dirty_pauses: int | None = None
    dirty_paused_s: float | None = None
    wait: SelfWait | None = None
    wait_s: float = 0.0
    aside: bool = False

    @property
    def io_flusher(self) -> bool:
        """Whether it carries both bits of the state."""
        return self.flags & PF_IO_FLUSHER == PF_IO_FLUSHER

    @property
    def takes_state(self) -> bool:
        """Whether the state can be put on it: no thread of the kernel takes it."""
        return not self.flags & PF_KTHREAD

    @property
    def io_allowed(self) -> bool:
        """Whether its allocations may start I/O: it has no PF_MEMALLOC_NOIO."""
        return not self.flags & PF_MEMALLOC_NOIO


@dataclass(frozen=True, slots=True)
class DaemonSample:
    """A process in the I/O path.

    Attributes:
        pid, comm: its number and name.
        started: when, in clock ticks since boot (field 22 of its stat line): with `pid` what tells it apart.
        serves: in words, as "NBD server of /dev/nbd0".
        devices: names of block devices whose requests need it; none for what is no block device.
        threads: those that run its program.
        locked_kib, swapped_kib, resident_kib: VmLck, VmSwap, VmRSS of /proc/PID/status.
    """

    pid: int
    comm: str
    started: int
    serves: str
    devices: tuple[str, ...]
    threads: tuple[ThreadSample, ...]
    locked_kib: int | None = None
    swapped_kib: int | None = None
    resident_kib: int | None = None

    @property
    def to_cover(self) -> tuple[ThreadSample, ...]:
        """The threads that need the state."""
        return tuple(thread for thread in self.threads if not thread.aside and thread.takes_state)


@dataclass(frozen=True, slots=True)
class DeviceSample:
    """A block device that a daemon serves.

    Attributes:
        name: as in /sys/block.
        completed: requests since it exists; in_flight: issued and not completed.
        oldest_s: the age of the oldest in flight in seconds, at least (`kernel.stall`).
    """

    name: str
    completed: int | None
    in_flight: int | None
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Memory of the machine in KiB.

    Attributes:
        total_kib, available_kib, swap_total_kib, swap_free_kib: of /proc/meminfo.
        free_kib, dirty_kib, writeback_kib: nr_free_pages, nr_dirty, nr_writeback of /proc/vmstat.
        dirty_limit_kib, dirty_background_kib: nr_dirty_threshold and nr_dirty_background_threshold there.
        min_kib, low_kib, high_kib: watermarks of all zones of /proc/zoneinfo together.
        min_free_kib, dirty_bytes, dirty_background_bytes, dirty_ratio, dirty_background_ratio: vm.*; who ends
            a freeze changes them, and has to put them back.
    """

    total_kib: int | None = None
    available_kib: int | None = None
    free_kib: int | None = None
    min_kib: int | None = None
    low_kib: int | None = None
    high_kib: int | None = None
    dirty_kib: int | None = None
    writeback_kib: int | None = None
    dirty_limit_kib: int | None = None
    dirty_background_kib: int | None = None
    swap_total_kib: int | None = None
    swap_free_kib: int | None = None
    min_free_kib: int | None = None
    dirty_bytes: int | None = None
    dirty_background_bytes: int | None = None
    dirty_ratio: int | None = None
    dirty_background_ratio: int | None = None


@dataclass(frozen=True, slots=True)
class PressureSample:
    """A line of /proc/pressure/RESOURCE (Documentation/accounting/psi.rst).

    Attributes:
        resource: "memory", "io" or "cpu".
        kind: "some" or "full".
        avg10: percent of the last ten seconds.
        total_s: seconds since boot.
    """

    resource: str
    kind: str
    avg10: float
    total_s: float


@dataclass(frozen=True, slots=True)
class MachineSample:
    """The machine at one moment.

    Attributes:
        time: seconds since 1970; monotonic: by CLOCK_MONOTONIC.
        counted_by: who counts reclaim and throttling.
        notes: what could not be read, or is not counted, and why; a sentence each.
        lost: events that the kernel could not count, since the beginning.
    """

    time: float
    monotonic: float
    counted_by: CountedBy
    memory: MemorySample
    pressure: tuple[PressureSample, ...] = ()
    devices: tuple[DeviceSample, ...] = ()
    daemons: tuple[DaemonSample, ...] = ()
    notes: tuple[str, ...] = ()
    lost: int = 0
