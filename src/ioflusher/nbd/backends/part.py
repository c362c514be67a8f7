"""A back end that is a part of another one."""

from collections.abc import Iterable

from ioflusher.nbd.backends.backend import Backend, BackendError
from ioflusher.nbd.backends.filter import Filter
from ioflusher.nbd.protocol.extents import Extent


class PartBackend(Filter):
    """The bytes of another back end from `offset` on: a partition, say.

    Args:
        backend: the whole.
        offset: where the part begins.
        size: how long it is; None: to the end.

    Raises:
        BackendError: the whole has no such part.
    """

    def __init__(self, backend: Backend, offset: int, size: int | None = None) -> None:
        super().__init__(backend)
        self._offset = offset
        self._size = backend.size - offset if size is None else size
        if offset < 0 or self._size <= 0 or offset + self._size > backend.size:
            raise BackendError(
                f"a part of {self._size} bytes at {offset} of a back end that has {backend.size} bytes"
            )
        if (offset | self._size) % backend.minimum_block:
            raise BackendError(
                f"a part of {self._size} bytes at {offset}; the whole wants multiples of "
                f"{backend.minimum_block}"
            )

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, view: memoryview) -> None:
        self.backend.read_into(self._offset + offset, view)

    def write(self, offset: int, view: memoryview) -> None:
        self.backend.write(self._offset + offset, view)

    def write_through(self, offset: int, view: memoryview) -> None:
        self.backend.write_through(self._offset + offset, view)

    def trim(self, offset: int, length: int) -> None:
        self.backend.trim(self._offset + offset, length)

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self.backend.zero(self._offset + offset, length, may_trim=may_trim)

    def fast_zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self.backend.fast_zero(self._offset + offset, length, may_trim=may_trim)

    def cache(self, offset: int, length: int) -> None:
        self.backend.cache(self._offset + offset, length)

    def extents(self, offset: int, length: int) -> Iterable[Extent]:
        return self.backend.extents(self._offset + offset, length)

    def context_extents(self, context: str, offset: int, length: int) -> Iterable[Extent]:
        return self.backend.context_extents(context, self._offset + offset, length)

    def memory_at(self, offset: int, length: int) -> memoryview | None:
        return self.backend.memory_at(self._offset + offset, length)

    def memory_for(self, offset: int, length: int) -> memoryview | None:
        return self.backend.memory_for(self._offset + offset, length)
