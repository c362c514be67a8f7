"""One look after another: sampling, judging, and who is watched, brought together."""

from ioflusher.kernel.stall import STALLED_S
from ioflusher.watch.alarms import AlarmKind, judge
from ioflusher.watch.discovery import Discovery
from ioflusher.watch.record import ToldAlarm, WatchRecord
from ioflusher.watch.sample import MachineSample
from ioflusher.watch.sampler import Sampler, kernel_stack

# half of what is said to be a hang: 10 % of a second of memory pressure; without CAP_SYS_RESOURCE the kernel
# takes windows of whole two seconds only (since 6.5), kernel/sched/psi.c psi_trigger_create()
TRIGGERS = {"memory": ("some 100000 1000000", "some 200000 2000000")}


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
