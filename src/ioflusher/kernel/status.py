"""What /proc/PID/status and /proc/PID/task/TID/status tell (fs/proc/array.c, proc_pid_status; proc(5))."""

import re
from dataclasses import dataclass

from ioflusher.kernel.capability import CapabilitySets

SECCOMP_MODE_DISABLED = 0
SECCOMP_MODE_STRICT = 1
SECCOMP_MODE_FILTER = 2

# The kernel escapes newlines in names, so a line is always its own.
_LINE = re.compile(
    rb"\n(State|Tgid|TracerPid|Uid|VmSize|VmLck|VmRSS|VmSwap|SigPnd|ShdPnd|SigBlk|SigCgt"
    rb"|CapInh|CapPrm|CapEff|CapBnd|CapAmb|Seccomp):[ \t]*([^\n]*)"
)
_NEEDED = (b"State", b"Tgid", b"TracerPid", b"Uid")


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """A thread, or a process by its main thread.

    Attributes:
        state: the letter of its run state (R S D T t Z X I).
        tgid: the process's number.
        tracer_pid: who traces the thread, 0 for nobody.
        uid: its effective user number.
        capabilities: its sets; one that the kernel does not write (CapAmb before 4.3) is empty.
        locked_kib, resident_kib, swapped_kib, virtual_kib: VmLck, VmRSS, VmSwap, VmSize of the process; None
            for a task without user memory (kernel threads, zombies).
        seccomp: SECCOMP_MODE_DISABLED (also where the kernel has no seccomp), _STRICT or _FILTER.
        pending, blocked, caught: masks of signals (bit n is signal n + 1): waiting for the thread or its
            process, blocked by the thread, with a handler in the process.
    """

    state: str
    tgid: int
    tracer_pid: int
    uid: int
    capabilities: CapabilitySets
    locked_kib: int | None = None
    resident_kib: int | None = None
    swapped_kib: int | None = None
    virtual_kib: int | None = None
    seccomp: int = SECCOMP_MODE_DISABLED
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
    """The record in the text of such a file.

    Raises:
        ValueError: where the text lacks State, Tgid, TracerPid or Uid, or a value is no number.
    """
    lines = dict(_LINE.findall(text))
    users = lines.get(b"Uid", b"").split()
    if len(users) != 4 or not all(name in lines for name in _NEEDED):
        raise ValueError(
            f"expected lines 'State:', 'Tgid:', 'TracerPid:' and 'Uid:' (four numbers), found {text[:80]!r}"
        )
    mask = {name: int(lines.get(name, b"0"), 16) for name in _MASKS}
    return TaskStatus(
        state=lines[b"State"][:1].decode("ascii"),
        tgid=int(lines[b"Tgid"]),
        tracer_pid=int(lines[b"TracerPid"]),
        uid=int(users[1]),  # real, effective, saved, file system
        capabilities=CapabilitySets(
            inheritable=mask[b"CapInh"],
            permitted=mask[b"CapPrm"],
            effective=mask[b"CapEff"],
            bounding=mask[b"CapBnd"],
            ambient=mask[b"CapAmb"],
        ),
        locked_kib=_kib(lines.get(b"VmLck")),
        resident_kib=_kib(lines.get(b"VmRSS")),
        swapped_kib=_kib(lines.get(b"VmSwap")),
        virtual_kib=_kib(lines.get(b"VmSize")),
        seccomp=int(lines.get(b"Seccomp", b"0")),
        pending=mask[b"SigPnd"] | mask[b"ShdPnd"],
        blocked=mask[b"SigBlk"],
        caught=mask[b"SigCgt"],
    )


# fs/proc/array.c: render_sigset_t() and render_cap_t() write hexadecimal numbers
_MASKS = (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigCgt", b"CapInh", b"CapPrm", b"CapEff", b"CapBnd", b"CapAmb")


def _kib(value: bytes | None) -> int | None:
    return None if value is None else int(value.split()[0])
