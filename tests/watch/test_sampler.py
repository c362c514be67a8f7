"""Samples of a recorded tree: what is read, and what goes away while it is watched."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ioflusher.kernel.stall import SelfWait
from ioflusher.kernel.task_flags import PF_MEMALLOC
from ioflusher.watch.daemons import WatchedDaemon
from ioflusher.watch.sample import CountedBy, MemorySample
from ioflusher.watch.sampler import Sampler
from tests.watch.samples import BARE, COVERED

DAEMON = WatchedDaemon(10, "nbd-server", 5, "NBD server of /dev/nbd0", ("nbd0",), frozenset({12}))


def put(root: Path, path: str, text: str) -> None:
    """A file of the tree."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def put_thread(root: Path, tid: int, flags: int, state: str = "S", started: int = 5) -> None:
    """A thread of the daemon; field 22 is when the process started."""
    numbers = " ".join(["0"] * 12)
    line = f"{tid} (worker) {state} 1 1 1 0 -1 {flags} {numbers} {started} " + " ".join(["0"] * 30)
    put(root, f"proc/10/task/{tid}/stat", line)
    if tid == 10:
        put(root, "proc/10/stat", line)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with one daemon of three threads, and nbd0."""
    for tid, flags in ((10, BARE), (11, COVERED), (12, BARE)):
        put_thread(tmp_path, tid, flags)
    put(
        tmp_path,
        "proc/10/status",
        "Name:\tnbd-server\nState:\tS (sleeping)\nTgid:\t10\nTracerPid:\t0\nUid:\t0\t0\t0\t0\n"
        "VmLck:\t    64 kB\nVmRSS:\t   900 kB\nVmSwap:\t     8 kB\n",
    )
    put(tmp_path, "proc/vmstat", "nr_free_pages 1000\nnr_dirty 10\nnr_writeback 5\nnr_dirty_threshold 200\n")
    put(tmp_path, "proc/meminfo", "MemTotal:  8000 kB\nSwapTotal:   100 kB\n")
    put(tmp_path, "proc/zoneinfo", "  pages free     1000\n        min      30\n        low      40\n")
    for name, value in {"min_free_kbytes": 8192, "dirty_bytes": 8 << 20, "dirty_ratio": 0}.items():
        put(tmp_path, f"proc/sys/vm/{name}", f"{value}\n")
    put(tmp_path, "proc/pressure/memory", "some avg10=1.00 avg60=0.00 avg300=0.00 total=2500000\n")
    put_device(tmp_path, 100, 2)
    return tmp_path


def put_device(root: Path, completed: int, in_flight: int) -> None:
    put(root, "sys/block/nbd0/stat", f"{completed} 0 0 0 0 0 0 0 0 0 0\n")
    put(root, "sys/block/nbd0/inflight", f"0 {in_flight}\n")


def sampler(root: Path) -> Sampler:
    """One that watches the daemon and has to sample."""
    made = Sampler(None, "no tracefs here", root=root)
    made.watch([DAEMON])
    return made


def test_all_of_it(root: Path) -> None:
    """Memory in KiB, the daemon with its threads, the device, and why nothing is counted."""
    found = sampler(root).look()
    assert found.counted_by is CountedBy.SAMPLED
    assert found.notes == ("reclaim and throttling are only sampled: no tracefs here",)
    assert found.memory == MemorySample(
        total_kib=8000, free_kib=4000, min_kib=120, low_kib=160, dirty_kib=40, writeback_kib=20,
        dirty_limit_kib=800, swap_total_kib=100, min_free_kib=8192, dirty_bytes=8 << 20, dirty_ratio=0,
    )  # fmt: skip
    (pressure,) = found.pressure
    assert (pressure.resource, pressure.kind, pressure.avg10, pressure.total_s) == (
        "memory",
        "some",
        1.0,
        2.5,
    )
    (daemon,) = found.daemons
    assert (daemon.locked_kib, daemon.resident_kib, daemon.swapped_kib) == (64, 900, 8)
    assert [(thread.tid, thread.io_flusher, thread.aside) for thread in daemon.threads] == [
        (10, False, False),
        (11, True, False),
        (12, False, True),
    ]
    assert [thread.tid for thread in daemon.to_cover] == [10, 11]
    (device,) = found.devices
    assert (device.name, device.completed, device.in_flight, device.oldest_s) == ("nbd0", 100, 2, 0.0)


def test_a_thread_in_reclaim(root: Path) -> None:
    """Its flag says so, and its throttling its wchan."""
    watched = sampler(root)
    put_thread(root, 11, COVERED | PF_MEMALLOC)
    put_thread(root, 10, BARE, "D")
    put(root, "proc/10/task/10/wchan", "balance_dirty_pages")
    waits = {thread.tid: thread.wait for thread in watched.look().daemons[0].threads}
    assert waits == {10: SelfWait.DIRTY_THROTTLING, 11: SelfWait.RECLAIM, 12: None}


def test_a_device_that_vanishes(root: Path) -> None:
    """It is unknown while it is away, and is read again when it is back."""
    watched = sampler(root)
    assert watched.look().devices[0].in_flight == 2
    shutil.rmtree(root / "sys/block/nbd0")
    # a file of sysfs that was opened before says ENODEV; on this file system it stays readable
    watched._devices["nbd0"].close()
    assert watched.look().devices[0].in_flight is None
    put_device(root, 1, 1)
    assert watched.look().devices[0].completed == 1


def test_a_daemon_that_ends(root: Path) -> None:
    """It is not in the sample, and that it is gone is known until others are watched."""
    watched = sampler(root)
    assert len(watched.look().daemons) == 1
    assert not watched.gone
    shutil.rmtree(root / "proc/10")
    assert watched.look().daemons == ()
    assert watched.gone
    watched.watch([])
    assert not watched.gone


def test_a_daemon_that_is_restarted_under_its_number(root: Path) -> None:
    """Another start time: it is another process."""
    watched = sampler(root)
    put_thread(root, 10, BARE, started=6)
    assert watched.look().daemons == ()
    assert watched.gone
    watched.watch([replace(DAEMON, started=6)])
    assert watched.look().daemons[0].started == 6


def test_nothing_is_there(tmp_path: Path) -> None:
    """Unknown, everywhere."""
    found = Sampler(None, "", root=tmp_path).look()
    assert (found.memory, found.pressure, found.daemons, found.devices) == (MemorySample(), (), (), ())
