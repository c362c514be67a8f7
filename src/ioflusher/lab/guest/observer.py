"""Inside the guest: what the device, the memory and the daemon's threads look like, sample by sample.

A frozen device is one whose completed requests stand still while requests are in flight. The hung-task
detector is no judge of that: a throttled daemon wakes now and then, a daemon in state S is never listed.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ioflusher.flag import FlagError, thread_states
from ioflusher.kernel.meminfo import meminfo_lines
from ioflusher.kernel.task import RunTime, parse_schedstat, parse_stat
from ioflusher.lab.guest.counters import DeviceCounters, RepeatedFile, Requests
from ioflusher.lab.guest.near_misses import NearMissWatch
from ioflusher.lab.guest.port import ReportPort
from ioflusher.lab.guest.processes import Process, ended_processes
from ioflusher.lab.messages import DeviceFrozen, Sampled, ThreadReport, WorkBegan, WorkEnded

MEMORY_FIELDS = (
    "MemTotal",
    "MemFree",
    "Active(file)",
    "Inactive(file)",
    "Dirty",
    "Writeback",
    "SwapFree",
    "SwapTotal",
)
# So many times `stalled_s` for a daemon that lacks a processor, as on a busy machine.
BUSY_FACTOR = 4
# A thread that runs or is ready to run for this part of the time does not wait. One that is throttled wakes
# every few milliseconds and looks whether it may go on (mm/page-writeback.c, balance_dirty_pages); just woken
# it is ready to run, too, the more often the longer whoever looks at it takes.
BUSY_SHARE = 0.6

VM_COUNTERS = ("oom_kill", "pswpin", "pswpout", "allocstall_normal", "allocstall_dma32", "allocstall_movable")


class Observer:
    """Reports on the daemons of one stack and the device that they serve.

    `started` are the processes that the stack started and that are to stay; `device` is told as it begins.

    Attributes:
        stalled_s: seconds since the device's last request completed, while some are in flight.
    """

    def __init__(
        self,
        daemons: Callable[[], Sequence[int]],
        counters: DeviceCounters,
        near_misses: NearMissWatch,
        port: ReportPort,
        started: Sequence[Process] = (),
        *,
        device: str = "",
    ) -> None:
        self._device = device
        self._started = started
        self._daemons = daemons
        self._counters = counters
        self._near_misses = near_misses
        self._port = port
        self._meminfo = RepeatedFile("/proc/meminfo")
        self._vmstat = RepeatedFile("/proc/vmstat", 65536)
        self._completed_before = 0
        self._completed = 0
        self._moved_at = 0.0
        self._stood_at = 0.0
        self._run_times: dict[int, RunTime] = {}
        self._oom_kills_before = 0
        self.stalled_s = 0.0

    def begin(self) -> None:
        """Count from here on: making swap or a file system was I/O on the device too."""
        self._near_misses.begin()
        self._completed_before = self._counters.read().completed
        self._completed = 0
        self._moved_at = time.monotonic()
        self._oom_kills_before = self.vm_counters().get("oom_kill", 0)
        self._port.say(
            WorkBegan(
                threads=self.threads(stacks=False),
                memory_kib=self.memory_kib(),
                device=self._device,
                completed_before=self._completed_before,
            )
        )

    def requests(self) -> Requests:
        """The device's requests since the beginning."""
        now = self._counters.read()
        return Requests(now.completed - self._completed_before, now.in_flight)

    def memory_kib(self) -> dict[str, int]:
        """Lines of /proc/meminfo."""
        lines = meminfo_lines(self._meminfo.read())
        return {name: lines[name] for name in MEMORY_FIELDS if name in lines}

    def vm_counters(self) -> dict[str, int]:
        """Some counters of /proc/vmstat."""
        pairs = (line.split() for line in self._vmstat.read().decode("ascii").splitlines())
        return {name: int(value) for name, value in pairs if name in VM_COUNTERS}

    def sample(self) -> None:
        """Look once and report."""
        now = time.monotonic()
        requests = self.requests()
        if requests.completed != self._completed or not requests.in_flight:
            self._completed, self._moved_at = requests.completed, now
            self._run_times = {}
        elif not self._run_times:
            self._stood_at, self._run_times = now, self.run_times()
        self.stalled_s = now - self._moved_at
        self._port.say(
            Sampled(
                completed=requests.completed,
                in_flight=requests.in_flight,
                memory_kib=self.memory_kib(),
                near_misses=self._near_misses.read(),
            )
        )

    def is_frozen(self, stalled_s: float) -> bool:
        """Whether nothing has completed for `stalled_s`, and not because the daemons lack a processor.

        Those that lack one get more time; in the end they count, too: reclaim can go in circles.
        """
        if self.stalled_s < stalled_s:
            return False
        return self.stalled_s >= BUSY_FACTOR * stalled_s or not self._lack_processor()

    def _lack_processor(self) -> bool:
        """Whether a thread of the daemons is ready to run, and was so for most of the standstill."""
        passed_ns = int((time.monotonic() - self._stood_at) * 1e9)
        ready = [thread.tid for thread in self.threads(stacks=False) if thread.state == "R"]
        now = self.run_times() if ready else {}
        return any(
            now[tid].busy_share(self._run_times[tid], passed_ns) >= BUSY_SHARE
            for tid in ready
            if tid in now and tid in self._run_times
        )

    def run_times(self) -> dict[int, RunTime]:
        """What each of the daemons' threads had of processors until now, by its number."""
        found = {}
        for pid in self._daemons():
            for directory in Path(f"/proc/{pid}/task").glob("*"):
                with contextlib.suppress(OSError, ValueError):  # it ended
                    found[int(directory.name)] = parse_schedstat((directory / "schedstat").read_bytes())
        return found

    def threads(self, *, stacks: bool) -> tuple[ThreadReport, ...]:
        """The daemons' threads: flags, state, and where in the kernel each stands."""
        found = []
        for pid in self._daemons():
            try:
                states = thread_states(pid)
            except FlagError:
                continue  # this daemon is gone
            for thread in states:
                if thread.ended:
                    continue
                file = Path(f"/proc/{pid}/task/{thread.tid}/stack")
                try:
                    stack = file.read_text() if stacks else ""
                except OSError:
                    continue  # it ended
                found.append(
                    ThreadReport(pid, thread.tid, thread.comm, thread.state, thread.flags, stack=stack)
                )
        return tuple(found)

    def waiting_tasks(self) -> tuple[ThreadReport, ...]:
        """Every other task of the guest that is in uninterruptible sleep, with its stack."""
        found = []
        daemons = set(self._daemons())
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in daemons:
                continue
            try:
                stat = parse_stat((entry / "stat").read_bytes())
                if stat.state != "D":
                    continue
                stack = (entry / "stack").read_text()
            except OSError:
                continue  # it ended
            pid = int(entry.name)
            found.append(ThreadReport(pid, pid, stat.comm, stat.state, stat.flags, stack=stack))
        return tuple(found)

    def device_frozen(self) -> None:
        """The device is frozen: report the evidence."""
        self._port.say(
            DeviceFrozen(
                stalled_s=round(self.stalled_s, 1),
                completed=self._completed,
                in_flight=self.requests().in_flight,
                threads=self.threads(stacks=True),
                waiting=self.waiting_tasks(),
                memory_kib=self.memory_kib(),
                vm_counters=self.vm_counters(),
                near_misses=self._near_misses.read(),
                ended=ended_processes(self._started),
            )
        )

    def work_ended(self, status: int) -> None:
        """The workload ended."""
        requests = self.requests()
        counters = self.vm_counters()
        self._port.say(
            WorkEnded(
                status=status,
                completed=requests.completed,
                in_flight=requests.in_flight,
                oom_kills=counters.get("oom_kill", 0) - self._oom_kills_before,
                threads=self.threads(stacks=False),
                memory_kib=self.memory_kib(),
                vm_counters=counters,
                near_misses=self._near_misses.read(),
                ended=ended_processes(self._started),
            )
        )
