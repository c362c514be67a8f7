"""What back ends made of another one have in common: all is passed on but what they change."""

from collections.abc import Iterable

from ioflusher.nbd.backends.backend import Backend
from ioflusher.nbd.protocol.extents import Extent


class Filter(Backend):
    """Another back end with something changed; a subclass overrides what it changes.

    Memory is not passed on: a request that goes past the filter could not be changed.

    Args:
        backend: the other one, which becomes this one's and is closed with it.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.can_write = backend.can_write
        self.can_flush = backend.can_flush
        self.can_trim = backend.can_trim
        self.can_zero = backend.can_zero
        self.can_fast_zero = backend.can_fast_zero
        self.can_cache = backend.can_cache
        self.can_multi_conn = backend.can_multi_conn
        self.quick_extents = backend.quick_extents
        self.minimum_block = backend.minimum_block
        self.preferred_block = backend.preferred_block
        self.contexts = backend.contexts
        self.waits = backend.waits

    @property
    def size(self) -> int:
        return self.backend.size

    def read_into(self, offset: int, view: memoryview) -> None:
        self.backend.read_into(offset, view)

    def write(self, offset: int, view: memoryview) -> None:
        self.backend.write(offset, view)

    def write_through(self, offset: int, view: memoryview) -> None:
        self.backend.write_through(offset, view)

    def flush(self) -> None:
        self.backend.flush()

    def trim(self, offset: int, length: int) -> None:
        self.backend.trim(offset, length)

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self.backend.zero(offset, length, may_trim=may_trim)

    def fast_zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self.backend.fast_zero(offset, length, may_trim=may_trim)

    def cache(self, offset: int, length: int) -> None:
        self.backend.cache(offset, length)

    def extents(self, offset: int, length: int) -> Iterable[Extent]:
        return self.backend.extents(offset, length)

    def context_extents(self, context: str, offset: int, length: int) -> Iterable[Extent]:
        return self.backend.context_extents(context, offset, length)

    def interrupt(self) -> None:
        self.backend.interrupt()

    def close(self) -> None:
        self.backend.close()
