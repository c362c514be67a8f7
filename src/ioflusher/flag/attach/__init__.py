"""Put the IO_FLUSHER state on threads that already run, from outside, by ptrace(2)."""

from ioflusher.flag.attach.outcome import Outcome, ProcessOutcome, ThreadOutcome
from ioflusher.flag.attach.process import put_state

__all__ = ["Outcome", "ProcessOutcome", "ThreadOutcome", "put_state"]
