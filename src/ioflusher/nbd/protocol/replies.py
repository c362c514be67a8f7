"""How a server answers a request, without I/O: simple replies, or structured ones in chunks.

Each function returns the bytes of one message or chunk without its bulk data, which is sent right behind it.
With extended headers every answer is made of chunks, which say the request's offset: their functions take it
as `at`, which is None where extended headers were not agreed on.
"""

import errno
from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct
from typing import Final

from ioflusher.nbd.protocol import wire
from ioflusher.nbd.protocol.extents import Extent
from ioflusher.nbd.protocol.wire import ReplyFlag, ReplyType

# wire.SIMPLE_REPLY of a request that was done, and a chunk with data that is the whole answer, whose first
# fields never change: one number.
_DONE: Final = Struct(">QQ")
_DATA: Final = Struct(">QQIQ")
_LAST_DATA_HEAD: Final = (
    wire.STRUCTURED_REPLY_MAGIC << 32 | int(ReplyFlag.DONE) << 16 | int(ReplyType.OFFSET_DATA)
)
_OFFSET_SIZE: Final = wire.CHUNK_OFFSET.size

#: `simple` without an error: the answer's bytes for a cookie, quickly.
done: Final[Callable[[int], bytes]] = partial(_DONE.pack, wire.SIMPLE_REPLY_MAGIC << 32)

DONE_SIZE: Final = _DONE.size  # bytes of what `done` and `whole_data` return
WHOLE_DATA_SIZE: Final = _DATA.size


def simple(error: int, cookie: int) -> bytes:
    """A simple reply; the data of a READ that was done follows."""
    return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, error, cookie)


def whole_data(cookie: int, offset: int, length: int) -> bytes:
    """NBD_REPLY_TYPE_OFFSET_DATA as the only chunk, quickly; `length` bytes of data follow."""
    return _DATA.pack(_LAST_DATA_HEAD, cookie, length + _OFFSET_SIZE, offset)


def data(cookie: int, offset: int, length: int, *, last: bool, at: int | None = None) -> bytes:
    """NBD_REPLY_TYPE_OFFSET_DATA; `length` bytes of data follow."""
    head = _chunk(ReplyType.OFFSET_DATA, cookie, _OFFSET_SIZE + length, last, at)
    return head + wire.CHUNK_OFFSET.pack(offset)


def hole(cookie: int, offset: int, length: int, *, last: bool, at: int | None = None) -> bytes:
    """NBD_REPLY_TYPE_OFFSET_HOLE: these bytes are zeroes."""
    head = _chunk(ReplyType.OFFSET_HOLE, cookie, wire.CHUNK_HOLE.size, last, at)
    return head + wire.CHUNK_HOLE.pack(offset, length)


def block_status(
    cookie: int, context: int, extents: Sequence[Extent], *, last: bool, at: int | None = None
) -> bytes:
    """NBD_REPLY_TYPE_BLOCK_STATUS, no extent longer than 32 bits; or NBD_REPLY_TYPE_BLOCK_STATUS_EXT."""
    if at is None:
        kind, begin, layout = ReplyType.BLOCK_STATUS, wire.CHUNK_CONTEXT.pack(context), wire.CHUNK_EXTENT
    else:
        kind, layout = ReplyType.BLOCK_STATUS_EXT, wire.CHUNK_EXTENT_EXT
        begin = wire.CHUNK_CONTEXT_EXT.pack(context, len(extents))
    payload = begin + b"".join(layout.pack(extent.length, extent.flags) for extent in extents)
    return _chunk(kind, cookie, len(payload), last, at) + payload


def nothing(cookie: int, at: int | None = None) -> bytes:
    """NBD_REPLY_TYPE_NONE: the last chunk, which says that the request was done."""
    return _chunk(ReplyType.NONE, cookie, 0, True, at)


def failure(
    cookie: int, error: int, message: str, offset: int | None = None, *, at: int | None = None
) -> bytes:
    """NBD_REPLY_TYPE_ERROR or, with the `offset` where it happened, ERROR_OFFSET; the last chunk."""
    text = message.encode(errors="replace")[: wire.MAX_STRING]
    kind, where = ReplyType.ERROR, b""
    if offset is not None:
        kind, where = ReplyType.ERROR_OFFSET, wire.CHUNK_OFFSET.pack(offset)
    payload = wire.CHUNK_ERROR.pack(error or errno.EIO, len(text)) + text + where
    return _chunk(kind, cookie, len(payload), True, at) + payload


def _chunk(kind: ReplyType, cookie: int, length: int, last: bool, at: int | None) -> bytes:
    flags = ReplyFlag.DONE if last else 0
    if at is not None:
        return wire.EXTENDED_REPLY.pack(wire.EXTENDED_REPLY_MAGIC, flags, kind, cookie, at, length)
    return wire.STRUCTURED_REPLY.pack(wire.STRUCTURED_REPLY_MAGIC, flags, kind, cookie, length)
