"""What became of each thread that should take the state."""

from dataclasses import dataclass
from enum import Enum
from errno import EBUSY, EINVAL, EPERM

from ioflusher.flag.errors import FlagError


class ThreadResult(Enum):
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


GOOD = frozenset((ThreadResult.DONE, ThreadResult.ALREADY, ThreadResult.GONE))


class Refused(Exception):
    """A thread that does not get the state; carries why."""

    def __init__(self, outcome: ThreadResult, detail: str) -> None:
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
    comm: str
    outcome: ThreadResult
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
        return not self.left_out

    @property
    def left_out(self) -> tuple[ThreadOutcome, ...]:
        """The threads that are not as they should be, and the locking of memory where that failed."""
        everything = (*self.threads, self.memory) if self.memory else self.threads
        return tuple(thread for thread in everything if thread.outcome not in GOOD)

    def require_complete(self) -> None:
        """Raise where something was left out.

        Raises:
            StuckThreadError: where a thread could not be stopped in time.
            IncompleteError: for any other reason.
        """
        if any(thread.outcome is ThreadResult.TIMED_OUT for thread in self.left_out):
            raise StuckThreadError(self)
        if self.left_out:
            raise IncompleteError(self)


_NOT_PERMITTED = (ThreadResult.NOT_PERMITTED, ThreadResult.DENIED, ThreadResult.FILTERED, ThreadResult.TRACED)


class IncompleteError(FlagError):
    """Not every thread of a running process could be changed.

    Attributes:
        outcome: what became of the process.
        threads: the threads that were left out.
    """

    def __init__(self, outcome: ProcessOutcome) -> None:
        self.outcome = outcome
        self.threads = outcome.left_out
        first = self.threads[0].outcome
        number = EBUSY if first is ThreadResult.TIMED_OUT else EPERM if first in _NOT_PERMITTED else EINVAL
        told = ", ".join(
            f"{thread.tid} {thread.comm!r} {thread.outcome.value}"
            f"{f' ({thread.detail})' if thread.detail else ''}"
            for thread in self.threads
        )
        super().__init__(
            f"{len(self.threads)} of {len(outcome.threads)} threads of process {outcome.pid} "
            f"were left as they are: {told}",
            errno=number,
            hint=self.advice,
        )

    advice = "start the program under `ioflusher run`, which covers every thread from its first line on"


class StuckThreadError(IncompleteError):
    """A thread is in uninterruptible sleep (state D), or did not come to a stop for another reason."""

    advice = "see /proc/TID/stack for what it waits for; try again, or give it more time"
