"""The interface of a back end: where a server's bytes live.

The shape is that of nbdkit's plugins. A back end may be called by several threads at once. It reports
failure by raising OSError or IoflusherError; the `errno` of that reaches the client.
"""

import errno
import mmap
from abc import ABC, abstractmethod

from ioflusher.nbd.errors import NbdError


class BackendError(NbdError):
    """A back end could not be opened."""


class Backend(ABC):
    """What a server serves. A read-only one defines `size` and `read_into` and is done.

    Offsets and lengths are bytes; the server has checked them against `size` and `minimum_block`.

    Attributes:
        can_write: whether `write` works; without it the export is read-only.
        can_flush: whether `flush` works; without it clients do not ask, and are not promised FUA.
        can_trim, can_zero: whether `trim` and `zero` work.
        minimum_block: the alignment that offsets and lengths need, a power of two.
    """

    can_write = False
    can_flush = False
    can_trim = False
    can_zero = False
    minimum_block = 1

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

    def flush(self) -> None:
        """Return when everything written before is on stable storage."""
        raise OSError(errno.EOPNOTSUPP, "no flush in this back end")

    def trim(self, offset: int, length: int) -> None:
        """The client needs these bytes no more; what they read as afterwards is undefined."""
        raise OSError(errno.EOPNOTSUPP, "no trim in this back end")

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        """Make these bytes read as zeroes; `may_trim`: their storage may be given back."""
        raise OSError(errno.EOPNOTSUPP, "no zeroing in this back end")

    def interrupt(self) -> None:  # noqa: B027 - most back ends have nothing to do here
        """Called by another thread when a server closes and a request takes too long: let it fail."""

    def close(self) -> None:  # noqa: B027
        """Give everything back. No request is under way or will come."""

    def __enter__(self) -> "Backend":
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
