"""A back end that leaves another one as it is and keeps what is written somewhere else: copy on write.

A layer's file has the changed blocks at their own offsets, so that the rest are holes; behind them whole
pages with a byte for each block, which says whether it is in the layer; and at the very end a page with a
magic number, the block size and the base's size.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from struct import Struct

from ioflusher.nbd.backends.backend import Backend, BackendError
from ioflusher.nbd.backends.file import FileBackend
from ioflusher.nbd.backends.memory import MemoryBackend
from ioflusher.nbd.protocol.connection import aligned_memory
from ioflusher.nbd.protocol.extents import Extent, joined

PAGE = 4096
LABEL = Struct(">16sQQ")  # magic, block size, the base's size
MAGIC = b"ioflusher layer1"
STRIPES = 16  # blocks that can be copied at once, each with a lock and a buffer


def block_of(layer: str | os.PathLike[str]) -> int:
    """The block size of a layer's file.

    Raises:
        BackendError: it is none.
    """
    with FileBackend(layer, readonly=True) as file:
        return _label(file, layer)[0]


def _label(file: Backend, path: str | os.PathLike[str]) -> tuple[int, int]:
    """Block size and base's size that a layer's last page tells."""
    found = aligned_memory(PAGE)
    if file.size >= PAGE:
        file.read_into(file.size - PAGE, found)
    magic, block, base = LABEL.unpack_from(found)
    if magic != MAGIC:
        raise BackendError(f"{os.fspath(path)!r} is no layer of an overlay")
    return block, base


class OverlayBackend(Backend):
    """What another back end has, with changes that go elsewhere.

    A block that is written to in part for the first time is copied. The bytes that say which blocks were
    changed, and the buffers for copying, are there from the start. A flush makes the blocks durable first
    and then the bytes that refer to them, so that a layer whose server was killed is whole.

    Args:
        base: is read only, and closed with this one. It must not be changed while a layer refers to it.
        layer: the path of a file that keeps the changes, made where it is missing; None: memory, of which a
            page is asked for at each first write, unless memory is locked.
        block: bytes that are copied at once, a power of two.
        direct: whether the layer's file is written to past the page cache (O_DIRECT).

    Raises:
        BackendError: the layer cannot be opened, or belongs to a base of another size.
    """

    can_write = can_flush = can_trim = can_zero = True

    def __init__(
        self,
        base: Backend,
        layer: str | os.PathLike[str] | None = None,
        *,
        block: int = 64 << 10,
        direct: bool = False,
    ) -> None:
        self._base = base
        if block < PAGE or block & (block - 1) or block < base.minimum_block:
            raise BackendError(
                f"blocks of {block} bytes; expected a power of two, {max(PAGE, base.minimum_block)} or more"
            )
        self._block = block
        self._size = base.size
        count = -(-self._size // block)
        self._map_offset = count * block
        self._map = bytearray(-(-count // PAGE) * PAGE)
        self._count = count
        self._layer: Backend
        if layer is None:
            self._layer = MemoryBackend(self._map_offset)
            self._stored = False
        else:
            self._layer = self._open(layer, direct)
            self._stored = True
        self.minimum_block = max(base.minimum_block, self._layer.minimum_block)
        self.preferred_block = block
        self.can_cache = base.can_cache
        self.can_multi_conn = True
        self.waits = base.waits or self._layer.waits
        self.quick_extents = base.quick_extents
        self._stale: set[int] = set()  # pages of the map that the layer does not have yet
        self._stripes = [threading.Lock() for _ in range(STRIPES)]
        self._buffers = [aligned_memory(block) for _ in range(STRIPES)]
        self._flushing = threading.Lock()
        self._page = aligned_memory(PAGE)

    def _open(self, path: str | os.PathLike[str], direct: bool) -> Backend:
        name, size = os.fspath(path), self._map_offset + len(self._map) + PAGE
        label = LABEL.pack(MAGIC, self._block, self._size).ljust(PAGE, b"\0")
        try:
            with open(path, "xb") as file:
                file.truncate(size - PAGE)
                file.seek(size - PAGE)
                file.write(label)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            pass
        except OSError as error:
            raise BackendError(
                f"cannot make the layer {name!r}: {error.strerror}", errno=error.errno
            ) from error
        layer = FileBackend(path, direct=direct)
        try:
            block, base = _label(layer, path)
            if (block, base, layer.size) != (self._block, self._size, size):
                raise BackendError(
                    f"the layer {name!r} has blocks of {block} bytes over a base of {base}; expected blocks "
                    f"of {self._block} over {self._size}"
                )
            room = aligned_memory(len(self._map))
            layer.read_into(self._map_offset, room)
            self._map[:] = room
        except BaseException:
            layer.close()
            raise
        return layer

    @property
    def size(self) -> int:
        return self._size

    @property
    def changed_blocks(self) -> int:
        """How many blocks are in the layer."""
        return self._map.count(1)

    def _runs(self, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
        """Parts of a range that lie in the layer, or in the base: whether, where, how long."""
        end, last = offset + length, -(-(offset + length) // self._block)
        while offset < end:
            number = offset // self._block
            there = self._map[number]
            other = self._map.find(1 - there, number, last)
            stop = end if other < 0 else min(other * self._block, end)
            yield bool(there), offset, stop - offset
            offset = stop

    def read_into(self, offset: int, view: memoryview) -> None:
        for there, start, length in self._runs(offset, len(view)):
            (self._layer if there else self._base).read_into(start, view[:length])
            view = view[length:]

    def write(self, offset: int, view: memoryview) -> None:
        while view:
            number, inside = divmod(offset, self._block)
            if self._map[number]:
                other = self._map.find(0, number, -(-(offset + len(view)) // self._block))
                length = len(view) if other < 0 else other * self._block - offset
                self._layer.write(offset, view[:length])
            else:
                length = min(self._block - inside, len(view))
                self._take(number, inside, view[:length], length)
            view, offset = view[length:], offset + length

    def _take(self, number: int, inside: int, data: memoryview | None, length: int) -> None:
        """Bring a block into the layer, with `data` (None: zeroes) at `inside`."""
        start = number * self._block
        whole = min(self._block, self._size - start)
        stripe = number % STRIPES
        with self._stripes[stripe]:
            there = self._map[number]
            buffer = self._buffers[stripe][:whole]
            if not there and length < whole:
                self._base.read_into(start, buffer)
            if data is None and not there and length == whole and self._layer.can_zero:
                self._layer.zero(start, whole, may_trim=True)
            elif there or length == whole:
                if data is None:
                    self._layer.zero(start + inside, length, may_trim=True)
                else:
                    self._layer.write(start + inside, data)
            else:
                buffer[inside : inside + length] = bytes(length) if data is None else data
                self._layer.write(start, buffer)
            if not there:
                self._map[number] = 1
                self._stale.add(number // PAGE)

    def flush(self) -> None:
        if not self._stored:
            return
        with self._flushing:
            # Copies of these pages as they are now: what a later write adds to them refers to a block that
            # the first flush below does not cover.
            pages = {}
            while self._stale:
                page = self._stale.pop()
                pages[page] = bytes(self._map[page * PAGE : (page + 1) * PAGE])
            try:
                self._layer.flush()
                for page, content in pages.items():
                    self._page[:] = content
                    self._layer.write(self._map_offset + page * PAGE, self._page)
                if pages:
                    self._layer.flush()
            except BaseException:
                self._stale |= pages.keys()
                raise

    def trim(self, offset: int, length: int) -> None:
        """Whole blocks of the layer alone: what the base has stays as it is."""
        for there, start, stretch in self._runs(offset, length):
            first = -(-start // self._block) * self._block
            last = (start + stretch) // self._block * self._block
            if there and first < last and self._layer.can_zero:
                self._layer.zero(first, last - first, may_trim=True)

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        while length:
            number, inside = divmod(offset, self._block)
            piece = min(self._block - inside, length)
            self._take(number, inside, None, piece)
            offset, length = offset + piece, length - piece

    def cache(self, offset: int, length: int) -> None:
        for there, start, stretch in self._runs(offset, length):
            if not there:
                self._base.cache(start, stretch)

    def extents(self, offset: int, length: int) -> Iterable[Extent]:
        for there, start, stretch in self._runs(offset, length):
            found = list(joined((self._layer if there else self._base).extents(start, stretch), stretch))
            yield from found
            if sum(extent.length for extent in found) < stretch:
                return

    def commit(self) -> int:
        """Write the changes into the base, and begin anew; returns how many bytes. No request is under way.

        A commit that was interrupted is done again: the layer forgets only what the base has for good.

        Raises:
            BackendError: the base cannot be written to.
        """
        if not self._base.can_write:
            raise BackendError("the base of this overlay is read-only", hint="open it for writing")
        written = 0
        buffer = self._buffers[0]
        for number in range(self._count):
            if self._map[number]:
                start = number * self._block
                piece = buffer[: min(self._block, self._size - start)]
                self._layer.read_into(start, piece)
                self._base.write(start, piece)
                written += len(piece)
        if self._base.can_flush:
            self._base.flush()
        self.discard()
        return written

    def discard(self) -> None:
        """Forget the changes: what the base has is seen again. No request is under way."""
        first = self._map.find(1)
        self._stale |= {
            page
            for page in range(len(self._map) // PAGE)
            if self._map.find(1, page * PAGE, (page + 1) * PAGE) >= 0
        }
        self._map[:] = bytes(len(self._map))
        self.flush()
        if first >= 0:
            self._layer.zero(0, self._map_offset, may_trim=True)

    def interrupt(self) -> None:
        self._base.interrupt()
        self._layer.interrupt()

    def close(self) -> None:
        self._base.close()
        self._layer.close()
