"""Takes samples: the one place of this package that reads a machine again and again.

What is read at every look is small and bounded: a few files of the machine, and the threads of the daemons
that are watched, not of everybody. Files that stay are opened once; nothing is written.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ioflusher.kernel.block_counts import parse_completed, parse_inflight
from ioflusher.kernel.meminfo import parse_meminfo
from ioflusher.kernel.pressure import parse_pressure
from ioflusher.kernel.stall import RequestAge, SelfWait
from ioflusher.kernel.status import parse_status
from ioflusher.kernel.task import Thread, parse_start_time
from ioflusher.kernel.watermarks import Watermarks, parse_vmstat, parse_zoneinfo
from ioflusher.machine.collect.kept import KeptFile, KeptTree
from ioflusher.machine.collect.proc_files import read_small
from ioflusher.machine.collect.system import read_memory
from ioflusher.machine.collect.threads import read_threads
from ioflusher.machine.snapshot import Memory
from ioflusher.watch.daemons import WatchedDaemon
from ioflusher.watch.instance import TRACEFS
from ioflusher.watch.kernel_counts import Counted, KernelCounts
from ioflusher.watch.sample import (
    CountedBy,
    DaemonSample,
    DeviceSample,
    MachineSample,
    MemorySample,
    PressureSample,
    ThreadSample,
)
from ioflusher.watch.sampled_counts import SampledCounting, in_reclaim
from ioflusher.watch.thread_counts import ThreadCounts

RESOURCES = ("memory", "io", "cpu")
MOST_THREADS = 10_000  # of one daemon
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
# /proc/zoneinfo is long where there are many processors, and watermarks and vm.* move seldom
_WATERMARKS_S = 10.0


class _Device:
    """A block device: two files and an age."""

    def __init__(self, root: Path, name: str) -> None:
        self._name = name
        self._stat = KeptFile(root / "sys/block" / name / "stat")
        self._inflight = KeptFile(root / "sys/block" / name / "inflight")
        self._age = RequestAge()

    def look(self, now: float) -> DeviceSample:
        stat, inflight = self._stat.read(), self._inflight.read()
        if stat is None or inflight is None:
            return DeviceSample(self._name, None, None, None)
        # completed was read first: a request that completes in between makes no age too high
        waiting, completed = parse_inflight(inflight), parse_completed(stat)
        return DeviceSample(self._name, completed, waiting, self._age.look(now, completed, waiting))

    def close(self) -> None:
        self._stat.close()
        self._inflight.close()


@dataclass(slots=True)
class _Daemon:
    """A daemon and a descriptor of its directory, by which no other process is taken for it."""

    known: WatchedDaemon
    directory: int
    sampled: SampledCounting = field(default_factory=SampledCounting)


class Sampler:
    """Looks at a machine.

    Attributes:
        gone: whether a watched daemon was not there any more at the last look.
    """

    def __init__(self, counts: KernelCounts | None, why: str = "", *, root: Path = Path("/")) -> None:
        """`counts`: the kernel's, or None, and then `why` says why it does not count."""
        self._root = root
        self._counts = counts
        self._why = why
        self._vmstat = KeptFile(root / "proc/vmstat")
        self._meminfo = KeptFile(root / "proc/meminfo")
        self._zoneinfo = KeptFile(root / "proc/zoneinfo")
        self._pressure = {name: KeptFile(root / "proc/pressure" / name) for name in RESOURCES}
        self._tree = KeptTree(root)
        self._marks = Watermarks()
        self._limits = Memory()
        self._marks_at = -1e9
        self._devices: dict[str, _Device] = {}
        self._daemons: dict[tuple[int, int], _Daemon] = {}
        self.gone = False

    def watch(self, daemons: Iterable[WatchedDaemon]) -> None:
        """These from now on; what goes on with those that were watched already is kept."""
        wanted = {(daemon.pid, daemon.started): daemon for daemon in daemons}
        for key in self._daemons.keys() - wanted.keys():
            os.close(self._daemons.pop(key).directory)
        for key, daemon in wanted.items():
            if key in self._daemons:
                self._daemons[key].known = daemon
                continue
            with contextlib.suppress(OSError):
                directory = os.open(self._root / "proc" / str(daemon.pid), os.O_RDONLY | os.O_DIRECTORY)
                self._daemons[key] = _Daemon(daemon, directory)
        names = {name for daemon in wanted.values() for name in daemon.devices}
        for name in self._devices.keys() - names:
            self._devices.pop(name).close()
        for name in names - self._devices.keys():
            self._devices[name] = _Device(self._root, name)
        self.gone = False

    def look(self) -> MachineSample:
        """The machine now."""
        found = [(daemon, threads) for daemon in self._daemons.values() if (threads := self._threads(daemon))]
        counted = self._count(found)
        now = time.monotonic()
        samples = []
        for daemon, threads in found:
            sample = self._daemon(daemon, threads, counted, now)
            if sample is not None:
                samples.append(sample)
        self.gone = self.gone or len(samples) < len(self._daemons)
        return MachineSample(
            time=time.time(),
            monotonic=now,
            counted_by=CountedBy.SAMPLED if self._counts is None else CountedBy.KERNEL,
            memory=self._memory(now),
            pressure=tuple(self._pressures()),
            devices=tuple(device.look(now) for _, device in sorted(self._devices.items())),
            daemons=tuple(samples),
            notes=self._notes(),
            lost=counted.lost if counted else 0,
        )

    def _notes(self) -> tuple[str, ...]:
        if self._counts is None:
            return (f"reclaim and throttling are only sampled: {self._why}",)
        return tuple(f"this kernel has no event {event}" for event in self._counts.missing)

    def _count(self, found: Sequence[tuple[_Daemon, tuple[Thread, ...]]]) -> Counted | None:
        if self._counts is None:
            return None
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            self._counts.follow([thread.tid for _, threads in found for thread in threads])
        return self._counts.read()

    def _threads(self, daemon: _Daemon) -> tuple[Thread, ...]:
        """Those that live and run its program; none where it is gone."""
        try:
            _, _, threads = read_threads(daemon.directory, MOST_THREADS)
        except (OSError, ValueError):
            return ()
        return tuple(thread for thread in threads if not thread.ended and not thread.kernel_worker)

    def _daemon(
        self, daemon: _Daemon, threads: tuple[Thread, ...], counted: Counted | None, now: float
    ) -> DaemonSample | None:
        try:
            status = parse_status(read_small("status", daemon.directory))
            if parse_start_time(read_small("stat", daemon.directory)) != daemon.known.started:
                return None
        except (OSError, ValueError):
            return None
        if counted is None:
            wchans = {thread.tid: self._wchan(daemon, thread) for thread in threads if thread.state == "D"}
            daemon.sampled.take(now, {thread.tid: thread for thread in threads}, wchans)
        known = daemon.known
        return DaemonSample(
            pid=known.pid,
            comm=known.comm,
            started=known.started,
            serves=known.serves,
            devices=known.devices,
            threads=tuple(self._thread(daemon, thread, counted, now) for thread in threads),
            locked_kib=status.locked_kib,
            swapped_kib=status.swapped_kib,
            resident_kib=status.resident_kib,
        )

    def _wchan(self, daemon: _Daemon, thread: Thread) -> bytes:
        with contextlib.suppress(OSError):
            return read_small(f"task/{thread.tid}/wchan", daemon.directory)
        return b"0"

    def _thread(self, daemon: _Daemon, thread: Thread, counted: Counted | None, now: float) -> ThreadSample:
        counts: ThreadCounts
        if counted is None:
            counts = daemon.sampled.of(thread.tid, now)
        else:
            counts = counted.threads.get(thread.tid, counted.others)
        wait = counts.wait
        if wait is None and in_reclaim(thread):
            wait = SelfWait.RECLAIM  # since before anybody counted
        return ThreadSample(
            tid=thread.tid,
            comm=thread.comm,
            state=thread.state,
            flags=thread.flags,
            reclaim=counts.reclaim,
            reclaim_s=counts.reclaim_s,
            throttled_s=counts.throttled_s,
            dirty_pauses=counts.dirty_pauses,
            dirty_paused_s=counts.dirty_paused_s,
            wait=wait,
            wait_s=round(counts.wait_s, 3),
            aside=thread.tid in daemon.known.aside,
        )

    def _memory(self, now: float) -> MemorySample:
        if now - self._marks_at >= _WATERMARKS_S:
            self._marks, self._marks_at = parse_zoneinfo(self._zoneinfo.read() or b""), now
            self._limits = read_memory(self._tree)
        counters = parse_vmstat(self._vmstat.read() or b"")
        info = parse_meminfo(self._meminfo.read() or b"")
        return MemorySample(
            total_kib=info.total_kib,
            available_kib=info.available_kib,
            free_kib=_kib(counters.nr_free_pages),
            min_kib=_kib(self._marks.min_pages),
            low_kib=_kib(self._marks.low_pages),
            high_kib=_kib(self._marks.high_pages),
            dirty_kib=_kib(counters.nr_dirty),
            writeback_kib=_kib(counters.nr_writeback),
            dirty_limit_kib=_kib(counters.nr_dirty_threshold),
            dirty_background_kib=_kib(counters.nr_dirty_background_threshold),
            swap_total_kib=info.swap_total_kib,
            swap_free_kib=info.swap_free_kib,
            min_free_kib=self._limits.min_free_kib,
            dirty_bytes=self._limits.dirty_bytes,
            dirty_background_bytes=self._limits.dirty_background_bytes,
            dirty_ratio=self._limits.dirty_ratio,
            dirty_background_ratio=self._limits.dirty_background_ratio,
        )

    def _pressures(self) -> Iterable[PressureSample]:
        for name, file in self._pressure.items():
            for line in parse_pressure(file.read() or b""):
                yield PressureSample(name, line.kind, line.avg10, line.total_us / 1e6)

    def close(self) -> None:
        """Let all files go, and have the kernel count no more."""
        self.watch(())
        self._tree.close()
        for file in (self._vmstat, self._meminfo, self._zoneinfo, *self._pressure.values()):
            file.close()
        if self._counts is not None:
            self._counts.close()


def _kib(pages: int | None) -> int | None:
    return None if pages is None else pages * _PAGE_KIB


def make_sampler(*, trace: bool = True, tracefs: Path = TRACEFS) -> Sampler:
    """A sampler of this machine whose counts are the kernel's where it may have them."""
    if not trace:
        return Sampler(None, "asked for with --no-trace")
    try:
        return Sampler(KernelCounts(tracefs))
    except OSError as error:
        if error.filename == str(tracefs / "instances") and isinstance(error, FileNotFoundError):
            return Sampler(None, f"tracefs is not mounted at {tracefs}")
        return Sampler(None, f"{error.filename or tracefs}: {error.strerror}")


def kernel_stack(pid: int, tid: int) -> str | None:
    """Where in the kernel a thread stands; None where it may not be read (it takes CAP_SYS_ADMIN)."""
    try:
        with open(f"/proc/{pid}/task/{tid}/stack", encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return None
