"""One look after another: sampling, judging, and who is watched, brought together."""

import contextlib
import os
import select
from pathlib import Path

from ioflusher.watch.alarms import STALLED_S, AlarmKind, judge
from ioflusher.watch.discovery import Discovery
from ioflusher.watch.record import ToldAlarm, WatchRecord
from ioflusher.watch.sample import MachineSample
from ioflusher.watch.sampler import Sampler, kernel_stack

# half of what is said to be a hang: 10 % of a second of memory pressure; without CAP_SYS_RESOURCE the kernel
# takes windows of whole two seconds only (since 6.5), kernel/sched/psi.c psi_trigger_create()
_TRIGGERS = (b"some 100000 1000000", b"some 200000 2000000")


class PressureTrigger:
    """Memory pressure that wakes whoever waits (Documentation/accounting/psi.rst).

    Attributes:
        file: to be polled for POLLPRI; None where the kernel allows none.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.file: int | None = None
        for trigger in _TRIGGERS:
            with contextlib.suppress(OSError):
                file = os.open(root / "proc/pressure/memory", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    os.write(file, trigger + b"\0")
                except OSError:
                    os.close(file)
                    raise
                self.file = file
                return

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until there is pressure; whether there is."""
        poll = select.poll()
        if self.file is not None:
            poll.register(self.file, select.POLLPRI | select.POLLERR)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def close(self) -> None:
        """Let it go."""
        if self.file is not None:
            os.close(self.file)
            self.file = None


class Watcher:
    """Looks at this machine, and tells what is wrong."""

    def __init__(self, sampler: Sampler, discovery: Discovery, *, stalled_s: float = STALLED_S) -> None:
        self._sampler = sampler
        self._discovery = discovery
        self._stalled_s = stalled_s
        self._before: MachineSample | None = None

    def begin(self) -> None:
        """Find who is to be watched.

        Raises:
            IoflusherError: the machine cannot be looked at.
        """
        self._sampler.watch(self._discovery.first())

    def look(self) -> WatchRecord:
        """The machine now, with what is to be told of it."""
        found = self._discovery.poll(gone=self._sampler.gone)
        if found is not None:
            self._sampler.watch(found)
        sample = self._sampler.look()
        alarms = judge(self._before, sample, stalled_s=self._stalled_s)
        self._before = sample
        return WatchRecord(
            sample,
            tuple(
                ToldAlarm(
                    alarm,
                    alarm.what,
                    alarm.advice,
                    kernel_stack(alarm.pid, alarm.tid) if alarm.kind is AlarmKind.STALL else None,
                )
                for alarm in alarms
            ),
        )

    def close(self) -> None:
        """Let everything go."""
        self._discovery.close()
        self._sampler.close()
