"""Sections of code that run with the IO_FLUSHER state, the user's memalloc_noio_save and _restore."""

from collections.abc import Iterator
from contextlib import contextmanager

from ioflusher.flag.state import get_io_flusher, set_io_flusher


@contextmanager
def io_flusher() -> Iterator[None]:
    """Run the block in the IO_FLUSHER state, then restore what was there before, also on an exception.

    Scopes nest. The state is the calling thread's alone: enter and leave in one thread.

    Raises:
        NotPermittedError, NotSupportedError: see `set_io_flusher`.
    """
    before = get_io_flusher()
    set_io_flusher(True)
    try:
        yield
    finally:
        set_io_flusher(before)
