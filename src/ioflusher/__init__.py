"""Keep user-space storage daemons out of the memory-reclaim deadlock: PR_SET_IO_FLUSHER, done right.

Importing this package loads little, and nothing outside the standard library, because daemons load it.
"""

from ioflusher import flag
from ioflusher.errors import IoflusherError
from ioflusher.flag import (
    FlagError,
    InvalidStateError,
    NoSuchProcessError,
    NotPermittedError,
    NotSupportedError,
    ScopeError,
    StateUnreadableError,
    get_io_flusher,
    io_flusher,
    noio_restore,
    noio_save,
    set_io_flusher,
    without_io_flusher,
)
from ioflusher.kernel.task_flags import TaskFlags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ioflusher.flag import (
        Bits,
        Coverage,
        CoverageError,
        FlusherThread,
        IncompleteError,
        MemoryOutcome,
        ProcessOutcome,
        StuckThreadError,
        Thread,
        ThreadOutcome,
        ThreadResult,
        call_cleared,
        call_flushed,
        coverage,
        flush_worker,
        flusher_executor,
        popen,
        put_state,
        require_coverage,
        set_flusher_executor,
        thread_states,
    )

__version__ = "0.1.0.dev0"

__all__ = [
    "Bits",
    "Coverage",
    "CoverageError",
    "FlagError",
    "FlusherThread",
    "IncompleteError",
    "InvalidStateError",
    "IoflusherError",
    "MemoryOutcome",
    "NoSuchProcessError",
    "NotPermittedError",
    "NotSupportedError",
    "ProcessOutcome",
    "ScopeError",
    "StateUnreadableError",
    "StuckThreadError",
    "TaskFlags",
    "Thread",
    "ThreadOutcome",
    "ThreadResult",
    "__version__",
    "call_cleared",
    "call_flushed",
    "coverage",
    "flush_worker",
    "flusher_executor",
    "get_io_flusher",
    "io_flusher",
    "noio_restore",
    "noio_save",
    "popen",
    "put_state",
    "require_coverage",
    "set_flusher_executor",
    "set_io_flusher",
    "thread_states",
    "without_io_flusher",
]


# names that were public before they were renamed
_RENAMED = {"Outcome": "ThreadResult", "ThreadState": "Thread"}


def __getattr__(name: str) -> object:
    """The rest of the public names, loaded when they are first used."""
    if name in _RENAMED:
        from warnings import warn

        new = _RENAMED[name]
        warn(f"ioflusher.{name} is called ioflusher.{new} now", DeprecationWarning, stacklevel=2)
        return getattr(flag, new)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(flag, name)
