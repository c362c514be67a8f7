"""The loop over the runs: what is planned, in which order it is played, what is kept, and how it ends."""

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ioflusher.errors import IoflusherError
from ioflusher.lab import repeat
from ioflusher.lab.errors import Cancelled, MachineLost
from ioflusher.lab.messages import Sampled
from ioflusher.lab.outcome import Ending, Experiment, Half, Run
from ioflusher.lab.qemu import Accelerator
from ioflusher.lab.repeat import RunKeeper, plan_runs, play_runs
from ioflusher.lab.session import Lab
from ioflusher.lab.store import ExperimentStore, StoreError
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from tests.lab.halves import FINISHED, FROZEN

SCENARIO = parse_scenario(builtin_scenarios()["swap-on-nbd"])
EMULATED = cast(Lab, SimpleNamespace(kernel=SimpleNamespace(release="6.12.117"), accelerator=Accelerator.TCG))


@dataclass
class NotedStore:
    """A store that remembers what it was asked for; `failing` names the methods that fail."""

    failing: tuple[str, ...] = ()
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def _ask(self, name: str, *arguments: Any) -> None:
        self.asked.append((name, *arguments))
        if name in self.failing:
            raise StoreError(f"cannot {name}")

    def begin(self, plan: Any) -> int:
        self._ask("begin", plan)
        return 0  # also a number: that it is not true must not matter

    def keep(self, experiment: int, number: int, run: Run) -> None:
        self._ask("keep", experiment, number, run)

    def end(self, experiment: int, ending: Ending, error: str | None = None) -> None:
        self._ask("end", experiment, ending, error)


@dataclass
class Played:
    """What came of play_runs: the experiment, the store, its errors, and all that was shown."""

    experiment: Experiment
    store: NotedStore
    keeper: RunKeeper
    errors: list[str]
    shown: list[tuple[int, Half]]
    boots: list[bool]
    reports: list[tuple[int, bool, int]]


def played(
    monkeypatch: pytest.MonkeyPatch,
    halves: Iterable[Half | BaseException],
    *,
    only: Any = None,
    runs: int = 2,
    failing: tuple[str, ...] = (),
) -> Played:
    """Play these halves, each of which must be the half that is asked for; the load grows by 1 a look."""
    rest = list(halves)
    boots: list[bool] = []
    reports: list[tuple[int, bool, int]] = []
    loads = iter(range(1, 100))

    def run_half(lab: Any, scenario: Any, *, io_flusher: bool, on_report: Any, on_machine: Any) -> Half:
        assert (lab, scenario) == (EMULATED, SCENARIO)
        assert threading.current_thread() is not threading.main_thread()
        on_report(io_flusher, Sampled(completed=len(boots), in_flight=0, memory_kib={}))
        boots.append(io_flusher)
        half = rest.pop(0)
        if isinstance(half, BaseException):
            raise half
        assert half.io_flusher is io_flusher
        return half

    monkeypatch.setattr(repeat, "run_half", run_half)
    monkeypatch.setattr(os, "getloadavg", lambda: (float(next(loads)), 100.0, 200.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    store = NotedStore(failing)
    errors: list[str] = []
    shown: list[tuple[int, Half]] = []
    keeper = RunKeeper(cast(ExperimentStore, store), lambda error: errors.append(str(error)))
    experiment = play_runs(
        EMULATED,
        plan_runs(EMULATED, SCENARIO, only=only, runs=runs),
        keeper=keeper,
        on_half=lambda number, half: shown.append((number, half)),
        on_report=lambda number: (
            lambda io_flusher, report: reports.append((number, io_flusher, cast(Sampled, report).completed))
        ),
    )
    assert not rest
    return Played(experiment, store, keeper, errors, shown, boots, reports)


def test_the_plan_names_all_that_a_reader_needs() -> None:
    """The scenario's story, the kernel, and the machine in words; one run of both halves by default."""
    plan = plan_runs(EMULATED, SCENARIO)
    assert (plan.scenario, plan.title) == ("swap-on-nbd", "swap on a network block device")
    assert (plan.served, plan.pressed) == (SCENARIO.served, SCENARIO.pressed)
    assert plan.definition is SCENARIO
    assert (plan.kernel, plan.accelerator, plan.machine) == ("6.12.117", "emulated", "400 MiB, 1 CPU")
    assert (plan.only, plan.runs) == (None, 1)
    kvm = cast(Lab, SimpleNamespace(kernel=EMULATED.kernel, accelerator=Accelerator.KVM))
    assert plan_runs(kvm, SCENARIO).accelerator == "KVM"


def test_two_runs_are_kept_half_by_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without first; each half is kept under its run's number before the next boots, with the load so far."""
    before = time.time()
    found = played(monkeypatch, [FROZEN, FINISHED, FROZEN, FINISHED])
    assert found.boots == [False, True] * 2
    assert found.reports == [(1, False, 0), (1, True, 1), (2, False, 2), (2, True, 3)]
    assert found.shown == [(1, FROZEN), (1, FINISHED), (2, FROZEN), (2, FINISHED)]
    experiment = found.experiment
    assert (experiment.ending, experiment.error, experiment.unfinished) == (Ending.COMPLETE, None, None)
    assert [(run.without, run.with_) for run in experiment.runs] == [(FROZEN, FINISHED)] * 2
    # the load is looked at when a run begins and after each of its halves
    hosts = [(run.host.cpus, run.host.before, run.host.after) for run in experiment.runs if run.host]
    assert hosts == [(2, 1.0, 3.0), (2, 4.0, 6.0)]
    assert all(before <= (run.began_at or 0) <= time.time() for run in experiment.runs)
    names = [asked[0] for asked in found.store.asked]
    assert names == ["begin", "keep", "keep", "keep", "keep", "end"]
    assert found.store.asked[0] == ("begin", experiment.plan)
    kept = [(asked[1], asked[2], asked[3].with_ is not None) for asked in found.store.asked[1:5]]
    assert kept == [(0, 1, False), (0, 1, True), (0, 2, False), (0, 2, True)]
    assert found.store.asked[1][3].host.after == 2.0
    assert found.store.asked[4][3] == experiment.runs[1]
    assert found.store.asked[5] == ("end", 0, Ending.COMPLETE, None)
    assert (found.keeper.experiment, found.errors) == (0, [])


@pytest.mark.parametrize(("only", "half"), [("without", FROZEN), ("with", FINISHED)])
def test_one_half_of_each_run(monkeypatch: pytest.MonkeyPatch, only: str, half: Half) -> None:
    """Only machines of that half are booted, and the run is whole with it."""
    found = played(monkeypatch, [half, half], only=only)
    assert found.boots == [half.io_flusher] * 2
    assert [run.halves for run in found.experiment.runs] == [(half,)] * 2
    assert found.experiment.plan.only == only


@pytest.mark.parametrize(
    ("error", "ending", "said"),
    [
        (KeyboardInterrupt(), Ending.INTERRUPTED, None),
        (MachineLost("it said nothing", hint="try tcg"), Ending.FAILED, "it said nothing (try tcg)"),
        (IoflusherError("it said nothing"), Ending.FAILED, "it said nothing"),
    ],
)
def test_an_experiment_that_ends_early(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, ending: Ending, said: str | None
) -> None:
    """What was measured is there, the half run apart and kept under the next number, with the reason."""
    found = played(monkeypatch, [FROZEN, FINISHED, FROZEN, error], runs=10)
    experiment = found.experiment
    assert (experiment.ending, experiment.error) == (ending, said)
    assert [run.halves for run in experiment.runs] == [(FROZEN, FINISHED)]
    assert experiment.unfinished is not None
    assert experiment.unfinished.halves == (FROZEN,)
    assert found.store.asked[-2] == ("keep", 0, 2, experiment.unfinished)
    assert found.store.asked[-1] == ("end", 0, ending, said)
    nothing = played(monkeypatch, [error])
    assert (nothing.experiment.runs, nothing.experiment.unfinished) == ((), None)
    assert (nothing.store.asked, nothing.keeper.experiment) == ([], None)
    between = played(monkeypatch, [FROZEN, FINISHED, error])
    assert (len(between.experiment.runs), between.experiment.unfinished) == (1, None)


def test_errors_of_the_program_itself_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no ending of an experiment."""
    with pytest.raises(ZeroDivisionError):
        played(monkeypatch, [ZeroDivisionError()])


@pytest.mark.parametrize(
    ("failing", "errors", "number"),
    [
        (("begin",), ["cannot begin"] * 2, None),
        (("keep",), ["cannot keep"] * 2, None),
        (("end",), ["cannot end"], 0),
    ],
)
def test_a_store_that_fails(
    monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...], errors: list[str], number: int | None
) -> None:
    """Each loss is said, the experiment goes on, and a number is named only where something is under it."""
    found = played(monkeypatch, [FROZEN, FINISHED], runs=1, failing=failing)
    assert found.experiment.as_expected
    assert found.errors == errors
    assert found.keeper.experiment == number


def test_without_a_store() -> None:
    """Nothing is kept, and nothing is said of it."""
    keeper = RunKeeper(None, lambda error: pytest.fail(str(error)))
    keeper.keep(plan_runs(EMULATED, SCENARIO), 1, Run(FROZEN, None))
    keeper.end(Ending.COMPLETE, None)
    assert keeper.experiment is None


def test_a_machine_that_does_not_know_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has one at least."""
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    host = repeat._host_load()
    assert host.cpus == 1
    assert host.before == host.after


def test_by_default_nothing_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A caller that only wants the experiment, with the real store."""
    monkeypatch.setattr(repeat, "run_half", lambda *_, **__: replace(FROZEN))
    store = ExperimentStore(tmp_path / "lab.sqlite")
    keeper = RunKeeper(store, lambda error: pytest.fail(str(error)))
    plan = plan_runs(EMULATED, SCENARIO, only="without")
    experiment = play_runs(EMULATED, plan, keeper=keeper)
    assert keeper.experiment is not None
    assert store.load(keeper.experiment) == experiment


# both halves at once


class Machine:
    """A machine that says nothing until it is ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def cancel(self) -> None:
        """End it."""
        self.ended.set()

    def wait(self) -> Half:
        """As `run_half` waits for a report."""
        assert self.ended.wait(timeout=10), "nobody ended it"
        raise Cancelled("ended")


def at_once(
    monkeypatch: pytest.MonkeyPatch,
    halves: dict[bool, Callable[[Any], Half]],
    *,
    runs: int = 1,
    on_half: Callable[[int, Half], None] = lambda number, half: None,
) -> tuple[Experiment, NotedStore]:
    """Play runs whose halves are played at once, each by its function, which is given `on_machine`."""
    threads = threading.active_count()

    def run_half(*_: Any, io_flusher: bool, on_report: Any, on_machine: Any) -> Half:
        return halves[io_flusher](on_machine)

    monkeypatch.setattr(repeat, "run_half", run_half)
    store = NotedStore()
    keeper = RunKeeper(cast(ExperimentStore, store), lambda error: pytest.fail(str(error)))
    plan = plan_runs(EMULATED, SCENARIO, runs=runs, at_once=True)
    assert plan.at_once
    try:
        experiment = play_runs(EMULATED, plan, keeper=keeper, on_half=on_half)
    finally:
        assert threading.active_count() == threads, "a player was left behind"
    return experiment, store


def test_both_halves_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other to have begun; the one that ends first is kept and shown first."""
    begun = threading.Barrier(2, timeout=10)
    with_kept = threading.Event()

    def without(_: Any) -> Half:
        begun.wait()
        assert with_kept.wait(timeout=10)
        return FROZEN

    def with_(_: Any) -> Half:
        begun.wait()
        return FINISHED

    shown: list[tuple[int, Half]] = []

    def on_half(number: int, half: Half) -> None:
        assert threading.current_thread() is threading.main_thread()
        shown.append((number, half))
        with_kept.set()

    experiment, store = at_once(monkeypatch, {False: without, True: with_}, on_half=on_half)
    assert shown == [(1, FINISHED), (1, FROZEN)]
    assert experiment.as_expected
    (run,) = experiment.runs
    assert run.halves == (FROZEN, FINISHED), "in the report the half without comes first"
    kept = [asked[3].halves for asked in store.asked if asked[0] == "keep"]
    assert kept == [(FINISHED,), (FROZEN, FINISHED)]


def test_one_half_alone_is_not_played_at_once() -> None:
    """There is no other."""
    assert not plan_runs(EMULATED, SCENARIO, only="with", at_once=True).at_once
    assert not plan_runs(EMULATED, SCENARIO).at_once


@pytest.mark.parametrize(
    ("error", "ending", "said"),
    [
        (KeyboardInterrupt(), Ending.INTERRUPTED, None),
        (MachineLost("it said nothing"), Ending.FAILED, "it said nothing"),
    ],
)
def test_the_other_half_is_ended(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, ending: Ending, said: str | None
) -> None:
    """Ctrl-C or an error in one machine ends the other at once; a half that had ended is kept."""
    machine = Machine()
    running = threading.Event()

    def without(on_machine: Any) -> Half:
        on_machine(machine)
        running.set()
        return machine.wait()

    def with_(_: Any) -> Half:
        assert running.wait(timeout=10)
        raise error

    experiment, store = at_once(monkeypatch, {False: without, True: with_})
    assert (experiment.ending, experiment.error, experiment.runs) == (ending, said, ())
    assert experiment.unfinished is None
    assert store.asked == []
    assert machine.ended.is_set()


def test_a_half_that_ends_while_the_other_is_ended_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the first half is shown: the second one has just ended, and is kept with the first."""
    second = threading.Event()

    def without(_: Any) -> Half:
        assert second.wait(timeout=10)
        return FROZEN

    def interrupted(number: int, half: Half) -> None:
        second.set()
        raise KeyboardInterrupt

    halves: dict[bool, Callable[[Any], Half]] = {False: without, True: lambda _: FINISHED}
    experiment, store = at_once(monkeypatch, halves, runs=3, on_half=interrupted)
    assert experiment.ending is Ending.INTERRUPTED
    assert [run.halves for run in experiment.runs] == [(FROZEN, FINISHED)]
    assert store.asked[-2] == ("keep", 0, 1, experiment.runs[0])


def test_a_machine_that_comes_up_too_late_is_ended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its player is still setting up when the other half fails."""
    failed = threading.Event()
    machine = Machine()

    def without(on_machine: Any) -> Half:
        assert failed.wait(timeout=10)
        time.sleep(0.05)  # the main thread hears of the error meanwhile
        on_machine(machine)
        return machine.wait()

    def with_(_: Any) -> Half:
        failed.set()
        raise MachineLost("it said nothing")

    experiment, _ = at_once(monkeypatch, {False: without, True: with_})
    assert experiment.ending is Ending.FAILED


def test_errors_of_a_player_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in this program is no ending of an experiment, and leaves no machine behind either."""
    machine = Machine()
    running = threading.Event()

    def without(on_machine: Any) -> Half:
        on_machine(machine)
        running.set()
        return machine.wait()

    def with_(_: Any) -> Half:
        assert running.wait(timeout=10)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        at_once(monkeypatch, {False: without, True: with_})
    assert machine.ended.is_set()
