"""Inside the guest: what the device, the memory and the daemon's threads look like, sample by sample.

A frozen device is one whose completed requests stand still while requests are in flight. The hung-task
detector is no judge of that: a throttled daemon wakes now and then, a daemon in state S is never listed.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from ioflusher.flag import thread_states
from ioflusher.kernel.task import parse_stat
from ioflusher.lab.guest.port import EventPort

DEVICE = "/dev/nbd0"
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
VM_COUNTERS = ("oom_kill", "pswpin", "pswpout", "allocstall_normal", "allocstall_dma32", "allocstall_movable")


class RepeatedFile:
    """A file of /proc or /sys that is read over and over through one descriptor and one buffer."""

    def __init__(self, path: str, size: int = 16384) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._buffer = bytearray(size)

    def read(self) -> str:
        """Its text now."""
        count = os.preadv(self._fd, [self._buffer], 0)
        return self._buffer[:count].decode("ascii", "replace")


class Observer:
    """Reports on one daemon and the device it serves."""

    def __init__(self, daemon: int, events: EventPort) -> None:
        self._daemon = daemon
        self._events = events
        self._stat = RepeatedFile("/sys/block/nbd0/stat")
        self._inflight = RepeatedFile("/sys/block/nbd0/inflight")
        self._meminfo = RepeatedFile("/proc/meminfo")
        self._vmstat = RepeatedFile("/proc/vmstat", 65536)
        self._completed = 0
        self._moved_at = 0.0
        self.stalled_s = 0.0  # since the last request completed, while some are in flight
        self._base = 0
        self._oom_before = 0

    def begin(self) -> None:
        """Count from here on: making swap or a file system was I/O on the device too."""
        self._base, _ = self._requests()
        self._completed = 0
        self._moved_at = time.monotonic()
        self._oom_before = self.vm_counters().get("oom_kill", 0)
        self._events.say("begin", threads=self.threads(stacks=False), memory_kib=self.memory())

    def _requests(self) -> tuple[int, int]:
        """Requests completed since boot, requests in flight (Documentation/block/stat.rst)."""
        words = self._stat.read().split()
        completed = int(words[0]) + int(words[4])
        return completed, sum(map(int, self._inflight.read().split()))

    def memory(self) -> dict[str, int]:
        """Lines of /proc/meminfo, KiB."""
        found = {}
        for line in self._meminfo.read().splitlines():
            name, _, rest = line.partition(":")
            if name in MEMORY_FIELDS:
                found[name] = int(rest.split()[0])
        return found

    def vm_counters(self) -> dict[str, int]:
        """Some counters of /proc/vmstat."""
        pairs = (line.split() for line in self._vmstat.read().splitlines())
        return {name: int(value) for name, value in pairs if name in VM_COUNTERS}

    def sample(self) -> None:
        """Look once and report."""
        now = time.monotonic()
        completed, in_flight = self._requests()
        completed -= self._base
        if completed != self._completed or not in_flight:
            self._completed, self._moved_at = completed, now
        self.stalled_s = now - self._moved_at
        self._events.say("sample", completed=completed, in_flight=in_flight, memory_kib=self.memory())

    def relay(self, line: bytes) -> str | None:
        """Pass on what the workload says; returns the phase that it has done."""
        try:
            report: dict[str, Any] = json.loads(line)
        except ValueError:
            report = {"text": line[:200].decode("utf-8", "backslashreplace")}
        self._events.say("work", **report)
        return report.get("phase")

    def threads(self, *, stacks: bool) -> list[dict[str, Any]]:
        """The daemon's threads: flags, state, and where in the kernel each stands."""
        found = []
        for thread in thread_states(self._daemon):
            file = Path(f"/proc/{self._daemon}/task/{thread.tid}/stack")
            try:
                stack = file.read_text() if stacks else ""
            except OSError:
                continue  # it ended
            found.append(
                {
                    "tid": thread.tid,
                    "comm": os.fsdecode(thread.comm),
                    "state": thread.state,
                    "flags": int(thread.flags),
                    "io_flusher": thread.io_flusher,
                    "stack": stack,
                }
            )
        return found

    def frozen(self) -> None:
        """The device is frozen: report the evidence."""
        self._events.say(
            "frozen",
            stalled_s=round(self.stalled_s, 1),
            completed=self._completed,
            in_flight=self._requests()[1],
            threads=self.threads(stacks=True),
            memory_kib=self.memory(),
            vm=self.vm_counters(),
            others=self.waiting_tasks(),
        )

    def waiting_tasks(self) -> list[dict[str, Any]]:
        """Every other task of the guest that is in uninterruptible sleep, with its stack."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self._daemon:
                continue
            try:
                stat = parse_stat((entry / "stat").read_bytes())
                if stat.state == "D":
                    stack = (entry / "stack").read_text()
                    found.append({"pid": int(entry.name), "comm": os.fsdecode(stat.comm), "stack": stack})
            except OSError:
                continue
        return found

    def finished(self, status: int) -> None:
        """The workload ended."""
        completed, in_flight = self._requests()
        vm = self.vm_counters()
        self._events.say(
            "finished",
            status=status,
            completed=completed - self._base,
            in_flight=in_flight,
            oom_kills=vm.get("oom_kill", 0) - self._oom_before,
            threads=self.threads(stacks=False),
            memory_kib=self.memory(),
            vm=vm,
        )
