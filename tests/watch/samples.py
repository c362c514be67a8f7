"""Samples for tests, each of one daemon with one thread unless said."""

from dataclasses import replace
from typing import Any

from ioflusher.kernel.task_flags import PF_IO_FLUSHER
from ioflusher.watch.sample import (
    CountedBy,
    DaemonSample,
    DeviceSample,
    MachineSample,
    MemorySample,
    ReclaimCount,
    ThreadSample,
)

COVERED = PF_IO_FLUSHER | 0x400000
BARE = 0x400000
KERNEL = ReclaimCount("GFP_KERNEL", io=True, fs=True, cgroup=False, entered=1)
NOIO = ReclaimCount("GFP_NOIO", io=False, fs=False, cgroup=False, entered=1)


def entries(count: ReclaimCount, entered: int) -> ReclaimCount:
    """The same with another number."""
    return replace(count, entered=entered)


def thread(tid: int = 11, **changes: Any) -> ThreadSample:
    """A thread that sleeps and has done nothing."""
    return replace(ThreadSample(tid, "worker", "S", BARE, dirty_pauses=0, dirty_paused_s=0.0), **changes)


def sample(
    *threads: ThreadSample, at: float = 100.0, oldest_s: float | None = 0.0, pid: int = 10, started: int = 5
) -> MachineSample:
    """A machine with one daemon that serves nbd0."""
    return MachineSample(
        time=1e9 + at,
        monotonic=at,
        counted_by=CountedBy.KERNEL,
        memory=MemorySample(),
        devices=(DeviceSample("nbd0", 7, 1 if oldest_s else 0, oldest_s),),
        daemons=(
            DaemonSample(
                pid, "nbd-server", started, "NBD server of /dev/nbd0", ("nbd0",), threads or (thread(),)
            ),
        ),
    )
