"""The age of the oldest request: never too much, and exact for a device that stands still."""

from hypothesis import given
from hypothesis import strategies as st

from ioflusher.watch.request_age import RequestAge


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
