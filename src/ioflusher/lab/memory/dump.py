"""A dump of a guest's memory, bytes to where things lie in it: ELF, VMCOREINFO, the table of symbols.

QEMU writes the guest's physical memory as an ELF file (dump-guest-memory). What a debugger needs to know of
the kernel in it, the kernel has written into its own memory as a text of lines, VMCOREINFO
(Documentation/admin-guide/kdump/vmcoreinfo.rst). Since 6.0 that tells where the table of symbols lies; in
older kernels it is found by its form.
"""

import mmap
import re
import struct
from dataclasses import dataclass
from itertools import pairwise

_PT_LOAD = 1
_KERNEL_MAP = 0xFFFFFFFF80000000  # __START_KERNEL_map of x86-64 (arch/x86/include/asm/page_64_types.h)
# the note's header (elf.h): lengths of name and text, type 0, and the name
_NOTE = re.compile(rb"\x0b\0\0\0(....)\0\0\0\0VMCOREINFO\0\0OSRELEASE=", re.DOTALL)
_LARGEST_NOTE = 1 << 16
_HEAD_BYTES = 24
_DIGITS = b"".join(
    b"%d\0" % digit for digit in range(10)
)  # tokens of themselves, in order (kernel/kallsyms.c)
_TOKENS = 256
_LARGEST_TOKENS = 4096
_LONGEST_TOKEN = 128
_PER_MARKER = 256
_LARGEST_MARKERS = 32 << 10  # two million symbols
_LONGEST_NAME = 256


class DumpError(Exception):
    """What is needed is not in the dump."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of the guest's physical memory: its address, its bytes' place in the file, how many."""

    address: int
    offset: int
    size: int


class Dump:
    """The file, mapped; nothing of it is read before it is asked for."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self.segments = elf_segments(data)

    def find(self, pattern: "re.Pattern[bytes]") -> "list[tuple[int, re.Match[bytes]]]":
        """Where a pattern occurs: physical addresses."""
        found = []
        for segment in self.segments:
            for match in pattern.finditer(self._data, segment.offset, segment.offset + segment.size):
                found.append((segment.address + match.start() - segment.offset, match))
        return found

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a physical address; fewer at the end of a segment."""
        for segment in self.segments:
            inside = address - segment.address
            if 0 <= inside < segment.size:
                start = segment.offset + inside
                return self._data[start : min(start + size, segment.offset + segment.size)]
        return b""

    def before(self, address: int, size: int) -> bytes:
        """The bytes before a physical address; fewer at the beginning of a segment."""
        start = max((s.address for s in self.segments if s.address <= address), default=address)
        start = max(start, address - size)
        return self.read(start, address - start)


def elf_segments(data: bytes | mmap.mmap) -> tuple[Segment, ...]:
    """The loadable segments of a 64-bit little-endian ELF file (elf(5))."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise DumpError("no 64-bit little-endian ELF file")
    table, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    found = []
    for number in range(count):
        kind, _, offset, _, address, length, _, _ = struct.unpack_from(
            "<IIQQQQQQ", data, table + number * size
        )
        if kind == _PT_LOAD and length:
            found.append(Segment(address, offset, length))
    return tuple(found)


def find_vmcoreinfo(dump: Dump) -> str:
    """What the kernel tells a debugger, as text.

    Raises:
        DumpError: it is not there: the kernel has no CONFIG_KEXEC, or was not far enough when it stopped.
    """
    for address, match in dump.find(_NOTE):
        size = struct.unpack("<I", match[1])[0]
        if size <= _LARGEST_NOTE:
            text = dump.read(address + _HEAD_BYTES, size)
            if text.startswith(b"OSRELEASE=") and b"SYMBOL(swapper_pg_dir)=" in text:
                return text.rstrip(b"\0").decode("ascii", "backslashreplace")
    raise DumpError("no VMCOREINFO is in the guest's memory: its kernel tells a debugger nothing")


def vmcoreinfo_symbols(text: str) -> dict[str, int]:
    """The addresses that VMCOREINFO names."""
    return {name: int(value, 16) for name, value in re.findall(r"^SYMBOL\((\w+)\)=([0-9a-f]+)$", text, re.M)}


def with_symbol_table(dump: Dump, vmcoreinfo: str) -> str:
    """VMCOREINFO with the places of the table of symbols, where an older kernel has left them out.

    Raises:
        DumpError: the table is not found.
    """
    if "kallsyms_names" in vmcoreinfo_symbols(vmcoreinfo):
        return vmcoreinfo
    found = re.search(r"^NUMBER\(phys_base\)=(-?\d+)$", vmcoreinfo, re.M)
    if found is None:
        raise DumpError("VMCOREINFO does not say where the kernel lies (phys_base)")
    to_virtual = _KERNEL_MAP - int(found[1])
    for address, _ in dump.find(re.compile(re.escape(_DIGITS))):
        places = symbol_table_around(dump, address)
        if places:
            lines = (f"SYMBOL({name})={place + to_virtual:x}\n" for name, place in places.items())
            return vmcoreinfo.rstrip("\n") + "\n" + "".join(lines)
    raise DumpError("the kernel's table of symbols is not found in the guest's memory")


def symbol_table_around(dump: Dump, digits: int) -> dict[str, int] | None:
    """The parts of the table of symbols of kernels before 6.0, by physical address.

    `digits` is where its ten tokens "0" to "9" lie. scripts/kallsyms.c wrote, each part at a multiple of 8:
    offsets, relative base, number of symbols, names, markers, tokens, index of the tokens.
    None where this is none.
    """
    index = _token_index(dump, digits)
    markers = _markers(dump, index[0]) if index else None
    names = _names(dump, markers) if markers else None
    if index is None or names is None:
        return None
    names_address, symbols = names
    number_address = names_address - 8
    base = number_address - 8
    return {
        "kallsyms_offsets": base - (4 * symbols + 7 & ~7),
        "kallsyms_relative_base": base,
        "kallsyms_num_syms": number_address,
        "kallsyms_names": names_address,
        "kallsyms_token_table": index[0],
        "kallsyms_token_index": index[1],
    }


def _token_index(dump: Dump, digits: int) -> tuple[int, int] | None:
    """Where the tokens begin, and their index behind them: offsets of two bytes, growing from 0."""
    start = digits + 7 & ~7
    data = dump.read(start, _LARGEST_TOKENS)
    for place in range(0, len(data) - 2 * _TOKENS, 8):
        offsets = struct.unpack_from(f"<{_TOKENS}H", data, place)
        if offsets[0] or any(a >= b for a, b in pairwise(offsets)):
            continue
        tokens = digits - offsets[ord("0")]
        if tokens % 8 == 0 and start + place - 8 < tokens + offsets[-1] + _LONGEST_TOKEN:
            return tokens, start + place
    return None


@dataclass(frozen=True, slots=True)
class _Markers:
    """Offsets of every 256th name: where they lie, the last one, how many they are."""

    address: int
    last: int
    count: int


def _markers(dump: Dump, tokens: int) -> _Markers | None:
    """The markers before the tokens: four bytes each, growing from 0."""
    data = dump.before(tokens, _LARGEST_MARKERS)
    values = struct.unpack(f"<{len(data) // 4}I", data[len(data) % 4 :])
    end = len(values) if values[-1] else len(values) - 1  # one of them may fill up to a multiple of 8
    last = values[end - 1]
    at = end - 1
    while at > 0 and values[at - 1] < values[at]:
        at -= 1
    if not last or values[at]:
        return None
    return _Markers(tokens - 4 * (len(values) - at), last, end - at)


def _names(dump: Dump, markers: _Markers) -> tuple[int, int] | None:
    """Where the names before the markers begin, and how many there are.

    The number stands before them. Each name has its length in its first byte.
    """
    data = dump.before(markers.address, markers.last + _PER_MARKER * _LONGEST_NAME + 8 & ~7)
    for place in range(8, len(data) - markers.last, 8):
        symbols = struct.unpack_from("<Q", data, place - 8)[0]
        left = symbols - (markers.count - 1) * _PER_MARKER
        if not 0 < left <= _PER_MARKER:
            continue
        at = place + markers.last
        for _ in range(left):
            at += data[at] + 1 if at < len(data) else 1
        if 0 <= len(data) - at < 8:
            return markers.address - len(data) + place, symbols
    return None
