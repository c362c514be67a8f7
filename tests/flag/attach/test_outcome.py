"""What became of a process, judged: complete, or an error that says which threads and why."""

from errno import EBUSY, EINVAL, EPERM

import pytest

from ioflusher import FlagError
from ioflusher.flag.attach import (
    IncompleteError,
    MemoryOutcome,
    ProcessOutcome,
    StuckThreadError,
    ThreadOutcome,
    ThreadResult,
)
from ioflusher.flag.attach.outcome import LeftOutReason
from ioflusher.kernel.lock_plan import LockFigures


def process(*outcomes: ThreadResult, memory: ThreadResult | None = None) -> ProcessOutcome:
    """A process whose threads had these outcomes."""
    threads = tuple(
        ThreadOutcome(100 + number, "work\x1b", outcome, "why") for number, outcome in enumerate(outcomes)
    )
    locked = MemoryOutcome(memory, None, LockFigures(), "why not") if memory else None
    return ProcessOutcome(100, True, threads, locked, 0.1)


def test_complete() -> None:
    """Done, already so and gone are fine; nothing is raised."""
    process(
        ThreadResult.DONE, ThreadResult.ALREADY, ThreadResult.GONE, memory=ThreadResult.DONE
    ).require_complete()


@pytest.mark.parametrize(
    ("outcomes", "kind", "number"),
    [
        ((ThreadResult.DONE, ThreadResult.NOT_PERMITTED), IncompleteError, EPERM),
        ((ThreadResult.TRACED,), IncompleteError, EPERM),
        ((ThreadResult.UNSUITABLE,), IncompleteError, EINVAL),
        ((ThreadResult.TIMED_OUT, ThreadResult.DONE), StuckThreadError, EBUSY),
    ],
)
def test_incomplete(outcomes: tuple[ThreadResult, ...], kind: type[IncompleteError], number: int) -> None:
    """The error has its class, errno and hint, and its message names the threads and the reasons."""
    with pytest.raises(FlagError) as caught:
        process(*outcomes).require_complete()
    assert type(caught.value) is kind
    assert isinstance(caught.value, IncompleteError)
    assert caught.value.errno == number
    assert caught.value.hint
    assert len(caught.value.threads) == 1
    text = str(caught.value)
    assert f"1 of {len(outcomes)} threads of process 100" in text
    assert "(why)" in text
    assert caught.value.threads[0].outcome.value in text
    assert "\x1b" not in text


def test_memory_counts() -> None:
    """All threads have the state, but the memory could not be locked: that is not complete either."""
    for outcome in (ThreadResult.FAILED, ThreadResult.REFUSED, ThreadResult.PARTIAL):
        found = process(ThreadResult.DONE, memory=outcome)
        assert not found.complete
        with pytest.raises(IncompleteError) as caught:
            found.require_complete()
        assert str(caught.value) == f"memory of process 100: {outcome.value} (why not)"
        assert (caught.value.errno, caught.value.threads) == (EINVAL, ())


def test_the_hint_is_what_works_there() -> None:
    """A thread that must not be stopped says itself what to do instead."""
    unsafe = ThreadOutcome(
        100, "qemu-nbd", ThreadResult.UNSAFE, "why", reason=LeftOutReason.NBD_DO_IT, hint="start it anew"
    )
    with pytest.raises(IncompleteError) as caught:
        ProcessOutcome(100, True, (unsafe,), None, 0.1).require_complete()
    assert caught.value.hint == "start it anew"
