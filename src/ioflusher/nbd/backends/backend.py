"""The interface of a back end: where a server's bytes live.

The shape is that of nbdkit's plugins. A back end may be called by several threads at once. It reports
failure by raising OSError or IoflusherError; the `errno` of that reaches the client.
"""

import errno
import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Self

from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.protocol.extents import Extent


class BackendError(NbdError):
    """A back end could not be opened."""


# What the server may use in place of a method.
_SECOND_WAYS = {
    "read_into": ("memory_at",),
    "write": ("memory_for", "write_through"),
    "zero": ("fast_zero",),
}


class Backend(ABC):
    """What a server serves. A read-only one defines `size` and `read_into` and is done.

    Offsets and lengths are bytes; the server has checked them against `size` and `minimum_block`, and asks
    for nothing that the back end does not announce.

    Attributes:
        can_write: whether `write` works; without it the export is read-only.
        can_flush: whether `flush` works; without it clients do not ask, and are not promised FUA.
        can_trim, can_zero: whether `trim` and `zero` work.
        can_fast_zero: whether `fast_zero` does, at least for some ranges.
        can_cache: whether `cache` works.
        can_resize: whether `resize` works.
        quick_extents: whether asking for `extents` is worth it to leave the holes out of an answer to a READ.
        can_multi_conn: whether a `flush` holds for what was written before on any connection.
        minimum_block: the alignment that offsets and lengths need, a power of two.
        preferred_block: the size from which on requests are done well, a power of two.
        contexts: metadata contexts of its own that `context_extents` knows, as NAMESPACE:LEAF.
        waits: whether a request may wait, for a network or a disk. Then several are done at once, by threads
            that exist beforehand, and answered in the order in which they are done; their memory is aligned
            to pages, as O_DIRECT needs. Else each connection's requests are done one after the other by
            its own thread, which is faster, and the views that it is given lie anywhere.
    """

    can_write = False
    can_flush = False
    can_trim = False
    can_zero = False
    can_fast_zero = False
    can_cache = False
    can_resize = False
    quick_extents = True
    can_multi_conn = True
    minimum_block = 1
    preferred_block = 4096
    contexts: tuple[str, ...] = ()
    waits = False

    def __init_subclass__(cls) -> None:
        """A class that changes how something is done also does it where its parent has a second way."""
        super().__init_subclass__()
        for changed, second_ways in _SECOND_WAYS.items():
            for name in second_ways:
                if changed in cls.__dict__ and name not in cls.__dict__:
                    setattr(cls, name, getattr(Backend, name))

    @property
    @abstractmethod
    def size(self) -> int:
        """Size of the export."""

    @abstractmethod
    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill all of `view` with what is stored from `offset` on."""

    def write(self, offset: int, view: memoryview) -> None:
        """Store `view` at `offset`; its memory is used anew after the return."""
        raise OSError(errno.EPERM, "read-only back end")

    def write_through(self, offset: int, view: memoryview) -> None:
        """Store `view` and return when it is on stable storage (FUA)."""
        self.write(offset, view)
        self.flush()

    def flush(self) -> None:
        """Return when everything written before is on stable storage."""
        raise OSError(errno.EOPNOTSUPP, "no flush in this back end")

    def trim(self, offset: int, length: int) -> None:
        """The client needs these bytes no more; what they read as afterwards is undefined."""
        raise OSError(errno.EOPNOTSUPP, "no trim in this back end")

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        """Make these bytes read as zeroes; `may_trim`: their storage may be given back."""
        raise OSError(errno.EOPNOTSUPP, "no zeroing in this back end")

    def fast_zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        """`zero`, but raise OSError(EOPNOTSUPP) at once where that is no faster than writing zeroes."""
        raise OSError(errno.EOPNOTSUPP, "no fast zeroing in this back end")

    def cache(self, offset: int, length: int) -> None:
        """These bytes will be read soon."""
        raise OSError(errno.EOPNOTSUPP, "no cache in this back end")

    def resize(self, size: int) -> None:
        """Have this `size` from now on; what is added reads as zeroes, no request goes beyond it any more."""
        raise OSError(errno.EOPNOTSUPP, "no resizing in this back end")

    def extents(self, offset: int, length: int) -> Iterable[Extent]:
        """What is allocated and what reads as zeroes, from `offset` on (flags are `BlockState` bits).

        There must be one at least. They may end before the range does, or behind it: the server cuts.
        """
        return (Extent(length),)

    def context_extents(self, context: str, offset: int, length: int) -> Iterable[Extent]:
        """The same for one of `contexts`, whose meaning the flags have."""
        raise OSError(errno.EINVAL, f"no context {context!r} in this back end")

    def memory_at(self, offset: int, length: int) -> memoryview | None:
        """The memory that has these bytes, if any: a READ is answered from it without `read_into`."""
        return None

    def memory_for(self, offset: int, length: int) -> memoryview | None:
        """The memory where these bytes belong, if any: a WRITE is received into it without `write`."""
        return None

    def interrupt(self) -> None:  # noqa: B027 - most back ends have nothing to do here
        """Called by another thread when a server closes and a request takes too long: let it fail."""

    def close(self) -> None:  # noqa: B027
        """Give everything back. No request is under way or will come."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# One block of zeroes for everybody, page-aligned for O_DIRECT; never written to.
_ZEROES = memoryview(mmap.mmap(-1, 64 << 10, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)).toreadonly()


def write_zeroes(backend: Backend, offset: int, length: int) -> None:
    """Zero a range by writing it."""
    while length:
        piece = _ZEROES[: min(length, len(_ZEROES))]
        backend.write(offset, piece)
        offset, length = offset + len(piece), length - len(piece)


def has_own(backend: Backend, method: str) -> bool:
    """Whether the back end defines this optional method itself."""
    return getattr(type(backend), method, None) is not getattr(Backend, method)
