"""What /proc/PID/status tells of a thread (fs/proc/array.c, proc_pid_status)."""

import re
from dataclasses import dataclass

from ioflusher.kernel.capability import CapabilitySets, parse_capabilities

SECCOMP_MODE_DISABLED = 0
SECCOMP_MODE_STRICT = 1
SECCOMP_MODE_FILTER = 2


_LINE = re.compile(rb"^(State|Tgid|TracerPid|Seccomp|SigPnd|ShdPnd|SigBlk|SigCgt):\s*(\S*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """A few of its lines.

    Attributes:
        state: the letter of its run state (R S D T t Z X I).
        tgid: the process's number.
        tracer_pid: who traces the thread, 0 for nobody.
        seccomp: SECCOMP_MODE_DISABLED, _STRICT or _FILTER.
        capabilities: its sets.
        pending, blocked, caught: masks of signals (bit n is signal n + 1): waiting for the thread or its
            process, blocked by the thread, with a handler in the process.
    """

    state: str
    tgid: int
    tracer_pid: int
    seccomp: int
    capabilities: CapabilitySets
    pending: int = 0
    blocked: int = 0
    caught: int = 0

    def catches(self, number: int) -> bool:
        """Whether the process has a handler for the signal."""
        return bool(self.caught >> (number - 1) & 1)

    @property
    def handler_waits(self) -> bool:
        """Whether a signal waits that would run a handler in this thread at once."""
        return bool(self.pending & self.caught & ~self.blocked)


def parse_status(text: bytes) -> TaskStatus:
    """The record in the text of /proc/PID/status or /proc/PID/task/TID/status.

    A kernel without seccomp writes no such line: then it is disabled.

    Raises:
        ValueError: where the text lacks State, Tgid or TracerPid, or a value is no number.
    """
    lines = dict(_LINE.findall(text))
    if not {b"State", b"Tgid", b"TracerPid"} <= lines.keys():
        raise ValueError(f"expected lines 'State:', 'Tgid:' and 'TracerPid:', found {text[:80]!r}")

    def mask(name: bytes) -> int:
        return int(lines.get(name, b"0"), 16)

    return TaskStatus(
        state=lines[b"State"].decode("ascii"),
        tgid=int(lines[b"Tgid"]),
        tracer_pid=int(lines[b"TracerPid"]),
        seccomp=int(lines.get(b"Seccomp", b"0")),
        capabilities=parse_capabilities(text),
        pending=mask(b"SigPnd") | mask(b"ShdPnd"),
        blocked=mask(b"SigBlk"),
        caught=mask(b"SigCgt"),
    )


_PROCESS_LINE = re.compile(rb"^(Uid|VmLck|VmRSS|VmSwap):\t(.*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """Who a process is, and how its memory stands.

    Attributes:
        uid: its effective user number.
        capabilities: its main thread's sets.
        locked_kib, resident_kib, swapped_kib: VmLck, VmRSS, VmSwap; None for a task without user memory
            (kernel threads, zombies).
    """

    uid: int
    capabilities: CapabilitySets
    locked_kib: int | None
    resident_kib: int | None
    swapped_kib: int | None


def parse_process_status(text: bytes) -> ProcessStatus:
    """The record in the text of /proc/PID/status.

    Raises:
        ValueError: where the text lacks Uid, or a value is no number.
    """
    lines = dict(_PROCESS_LINE.findall(text))
    uids = lines.get(b"Uid", b"").split()
    if len(uids) != 4:
        raise ValueError(f"expected a line 'Uid:' with four numbers, found {text[:80]!r}")

    def kib(name: bytes) -> int | None:
        fields = lines.get(name, b"").split()
        return int(fields[0]) if fields else None

    return ProcessStatus(
        uid=int(uids[1]),  # real, effective, saved, file system
        capabilities=parse_capabilities(text),
        locked_kib=kib(b"VmLck"),
        resident_kib=kib(b"VmRSS"),
        swapped_kib=kib(b"VmSwap"),
    )
