"""What a stall is, and the age of the oldest request: never too much, exact where nothing moves."""

from hypothesis import given
from hypothesis import strategies as st

from ioflusher.kernel.stall import STALLED_S, RequestAge, SelfWait, stall


def test_a_stall_takes_an_old_request_and_a_daemon_that_waits_for_itself() -> None:
    """Either alone is none; nor is what nobody can tell."""
    assert stall(STALLED_S, [None, SelfWait.RECLAIM]) is SelfWait.RECLAIM
    assert stall(STALLED_S - 0.01, [SelfWait.RECLAIM]) is None
    assert stall(99.0, [None, None]) is None
    assert stall(99.0, []) is None
    assert stall(None, [SelfWait.RECLAIM]) is None
    assert stall(2.0, [SelfWait.RECLAIM], stalled_s=2.0) is SelfWait.RECLAIM


def test_of_several_waits_the_plainest_is_told() -> None:
    """What ends a pause for dirty pages is known best; a page may be locked for many reasons."""
    every = [SelfWait.PAGE_LOCK, SelfWait.RECLAIM, SelfWait.DIRTY_THROTTLING]
    assert stall(9.0, every) is SelfWait.DIRTY_THROTTLING
    assert stall(9.0, every[:2]) is SelfWait.RECLAIM
    assert stall(9.0, every[:1]) is SelfWait.PAGE_LOCK


def test_a_device_that_stands_still() -> None:
    """The age grows from the first look that found requests in flight."""
    age = RequestAge()
    assert age.look(10.0, 100, 3) == 0.0
    assert age.look(11.0, 100, 3) == 1.0
    assert age.look(12.0, 100, 5) == 2.0


def test_completions_of_all_that_were_there() -> None:
    """Three completed: those of the first look may be gone, so the second look has the age."""
    age = RequestAge()
    age.look(10.0, 100, 3)
    age.look(11.0, 100, 5)
    assert age.look(12.0, 103, 4) == 1.0
    assert age.look(13.0, 105, 0) == 0.0


def test_a_device_that_is_set_up_anew() -> None:
    """Its counter begins again, and so does the age."""
    age = RequestAge()
    age.look(10.0, 100, 3)
    assert age.look(20.0, 2, 1) == 0.0


def test_a_long_freeze() -> None:
    """Ten thousand looks keep the age and no more than a few numbers."""
    age = RequestAge()
    seen = [age.look(float(second), 5, 1) for second in range(10_000)]
    assert seen[-1] == 9_999.0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60))
def test_it_never_says_too_much(steps: list[tuple[bool, int]]) -> None:
    """Against a queue whose requests complete in any order: a lower bound at each look."""
    age = RequestAge()
    waiting: list[int] = []
    completed = 0
    for now, (issue, which) in enumerate(steps):
        if issue:
            waiting.append(now)
        elif waiting:
            del waiting[which % len(waiting)]
            completed += 1
        oldest = now - min(waiting) if waiting else 0
        assert age.look(float(now), completed, len(waiting)) <= oldest
