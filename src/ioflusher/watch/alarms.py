"""What is to be told of two samples: near misses and stalls. Pure, and of the standard library alone.

A *near miss* is a daemon that was in direct reclaim with I/O allowed, or in dirty throttling: it may have
waited for a request that only it can complete, and came through. What a *stall* is, `kernel.stall` says.
"""

from dataclasses import dataclass
from enum import Enum

from ioflusher.kernel.stall import STALLED_S, SelfWait, stall
from ioflusher.kernel.task_flags import TaskFlags
from ioflusher.watch.sample import DaemonSample, DeviceSample, MachineSample, ThreadSample


class AlarmKind(Enum):
    """How bad it is."""

    NEAR_MISS = "near miss"
    STALL = "stall"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thread of one daemon, and what it does.

    Attributes:
        kind: how bad it is.
        wait: what the thread is, or was, in.
        pid, comm, started: the daemon's.
        tid, thread: the thread's number and name.
        serves: what the daemon serves, in words.
        device: for a stall, whose request waits.
        count: for a near miss, how often since the last sample; 0 where it was only seen to go on.
        seconds: for a stall, how old the request is, at least.
        gfp_flags: of the reclaim, the kernel's names.
        covered: whether the thread carries the IO_FLUSHER state.
        takes_state: whether it could be put on it: no thread of the kernel takes it.
    """

    kind: AlarmKind
    wait: SelfWait
    pid: int
    comm: str
    started: int
    tid: int
    thread: str
    serves: str
    device: str | None = None
    count: int = 0
    seconds: float = 0.0
    gfp_flags: tuple[str, ...] = ()
    covered: bool = False
    takes_state: bool = True

    @property
    def what(self) -> str:
        """One sentence."""
        who = f"{self.comm} ({self.pid}), thread {self.thread} ({self.tid})"
        if self.kind is AlarmKind.STALL:
            return (
                f"{who}, is in {self.wait.value}"
                f" while a request of /dev/{self.device} has waited for {self.seconds:.1f} s"
            )
        times = {0: "goes on", 1: "once"}.get(self.count, f"{self.count} times")
        if self.wait is SelfWait.DIRTY_THROTTLING:
            return f"{who}, was paused in dirty throttling: {times}"
        flags = f", {', '.join(self.gfp_flags)}" if self.gfp_flags else ""
        return f"{who}, was in direct reclaim with I/O allowed: {times}{flags}"

    @property
    def advice(self) -> str:
        """What to do about it, a command first."""
        if self.kind is AlarmKind.STALL:
            return f"ioflusher rescue --plan /dev/{self.device}"
        if not self.takes_state:
            return "a store without the page cache: nothing puts the state on a thread of the kernel"
        if not self.covered:
            return f"ioflusher set {self.pid}"
        return f"ioflusher audit  (it has the state; what else can hold it up: see {self.wait.value})"


def judge(
    before: MachineSample | None, now: MachineSample, *, stalled_s: float = STALLED_S
) -> tuple[Alarm, ...]:
    """The alarms of `now`, stalls first.

    Args:
        before: the sample before it; with None nothing has happened since, and only what goes on is told.
        stalled_s: how old a request of a stall is.
    """
    earlier = {(daemon.pid, daemon.started): daemon for daemon in before.daemons} if before else {}
    devices = {device.name: device for device in now.devices}
    stalls: list[Alarm] = []
    near: list[Alarm] = []
    for daemon in now.daemons:
        old = earlier.get((daemon.pid, daemon.started))
        known = {thread.tid: thread for thread in old.threads} if old else {}
        served = [devices[name] for name in daemon.devices if name in devices]
        stalled = _stalls(daemon, served, stalled_s)
        stalls += stalled
        # whose stall is told, of that no near miss is: it has not come through
        told = {alarm.tid for alarm in stalled}
        for thread in daemon.threads:
            if thread.tid not in told:
                near += _near_misses(daemon, thread, known.get(thread.tid), counted=before is not None)
    return (*stalls, *near)


def _near_misses(
    daemon: DaemonSample, thread: ThreadSample, before: ThreadSample | None, *, counted: bool
) -> list[Alarm]:
    """What the thread did since; `counted` is whether its counts may be compared at all."""
    found = []
    was = {(entry.gfp_flags, entry.cgroup): entry.entered for entry in before.reclaim} if before else {}
    risen = [
        (entry.gfp_flags, entry.entered - was.get((entry.gfp_flags, entry.cgroup), 0))
        for entry in thread.reclaim
        if counted and entry.io
    ]
    risen = [(flags, number) for flags, number in risen if number > 0]
    in_reclaim = thread.wait is SelfWait.RECLAIM and thread.io_allowed
    if risen or in_reclaim:
        flags = tuple(dict.fromkeys(flags for flags, _ in risen if flags))
        found.append(_alarm(daemon, thread, SelfWait.RECLAIM, sum(number for _, number in risen), flags))
    pauses = (thread.dirty_pauses or 0) - ((before.dirty_pauses or 0) if before else 0) if counted else 0
    if pauses > 0 or thread.wait is SelfWait.DIRTY_THROTTLING:
        found.append(_alarm(daemon, thread, SelfWait.DIRTY_THROTTLING, max(pauses, 0), ()))
    return found


def _alarm(
    daemon: DaemonSample, thread: ThreadSample, wait: SelfWait, count: int, flags: tuple[str, ...]
) -> Alarm:
    return Alarm(
        kind=AlarmKind.NEAR_MISS,
        wait=wait,
        pid=daemon.pid,
        comm=daemon.comm,
        started=daemon.started,
        tid=thread.tid,
        thread=thread.comm,
        serves=daemon.serves,
        count=count,
        gfp_flags=flags,
        covered=TaskFlags(thread.flags).io_flusher,
        takes_state=thread.takes_state,
    )


def _stalls(daemon: DaemonSample, served: list[DeviceSample], stalled_s: float) -> list[Alarm]:
    """One for each device that has stalled and each thread that is held up now."""
    waits = [thread.wait for thread in daemon.threads]
    return [
        Alarm(
            kind=AlarmKind.STALL,
            wait=thread.wait,
            pid=daemon.pid,
            comm=daemon.comm,
            started=daemon.started,
            tid=thread.tid,
            thread=thread.comm,
            serves=daemon.serves,
            device=device.name,
            seconds=device.oldest_s,
            covered=thread.io_flusher,
            takes_state=thread.takes_state,
        )
        for device in served
        if device.oldest_s is not None and stall(device.oldest_s, waits, stalled_s=stalled_s)
        for thread in daemon.threads
        if thread.wait is not None
    ]
