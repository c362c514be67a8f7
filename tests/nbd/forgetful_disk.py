"""A disk with a volatile cache, to be served and killed: what was not flushed is gone then.

As with real disks, some of what was not flushed has reached the store nevertheless.
"""

import os
import threading

from ioflusher.nbd.backends import Backend


class ForgetfulDisk(Backend):
    """A file whose writes stay in this process until a flush; one in three is stored at once."""

    can_write = can_flush = can_zero = True

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR)
        self._size = os.fstat(self._file).st_size
        self._now = bytearray(os.pread(self._file, self._size, 0))
        self._dirty: dict[int, int] = {}  # offset -> length
        self._lock = threading.Lock()
        self._count = 0

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, view: memoryview) -> None:
        with self._lock:
            view[:] = self._now[offset : offset + len(view)]

    def write(self, offset: int, view: memoryview) -> None:
        with self._lock:
            self._now[offset : offset + len(view)] = view
            self._dirty[offset] = max(len(view), self._dirty.get(offset, 0))
            self._count += 1
            if self._count % 3 == 0:
                os.pwrite(self._file, view, offset)

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self.write(offset, memoryview(bytes(length)))

    def flush(self) -> None:
        with self._lock:
            for offset, length in self._dirty.items():
                os.pwrite(self._file, self._now[offset : offset + length], offset)
            self._dirty.clear()
