"""Put the IO_FLUSHER state on threads that already run, from outside, by ptrace(2)."""

from ioflusher.flag.attach.outcome import (
    IncompleteError,
    Outcome,
    ProcessOutcome,
    StuckThreadError,
    ThreadOutcome,
)
from ioflusher.flag.attach.process import put_state

__all__ = ["IncompleteError", "Outcome", "ProcessOutcome", "StuckThreadError", "ThreadOutcome", "put_state"]
