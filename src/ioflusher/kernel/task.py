"""A thread as its line of /proc/PID/task/TID/stat shows it (fs/proc/array.c, do_task_stat)."""

from dataclasses import dataclass
from enum import Enum

from ioflusher.kernel.task_flags import PF_IO_FLUSHER, PF_IO_WORKER, PF_KTHREAD, PF_USER_WORKER, TaskFlags


class Policy(Enum):
    """A scheduling policy, include/uapi/linux/sched.h, by the name that chrt(1) gives it."""

    OTHER = "other"
    FIFO = "fifo"
    RR = "rr"
    BATCH = "batch"
    IDLE = "idle"
    DEADLINE = "deadline"
    EXT = "ext"
    UNKNOWN = "unknown"


class Bits(Enum):
    """How many of the two bits that PR_SET_IO_FLUSHER sets a thread carries."""

    BOTH = "both"
    ONE = "one"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread.

    Attributes:
        tid: its number; the main thread's is the process number.
        comm: its name, at most 15 bytes for a user thread; those that are no UTF-8 are \\xNN. It is text of
            the machine: it goes through `support.text.printable` before it reaches a terminal.
        state: the letter of its run state (R S D T t Z X I).
        flags: `task->flags`, field 9: the PF_* bits; `TaskFlags(thread.flags).names` has their names.
        policy: how it is scheduled, field 41; UNKNOWN too where the line ends before it.
        priority: the real-time priority 1 to 99, field 40; 0 where the policy has none.
        nice: -20 to 19, field 19.
    """

    tid: int
    comm: str
    state: str
    flags: int
    policy: Policy = Policy.UNKNOWN
    priority: int = 0
    nice: int = 0

    @property
    def io_flusher(self) -> bool:
        """Whether it carries both bits that PR_SET_IO_FLUSHER sets, as PR_GET_IO_FLUSHER judges."""
        return self.flags & PF_IO_FLUSHER == PF_IO_FLUSHER

    @property
    def half_set(self) -> bool:
        """Whether it carries one of the two bits without the other."""
        return TaskFlags(self.flags).half_set

    @property
    def bits(self) -> Bits:
        """Whether it carries both bits, one, or none."""
        if self.io_flusher:
            return Bits.BOTH
        return Bits.ONE if self.flags & PF_IO_FLUSHER else Bits.NONE

    @property
    def kernel_thread(self) -> bool:
        """Whether it belongs to the kernel itself."""
        return bool(self.flags & PF_KTHREAD)

    @property
    def kernel_worker(self) -> bool:
        """Whether the kernel runs it for the process (io_uring, vhost): it never executes the program."""
        return bool(self.flags & (PF_IO_WORKER | PF_USER_WORKER))

    @property
    def ended(self) -> bool:
        """Whether it is dead and waits to be collected, as a main thread that returned before the others."""
        return self.state in ("Z", "X")


# SCHED_* of include/uapi/linux/sched.h, as the text has them
_POLICIES = {
    b"0": Policy.OTHER,
    b"1": Policy.FIFO,
    b"2": Policy.RR,
    b"3": Policy.BATCH,
    b"5": Policy.IDLE,
    b"6": Policy.DEADLINE,
    b"7": Policy.EXT,
}

# Where _fields() has the fields that proc(5) numbers 3, 4, 6, 9, 19, 22, 40 and 41.
_STATE, _PPID, _SESSION, _FLAGS, _NICE, _START_TIME, _RT_PRIORITY, _POLICY = 0, 1, 3, 6, 16, 19, 37, 38


@dataclass(frozen=True, slots=True)
class RunTime:
    """What a thread had of processors, as its line of /proc/PID/task/TID/schedstat shows it.

    Documentation/scheduler/sched-stats.rst; kernels without CONFIG_SCHED_INFO have no such line.

    Attributes:
        ran_ns: it was executed.
        waited_ns: it was ready to run, and another was executed; counted once it gets its turn.
        turns: how often it got one.
    """

    ran_ns: int
    waited_ns: int
    turns: int

    def busy_share(self, since: "RunTime", passed_ns: int) -> float:
        """Which part of the time since then it ran or was ready to run.

        It is asked of a thread that is ready to run now: with no turn since then it was so all the time.
        """
        if self.turns == since.turns:
            return 1.0
        return (self.ran_ns - since.ran_ns + self.waited_ns - since.waited_ns) / passed_ns


def parse_schedstat(line: bytes) -> RunTime:
    """Read a line of /proc/PID/task/TID/schedstat.

    Raises:
        ValueError: it is no such line.
    """
    ran, waited, turns = map(int, line.split())
    return RunTime(ran, waited, turns)


def parse_stat(stat: bytes) -> Thread:
    """The record in the text of /proc/PID/stat or /proc/PID/task/TID/stat.

    Raises:
        ValueError: where the text is not such a line.
    """
    # There may be tens of thousands of threads, so this is written out: a call costs a part in twenty.
    # A name may hold spaces, newlines and parentheses: it ends at the last parenthesis of the text.
    opening, closing = stat.find(b"("), stat.rfind(b")")
    fields = stat[closing + 1 :].split(None, _POLICY + 1)  # what is left of the line is the last of them
    if not 0 < opening < closing or len(fields) < 7:
        raise ValueError(f"expected 'PID (comm) state' and six numbers or more, found {stat[:80]!r}")
    if len(fields) <= _POLICY:
        fields += [b"0"] * (_POLICY - len(fields)) + [b""]
    return Thread(
        int(stat[:opening]),
        stat[opening + 1 : closing].decode("utf-8", "backslashreplace"),
        fields[_STATE].decode("ascii"),
        int(fields[_FLAGS]),
        _POLICIES.get(fields[_POLICY], Policy.UNKNOWN),
        int(fields[_RT_PRIORITY]),
        int(fields[_NICE]),
    )


def parse_parent(stat: bytes) -> int:
    """The number of the parent process, field 4 of such a line.

    Raises:
        ValueError: where the text is not such a line.
    """
    return _number(stat, _PPID, "'PID (comm) state PPID'")


def parse_session(stat: bytes) -> int:
    """The number of the session, field 6 of such a line; it stays when the parent has gone.

    Raises:
        ValueError: where the text is not such a line.
    """
    return _number(stat, _SESSION, "'PID (comm) state PPID PGRP SESSION'")


def parse_start_time(stat: bytes) -> int:
    """When the process started, in clock ticks since boot, field 22: with its number what tells it apart.

    Raises:
        ValueError: where the text is not such a line.
    """
    return _number(stat, _START_TIME, "'PID (comm) state' and 19 numbers or more")


def _number(stat: bytes, index: int, expected: str) -> int:
    """One number of such a line, by its place behind the name."""
    fields = stat[stat.rfind(b")") + 1 :].split(None, index + 1)
    if len(fields) <= index:
        raise ValueError(f"expected {expected}, found {stat[:80]!r}")
    return int(fields[index])
