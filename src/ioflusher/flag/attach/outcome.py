"""What became of each thread that should take the state."""

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """What became of one thread."""

    DONE = "done"
    ALREADY = "was so already"
    WOULD = "would be done"
    NOT_PERMITTED = "not permitted there"
    FILTERED = "a seccomp filter forbids it"
    DENIED = "may not be traced"
    TRACED = "traced by another"
    GONE = "gone"
    TIMED_OUT = "could not be stopped in time"
    UNSAFE = "unsafe to stop"
    UNSUITABLE = "cannot be made to call"
    FAILED = "failed"


GOOD = frozenset((Outcome.DONE, Outcome.ALREADY, Outcome.GONE))


class Refused(Exception):
    """A thread that does not get the state; carries why."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ThreadOutcome:
    """What became of one thread.

    Attributes:
        tid: its number.
        comm: its name, raw bytes of the machine: escape them before they reach a terminal.
        outcome: what became of it.
        detail: one sentence more, or empty.
    """

    tid: int
    comm: bytes
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ProcessOutcome:
    """What became of one process.

    Attributes:
        pid: its number.
        state: what its threads should take: True set, False cleared.
        threads: what became of each thread that was seen, lowest number first.
        memory: what became of locking its memory; None where that was not asked for.
        seconds: how long it took.
    """

    pid: int
    state: bool
    threads: tuple[ThreadOutcome, ...]
    memory: ThreadOutcome | None
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every thread that lives is as it should be, and memory is locked if asked for."""
        everything = (*self.threads, self.memory) if self.memory else self.threads
        return all(thread.outcome in GOOD for thread in everything)
