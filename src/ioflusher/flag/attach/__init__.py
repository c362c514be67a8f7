"""Put the IO_FLUSHER state on threads that already run, from outside, by ptrace(2)."""

from ioflusher.flag.attach.outcome import (
    IncompleteError,
    MemoryOutcome,
    ProcessOutcome,
    StuckThreadError,
    ThreadOutcome,
    ThreadResult,
)
from ioflusher.flag.attach.process import put_state

__all__ = [
    "IncompleteError",
    "MemoryOutcome",
    "ProcessOutcome",
    "StuckThreadError",
    "ThreadOutcome",
    "ThreadResult",
    "put_state",
]
