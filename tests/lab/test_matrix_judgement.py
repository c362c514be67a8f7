"""What a matrix's halves come to: rates with intervals, which hardening is sufficient, which necessary."""

import importlib.util
from dataclasses import replace

import pytest

from ioflusher.lab.errors import LabError
from ioflusher.lab.matrix.cells import Cell, plan_cells
from ioflusher.lab.matrix.judgement import STATE, Answer, ContextJudgement, Fate, cell_fate, judge
from ioflusher.lab.matrix.plan import MatrixPlan, parse_plan
from ioflusher.lab.matrix.tally import CellTally, HalfTally, Rate, check_statistics, tally
from ioflusher.lab.outcome import Half
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from tests.lab.halves import FINISHED, FROZEN, FROZEN_UNSEEN, LOST, OUT_OF_MEMORY, WRONG

pytest.importorskip("scipy", reason="needs scipy: make setup")

LIVED = replace(FINISHED, io_flusher=False)
FROZEN_WITH = replace(FROZEN, io_flusher=True)
SCENARIOS = {name: parse_scenario(text) for name, text in builtin_scenarios().items()}
YES, NO, NOT_SHOWN = Answer.YES, Answer.NO, Answer.NOT_SHOWN
LOCK = "hardening.lock_memory"
REALTIME = "hardening.realtime = 40"


def plan(axes: str, **more: str) -> MatrixPlan:
    """A plan with one scenario and these axes."""
    keys = "\n".join(f"{key} = {value}" for key, value in more.items())
    return parse_plan(f'name = "p"\nscenarios = ["ext4-on-nbd-throttled"]\n{keys}\n{axes}')


BOTH = plan('[axes]\n"hardening.lock_memory" = [false, true]\n"hardening.realtime" = [0, 40]\n')


def judged(of: MatrixPlan, *halves: tuple[Half, ...]) -> tuple[ContextJudgement, ...]:
    """The judgement on the plan's cells, in their order, with these halves."""
    cells = plan_cells(of, SCENARIOS)
    return judge(of, zip(cells, map(tally, halves), strict=True))


def answers(judgement: ContextJudgement) -> dict[str, tuple[Answer, Answer]]:
    """Hardening -> whether it is sufficient, whether it is necessary."""
    return {one.hardening: (one.sufficient.answer, one.necessary.answer) for one in judgement.verdicts}


def whys(judgement: ContextJudgement) -> dict[str, tuple[str, str]]:
    """The same with the reasons."""
    return {one.hardening: (one.sufficient.why, one.necessary.why) for one in judgement.verdicts}


def test_halves_are_counted() -> None:
    """Frozen means seen waiting for itself, lived means every byte right; all else is said in words."""
    counted = tally((FROZEN, FROZEN, LIVED, FROZEN_UNSEEN, FINISHED, WRONG, LOST, OUT_OF_MEMORY))
    without = counted.without
    assert (without.frozen, without.lived, without.other) == (Rate(2, 4), Rate(1, 4), Rate(1, 4))
    assert without.other_words == (("frozen, but not seen waiting for itself", 1),)
    assert (without.froze_after_s, without.lived_after_s) == ((3.1, 3.1), (10.1,))
    with_ = counted.with_
    assert (with_.frozen, with_.lived, with_.other) == (Rate(0, 4), Rate(1, 4), Rate(3, 4))
    assert dict(with_.other_words) == {"finished with wrong data": 1, "lost": 1, "out of memory": 1}
    assert (without.io_flusher, with_.io_flusher) == (False, True)
    assert counted.half(True) is with_
    assert counted.half(False) is without


@pytest.mark.parametrize(
    ("rate", "low", "high"),
    [
        # Clopper and Pearson 1934; for all of n the lower bound is (alpha/2)^(1/n)
        (Rate(10, 10), 0.025 ** (1 / 10), 1.0),
        (Rate(0, 3), 0.0, 1 - 0.025 ** (1 / 3)),
        (Rate(5, 10), 0.18709, 0.81291),
    ],
)
def test_intervals(rate: Rate, low: float, high: float) -> None:
    """Exact ones: never narrower than 95 %."""
    interval = rate.interval
    assert interval is not None
    assert interval == pytest.approx((low, high), abs=1e-5)


def test_intervals_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent where it is there; else what to install."""
    check_statistics()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LabError, match="not installed: scipy"):
        check_statistics()


def test_nothing_has_no_interval() -> None:
    """Unknown is not a number."""
    assert Rate(0, 0).interval is None


@pytest.mark.parametrize(
    ("halves", "fate"),
    [
        ((), Fate.UNKNOWN),
        ((LIVED, LIVED), Fate.LIVES),
        ((LIVED, FROZEN), Fate.FREEZES),
        ((LIVED, FROZEN_UNSEEN), Fate.OTHERWISE),
        ((FROZEN_UNSEEN, FROZEN), Fate.FREEZES),
    ],
)
def test_what_becomes_of_a_set(halves: tuple[Half, ...], fate: Fate) -> None:
    """One frozen run is enough for "freezes", all must have lived for "lives"."""
    assert cell_fate(HalfTally(False, halves)) is fate


def test_the_state_alone_is_both() -> None:
    """Locked memory and real time do nothing, the state lives in every company."""
    bare = (FROZEN, FINISHED)
    (judgement,) = judged(BOTH, bare, bare, bare, bare)
    assert judgement.name == "ext4-on-nbd-throttled"
    assert answers(judgement) == {STATE: (YES, YES), LOCK: (NO, NO), REALTIME: (NO, NO)}
    assert whys(judgement)[STATE] == ("lives with it alone, 1 of 1", "everything else freezes without it")
    assert whys(judgement)[LOCK] == (
        "freezes with it alone, 1 of 1",
        "lives without it, with the IO_FLUSHER state",
    )
    assert judgement.enough == (frozenset({STATE}),)


def test_two_that_are_enough_only_together() -> None:
    """Neither is sufficient, both are necessary."""
    frozen, lives = (FROZEN, FROZEN_WITH), (FROZEN, FINISHED)
    (judgement,) = judged(BOTH, frozen, frozen, lives, lives)
    assert answers(judgement) == {STATE: (NO, YES), LOCK: (NO, YES), REALTIME: (NO, NO)}
    assert judgement.enough == (frozenset({STATE, LOCK}),)
    assert (
        whys(judgement)[REALTIME][1]
        == "lives without it, with hardening.lock_memory and the IO_FLUSHER state"
    )


def test_one_frozen_run_of_many_is_not_sufficient() -> None:
    """And says how many froze."""
    flaky = (FROZEN, FINISHED, FINISHED, FROZEN_WITH)
    (judgement,) = judged(BOTH, flaky, (FROZEN, FINISHED), (FROZEN, FINISHED), (FROZEN, FINISHED))
    assert answers(judgement)[STATE] == (NO, YES)
    assert whys(judgement)[STATE][0] == "freezes with it alone, 1 of 3"


def test_cells_that_are_missing_show_nothing() -> None:
    """Not a guess: which cell is missing is said."""
    bare = (FROZEN, FINISHED)
    (judgement,) = judged(BOTH, bare, bare, bare, ())
    assert answers(judgement)[STATE] == (YES, NOT_SHOWN)
    assert whys(judgement)[STATE][1] == "hardening.lock_memory and hardening.realtime = 40 is not measured"
    (judgement,) = judged(BOTH, bare, (), bare, bare)
    assert whys(judgement)[REALTIME][0] == "it alone is not measured"
    (judgement,) = judged(BOTH, (), bare, bare, bare)
    assert set(answers(judgement).values()) == {(NOT_SHOWN, NO), (NOT_SHOWN, NOT_SHOWN)}
    assert whys(judgement)[STATE][0] == "no hardening is not measured"


def test_a_third_way_shows_nothing() -> None:
    """A half that was lost neither froze nor lived."""
    lost = (replace(LOST, io_flusher=False), FINISHED)
    bare = (FROZEN, FINISHED)
    (judgement,) = judged(BOTH, bare, bare, lost, bare)
    assert answers(judgement)[LOCK] == (NOT_SHOWN, NO)
    assert whys(judgement)[LOCK][0] == "with it alone: lost 1 of 1"
    assert answers(judgement)[STATE] == (YES, NOT_SHOWN)
    assert whys(judgement)[STATE][1] == "hardening.lock_memory is unclear"
    (judgement,) = judged(BOTH, lost, bare, bare, bare)
    assert whys(judgement)[STATE][0] == "no hardening neither freezes nor lives"


def test_where_nothing_freezes_nothing_is_needed() -> None:
    """Living without any hardening is no merit of one."""
    lived = (LIVED, FINISHED)
    (judgement,) = judged(BOTH, lived, lived, lived, lived)
    assert set(answers(judgement).values()) == {(NOT_SHOWN, NO)}
    assert whys(judgement)[STATE] == (
        "it lives without any hardening",
        "lives without it, with no hardening",
    )
    assert judgement.enough == (frozenset(),)


def test_where_nothing_lives_nothing_is_necessary() -> None:
    """That it freezes without is no proof where it freezes with, too."""
    frozen = (FROZEN, FROZEN_WITH)
    (judgement,) = judged(BOTH, frozen, frozen, frozen, frozen)
    assert set(answers(judgement).values()) == {(NO, NOT_SHOWN)}
    assert whys(judgement)[STATE][1] == "nothing lives with it, either"
    assert judgement.enough == ()


def test_variants_are_taken_apart_into_their_keys() -> None:
    """A variant of two keys has both of them: whether one of the two alone is enough is not shown."""
    of = plan(
        "[variants.hardening]\nnone = {}\n"
        "both = { hardening.lock_memory = true, hardening.realtime = 40 }\n"
        "lock = { hardening.lock_memory = true }\n"
    )
    assert of.hardening == ("hardening",)
    frozen = (FROZEN, FROZEN_WITH)
    (judgement,) = judged(of, frozen, (LIVED, FINISHED), frozen)
    assert judgement.enough == (frozenset({LOCK, REALTIME}),)
    assert answers(judgement) == {STATE: (NO, NO), LOCK: (NO, NOT_SHOWN), REALTIME: (NOT_SHOWN, YES)}
    assert whys(judgement)[LOCK] == (
        "freezes with it alone, 1 of 1",
        "everything else together is not measured",
    )


def test_a_context_for_each_value_of_the_other_axes() -> None:
    """Kernels do not harden: each is judged by itself."""
    of = plan('[axes]\nkernel = ["6.1", "6.12"]\n"hardening.lock_memory" = [false, true]\n')
    bare, lived = (FROZEN, FINISHED), (LIVED, FINISHED)
    first, second = judged(of, bare, bare, lived, lived)
    assert (first.name, second.name) == (
        "ext4-on-nbd-throttled, kernel 6.1",
        "ext4-on-nbd-throttled, kernel 6.12",
    )
    assert answers(first)[STATE] == (YES, YES)
    assert answers(second)[STATE] == (NOT_SHOWN, NO)


def test_the_state_on_some_threads_is_a_hardening_of_its_own() -> None:
    """In the half with it; the other half is the bare one, whichever threads would have had it."""
    of = plan('[axes]\n"hardening.state" = ["all", "first-thread"]\n')
    (judgement,) = judged(of, (FROZEN, FINISHED), (FROZEN, FROZEN_WITH))
    assert answers(judgement) == {STATE: (YES, YES), f"{STATE} on first-thread": (NO, NO)}


def test_the_state_on_one_of_two_daemons_is_a_hardening_of_its_own() -> None:
    """As on some threads."""
    of = parse_plan(
        'name = "p"\nscenarios = ["ext4-on-stacked-throttled"]\n'
        '[axes]\n"hardening.daemon" = ["both", "upper"]\n'
    )
    (judgement,) = judged(of, (FROZEN, FINISHED), (FROZEN, FROZEN_WITH))
    assert answers(judgement) == {STATE: (YES, YES), f"{STATE} on the upper daemon": (NO, NO)}


def test_a_hardenings_value_is_as_the_plan_has_it() -> None:
    """A size with its unit, not in bytes."""
    of = plan('[axes]\n"hardening.reserve" = [0, "64M"]\n')
    (judgement,) = judged(of, (FROZEN, FINISHED), (FROZEN, FINISHED))
    assert "hardening.reserve = 64M" in answers(judgement)


def test_one_half_alone_says_nothing_of_the_state() -> None:
    """With `only`, the state is the same in all cells, and no hardening that varies."""
    of = plan('[axes]\n"hardening.lock_memory" = [false, true]\n', only='"without"')
    (judgement,) = judged(of, (FROZEN,), (LIVED,))
    assert answers(judgement) == {LOCK: (YES, YES)}
    of = plan('[axes]\n"hardening.lock_memory" = [false, true]\n', only='"with"')
    (judgement,) = judged(of, (FROZEN_WITH,), (FINISHED,))
    assert answers(judgement) == {LOCK: (YES, YES)}


def test_without_the_bare_cell_there_is_nothing_to_compare() -> None:
    """It may be one that fits no scenario."""
    of = plan('[axes]\n"hardening.lock_memory" = [3, true]\n')
    cells: tuple[Cell, ...] = plan_cells(of, SCENARIOS)
    assert cells[0].scenario is None
    empty: CellTally = tally(())
    (judgement,) = judge(of, [(cells[0], empty), (cells[1], tally((FROZEN, FINISHED)))])
    assert (judgement.verdicts, judgement.enough) == ((), ())


def test_where_nothing_is_measured_nothing_is_said() -> None:
    """Not a page of "not shown"."""
    (judgement,) = judged(BOTH, (), (), (), ())
    assert (judgement.verdicts, judgement.enough) == ((), ())
