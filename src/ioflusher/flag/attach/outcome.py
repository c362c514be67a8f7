"""What became of each thread that should take the state, and of the memory that should be locked."""

from dataclasses import dataclass
from enum import Enum
from errno import EBUSY, EINVAL, EPERM

from ioflusher.flag.errors import FlagError
from ioflusher.kernel.lock_plan import LockFigures, LockMethod


class ThreadResult(Enum):
    """What became of one thread, or of a process's memory (then REFUSED and PARTIAL too)."""

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
    REFUSED = "refused, as it would not be safe"
    PARTIAL = "done in part"


GOOD = frozenset((ThreadResult.DONE, ThreadResult.ALREADY, ThreadResult.GONE))


class Refused(Exception):
    """A thread that does not get the state; carries why, and what to do: see `ThreadOutcome`."""

    def __init__(
        self, outcome: ThreadResult, detail: str, *, reason: "LeftOutReason | None" = None, hint: str = ""
    ) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail
        self.reason = reason
        self.hint = hint


class LeftOutReason(Enum):
    """Why a thread was left out, where a program may want to know more than the outcome."""

    NBD_DO_IT = "nbd_do_it"  # it holds a block device inside ioctl(NBD_DO_IT)


@dataclass(frozen=True, slots=True)
class ThreadOutcome:
    """What became of one thread.

    Attributes:
        tid: its number.
        comm: its name, raw bytes of the machine: escape them before they reach a terminal.
        outcome: what became of it.
        detail: one sentence more, or empty.
        reason: why it was left out, where that has a name.
        hint: what to do instead, or empty.
    """

    tid: int
    comm: str
    outcome: ThreadResult
    detail: str = ""
    reason: LeftOutReason | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class MemoryOutcome:
    """What became of locking the memory of one process.

    Attributes:
        outcome: DONE; WOULD; REFUSED, where it would not have been safe: nothing was changed then; PARTIAL,
            where pages are left in swap; or what became of the thread that should have made the call.
        method: how it is locked, or would be; None where it is not.
        figures: what decided.
        detail: the reason, with the figures.
    """

    outcome: ThreadResult
    method: LockMethod | None
    figures: LockFigures
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
    memory: MemoryOutcome | None
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every thread that lives is as it should be, and memory is locked if asked for."""
        return not self.left_out and (self.memory is None or self.memory.outcome in GOOD)

    @property
    def left_out(self) -> tuple[ThreadOutcome, ...]:
        """The threads that are not as they should be."""
        return tuple(thread for thread in self.threads if thread.outcome not in GOOD)

    def require_complete(self) -> None:
        """Raise where something was left out, or memory should be locked and is not.

        Raises:
            StuckThreadError: where a thread could not be stopped in time.
            IncompleteError: for any other reason.
        """
        if any(thread.outcome is ThreadResult.TIMED_OUT for thread in self.left_out):
            raise StuckThreadError(self)
        if not self.complete:
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
        left: list[ThreadOutcome | MemoryOutcome] = list(self.threads)
        parts = []
        if self.threads:
            named = ", ".join(f"{thread.tid} {thread.comm!r} {_words(thread)}" for thread in self.threads)
            count = f"{len(self.threads)} of {len(outcome.threads)} threads"
            parts.append(f"{count} of process {outcome.pid} were left as they are: {named}")
        if outcome.memory is not None and outcome.memory.outcome not in GOOD:
            left.append(outcome.memory)
            parts.append(f"memory of process {outcome.pid}: {_words(outcome.memory)}")
        first = left[0].outcome
        number = EBUSY if first is ThreadResult.TIMED_OUT else EPERM if first in _NOT_PERMITTED else EINVAL
        hints = [thread.hint for thread in self.threads if thread.hint]
        super().__init__("; ".join(parts), errno=number, hint=hints[0] if hints else self.advice)

    advice = "start the program under `ioflusher run`, which covers every thread from its first line on"


class StuckThreadError(IncompleteError):
    """A thread is in uninterruptible sleep (state D), or did not come to a stop for another reason."""

    advice = "see /proc/TID/stack for what it waits for; try again, or give it more time"


def _words(one: ThreadOutcome | MemoryOutcome) -> str:
    return f"{one.outcome.value} ({one.detail})" if one.detail else one.outcome.value
