"""A back end in anonymous memory."""

import errno
import mmap
import threading
from collections.abc import Iterator

from ioflusher.nbd.backends.backend import Backend, BackendError, write_zeroes
from ioflusher.nbd.protocol.extents import BlockState, Extent

PAGE = mmap.PAGESIZE
_SHIFT = PAGE.bit_length() - 1
_NOTHING = int(BlockState.HOLE | BlockState.ZERO)
_MARKS = memoryview(bytes([1]) * 8192)  # as many pages as the longest payload has


class MemoryBackend(Backend):
    """Anonymous memory: the kernel gives a page when it is first touched, or all at once when locked.

    Pages that were never written to are reported as holes, and zeroing passes them over: a byte for each page
    says which have been.

    Args:
        size: in bytes.
        give_back: give memory back to the kernel where it is trimmed, or zeroed and the client allows that.
            A later write must ask for it again, which a device that swap or a file system lies on may not
            survive; and data is received into memory of its own and copied.

    Raises:
        BackendError: no such memory can be had.
    """

    can_write = can_flush = can_zero = can_fast_zero = True

    def __init__(self, size: int, *, give_back: bool = False) -> None:
        if size <= 0:
            raise BackendError(f"a memory back end of {size} bytes; expected at least one")
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            self._mapping = mmap.mmap(-1, size, flags=flags)
            self._written = mmap.mmap(-1, -(-size // PAGE), flags=flags)
        except (OSError, OverflowError) as error:
            raise BackendError(
                f"cannot reserve {size} bytes of memory: {error}", errno=errno.ENOMEM
            ) from error
        self._memory = memoryview(self._mapping)
        self._give_back = give_back
        if give_back:
            self.can_trim = True
        self._releasing = threading.Lock()

    @property
    def size(self) -> int:
        return len(self._memory)

    def read_into(self, offset: int, view: memoryview) -> None:
        view[:] = self._memory[offset : offset + len(view)]

    def write(self, offset: int, view: memoryview) -> None:
        length = len(view)
        self._memory[offset : offset + length] = view
        self._mark(offset, length)  # behind the copy: see `_release`

    def memory_at(self, offset: int, length: int) -> memoryview:
        return self._memory[offset : offset + length]

    def memory_for(self, offset: int, length: int) -> memoryview | None:
        if self._give_back:
            return None  # what is received there would not be seen by a `zero` meanwhile
        self._mark(offset, length)
        return self._memory[offset : offset + length]

    def flush(self) -> None:
        """Nothing to do: this is as stable as it gets."""

    def trim(self, offset: int, length: int) -> None:
        first, last = -(-offset // PAGE), (offset + length) // PAGE
        if first < last:
            with self._releasing:
                self._release(first, last)

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        end = offset + length
        if not self._give_back:
            self._zero_written(offset, end)
            return
        first, last = -(-offset // PAGE), end // PAGE
        with self._releasing:
            if may_trim and first < last and self._release(first, last):
                self._zero_written(offset, first * PAGE)
                self._zero_written(last * PAGE, end)
            else:
                self._zero_written(offset, end)

    def fast_zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self.zero(offset, length, may_trim=may_trim)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        for start, stop in self._runs(offset, end):
            if start > offset:
                yield Extent(start - offset, _NOTHING)
            yield Extent(stop - start)
            offset = stop
        if offset < end:
            yield Extent(end - offset, _NOTHING)

    def _mark(self, offset: int, length: int) -> None:
        """Note that these bytes have been written to."""
        first, last = offset >> _SHIFT, (offset + length + PAGE - 1) >> _SHIFT
        if last - first == 1:
            self._written[first] = 1
            return
        while first < last:
            count = min(last - first, len(_MARKS))
            self._written[first : first + count] = _MARKS[:count]
            first += count

    def _runs(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that lie in pages that have been written to."""
        last = -(-end // PAGE)
        page = offset >> _SHIFT
        while page < last:
            first = self._written.find(b"\1", page, last)
            if first < 0:
                return
            page = self._written.find(b"\0", first, last)
            if page < 0:
                page = last
            yield max(offset, first * PAGE), min(end, page * PAGE)

    def _zero_written(self, offset: int, end: int) -> None:
        for start, stop in self._runs(offset, end):
            write_zeroes(self, start, stop - start)

    def _release(self, first: int, last: int) -> bool:
        """Give these pages back; False where they are locked.

        Marks go first and pages after, and `write` copies first and marks after: whatever comes between, a
        page without a mark has nothing in it.
        """
        self._written[first:last] = bytes(last - first)
        try:
            self._mapping.madvise(mmap.MADV_DONTNEED, first * PAGE, (last - first) * PAGE)
        except OSError:
            self._written[first:last] = b"\1" * (last - first)
            return False
        return True
