"""Back ends for tests of what lies above them: one that takes its time, one that fails."""

import errno
import random
import threading
from pathlib import Path

from ioflusher.nbd.backends.backend import Backend, BackendError
from ioflusher.nbd.backends.filter import Filter

REQUESTS = ("read", "write", "flush", "trim", "zero", "cache")


class _Meddling(Filter):
    """Does something before each request."""

    def before(self, request: str) -> None:
        """Called with one of REQUESTS before it is passed on."""
        raise NotImplementedError

    def read_into(self, offset: int, view: memoryview) -> None:
        self.before("read")
        super().read_into(offset, view)

    def write(self, offset: int, view: memoryview) -> None:
        self.before("write")
        super().write(offset, view)

    def write_through(self, offset: int, view: memoryview) -> None:
        self.before("write")
        super().write_through(offset, view)

    def flush(self) -> None:
        self.before("flush")
        super().flush()

    def trim(self, offset: int, length: int) -> None:
        self.before("trim")
        super().trim(offset, length)

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self.before("zero")
        super().zero(offset, length, may_trim=may_trim)

    def fast_zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self.before("zero")
        super().fast_zero(offset, length, may_trim=may_trim)

    def cache(self, offset: int, length: int) -> None:
        self.before("cache")
        super().cache(offset, length)


class SlowBackend(_Meddling):
    """Another back end whose requests take longer.

    Args:
        backend: the other one.
        seconds: that every request takes more.
        read, write, flush, trim, zero, cache: seconds for that kind alone, instead.

    Raises:
        BackendError: a negative time.
    """

    def __init__(
        self,
        backend: Backend,
        seconds: float = 0.0,
        *,
        read: float | None = None,
        write: float | None = None,
        flush: float | None = None,
        trim: float | None = None,
        zero: float | None = None,
        cache: float | None = None,
    ) -> None:
        super().__init__(backend)
        self.waits = True
        own = {"read": read, "write": write, "flush": flush, "trim": trim, "zero": zero, "cache": cache}
        self._seconds = {kind: seconds if time is None else time for kind, time in own.items()}
        if min(self._seconds.values()) < 0:
            raise BackendError(f"a delay of {min(self._seconds.values())} s; expected none below 0")
        self._ended = threading.Event()

    def before(self, request: str) -> None:
        seconds = self._seconds[request]
        if seconds and self._ended.wait(seconds):
            raise OSError(errno.EIO, "the server closes")

    def interrupt(self) -> None:
        self._ended.set()
        super().interrupt()


class FailingBackend(_Meddling):
    """Another back end whose requests fail, now and then or while a file exists; nothing is done then.

    Args:
        backend: the other one.
        error: the name of the error, such as "EIO" or "ENOSPC".
        rate: how many of all requests fail, from 0 to 1.
        on: which kinds, with commas: read, write, flush, trim, zero, cache.
        while_exists: a path; requests fail only while it is there.
        seed: of the random numbers, for runs that come out alike.

    Raises:
        BackendError: no such error or kind of request, or a rate that is none.
    """

    def __init__(
        self,
        backend: Backend,
        error: str = "EIO",
        *,
        rate: float = 1.0,
        on: str = ",".join(REQUESTS),
        while_exists: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(backend)
        number = getattr(errno, error, None) if error.startswith("E") else None
        if not isinstance(number, int):
            raise BackendError(f"no error {error!r}; expected a name such as EIO or ENOSPC")
        if not 0 <= rate <= 1:
            raise BackendError(f"a rate of {rate}; expected a number from 0 to 1")
        self._kinds = frozenset(kind.strip() for kind in on.split(","))
        if unknown := self._kinds - set(REQUESTS):
            raise BackendError(f"no kind of request {min(unknown)!r}; expected some of {', '.join(REQUESTS)}")
        self._error = OSError(number, f"{error} on purpose")
        self._rate = rate
        self._while_exists = None if while_exists is None else Path(while_exists)
        self._random = random.Random(seed)

    def before(self, request: str) -> None:
        if request not in self._kinds or (self._rate < 1 and self._random.random() >= self._rate):
            return
        if self._while_exists is None or self._while_exists.exists():
            raise OSError(*self._error.args)
