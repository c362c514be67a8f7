"""What /proc/PID/status tells of a whole process: its owner, memory and capabilities (fs/proc/array.c)."""

from dataclasses import dataclass

from ioflusher.kernel.capability import CapabilitySets


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """Who a process is, and how its memory stands.

    Attributes:
        uid: its effective user number.
        capabilities: its main thread's sets, as `ioflusher.kernel.capability` has them.
        locked_kib, resident_kib, swapped_kib, virtual_kib: VmLck, VmRSS, VmSwap, VmSize; None for a task
            without user memory (kernel threads, zombies).
    """

    uid: int
    capabilities: CapabilitySets
    locked_kib: int | None
    resident_kib: int | None
    swapped_kib: int | None
    virtual_kib: int | None


def parse_process_status(text: bytes) -> ProcessStatus:
    """The record in the text of /proc/PID/status; a capability set that the text lacks is empty.

    Raises:
        ValueError: where the text lacks Uid, or a value is no number.
    """
    uids = _value(text, b"\nUid:").split()
    if len(uids) != 4:
        raise ValueError(f"expected a line 'Uid:' with four numbers, found {text[:80]!r}")
    return ProcessStatus(
        uid=int(uids[1]),  # real, effective, saved, file system
        capabilities=CapabilitySets(
            inheritable=_mask(text, b"\nCapInh:"),
            permitted=_mask(text, b"\nCapPrm:"),
            effective=_mask(text, b"\nCapEff:"),
            bounding=_mask(text, b"\nCapBnd:"),
            ambient=_mask(text, b"\nCapAmb:"),
        ),
        locked_kib=_kib(text, b"\nVmLck:"),
        resident_kib=_kib(text, b"\nVmRSS:"),
        swapped_kib=_kib(text, b"\nVmSwap:"),
        virtual_kib=_kib(text, b"\nVmSize:"),
    )


def _value(text: bytes, line: bytes) -> bytes:
    """What follows the name of a line; b"" without such a line. The kernel escapes newlines in names."""
    at = text.find(line)
    return b"" if at < 0 else text[at + len(line) : text.find(b"\n", at + 1)]


def _mask(text: bytes, line: bytes) -> int:
    return int(_value(text, line) or b"0", 16)


def _kib(text: bytes, line: bytes) -> int | None:
    fields = _value(text, line).split()
    return int(fields[0]) if fields else None
