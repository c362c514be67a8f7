"""What an export is, and the data of the options and replies about it (pure functions)."""

from dataclasses import dataclass
from typing import TypeAlias

from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.protocol import wire
from ioflusher.nbd.protocol.wire import Info, TransmissionFlag


class MalformedData(NbdError):
    """The data of an option or of its reply does not have the form that the protocol gives it."""


@dataclass(frozen=True, slots=True)
class BlockSize:
    """NBD_INFO_BLOCK_SIZE, in bytes: alignment that requests need, size that works well, longest payload."""

    minimum: int = 1
    preferred: int = 4096
    maximum: int = wire.DEFAULT_MAX_PAYLOAD


@dataclass(frozen=True, slots=True)
class Export:
    """An export as clients see it.

    Attributes:
        name: by which clients ask for it.
        size: bytes.
        flags: NBD_FLAG_* bits.
        block_size: what requests must look like.
        description: a sentence for people; may be empty.
        contexts: the names of the metadata contexts that can be selected for it.
    """

    name: str
    size: int
    flags: int
    block_size: BlockSize = BlockSize()
    description: str = ""
    contexts: tuple[str, ...] = ()

    def has(self, flag: TransmissionFlag) -> bool:
        """Whether the server set this NBD_FLAG_*."""
        return bool(self.flags & flag)


@dataclass(frozen=True, slots=True)
class ExportQuery:
    """The data of NBD_OPT_INFO and NBD_OPT_GO: an export's name and the NBD_INFO_* types asked for."""

    name: str
    infos: tuple[int, ...] = ()

    def pack(self) -> bytes:
        return b"".join(
            [
                pack_string(self.name),
                wire.INFO_TYPE.pack(len(self.infos)),
                *(wire.INFO_TYPE.pack(info) for info in self.infos),
            ]
        )

    @classmethod
    def parse(cls, data: bytes) -> "ExportQuery":
        """Raises MalformedData when lengths and content disagree."""
        name, rest = counted_string(data)
        count = len(rest) // wire.INFO_TYPE.size - 1
        if len(rest) % wire.INFO_TYPE.size or count < 0:
            raise MalformedData(f"{len(rest)} bytes behind the name; expected a count and that many numbers")
        announced, *infos = (number for (number,) in wire.INFO_TYPE.iter_unpack(rest))
        if announced != count:
            raise MalformedData(f"{announced} information types announced, {count} found")
        return cls(name, tuple(infos))


def pack_export_info(size: int, flags: int) -> bytes:
    """NBD_INFO_EXPORT's data."""
    return wire.INFO_EXPORT.pack(Info.EXPORT, size, flags)


def pack_block_size_info(size: BlockSize) -> bytes:
    """NBD_INFO_BLOCK_SIZE's data."""
    return wire.INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, size.minimum, size.preferred, size.maximum)


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """NBD_INFO_EXPORT: size in bytes and NBD_FLAG_* bits."""

    size: int
    flags: int


@dataclass(frozen=True, slots=True)
class CanonicalName:
    """NBD_INFO_NAME: the export's name as NBD_OPT_LIST has it."""

    name: str


@dataclass(frozen=True, slots=True)
class Description:
    """NBD_INFO_DESCRIPTION: a sentence for people."""

    text: str


ExportInfo: TypeAlias = ExportFacts | CanonicalName | Description | BlockSize


def pack_text_info(kind: Info, text: str) -> bytes:
    """NBD_INFO_NAME's or NBD_INFO_DESCRIPTION's data."""
    return wire.INFO_TYPE.pack(kind) + text.encode()


def parse_info(data: bytes) -> ExportInfo | None:
    """NBD_REP_INFO's data; None for types that do not concern us.

    Raises:
        MalformedData: a known type with a wrong length, impossible sizes or text that is none.
    """
    if len(data) < wire.INFO_TYPE.size:
        raise MalformedData(
            f"information of {len(data)} bytes; expected a type of {wire.INFO_TYPE.size} first"
        )
    (kind,) = wire.INFO_TYPE.unpack_from(data)
    if kind in (Info.NAME, Info.DESCRIPTION):
        text = parse_string(data[wire.INFO_TYPE.size :])
        return CanonicalName(text) if kind == Info.NAME else Description(text)
    layout = {Info.EXPORT: wire.INFO_EXPORT, Info.BLOCK_SIZE: wire.INFO_BLOCK_SIZE}.get(kind)
    if layout is None:
        return None
    if len(data) != layout.size:
        raise MalformedData(f"NBD_INFO type {kind} of {len(data)} bytes; expected {layout.size}")
    _, *values = layout.unpack(data)
    if kind == Info.EXPORT:
        size, flags = values
        return ExportFacts(size, flags)
    minimum, preferred, maximum = values
    if minimum < 1 or minimum & (minimum - 1) or preferred < minimum or maximum < minimum:
        raise MalformedData(f"block sizes {minimum}, {preferred}, {maximum}; expected a power of two, rising")
    return BlockSize(minimum, preferred, maximum)


@dataclass(frozen=True, slots=True)
class ListedExport:
    """NBD_REP_SERVER: an export's name, and a sentence about it that may be empty."""

    name: str
    description: str = ""

    def pack(self) -> bytes:
        return pack_string(self.name) + self.description.encode()

    @classmethod
    def parse(cls, data: bytes) -> "ListedExport":
        """Raises MalformedData when the name's length is wrong, or either is no string."""
        name, rest = counted_string(data)
        return cls(name, parse_string(rest))


def check_name(name: str) -> str:
    """The name, if it is one that the protocol can carry; raises MalformedData."""
    return parse_string(name.encode(errors="surrogateescape"))


def parse_string(data: bytes) -> str:
    """A string as the protocol wants them: UTF-8 without NUL, at most 4096 bytes.

    Raises:
        MalformedData: it is something else.
    """
    if len(data) > wire.MAX_STRING:
        raise MalformedData(f"a name or text of {len(data)} bytes; expected at most {wire.MAX_STRING}")
    if b"\0" in data:
        raise MalformedData("a name or text with a NUL in it")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MalformedData(f"a name or text that is not UTF-8: {error.reason}") from error


def pack_string(text: str) -> bytes:
    """A string behind its length."""
    encoded = text.encode()
    return wire.LENGTH.pack(len(encoded)) + encoded


def counted_string(data: bytes) -> tuple[str, bytes]:
    """A string behind its length, and what follows it; raises MalformedData."""
    if len(data) < wire.LENGTH.size:
        raise MalformedData(f"{len(data)} bytes; expected a length of {wire.LENGTH.size} first")
    (length,) = wire.LENGTH.unpack_from(data)
    rest = data[wire.LENGTH.size :]
    if length > len(rest):
        raise MalformedData(f"a string of {length} bytes announced, {len(rest)} found")
    return parse_string(rest[:length]), rest[length:]
