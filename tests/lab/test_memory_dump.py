"""What is found in a dump of a guest's memory, on small dumps made as QEMU and the kernel make them."""

import struct

import pytest

from ioflusher.lab.memory.dump import (
    Dump,
    DumpError,
    elf_segments,
    find_vmcoreinfo,
    vmcoreinfo_symbols,
    with_symbol_table,
)

KERNEL_MAP = 0xFFFFFFFF80000000
BASE = 0x1000000  # of the memory in the dump
INFO = "OSRELEASE=5.8.0\nSYMBOL(swapper_pg_dir)=ffffffff82610000\nNUMBER(phys_base)=0\n"


def elf(*segments: tuple[int, bytes]) -> bytes:
    """An ELF file whose segments have these physical addresses; a note comes first, as in QEMU's."""
    count = len(segments) + 1
    at = 64 + 56 * count
    headers, bodies = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, 4, 4, 0), b"note"
    for address, body in segments:
        headers += struct.pack("<IIQQQQQQ", 1, 0, at + len(bodies), 0, address, len(body), len(body), 0)
        bodies += body
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    return head + headers + bodies


def note(text: str) -> bytes:
    """VMCOREINFO as an ELF note (kernel/crash_core.c)."""
    body = text.encode()
    return struct.pack("<III", 11, len(body), 0) + b"VMCOREINFO\0\0" + body


def padded(data: bytes) -> bytes:
    return data.ljust(len(data) + 7 & ~7, b"\0")


def symbol_table(count: int) -> tuple[bytes, dict[str, int]]:
    """A table of `count` symbols as scripts/kallsyms.c wrote it before 6.0, and where its parts lie in it."""
    tokens, index = b"", []
    for number in range(256):
        index.append(len(tokens))
        tokens += (bytes([number]) if 32 < number < 127 else b"x%d" % number) + b"\0"
    names, markers = b"", []
    for number in range(count):
        if number % 256 == 0:
            markers.append(len(names))
        # no compression: each byte of the name is the token of its own character
        name = b"Tfunction%d" % number
        names += bytes([len(name)]) + name
    parts = (
        ("kallsyms_offsets", struct.pack(f"<{count}I", *range(count))),
        ("kallsyms_relative_base", struct.pack("<Q", 0xFFFFFFFF81000000)),
        ("kallsyms_num_syms", struct.pack("<I", count)),
        ("kallsyms_names", names),
        ("kallsyms_markers", struct.pack(f"<{len(markers)}I", *markers)),
        ("kallsyms_token_table", tokens),
        ("kallsyms_token_index", struct.pack("<256H", *index)),
    )
    data, places = b"", {}
    for name_, part in parts:
        places[name_] = len(data)
        data += padded(part)
    return data, places


def test_segments_are_found_and_read_by_physical_address() -> None:
    """Notes are no memory; what is in no segment reads as nothing, what ends in one as its part."""
    dump = Dump(elf((0, b"low memory"), (BASE, b"kernel")))
    assert [(segment.address, segment.size) for segment in dump.segments] == [(0, 10), (BASE, 6)]
    assert dump.read(BASE + 2, 100) == b"rnel"
    assert dump.read(4, 3) == b"mem"
    assert dump.read(BASE - 1, 1) == b""
    with pytest.raises(DumpError, match="ELF"):
        elf_segments(b"no dump at all, but long enough to be one" * 4)


def test_vmcoreinfo_is_found_among_what_looks_like_it() -> None:
    """The note that names the page tables is the one: the kernel's code for its first line is not."""
    decoy = note("OSRELEASE=%s\n")
    data = elf((BASE, padded(decoy) + bytes(64) + padded(note(INFO))))
    found = find_vmcoreinfo(Dump(data))
    assert found == INFO
    assert vmcoreinfo_symbols(found) == {"swapper_pg_dir": 0xFFFFFFFF82610000}
    with pytest.raises(DumpError, match="no VMCOREINFO"):
        find_vmcoreinfo(Dump(elf((BASE, decoy))))


@pytest.mark.parametrize("count", [257, 511, 512, 513, 2000])
def test_an_older_kernels_symbol_table_is_found(count: int) -> None:
    """Each of its parts at its address, whatever number of names the last marker has behind it."""
    table, places = symbol_table(count)
    # digits elsewhere are no table
    before = padded(b"".join(b"%d\0" % digit for digit in range(10))) + bytes(4096)
    dump = Dump(elf((BASE, before + table + bytes(512))))
    found = vmcoreinfo_symbols(with_symbol_table(dump, INFO))
    del found["swapper_pg_dir"], places["kallsyms_markers"]
    assert found == {name: KERNEL_MAP + BASE + len(before) + place for name, place in places.items()}


def test_a_relocated_kernels_symbol_table() -> None:
    """The kernel's addresses are those of its memory less phys_base."""
    table, places = symbol_table(300)
    dump = Dump(elf((BASE, table + bytes(512))))
    info = INFO.replace("phys_base)=0", "phys_base)=-4096")
    found = vmcoreinfo_symbols(with_symbol_table(dump, info))
    assert found["kallsyms_names"] == KERNEL_MAP + BASE + 4096 + places["kallsyms_names"]


def test_what_the_kernel_tells_is_not_looked_for() -> None:
    """From 6.0 on VMCOREINFO has the table's places."""
    told = INFO + "SYMBOL(kallsyms_names)=ffffffff82152ad8\n"
    assert with_symbol_table(Dump(elf((BASE, b"nothing"))), told) == told


def test_a_missing_symbol_table_is_said_to_be_missing() -> None:
    """No table, one whose index is not there, and a kernel whose place is not known."""
    table, places = symbol_table(300)
    broken = bytearray(table)
    broken[places["kallsyms_token_index"] + 20] ^= 0xFF
    for memory, info, message in (
        (b"nothing", INFO, "is not found"),
        (bytes(broken), INFO, "is not found"),
        (table, INFO.replace("NUMBER(phys_base)=0\n", ""), "phys_base"),
    ):
        with pytest.raises(DumpError, match=message):
            with_symbol_table(Dump(elf((BASE, memory + bytes(512)))), info)
