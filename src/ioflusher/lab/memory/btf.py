"""The types of a kernel as it carries them itself: BTF (Documentation/bpf/btf.rst), bytes to records.

Every kernel that has CONFIG_DEBUG_INFO_BTF keeps them in its own memory, so no debug package is needed.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")  # magic, version, flags, its length, types and strings: offset, length
_TYPE = struct.Struct("<III")  # name, info, size or type
_SIGNED = 1  # of an integer's encoding
_BOOL = 4


class BtfError(Exception):
    """The bytes are no BTF that this version knows."""


class BtfKind(IntEnum):
    """BTF_KIND_* (include/uapi/linux/btf.h)."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# bytes behind a type's first twelve: always, and for each of its `length` items
_MORE = {BtfKind.INT: 4, BtfKind.ARRAY: 12, BtfKind.VAR: 4, BtfKind.DECL_TAG: 4}
_EACH = {
    BtfKind.STRUCT: 12,
    BtfKind.UNION: 12,
    BtfKind.ENUM: 8,
    BtfKind.FUNC_PROTO: 8,
    BtfKind.DATASEC: 12,
    BtfKind.ENUM64: 12,
}


@dataclass(frozen=True, slots=True)
class BtfMember:
    """A member of a structure: its name, its type's number, where it lies; both lengths in bits.

    `bit_field_size` is 0 where it is no bit field.
    """

    name: str
    type: int
    bit_offset: int
    bit_field_size: int


@dataclass(frozen=True, slots=True)
class BtfType:
    """One type.

    Attributes:
        kind: what it is.
        name: empty for none.
        size_or_type: bytes of an integer, a structure, an enumeration; else the number of the type behind it.
        length: members, enumerators, parameters.
        flag: the kind's own flag.
    """

    kind: BtfKind
    name: str
    size_or_type: int
    length: int
    flag: bool
    _body: int


class Btf:
    """A kernel's types, by number and by name.

    Raises:
        BtfError: the bytes are no BTF, or have a kind that this version does not know.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size or _HEADER.unpack_from(data)[0] != _MAGIC:
            raise BtfError("no BTF: its magic number is not there")
        _, version, _, header, types, types_length, strings, strings_length = _HEADER.unpack_from(data)
        if version != 1:
            raise BtfError(f"BTF of version {version}")
        self._strings = data[header + strings : header + strings + strings_length]
        self._data = data[header + types : header + types + types_length]
        if len(self._data) != types_length or len(self._strings) != strings_length:
            raise BtfError("BTF that is cut off")
        self._places = [0, *self._walk()]
        self._numbers: dict[tuple[BtfKind, str], int] = {}
        self._enumerators: dict[str, int] = {}
        self._index()

    def _walk(self) -> Iterator[int]:
        """Where each type begins; the first one has the number 1."""
        place, end = 0, len(self._data)
        more = {int(kind): size for kind, size in _MORE.items()}
        each = {int(kind): size for kind, size in _EACH.items()}
        known = {int(kind) for kind in BtfKind}
        while place + _TYPE.size <= end:
            yield place
            info = _TYPE.unpack_from(self._data, place)[1]
            kind = info >> 24 & 31
            if kind not in known:
                raise BtfError(f"BTF with a type of kind {kind}")
            place += _TYPE.size + more.get(kind, 0) + each.get(kind, 0) * (info & 0xFFFF)

    def _index(self) -> None:
        named = {
            BtfKind.INT,
            BtfKind.FLOAT,
            BtfKind.STRUCT,
            BtfKind.UNION,
            BtfKind.ENUM,
            BtfKind.ENUM64,
            BtfKind.TYPEDEF,
            BtfKind.VAR,
        }
        for number in range(1, len(self._places)):
            name, info, _ = _TYPE.unpack_from(self._data, self._places[number])
            kind = info >> 24 & 31
            if kind in (BtfKind.ENUM, BtfKind.ENUM64):
                for enumerator, value in self.enumerators(self.type(number)):
                    self._enumerators.setdefault(enumerator, value)
            if name and kind in named:
                self._numbers.setdefault((BtfKind(kind), self._string(name)), number)

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        return self._strings[offset:end].decode("ascii", "backslashreplace")

    def find(self, kind: BtfKind, name: str) -> int | None:
        """The number of the first type of this kind and name."""
        return self._numbers.get((kind, name))

    def enumerator(self, name: str) -> int | None:
        """The value of the first enumerator of this name."""
        return self._enumerators.get(name)

    def type(self, number: int) -> BtfType:
        """The type of this number; 0 is void."""
        if number == 0:
            return BtfType(BtfKind.VOID, "void", 0, 0, False, 0)
        place = self._places[number]
        name, info, size_or_type = _TYPE.unpack_from(self._data, place)
        kind = BtfKind(info >> 24 & 31)
        return BtfType(
            kind, self._string(name), size_or_type, info & 0xFFFF, bool(info >> 31), place + _TYPE.size
        )

    def integer(self, type_: BtfType) -> tuple[bool, bool]:
        """Whether an integer is signed, and whether it is a _Bool."""
        encoding = struct.unpack_from("<I", self._data, type_._body)[0] >> 24 & 15
        return bool(encoding & _SIGNED), bool(encoding & _BOOL)

    def array(self, type_: BtfType) -> tuple[int, int]:
        """The number of an array's element type, and how many elements it has."""
        element, _, length = struct.unpack_from("<III", self._data, type_._body)
        return element, length

    def members(self, type_: BtfType) -> tuple[BtfMember, ...]:
        """The members of a structure or a union."""
        found = []
        for i in range(type_.length):
            name, member, offset = struct.unpack_from("<III", self._data, type_._body + 12 * i)
            # with the flag, the upper byte is the length of a bit field
            size, offset = (offset >> 24, offset & 0xFFFFFF) if type_.flag else (0, offset)
            found.append(BtfMember(self._string(name), member, offset, size))
        return tuple(found)

    def enumerators(self, type_: BtfType) -> tuple[tuple[str, int], ...]:
        """Names and values of an enumeration."""
        if type_.kind is BtfKind.ENUM64:
            items = struct.iter_unpack("<Iq", self._data[type_._body : type_._body + 12 * type_.length])
        else:
            items = struct.iter_unpack("<Ii", self._data[type_._body : type_._body + 8 * type_.length])
        return tuple((self._string(name), value) for name, value in items)

    def parameters(self, type_: BtfType) -> tuple[tuple[str, int], ...]:
        """Names and type numbers of a function's parameters."""
        items = struct.iter_unpack("<II", self._data[type_._body : type_._body + 8 * type_.length])
        return tuple((self._string(name), number) for name, number in items)
