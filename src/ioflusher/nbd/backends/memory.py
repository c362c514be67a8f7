"""A back end in anonymous memory."""

import errno
import mmap

from ioflusher.nbd.backends.backend import Backend, BackendError, write_zeroes


class MemoryBackend(Backend):
    """Anonymous memory: the kernel gives a page when it is first touched, or all at once when locked.

    Nothing is ever given back (no trim): what a device stores into must not have to be asked for again.
    """

    can_write = can_flush = can_zero = True

    def __init__(self, size: int) -> None:
        if size <= 0:
            raise BackendError(f"a memory back end of {size} bytes; expected at least one")
        try:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise BackendError(
                f"cannot reserve {size} bytes of memory: {error}", errno=errno.ENOMEM
            ) from error
        self._memory = memoryview(memory)

    @property
    def size(self) -> int:
        return len(self._memory)

    def read_into(self, offset: int, view: memoryview) -> None:
        view[:] = self._memory[offset : offset + len(view)]

    def write(self, offset: int, view: memoryview) -> None:
        self._memory[offset : offset + len(view)] = view

    def memory_at(self, offset: int, length: int) -> memoryview:
        return self._memory[offset : offset + length]

    memory_for = memory_at

    def flush(self) -> None:
        """Nothing to do: this is as stable as it gets."""

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        write_zeroes(self, offset, length)
