"""The reader of BTF, on types put together by hand as include/uapi/linux/btf.h lays them out."""

import struct

import pytest

from ioflusher.lab.memory.btf import Btf, BtfError, BtfKind, BtfMember


class Types:
    """Puts BTF together; each call adds one type and returns its number."""

    def __init__(self) -> None:
        self.types = b""
        self.strings = bytearray(b"\0")
        self.count = 0

    def name(self, text: str) -> int:
        """The string's offset."""
        if not text:
            return 0
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(
        self, kind: int, name: str, size_or_type: int, *, items: bytes = b"", length: int = 0, flag: int = 0
    ) -> int:
        """One type: its first twelve bytes, then what its kind has behind them."""
        info = flag << 31 | kind << 24 | length
        self.types += struct.pack("<III", self.name(name), info, size_or_type) + items
        self.count += 1
        return self.count

    def section(self) -> bytes:
        """The section."""
        header = struct.pack(
            "<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings)
        )
        return header + self.types + bytes(self.strings)


def small() -> Types:
    """An int, a char array, a pointer, a structure with a bit field, enumerations, a prototype, a tag."""
    types = Types()
    integer = types.add(1, "int", 4, items=struct.pack("<I", 1 << 24 | 32))
    char = types.add(1, "char", 1, items=struct.pack("<I", 8))
    array = types.add(3, "", 0, items=struct.pack("<III", char, integer, 16))
    task = types.count + 2
    pointer = types.add(2, "", task)
    fields = (("comm", array, 0), ("parent", pointer, 128), ("state", integer, 3 << 24 | 192))
    packed = b"".join(struct.pack("<III", types.name(name), number, at) for name, number, at in fields)
    types.add(4, "task", 32, items=packed, length=3, flag=1)
    types.add(17, "tag", integer, items=struct.pack("<i", -1))
    names = (("NR_FREE", 0), ("NR_LESS", -1))
    types.add(6, "items", 4, items=b"".join(struct.pack("<Ii", types.name(n), v) for n, v in names), length=2)
    types.add(19, "large", 8, items=struct.pack("<Iq", types.name("HUGE"), 1 << 40), length=1)
    types.add(13, "", integer, items=struct.pack("<II", types.name("which"), pointer), length=1)
    types.add(8, "number", integer)
    return types


def test_a_structure_and_its_members() -> None:
    """Names, types and places in bits; with the kind's flag the upper byte is a bit field's length."""
    btf = Btf(small().section())
    number = btf.find(BtfKind.STRUCT, "task")
    assert number == 5
    task = btf.type(number)
    assert (task.name, task.size_or_type) == ("task", 32)
    assert btf.members(task) == (
        BtfMember("comm", 3, 0, 0),
        BtfMember("parent", 4, 128, 0),
        BtfMember("state", 1, 192, 3),
    )
    assert btf.array(btf.type(3)) == (2, 16)
    assert btf.type(4).size_or_type == number, "the pointer is to a type that comes after it"


def test_types_behind_others_of_every_length_are_found() -> None:
    """Each kind's length is known: what stands behind a tag, enumerations and a prototype is still found."""
    btf = Btf(small().section())
    assert btf.find(BtfKind.TYPEDEF, "number") == 10
    assert btf.find(BtfKind.STRUCT, "number") is None, "a name is of one kind"
    assert btf.integer(btf.type(1)) == (True, False)
    assert btf.integer(btf.type(2)) == (False, False)
    assert btf.parameters(btf.type(9)) == (("which", 4),)
    assert btf.type(0).kind is BtfKind.VOID


def test_enumerators_are_found_by_name() -> None:
    """Of both widths, negative ones too; unknown is None, not 0."""
    btf = Btf(small().section())
    assert [btf.enumerator(name) for name in ("NR_FREE", "NR_LESS", "HUGE", "NR_MORE")] == [
        0,
        -1,
        1 << 40,
        None,
    ]


def test_what_is_no_btf_is_said_to_be_none() -> None:
    """Other bytes, another version, a section that is cut off, a kind of a later kernel."""
    whole = small().section()
    later = small()
    later.add(31, "later", 0)
    for data, message in (
        (b"\x7fELF" + whole, "magic"),
        (whole[:2] + b"\x02" + whole[3:], "version 2"),
        (whole[:-1], "cut off"),
        (later.section(), "kind 31"),
        (b"", "magic"),
    ):
        with pytest.raises(BtfError, match=message):
            Btf(data)
