"""A run: virtual time, who waits for what, and the freezes of the lab's scenarios."""

from dataclasses import replace

import pytest

from ioflusher.model.build import build
from ioflusher.model.code import Code
from ioflusher.model.run import ModelError, RunOutcome, RunResult, run
from ioflusher.model.transitions import TransitionSystem, Variable
from ioflusher.scenario.file import builtin_scenarios, parse_scenario


def played(name: str, *, io_flusher: bool) -> RunResult:
    """A half of a packaged scenario on Linux 6.12."""
    scenario = parse_scenario(builtin_scenarios()[name])
    return run(build(scenario, io_flusher=io_flusher, version=(6, 12)))


def test_dirty_throttling_without_the_state() -> None:
    """Daemon and writer stand in balance_dirty_pages(); most of what is dirty is for the daemon to write."""
    result = played("ext4-on-nbd-throttled", io_flusher=False)
    assert result.outcome is RunOutcome.FROZEN
    stuck = {task.program: task.calls[0] for task in result.waiting if task.state == "D"}
    assert stuck["nbd-daemon"] == stuck["writer"] == "balance_dirty_pages"
    values = result.values
    assert values["nbd0_dirty"] + values["nbd0_writeback"] + values["vda_dirty"] >= (8 << 20) // (128 << 10)
    assert values["nbd0_writeback"] > 0


def test_dirty_throttling_with_the_state() -> None:
    """Everything is written: 96 MiB in requests of 128 KiB."""
    result = played("ext4-on-nbd-throttled", io_flusher=True)
    assert result.outcome is RunOutcome.DONE
    assert result.completed == {"nbd0": 768}
    assert result.values["to_write"] == result.values["nbd0_dirty"] == result.values["nbd0_writeback"] == 0


def test_the_same_seed_is_the_same_run() -> None:
    """Deterministic to the last step."""
    assert played("swap-on-nbd", io_flusher=False) == played("swap-on-nbd", io_flusher=False)


def two(first: Code, second: Code, *variables: Variable) -> TransitionSystem:
    return TransitionSystem(
        "two", variables, (first.program("first", 1, works=True), second.program("second", 2, works=True))
    )


def test_time_passes_and_wakes() -> None:
    """A task that waits goes on at the moment that another has done what it waits for."""
    given = Variable("given", 0, 1)
    giver, taker = Code(), Code()
    giver.step("works", {given: 1}, takes_ns=7)
    taker.wait(given > 0, "the other")
    taker.step("takes", {given: 0}, takes_ns=5)
    result = run(two(giver, taker, given), jitter=0)
    assert (result.outcome, result.at_ns, result.values) == (RunOutcome.DONE, 12, {"given": 0})


def test_a_time_out_comes_unless_it_went_on_before() -> None:
    """Of a wait with a time-out, what comes first."""
    given = Variable("given", 0, 1)
    for work_ns, end in ((3, "in time"), (30, "too late")):
        labels: list[str] = []
        giver, taker = Code(), Code()
        giver.step("works", {given: 1}, takes_ns=work_ns)
        with taker.choice() as ways:
            with ways.way("in time", {given: 0}, when=given > 0):
                pass
            with ways.way("too late", {given: 0}, after_ns=10):
                pass
        run(two(giver, taker, given), jitter=0, on_step=lambda happened: labels.append(happened.step.label))  # noqa: B023
        assert end in labels
        assert len(labels) == 2


def test_who_finds_it_gone_decides_again() -> None:
    """Both want the last of one kind, which takes a while; the second to come takes another kind."""
    first, second = Variable("last", 1, 1), Variable("other", 3, 3)
    tasks = []
    for _ in range(2):
        code = Code()
        with code.choice() as ways:
            with ways.way("of the one", {first: first - 1}, when=first > 0, takes_ns=7):
                pass
            with ways.way("of the other", {second: second - 1}, when=second > 0, takes_ns=7, weight=0):
                pass
        tasks.append(code)
    result = run(two(tasks[0], tasks[1], first, second), jitter=0)
    assert (result.at_ns, result.values) == (14, {"last": 0, "other": 2})


def test_who_waits_for_nobody_is_frozen() -> None:
    """Nothing can go on and somebody is not done."""
    given = Variable("given", 0, 1)
    one, other = Code(), Code()
    for code in (one, other):
        with code.call("mutex_lock"):
            code.wait(given > 0, "the other")
    result = run(two(one, other, given))
    assert result.outcome is RunOutcome.FROZEN
    assert [(task.pid, task.waits_for, task.calls) for task in result.waiting] == [
        (1, "the other", ("mutex_lock",)),
        (2, "the other", ("mutex_lock",)),
    ]


def test_a_model_in_which_time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the model is said, with the task that goes round."""
    monkeypatch.setattr("ioflusher.model.run._AT_ONCE", 1000)
    one, other = Code(), Code()
    count = Variable("count", 0, 1)
    with one.loop():
        one.step("round", {count: 0})
    other.step("done")
    with pytest.raises(ModelError, match="time stands still at 0 ns: first"):
        run(two(one, other, count))


@pytest.mark.parametrize("seed", range(4))
def test_swap_without_the_state(seed: int) -> None:
    """The daemon's send to the server outside reclaims memory by swapping to its own device, and stays."""
    scenario = parse_scenario(builtin_scenarios()["swap-on-nbd"])
    result = run(build(scenario, io_flusher=False, version=(6, 12)), seed=seed)
    assert result.outcome is RunOutcome.FROZEN
    daemon = next(task for task in result.waiting if task.program == "nbd-daemon")
    calls = list(daemon.calls)
    assert calls.index("nbd_queue_rq") < calls.index("swap_writepage") < calls.index("try_to_free_pages")
    assert calls.index("try_to_free_pages") < calls.index("tcp_sendmsg")
    assert result.values["clean"] > 0, "there was memory to be had without I/O"


def test_swap_with_the_state() -> None:
    """The daemon reclaims, too, but clean pages alone."""
    scenario = parse_scenario(builtin_scenarios()["swap-on-nbd"])
    system = build(scenario, io_flusher=True, version=(6, 12))
    daemon = next(number for number, each in enumerate(system.programs) if each.name == "nbd-daemon")
    done: set[str] = set()
    result = run(system, on_step=lambda one: done.add(one.step.label) if one.program == daemon else None)
    assert result.outcome is RunOutcome.DONE
    assert "a clean page is freed" in done
    assert "into the swap cache" not in done


@pytest.mark.parametrize(
    ("limit_mib", "outcome"), [(4, RunOutcome.FROZEN), (8, RunOutcome.FROZEN), (16, RunOutcome.DONE)]
)
def test_how_large_a_dirty_limit_freezes(limit_mib: int, outcome: RunOutcome) -> None:
    """A flusher takes 4 MiB at a time: what a larger limit leaves dirty has all flushers write.

    Then the daemon's own device has nothing dirty some time, and it is let go; measured on 6.12: 16 MiB
    was slow.
    """
    scenario = parse_scenario(builtin_scenarios()["ext4-on-nbd-throttled"])
    sysctl = {
        "vm.dirty_bytes": str(limit_mib << 20),
        "vm.dirty_background_bytes": str(limit_mib << 19),
    }
    scenario = replace(scenario, kernel=replace(scenario.kernel, sysctl=sysctl))
    without = run(build(scenario, io_flusher=False, version=(6, 12)))
    with_state = run(build(scenario, io_flusher=True, version=(6, 12)))
    assert without.outcome is outcome
    assert with_state.outcome is RunOutcome.DONE
    if outcome is RunOutcome.DONE:
        assert without.at_ns > 1.5 * with_state.at_ns


def test_a_workload_that_gives_up_ends_the_run() -> None:
    """Lost, with its error; nobody is taken by the OOM killer."""
    code = Code()
    code.step("writes", takes_ns=10)
    code.step("is refused", fails="EROFS")
    code.step("goes on", takes_ns=10)
    result = run(TransitionSystem("refused", (), (code.program("writer", 1, works=True),)), jitter=0)
    assert (result.outcome, result.failed, result.killed) == (RunOutcome.LOST, "EROFS", "")
    assert (result.at_ns, result.steps) == (10, 2)
