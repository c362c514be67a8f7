"""The chunks of a structured reply, as a client receives them: payloads, and what a READ must add up to."""

from dataclasses import dataclass
from struct import Struct
from typing import TypeAlias

from ioflusher.nbd.errors import RemoteProtocolError
from ioflusher.nbd.protocol import wire
from ioflusher.nbd.protocol.extents import Extent
from ioflusher.nbd.protocol.messages import Chunk, ErrorText, Request, StatusOf
from ioflusher.nbd.protocol.wire import Cmd, ReplyFlag, ReplyType

# What is kept of a payload that is no data: any error's text, and more extents than anybody needs at once.
MAX_CHUNK = 1 << 20
# "Servers SHOULD NOT send more than 2^20 extents in a single reply chunk": so many of the longer form.
LONGEST_STATUS = wire.CHUNK_CONTEXT_EXT.size + (1 << 20) * wire.CHUNK_EXTENT_EXT.size

_ZEROES = bytes(64 << 10)
ChunkHead: TypeAlias = tuple[int, int, int, int]  # flags, type, cookie, payload's length


@dataclass(slots=True)
class Awaited:
    """A request in flight at a client.

    Attributes:
        request: what was asked.
        into: where a READ's data goes.
        covered: bytes of that which are there.
        failed: whether an error was among its chunks.
    """

    request: Request
    into: memoryview | None
    covered: int = 0
    failed: bool = False

    def place(self, offset: int, length: int) -> memoryview:
        """Where data or zeroes for this part of the READ go."""
        begin = offset - self.request.offset
        if self.into is None or begin < 0 or not 0 < length <= len(self.into) - begin:
            raise RemoteProtocolError(
                f"{length} bytes at {offset} for a request of {self.request.length} at {self.request.offset}"
            )
        self.covered += length
        if self.covered > len(self.into):
            raise RemoteProtocolError("chunks of one READ that overlap")
        return self.into[begin : begin + length]

    def finish(self) -> None:
        """Hold the end of a structured reply against what was asked."""
        if self.into is not None and not self.failed and self.covered != len(self.into):
            raise RemoteProtocolError(
                f"the answer to a READ of {len(self.into)} bytes ends after {self.covered} of them"
            )


def check_head(head: ChunkHead, awaited: Awaited, *, extended: bool = False) -> None:
    """Raise RemoteProtocolError for a chunk that may not come now, before memory is taken for its payload."""
    flags, kind, _, length = head
    command = awaited.request.command
    status = ReplyType.BLOCK_STATUS_EXT if extended else ReplyType.BLOCK_STATUS
    of_reads = kind in (ReplyType.OFFSET_DATA, ReplyType.OFFSET_HOLE)
    if (of_reads and command != Cmd.READ) or (kind == status and command != Cmd.BLOCK_STATUS):
        raise RemoteProtocolError(f"a chunk of type {kind} answers a request of command {command}")
    known = kind in (ReplyType.NONE, status) or of_reads
    if not known and not wire.is_error_chunk(kind):
        raise RemoteProtocolError(f"a chunk of the unknown type {kind}")
    if kind == ReplyType.NONE and (length or not flags & ReplyFlag.DONE):
        raise RemoteProtocolError(f"an empty chunk of {length} bytes, flags {flags:#x}; expected 0 and DONE")
    longest = MAX_CHUNK
    if kind == ReplyType.OFFSET_DATA:
        longest = wire.CHUNK_OFFSET.size + awaited.request.length
    elif kind == status:
        longest = LONGEST_STATUS
    if length > longest:
        raise RemoteProtocolError(f"a chunk of type {kind} with {length} bytes; expected at most {longest}")


def parse_payload(head: ChunkHead, payload: bytes, awaited: Awaited) -> Chunk:
    """The chunk that has this payload, which is no data; holes are filled with zeroes.

    Args:
        head: of the chunk.
        payload: all of it, or of block status as many of its first bytes as are kept.
        awaited: the request that it answers.

    Raises:
        RemoteProtocolError: the payload does not have the form that its type wants.
    """
    flags, kind, cookie, length = head
    last = bool(flags & ReplyFlag.DONE)
    if kind == ReplyType.NONE:
        return Chunk(kind, cookie, last)
    if kind == ReplyType.OFFSET_HOLE:
        _expect(length == wire.CHUNK_HOLE.size, head)
        begin, size = wire.CHUNK_HOLE.unpack(payload)
        room = awaited.place(begin, size)
        while room:
            part = min(len(room), len(_ZEROES))
            room[:part] = _ZEROES[:part]
            room = room[part:]
        return Chunk(kind, cookie, last, begin, size)
    if kind == ReplyType.BLOCK_STATUS:
        rest = length - wire.CHUNK_CONTEXT.size
        _expect(rest > 0 and rest % wire.CHUNK_EXTENT.size == 0, head)
        (context,) = wire.CHUNK_CONTEXT.unpack_from(payload)
        status = StatusOf(context, _extents(payload[wire.CHUNK_CONTEXT.size :], wire.CHUNK_EXTENT, head))
        return Chunk(kind, cookie, last, status=status)
    if kind == ReplyType.BLOCK_STATUS_EXT:
        rest = length - wire.CHUNK_CONTEXT_EXT.size
        _expect(rest > 0 and rest % wire.CHUNK_EXTENT_EXT.size == 0, head)
        context, count = wire.CHUNK_CONTEXT_EXT.unpack_from(payload)
        _expect(rest == count * wire.CHUNK_EXTENT_EXT.size, head)
        found = _extents(payload[wire.CHUNK_CONTEXT_EXT.size :], wire.CHUNK_EXTENT_EXT, head)
        return Chunk(kind, cookie, last, status=StatusOf(context, found))
    awaited.failed = True
    _expect(length >= wire.CHUNK_ERROR.size, head)
    error, text_length = wire.CHUNK_ERROR.unpack_from(payload)
    behind = wire.CHUNK_ERROR.size + text_length
    text = payload[wire.CHUNK_ERROR.size : behind]
    _expect(len(text) == text_length and error != 0, head)
    offset = None
    if kind == ReplyType.ERROR_OFFSET:
        _expect(length - behind == wire.CHUNK_OFFSET.size, head)
        (offset,) = wire.CHUNK_OFFSET.unpack_from(payload, behind)
    return Chunk(kind, cookie, last, error=ErrorText(error, text.decode(errors="replace"), offset))


def _extents(data: bytes, layout: Struct, head: ChunkHead) -> tuple[Extent, ...]:
    """The whole ones in these bytes."""
    found = tuple(
        Extent(*extent) for extent in layout.iter_unpack(data[: len(data) // layout.size * layout.size])
    )
    _expect(all(extent.length for extent in found), head)
    return found


def _expect(is_so: bool, head: ChunkHead) -> None:
    if not is_so:
        raise RemoteProtocolError(f"a chunk of type {head[1]} whose {head[3]} bytes do not have its form")
