"""Keep user-space storage daemons out of the memory-reclaim deadlock: PR_SET_IO_FLUSHER, done right.

Importing this package loads nothing outside the standard library, because daemons load it.
"""

from ioflusher.errors import IoflusherError
from ioflusher.flag import (
    FlagError,
    InvalidStateError,
    NoSuchProcessError,
    NotPermittedError,
    NotSupportedError,
    StateUnreadableError,
    ThreadState,
    get_io_flusher,
    io_flusher,
    set_io_flusher,
    thread_states,
)
from ioflusher.kernel.task import TaskFlags

__version__ = "0.1.0.dev0"

__all__ = [
    "FlagError",
    "InvalidStateError",
    "IoflusherError",
    "NoSuchProcessError",
    "NotPermittedError",
    "NotSupportedError",
    "StateUnreadableError",
    "TaskFlags",
    "ThreadState",
    "__version__",
    "get_io_flusher",
    "io_flusher",
    "set_io_flusher",
    "thread_states",
]
