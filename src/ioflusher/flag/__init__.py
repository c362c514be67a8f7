"""The IO_FLUSHER state: set it, read it, scope it."""

from ioflusher.flag.errors import (
    FlagError,
    InvalidStateError,
    NoSuchProcessError,
    NotPermittedError,
    NotSupportedError,
    StateUnreadableError,
)
from ioflusher.flag.scope import io_flusher
from ioflusher.flag.state import get_io_flusher, set_io_flusher
from ioflusher.flag.threads import ThreadState, thread_states

__all__ = [
    "FlagError",
    "InvalidStateError",
    "NoSuchProcessError",
    "NotPermittedError",
    "NotSupportedError",
    "StateUnreadableError",
    "ThreadState",
    "get_io_flusher",
    "io_flusher",
    "set_io_flusher",
    "thread_states",
]
