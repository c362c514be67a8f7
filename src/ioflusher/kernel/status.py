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
