"""What a range of an export is like: the answer to NBD_CMD_BLOCK_STATUS, and what it is asked about."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntFlag

BASE_ALLOCATION = "base:allocation"  # the metadata context that the protocol itself defines


class BlockState(IntFlag):
    """NBD_STATE_*: what BASE_ALLOCATION says of an extent; data is neither of both."""

    HOLE = 1 << 0  # nothing is allocated; writing may fail for want of space
    ZERO = 1 << 1  # it reads as zeroes


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes, one behind the other, that are alike; `flags` mean what their context says."""

    length: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class MetaContext:
    """A metadata context that both ends agreed on: the server's number for it, and its name."""

    number: int
    name: str


def joined(extents: Iterable[Extent], limit: int) -> Iterator[Extent]:
    """The same extents with equal neighbours made one, empty ones left out, and cut at `limit` bytes."""
    length, flags = 0, 0
    for extent in extents:
        if extent.length <= 0:
            continue
        if length and extent.flags != flags:
            yield Extent(length, flags)
            limit -= length
            length = 0
        flags = extent.flags
        length = min(length + extent.length, limit)
        if length == limit:
            break
    if length:
        yield Extent(length, flags)
