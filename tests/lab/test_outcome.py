"""The judgement on halves, runs and experiments: every outcome with the reason for its verdict."""

from dataclasses import fields, replace

import pytest

from ioflusher.lab.outcome import (
    LARGEST_CONSOLE_BYTES,
    PROMISED,
    Ending,
    Expectation,
    Experiment,
    Half,
    HalfOutcome,
    OneHalf,
    Plan,
    Run,
    bounded_console,
    expectation_of,
)
from ioflusher.scenario.records import ExpectedTable
from tests.lab.halves import (
    BY_NAME,
    FINISHED,
    FROZEN,
    FROZEN_UNSEEN,
    LOST,
    OUT_OF_MEMORY,
    PANICKED,
    PROVED,
    STACK_IDLE,
    STACK_IN_RECLAIM,
    WRONG,
    experiment,
    plan,
    thread,
)

LIVED_WITHOUT = replace(FINISHED, io_flusher=False)
FROZE_WITH = replace(FROZEN, io_flusher=True)
NOTHING_FREEZES = Expectation(HalfOutcome.FINISHED, HalfOutcome.FINISHED, "XFS no longer waits.")


def test_a_thread_waits_for_itself_by_its_stack() -> None:
    """Reclaim in its own allocation is a wait for itself; an idle wait is none, no stack says nothing."""
    waiting = thread(STACK_IN_RECLAIM, io_flusher=False)
    assert waiting.self_wait
    assert waiting.explanation is not None
    assert "tcp_sendmsg() allocated memory" in waiting.explanation.sentence
    assert not thread(STACK_IDLE, io_flusher=False).self_wait
    assert not thread("", io_flusher=False).self_wait


@pytest.mark.parametrize("name", BY_NAME)
def test_what_became_of_a_half(name: str) -> None:
    """Only finished with everything right has lived; only frozen with a witness froze by itself."""
    half = BY_NAME[name]
    assert half.lived is (name == "finished")
    assert half.froze_by_itself is (name == "frozen")
    assert (half.witness is not None) is (name == "frozen")


def test_the_witness_is_the_thread_that_waits_for_itself() -> None:
    """Not the first thread, but the one whose stack says so."""
    assert FROZEN.witness is not None
    assert FROZEN.witness.tid == 169


def test_finished_without_a_count_of_chunks_has_not_lived() -> None:
    """What was not compared was not proved right."""
    assert not replace(FINISHED, wrong_chunks=None).lived


def test_a_witness_alone_is_no_freeze() -> None:
    """A thread that waits for itself for a moment does not make a finished half frozen."""
    assert not replace(LIVED_WITHOUT, threads=FROZEN.threads).froze_by_itself


@pytest.mark.parametrize(
    ("without", "with_", "because"),
    [
        (FROZEN_UNSEEN, FINISHED, "nobody was seen waiting for itself"),
        (LIVED_WITHOUT, FINISHED, "nothing froze"),
        (replace(LOST, io_flusher=False, threads=FROZEN.threads), FINISHED, "lost is not frozen"),
        (replace(PANICKED, io_flusher=False), FINISHED, "panicked is not frozen"),
        (FROZEN, WRONG, "data came back wrong"),
        (FROZEN, OUT_OF_MEMORY, "the work was killed"),
        (FROZEN, PANICKED, "the kernel panicked with the state"),
        (FROZEN, LOST, "nothing is known of the half with the state"),
        (FROZEN, FROZE_WITH, "it froze with the state, too"),
        (FROZEN, None, "half of a pair"),
        (None, FINISHED, "half of a pair"),
    ],
)
def test_what_proves_nothing(without: Half | None, with_: Half | None, because: str) -> None:
    """Every way in which a pair falls short."""
    assert not Run(without, with_).proved, because
    assert not experiment(Run(without, with_)).as_expected, because


def test_what_proves_it() -> None:
    """Frozen in its own wait without, all work done and right with."""
    assert PROVED.proved
    assert PROVED.halves == (FROZEN, FINISHED)
    assert experiment(PROVED).as_expected


@pytest.mark.parametrize(
    ("only", "run", "expected"),
    [
        ("without", Run(FROZEN, None), True),
        ("without", Run(FROZEN_UNSEEN, None), False),
        ("without", Run(LIVED_WITHOUT, None), False),
        ("without", Run(None, None), False),
        ("without", Run(replace(LIVED_WITHOUT, threads=FROZEN.threads), None), False),
        ("with", Run(None, FINISHED), True),
        ("with", Run(None, WRONG), False),
        ("with", Run(None, FROZE_WITH), False),
        ("with", Run(None, None), False),
        (None, PROVED, True),
        (None, Run(FROZEN, None), False),
    ],
)
def test_as_expected(only: OneHalf | None, run: Run, expected: bool) -> None:
    """One half alone is as expected by itself, a pair by its contrast."""
    assert run.as_expected(only) is expected
    assert experiment(run, only=only).as_expected is expected


def test_every_run_counts() -> None:
    """One run of ten that shows nothing is enough to be not as expected; so is none at all."""
    assert experiment(PROVED, PROVED).as_expected
    assert not experiment(PROVED, Run(LIVED_WITHOUT, FINISHED)).as_expected
    assert not experiment(Run(LIVED_WITHOUT, FINISHED), PROVED).as_expected
    assert not Experiment(plan(runs=0), ()).as_expected


@pytest.mark.parametrize("ending", [ending for ending in Ending if ending is not Ending.COMPLETE])
def test_an_experiment_that_ended_early_is_not_as_expected(ending: Ending) -> None:
    """Even where every run that it came to was; nor is one of which runs are missing."""
    assert not Experiment(plan(runs=2), (PROVED,), ending=ending).as_expected
    assert not Experiment(plan(runs=1), (PROVED,), ending=ending).as_expected
    assert not Experiment(plan(runs=2), (PROVED,)).as_expected


def test_whole_runs() -> None:
    """A run is whole when the halves that were asked for were played."""
    assert PROVED.whole(None)
    assert not Run(FROZEN, None).whole(None)
    assert not Run(None, FINISHED).whole(None)
    assert Run(FROZEN, None).whole("without")
    assert not Run(FROZEN, None).whole("with")
    assert Run(None, FINISHED).whole("with")
    assert not Run(None, FINISHED).whole("without")


def test_a_half_finds_its_place() -> None:
    """By whether it has the state; what is known of the run stays."""
    run = replace(PROVED, without=None, with_=None)
    assert run.with_half(FROZEN).with_half(FINISHED) == PROVED
    assert run.with_half(FINISHED).without is None


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        ((PROVED,), "the same work was done."),
        ((PROVED, PROVED, Run(LIVED_WITHOUT, FINISHED)), "the same work was done in 2 of 3 runs."),
        ((Run(LIVED_WITHOUT, FINISHED),), "this scenario shows no difference on this kernel."),
        (
            (Run(LIVED_WITHOUT, FINISHED), Run(LIVED_WITHOUT, WRONG)),
            "finished without, finished with; finished without, finished with wrong data with.",
        ),
        (
            (Run(FROZEN_UNSEEN, FINISHED),),
            "no clean contrast: frozen, but not seen waiting for itself without, finished with.",
        ),
        ((Run(FROZEN, WRONG),), "no clean contrast: frozen without, finished with wrong data with."),
        ((Run(LIVED_WITHOUT, WRONG),), "no clean contrast: finished without, finished with wrong data with."),
        ((Run(FROZEN, OUT_OF_MEMORY),), "no clean contrast: frozen without, out of memory with."),
        (
            (Run(FROZEN, PANICKED), Run(FROZEN, LOST)),
            "no clean contrast: frozen without, lost with; frozen without, panicked with.",
        ),
        ((Run(FROZEN, None),), "Only one half was run, so there is nothing to compare."),
        ((), "No run came to its end, so there is nothing to judge."),
    ],
)
def test_the_verdict_says_no_more_than_was_seen(runs: tuple[Run, ...], verdict: str) -> None:
    """Each sentence, and that only a proof is called one."""
    found = experiment(*runs).verdict
    assert found.endswith(verdict)
    assert found.startswith("Without the IO_FLUSHER state the daemon waited") is any(r.proved for r in runs)


SINCE_5_9 = ExpectedTable(since="5.9", without_state="finished", why="XFS no longer waits.")


@pytest.mark.parametrize(
    ("tables", "release", "expected"),
    [
        ((), "5.8.0-63-generic", PROMISED),
        ((SINCE_5_9,), "5.8.0-63-generic", PROMISED),
        ((SINCE_5_9,), "5.9.0", NOTHING_FREEZES),
        # as numbers: 5.10 is later than 5.9
        ((SINCE_5_9,), "5.10.0-46-cloud-amd64", NOTHING_FREEZES),
        ((SINCE_5_9,), "7.3.4+deb13-cloud-amd64", NOTHING_FREEZES),
        ((replace(SINCE_5_9, before="6.1"),), "6.0.9", NOTHING_FREEZES),
        ((replace(SINCE_5_9, before="6.1"),), "6.1.0-57-cloud-amd64", PROMISED),
        ((SINCE_5_9,), "of no number", PROMISED),
        (
            (SINCE_5_9, ExpectedTable(since="6.1", with_state="frozen", why="It takes more.")),
            "6.1.0",
            Expectation(HalfOutcome.FROZEN, HalfOutcome.FROZEN, "It takes more."),
        ),
    ],
)
def test_what_is_expected_of_a_kernel(
    tables: tuple[ExpectedTable, ...], release: str, expected: Expectation
) -> None:
    """The last table that is said of the kernel; of all others, what the state promises."""
    scenario = replace(plan().definition, expected=tables)
    assert expectation_of(scenario, release) == expected
    assert replace(plan(), definition=scenario, kernel=release).expected == expected


@pytest.mark.parametrize(
    ("run", "only", "as_expected"),
    [
        (Run(LIVED_WITHOUT, FINISHED), None, True),
        (Run(replace(WRONG, io_flusher=False), FINISHED), None, False),
        (Run(LIVED_WITHOUT, WRONG), None, False),
        (Run(LIVED_WITHOUT, OUT_OF_MEMORY), None, False),
        (PROVED, None, False),
        (Run(LIVED_WITHOUT, None), "without", True),
        (Run(FROZEN, None), "without", False),
        (Run(None, FINISHED), "with", True),
        (Run(None, WRONG), "with", False),
    ],
)
def test_as_expected_of_a_kernel_on_which_nothing_freezes(
    run: Run, only: OneHalf | None, as_expected: bool
) -> None:
    """Both must have finished with everything right; a freeze is not as expected there."""
    assert run.as_expected(only, NOTHING_FREEZES) is as_expected
    played = experiment(run, only=only)
    on_it = replace(played.plan, definition=replace(played.plan.definition, expected=(SINCE_5_9,)))
    assert replace(played, plan=on_it).as_expected is as_expected
    on_an_older_one = replace(on_it, kernel="5.8.0-63-generic")
    assert replace(played, plan=on_an_older_one).as_expected is run.as_expected(only)


@pytest.mark.parametrize("outcome", HalfOutcome)
def test_a_half_came_out_as_one_outcome_alone(outcome: HalfOutcome) -> None:
    """The one that it had; frozen without a witness is not the freeze that is expected."""
    half = BY_NAME[outcome.value.replace(" ", "-")]
    assert [other for other in HalfOutcome if half.came_out_as(other)] == [outcome]
    assert not FROZEN_UNSEEN.came_out_as(HalfOutcome.FROZEN)
    assert not WRONG.came_out_as(HalfOutcome.FINISHED)


def test_the_verdict_says_why_nothing_froze() -> None:
    """With the reason where it came out so, and with what was expected where it did not."""
    definition = replace(plan().definition, expected=(SINCE_5_9,))

    def verdict(*runs: Run) -> str:
        played = experiment(*runs)
        return replace(played, plan=replace(played.plan, definition=definition)).verdict

    assert verdict(Run(LIVED_WITHOUT, FINISHED)) == (
        "Both halves finished the work: this scenario shows no difference on this kernel. "
        "That is what this scenario expects of this kernel: XFS no longer waits."
    )
    assert verdict(PROVED).endswith(
        "the same work was done. This scenario expects of this kernel finished without, finished with: "
        "XFS no longer waits."
    )
    assert verdict(Run(LIVED_WITHOUT, FINISHED), PROVED).endswith(
        "in 1 of 2 runs. This scenario expects of this kernel finished without, finished with: "
        "XFS no longer waits."
    )


def test_outcomes_are_told_apart() -> None:
    """No two halves of different fate have the same words."""
    assert len({outcome.value for outcome in HalfOutcome}) == len(HalfOutcome)


def test_a_long_console_keeps_its_end() -> None:
    """The end has the panic; what is left out is said; bytes that are no UTF-8 are escaped."""
    assert bounded_console(b"short \xff\n") == "short \\xff\n"
    text = bounded_console(b"early" + b"x" * LARGEST_CONSOLE_BYTES + b"Kernel panic")
    assert text.endswith("Kernel panic")
    assert text.startswith("[17 bytes before this are left out]\n")
    assert "early" not in text


def test_what_is_not_said_of_a_half() -> None:
    """A half of which nothing was measured claims nothing; an experiment is one run by default."""
    bare = Half(False, HalfOutcome.LOST, "", 0.0, 0.0)
    assert (bare.when_s, bare.completed, bare.in_flight) == (0.0, 0, 0)
    assert (bare.verified_bytes, bare.wrong_chunks) == (None, None)
    assert {field.name: field.default for field in fields(Plan)}["runs"] == 1


def test_how_much_of_a_console_is_kept() -> None:
    """A quarter of a mebibyte, as docs/lab.md says."""
    assert LARGEST_CONSOLE_BYTES == 262144
