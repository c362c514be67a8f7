"""A back end that forgets, as a disk with a volatile cache does when its power fails."""

import threading

from ioflusher.nbd.backends import Backend


class VolatileBackend(Backend):
    """What was written since the last flush is lost with it; `durable` is what a flush has stored."""

    can_write = can_flush = can_trim = can_zero = True

    def __init__(self, durable: bytearray) -> None:
        self.durable = durable
        self._now = bytearray(durable)
        self._lock = threading.Lock()
        self.flushes = 0

    @property
    def size(self) -> int:
        return len(self._now)

    def read_into(self, offset: int, view: memoryview) -> None:
        with self._lock:
            view[:] = self._now[offset : offset + len(view)]

    def write(self, offset: int, view: memoryview) -> None:
        with self._lock:
            self._now[offset : offset + len(view)] = view

    def flush(self) -> None:
        with self._lock:
            self.durable[:] = self._now
            self.flushes += 1

    def trim(self, offset: int, length: int) -> None:
        self.write(offset, memoryview(bytes(length)))

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self.write(offset, memoryview(bytes(length)))
