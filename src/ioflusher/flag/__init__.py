"""The IO_FLUSHER state: set it, read it, scope it, see it on every thread, give it to workers and children.

What a daemon's threads call is loaded at once; the rest when its name is first used, because
`import ioflusher` must stay cheap.
"""

from ioflusher.flag.errors import (
    FlagError,
    InvalidStateError,
    NoSuchProcessError,
    NotPermittedError,
    NotSupportedError,
    ScopeError,
    StateUnreadableError,
)
from ioflusher.flag.scope import (
    FlusherScope,
    io_flusher,
    noio_restore,
    noio_save,
    without_io_flusher,
)
from ioflusher.flag.state import get_io_flusher, set_io_flusher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ioflusher.flag.attach import (
        IncompleteError,
        MemoryOutcome,
        ProcessOutcome,
        StuckThreadError,
        ThreadOutcome,
        ThreadResult,
        put_state,
    )
    from ioflusher.flag.threads import (
        Bits,
        Coverage,
        CoverageError,
        Thread,
        coverage,
        require_coverage,
        thread_states,
    )
    from ioflusher.flag.workers import (
        FlusherThread,
        call_cleared,
        call_flushed,
        flush_worker,
        flusher_executor,
        popen,
        set_flusher_executor,
    )

# name -> module of this room that has it
_LATER = {
    "IncompleteError": "attach",
    "MemoryOutcome": "attach",
    "ThreadResult": "attach",
    "ProcessOutcome": "attach",
    "StuckThreadError": "attach",
    "ThreadOutcome": "attach",
    "put_state": "attach",
    "Bits": "threads",
    "Coverage": "threads",
    "CoverageError": "threads",
    "Thread": "threads",
    "coverage": "threads",
    "require_coverage": "threads",
    "thread_states": "threads",
    "FlusherThread": "workers",
    "call_cleared": "workers",
    "call_flushed": "workers",
    "flush_worker": "workers",
    "flusher_executor": "workers",
    "popen": "workers",
    "set_flusher_executor": "workers",
}

__all__ = [
    "Bits",
    "Coverage",
    "CoverageError",
    "FlagError",
    "FlusherScope",
    "FlusherThread",
    "IncompleteError",
    "InvalidStateError",
    "MemoryOutcome",
    "NoSuchProcessError",
    "NotPermittedError",
    "NotSupportedError",
    "ProcessOutcome",
    "ScopeError",
    "StateUnreadableError",
    "StuckThreadError",
    "Thread",
    "ThreadOutcome",
    "ThreadResult",
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


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ioflusher.flag.{_LATER[name]}"), name)
