"""A back end that is several others, one behind the other."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

from ioflusher.nbd.backends.backend import Backend, BackendError
from ioflusher.nbd.protocol.extents import Extent, joined


class ConcatenatedBackend(Backend):
    """Several back ends as one, in the order given; it can do what all of them can.

    Args:
        parts: they become this one's and are closed with it.

    Raises:
        BackendError: none given, or one whose size would misalign the next.
    """

    def __init__(self, *parts: Backend) -> None:
        if not parts:
            raise BackendError("a concatenation of no back ends")
        self._parts = parts
        for ability in ("can_write", "can_flush", "can_trim", "can_zero", "can_cache", "can_multi_conn"):
            setattr(self, ability, all(getattr(part, ability) for part in parts))
        self.can_fast_zero = self.can_zero and all(part.can_fast_zero for part in parts)
        self.minimum_block = max(part.minimum_block for part in parts)
        self.preferred_block = max(part.preferred_block for part in parts)
        self.waits = any(part.waits for part in parts)
        self.quick_extents = all(part.quick_extents for part in parts)
        for part in parts:
            if part.size % self.minimum_block:
                raise BackendError(
                    f"a part of {part.size} bytes; this concatenation needs multiples of "
                    f"{self.minimum_block}, the block of one of its parts"
                )
        self._starts = [0, *accumulate(part.size for part in parts)]

    @property
    def size(self) -> int:
        return self._starts[-1]

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[Backend, int, int]]:
        """The parts that a range meets: each with the offset in it and the length there."""
        number = bisect_right(self._starts, offset) - 1
        while length > 0:
            inside = offset - self._starts[number]
            piece = min(length, self._parts[number].size - inside)
            yield self._parts[number], inside, piece
            offset, length, number = offset + piece, length - piece, number + 1

    def read_into(self, offset: int, view: memoryview) -> None:
        for part, inside, length in self._pieces(offset, len(view)):
            part.read_into(inside, view[:length])
            view = view[length:]

    def write(self, offset: int, view: memoryview) -> None:
        for part, inside, length in self._pieces(offset, len(view)):
            part.write(inside, view[:length])
            view = view[length:]

    def write_through(self, offset: int, view: memoryview) -> None:
        for part, inside, length in self._pieces(offset, len(view)):
            part.write_through(inside, view[:length])
            view = view[length:]

    def flush(self) -> None:
        for part in self._parts:
            part.flush()

    def trim(self, offset: int, length: int) -> None:
        for part, inside, piece in self._pieces(offset, length):
            part.trim(inside, piece)

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        for part, inside, piece in self._pieces(offset, length):
            part.zero(inside, piece, may_trim=may_trim)

    def fast_zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        for part, inside, piece in self._pieces(offset, length):
            part.fast_zero(inside, piece, may_trim=may_trim)

    def cache(self, offset: int, length: int) -> None:
        for part, inside, piece in self._pieces(offset, length):
            part.cache(inside, piece)

    def extents(self, offset: int, length: int) -> Iterable[Extent]:
        for part, inside, piece in self._pieces(offset, length):
            found = list(joined(part.extents(inside, piece), piece))
            yield from found
            if sum(extent.length for extent in found) < piece:
                return

    def memory_at(self, offset: int, length: int) -> memoryview | None:
        return self._memory("memory_at", offset, length)

    def memory_for(self, offset: int, length: int) -> memoryview | None:
        return self._memory("memory_for", offset, length)

    def _memory(self, way: str, offset: int, length: int) -> memoryview | None:
        pieces = list(self._pieces(offset, length))
        if len(pieces) != 1:
            return None
        part, inside, _ = pieces[0]
        found: memoryview | None = getattr(part, way)(inside, length)
        return found

    def interrupt(self) -> None:
        for part in self._parts:
            part.interrupt()

    def close(self) -> None:
        for part in self._parts:
            part.close()
