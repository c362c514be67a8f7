"""What each condition of a reduction is for: a system in which it would be wrong without."""

from ioflusher.model.explore import NO_REDUCTIONS, Verdict, explore
from ioflusher.model.transitions import Program, Step, TransitionSystem, Variable, number


def test_who_goes_round_by_itself_puts_nobody_off() -> None:
    """A circle of local steps is not followed alone: the other task gets done."""
    own = Variable("own", 0, 1)
    spins = Program(
        "spins", 1, 0, (Step(0, 1, changes=((own, number(1)),)), Step(1, 0, changes=((own, number(0)),)))
    )
    works = Program("works", 2, 0, (Step(0, 1),), frozenset((1,)), True)
    found = explore(TransitionSystem("round", (own,), (spins, works)))
    assert found.verdict is Verdict.NO_FREEZE


def test_steps_that_others_see_are_not_made_one() -> None:
    """Between two steps another task sees what is so for that moment alone."""
    shown, bad = Variable("shown", 0, 1), Variable("bad", 0, 1)
    steps = (
        Step(0, 1, changes=((shown, number(1)),)),
        Step(1, 2, changes=((shown, number(0)),)),
        Step(2, 3, when=bad.is_(0)),
    )
    shows = Program("shows", 1, 0, steps, frozenset((3,)), True)
    sees = Program("sees", 2, 0, (Step(0, 1, when=shown.is_(1), changes=((bad, number(1)),)),))
    found = explore(TransitionSystem("seen", (shown, bad), (shows, sees)))
    assert found.verdict is Verdict.FREEZE


def test_a_step_away_from_a_rest_is_not_alone() -> None:
    """The system is done while the one rests and the other gets there: only leaving dooms it."""
    leaves = Program("leaves", 1, 0, (Step(0, 1),), frozenset((0,)), True)
    comes = Program("comes", 2, 0, (Step(0, 1),), frozenset((1,)), True)
    found = explore(TransitionSystem("rest", (), (leaves, comes)))
    assert found.freeze is not None
    assert found.freeze.doomed_after == 2  # the other came first


def test_what_gets_done_by_a_long_way_back_is_not_doomed() -> None:
    """Each of a hundred states gets done through the one before it."""
    place = Variable("place", 0, 100)
    steps = (
        *(Step(0, 1, changes=((place, number(each)),)) for each in range(1, 101)),
        Step(1, 1, when=place > 0, changes=((place, place - 1),)),
        Step(1, 2, when=place.is_(0)),
    )
    works = Program("works", 1, 0, steps, frozenset((2,)), True)
    found = explore(TransitionSystem("back", (place,), (works,)), reductions=NO_REDUCTIONS)
    assert (found.verdict, found.states) == (Verdict.NO_FREEZE, 103)
