"""How much of each mapping of a process is in memory: the text of /proc/PID/smaps (fs/proc/task_mmu.c)."""

from collections.abc import Iterable
from dataclasses import dataclass

from ioflusher.kernel.maps import Mapping, parse_maps

# VmFlags of mappings that mlockall(2) passes over: VM_IO, VM_DONTEXPAND, VM_PFNMAP, VM_MIXEDMAP (VM_SPECIAL
# of include/linux/mm.h) and huge pages (mm/mlock.c, mlock_fixup)
_NEVER_LOCKED = frozenset(("io", "de", "pf", "mm", "ht"))


@dataclass(frozen=True, slots=True)
class MappedMemory:
    """One mapping and where its pages are.

    Attributes:
        mapping: its line of maps.
        resident_kib: Rss, what of it is in memory.
        swapped_kib: Swap, what of it is in swap.
        flags: VmFlags, two letters each.
    """

    mapping: Mapping
    resident_kib: int
    swapped_kib: int
    flags: frozenset[str] = frozenset()

    @property
    def lockable(self) -> bool:
        """Whether mlockall(2) brings its pages into memory: not those of PROT_NONE and special mappings."""
        return self.mapping.permissions[:3] != "---" and not self.flags & _NEVER_LOCKED

    @property
    def absent_kib(self) -> int:
        """What of it is neither in memory nor in swap."""
        return max(0, (self.mapping.end - self.mapping.start) // 1024 - self.resident_kib - self.swapped_kib)


def parse_smaps(text: bytes) -> tuple[MappedMemory, ...]:
    """The mappings in the text of /proc/PID/smaps, lowest address first.

    Raises:
        ValueError: where a line is neither a mapping nor "Name: value".
    """
    entries: list[tuple[bytes, dict[bytes, bytes]]] = []
    for line in text.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon and name.replace(b"_", b"").isalnum():
            if not entries:
                raise ValueError(f"expected a mapping first, found {line[:80]!r}")
            entries[-1][1][name] = value
        elif line:
            entries.append((line, {}))
    return tuple(_mapped(header, values) for header, values in entries)


def _mapped(header: bytes, values: dict[bytes, bytes]) -> MappedMemory:
    (mapping,) = parse_maps(header)
    flags = frozenset(values.get(b"VmFlags", b"").decode("ascii").split())
    return MappedMemory(mapping, _kib(values, b"Rss"), _kib(values, b"Swap"), flags)


def _kib(values: dict[bytes, bytes], name: bytes) -> int:
    """A line of KiB; 0 without it, as the kernel leaves out Swap where it has none built in."""
    fields = values.get(name, b"0").split()
    return int(fields[0])


def absent_kib(mappings: Iterable[MappedMemory]) -> int:
    """What mlockall(MCL_CURRENT) would allocate or read for these mappings, without what is in swap."""
    return sum(one.absent_kib for one in mappings if one.lockable)


def swapped_kib(mappings: Iterable[MappedMemory]) -> int:
    """What of these mappings is in swap, where the process can reach it."""
    return sum(one.swapped_kib for one in mappings if one.lockable)
