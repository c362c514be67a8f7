"""Playing a matrix of prepared halves: what is missing, in which order; what is kept, and how it ends."""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ioflusher.lab import repeat
from ioflusher.lab.capacity import Capacity, half_bytes
from ioflusher.lab.errors import LabError, MachineLost
from ioflusher.lab.kernels import Kernel
from ioflusher.lab.matrix import play, prepare
from ioflusher.lab.matrix.cells import plan_cells
from ioflusher.lab.matrix.plan import parse_plan
from ioflusher.lab.matrix.play import Played, PlayingEnded, Workers, play_order, play_tasks
from ioflusher.lab.matrix.prepare import check_modules, default_jobs, prepare_cells
from ioflusher.lab.matrix.work import Task, Trial, missing_tasks
from ioflusher.lab.outcome import Ending, Half, Run
from ioflusher.lab.qemu import Accelerator
from ioflusher.lab.repeat import plan_for
from ioflusher.lab.store import ExperimentStore, StoreError
from ioflusher.lab.trials import measured_runs, trial_key_of
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from ioflusher.scenario.records import Scenario
from tests.lab.halves import FINISHED, FROZEN, plan

SCENARIOS = {name: parse_scenario(text) for name, text in builtin_scenarios().items()}


def trial(name: str, *, release: str = "6.12.117") -> Trial:
    """One of a scenario as it comes."""
    what = plan_for(SCENARIOS[name], release, Accelerator.TCG, {})
    return Trial(trial_key_of(what), name, what, release, Accelerator.TCG)


SWAP, EXT4 = trial("swap-on-nbd"), trial("ext4-on-nbd-throttled")


def order_of(tasks: Iterable[Task]) -> list[tuple[str, str | None, int, int]]:
    """Tasks as (name, only, number, of)."""
    return [(task.trial.name, task.only, task.number, task.of) for task in tasks]


def test_rounds_over_all_cells() -> None:
    """The first run of each comes before the second of any."""
    tasks = missing_tasks([SWAP, EXT4], {}, runs=2, only=None)
    assert order_of(tasks) == [
        ("swap-on-nbd", None, 1, 2),
        ("ext4-on-nbd-throttled", None, 1, 2),
        ("swap-on-nbd", None, 2, 2),
        ("ext4-on-nbd-throttled", None, 2, 2),
    ]
    assert [task.halves for task in tasks] == [2, 2, 2, 2]


def test_only_what_is_missing() -> None:
    """Pairs as far as both are missing, then the one half that an interrupted run lacks."""
    measured = {SWAP.key: [FROZEN, FROZEN, FINISHED], EXT4.key: [FROZEN, FINISHED] * 3}
    tasks = missing_tasks([SWAP, EXT4], measured, runs=3, only=None)
    assert order_of(tasks) == [("swap-on-nbd", None, 1, 1), ("swap-on-nbd", "with", 1, 1)]
    assert [task.halves for task in tasks] == [2, 1]
    (lacks,) = missing_tasks([SWAP], {SWAP.key: [FINISHED]}, runs=1, only=None)
    assert lacks.only == "without"


def test_more_than_asked_for_is_nothing_to_play() -> None:
    """Of one half and of both."""
    assert missing_tasks([SWAP], {SWAP.key: [FROZEN, FINISHED] * 4}, runs=3, only=None) == ()
    assert order_of(missing_tasks([SWAP], {SWAP.key: [FINISHED] * 4}, runs=1, only="without")) == [
        ("swap-on-nbd", "without", 1, 1)
    ]
    assert order_of(missing_tasks([SWAP], {SWAP.key: [FROZEN] * 4}, runs=1, only="with")) == [
        ("swap-on-nbd", "with", 1, 1)
    ]


@dataclass
class Guests:
    """What guests will play, by the scenario's name; and what was played."""

    halves: dict[str, list[Half | BaseException]] = field(default_factory=dict)
    played: list[tuple[str, bool]] = field(default_factory=list)

    def run_half(self, lab: Any, scenario: Scenario, *, io_flusher: bool, **_: Any) -> Half:
        self.played.append((scenario.name, io_flusher))
        prepared = self.halves.get(scenario.name, [])
        half = prepared.pop(0) if prepared else (FINISHED if io_flusher else FROZEN)
        if isinstance(half, BaseException):
            raise half
        assert half.io_flusher is io_flusher
        return half


class Here(Executor):
    """Plays at once, in this process."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **more: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*arguments, **more))
        except BaseException as error:
            done.set_exception(error)
        return done


@dataclass
class Desk:
    """A store, prepared guests, and what was told."""

    guests: Guests
    store: ExperimentStore
    stopped: int = 0
    told: list[Played] = field(default_factory=list)
    keep_themselves: bool = True

    def play(self, tasks: Iterable[Task], *, jobs: int = 1) -> PlayingEnded:
        def stop() -> None:
            self.stopped += 1

        workers = Workers(Here(), stop, self.keep_themselves)
        return play_tasks(tasks, workers, jobs=jobs, store=self.store, on_played=self.told.append)

    def have(self, of: Trial) -> list[Half]:
        return [half for one in measured_runs(self.store, [of.key])[of.key] for half in one.run.halves]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Desk:
    """A store of the test's own, and labs that need no kernel."""
    guests = Guests()
    monkeypatch.setattr(repeat, "run_half", guests.run_half)

    class ReadyLab:
        def __init__(self, boot: str, *, accelerator: Accelerator, shares: tuple[Path, ...]) -> None:
            assert boot != "no kernel", LabError
            self.kernel, self.accelerator = SimpleNamespace(release=boot), accelerator

        def __enter__(self) -> "ReadyLab":
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(play, "Lab", ReadyLab)
    monkeypatch.setattr(play, "_worker", play._Worker())
    return Desk(guests, ExperimentStore(tmp_path / "lab.sqlite"))


@pytest.mark.parametrize("keep_themselves", [True, False])
def test_what_is_played_is_kept(desk: Desk, keep_themselves: bool) -> None:
    """In one experiment for each cell, by the worker or by whoever gets it; then nothing is missing."""
    desk.keep_themselves = keep_themselves
    tasks = missing_tasks([SWAP, EXT4], {}, runs=2, only=None)
    assert desk.play(tasks) == PlayingEnded(False, {})
    assert desk.have(SWAP) == desk.have(EXT4) == [FROZEN, FINISHED, FROZEN, FINISHED]
    kept = desk.store.experiments()
    assert [(one.plan.scenario, one.plan.runs, one.ending) for one in kept] == [
        ("ext4-on-nbd-throttled", 2, Ending.COMPLETE),
        ("swap-on-nbd", 2, Ending.COMPLETE),
    ]
    assert [run.number for run in kept[0].runs] == [1, 2]
    measured = {one.key: desk.have(one) for one in (SWAP, EXT4)}
    assert missing_tasks([SWAP, EXT4], measured, runs=2, only=None) == ()
    assert [played.ending for played in desk.told] == [Ending.COMPLETE] * 4


def test_ctrl_c_loses_the_running_half_alone(desk: Desk) -> None:
    """The half before it is kept, the run is not played again as a whole."""
    desk.guests.halves["swap-on-nbd"] = [FROZEN, KeyboardInterrupt()]
    desk.play(missing_tasks([SWAP], {}, runs=1, only=None))
    assert desk.have(SWAP) == [FROZEN]
    assert desk.told[0].ending is Ending.INTERRUPTED
    rest = missing_tasks([SWAP], {SWAP.key: desk.have(SWAP)}, runs=1, only=None)
    assert order_of(rest) == [("swap-on-nbd", "with", 1, 1)]
    assert desk.play(rest) == PlayingEnded(False, {})
    assert desk.have(SWAP) == [FROZEN, FINISHED]
    assert desk.guests.played == [("swap-on-nbd", False), ("swap-on-nbd", True), ("swap-on-nbd", True)]


def test_two_interrupted_runs_of_one_cell(desk: Desk) -> None:
    """Several runs that lack a half: none of them is forgotten."""
    number = desk.store.begin(plan(runs=2))
    desk.store.keep(number, 1, Run(FROZEN, None))
    desk.store.keep(number, 2, Run(FROZEN, None))
    key, half = trial_key_of(plan()), Run(FROZEN, None)
    found = measured_runs(desk.store, [key])[key]
    assert [(one.experiment, one.number, one.run) for one in found] == [(number, 1, half), (number, 2, half)]
    assert measured_runs(desk.store, [key], since=10.0**10) == {key: ()}


def test_ctrl_c_ends_all(desk: Desk) -> None:
    """What runs is told to stop, what it has measured is kept, and the rest is not begun."""
    tasks = missing_tasks([SWAP, EXT4], {}, runs=2, only=None)

    def interrupt(played: Played) -> None:
        desk.told.append(played)
        if len(desk.told) == 1:
            raise KeyboardInterrupt

    workers = Workers(Here(), lambda: setattr(desk, "stopped", 1), True)
    ended = play_tasks(tasks, workers, jobs=2, store=desk.store, on_played=interrupt)
    assert (ended.interrupted, desk.stopped) == (True, 1)
    assert (desk.have(SWAP), desk.have(EXT4)) == ([FROZEN, FINISHED], [FROZEN, FINISHED])
    assert len(desk.guests.played) == 4
    assert {one.ending for one in desk.store.experiments()} == {Ending.INTERRUPTED}


def test_a_cell_whose_lab_fails_is_left_and_the_others_go_on(desk: Desk) -> None:
    """Two errors, then the rest of its runs is for another time; the reason is told and kept."""
    lost = MachineLost("the guest said nothing for 60 s", hint="look at its console")
    desk.guests.halves["swap-on-nbd"] = [lost, lost]
    ended = desk.play(missing_tasks([SWAP, EXT4], {}, runs=4, only=None))
    assert ended.errors == {SWAP.key: "the guest said nothing for 60 s (look at its console)"}
    assert not ended.interrupted
    assert desk.have(SWAP) == []
    assert desk.have(EXT4) == [FROZEN, FINISHED] * 4
    assert desk.guests.played.count(("swap-on-nbd", False)) == 2
    assert [one.plan.scenario for one in desk.store.experiments()] == ["ext4-on-nbd-throttled"]


def test_one_error_alone_is_not_the_end_of_a_cell(desk: Desk) -> None:
    """The others of its runs are played; how its experiment ended says so."""
    desk.guests.halves["swap-on-nbd"] = [MachineLost("gone")]
    ended = desk.play(missing_tasks([SWAP], {}, runs=2, only=None))
    assert ended.errors == {SWAP.key: "gone"}
    assert desk.have(SWAP) == [FROZEN, FINISHED]
    (kept,) = desk.store.experiments()
    assert (kept.ending, kept.error) == (Ending.FAILED, "gone")


def test_a_store_that_fails_is_told_with_the_run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured is not lost in silence."""

    def full(*_: Any) -> None:
        raise StoreError("no space", hint="make some")

    monkeypatch.setattr(ExperimentStore, "keep", full)
    desk.play(missing_tasks([SWAP], {}, runs=1, only=None))
    assert desk.told[0].not_kept == "no space (make some)"
    assert desk.told[0].run is not None


def test_a_worker_that_has_been_stopped_begins_nothing(desk: Desk) -> None:
    """What was on its way to it is as if it had not been sent."""
    play._worker._interrupt(15, None)
    (task,) = missing_tasks([SWAP], {}, runs=1, only=None)
    assert play_order(play.Order(task, None, 1)) == Played(task, None, Ending.INTERRUPTED)
    assert desk.guests.played == []


def test_cells_are_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its kernel, looked for once; what cannot be played says why, with what to do."""
    asked: list[tuple[str | None, bool]] = []

    def find_kernel(wanted: str | None, *, download: bool) -> Kernel:
        asked.append((wanted, download))
        if wanted == "5.8":
            raise LabError("no kernel 5.8", hint="give a bzImage")
        return Kernel(f"{wanted or '6.12'}.0", Path("/image"), Path("/modules"))

    def check(scenario: Scenario) -> None:
        if scenario.device.use == "xfs":
            raise LabError("no mkfs.xfs")

    monkeypatch.setattr(prepare, "find_kernel", find_kernel)
    monkeypatch.setattr(prepare, "known_accelerator", lambda kernel: Accelerator.TCG)
    monkeypatch.setattr(prepare, "check_programs", check)
    monkeypatch.setattr(prepare, "this_machine", lambda: Capacity(2, None))
    text = (
        'name = "p"\nscenarios = ["ext4-on-nbd-throttled"]\n[axes]\nkernel = ["5.8", "6.1", "/boot/mine"]\n'
        'device.use = ["ext4", "xfs", "swap"]\n'
    )
    found = prepare_cells(plan_cells(parse_plan(text), SCENARIOS), download=False)
    assert asked == [("5.8", False), ("6.1", False), ("/boot/mine", False)]
    assert [one.trouble for one in found[:3]] == [
        "no kernel 5.8 (give a bzImage)",
        "no kernel 5.8 (give a bzImage)",
        "workload.kind 'files' does not go with device.use 'swap'",
    ]
    assert [one.fits for one in found[:3]] == [True, True, False]
    assert [one.trouble for one in found[3:6]] == [
        "",
        "no mkfs.xfs",
        "workload.kind 'files' does not go with device.use 'swap'",
    ]
    good = found[3].trial
    assert good is not None
    assert (good.plan.kernel, good.boot, good.plan.accelerator) == ("6.1.0", "6.1.0", "emulated")
    assert json.loads(good.key)[1:] == ["6.1.0", "emulated", {}]
    assert good.plan.at_once
    image = found[6].trial
    assert image is not None
    assert image.boot == "/boot/mine", "a file is booted from its place"
    (bare, *_) = prepare_cells(
        plan_cells(parse_plan('name = "p"\nscenarios = ["swap-on-nbd"]\n'), SCENARIOS),
        kernel="6.1",
        sequential=True,
    )
    assert not cast(Trial, bare.trial).plan.at_once
    assert cast(Trial, bare.trial).plan.kernel == "6.1.0", "the kernel for cells that ask for none"


def test_a_stack_that_is_younger_than_the_kernel(tmp_path: Path) -> None:
    """Known from the kernel's lists, without a boot; without lists, the boot will tell."""
    kernel = Kernel("5.8", Path("/image"), tmp_path)
    scenario = SCENARIOS["ext4-on-ublk-throttled"]
    check_modules(kernel, scenario)
    (tmp_path / "modules.dep").write_text("kernel/drivers/block/nbd.ko:\n")
    (tmp_path / "modules.builtin").write_text("")
    with pytest.raises(LabError, match=r"^this kernel has no module ublk_drv \(5\.8\)$"):
        check_modules(kernel, scenario)
    (tmp_path / "modules.builtin").write_text("kernel/drivers/block/ublk_drv.ko\n")
    check_modules(kernel, scenario)


def test_jobs_by_memory_and_cores() -> None:
    """The scarcer of the two decides; a run of two guests at once counts as two; one is always played."""
    half = half_bytes(SWAP.plan.definition)
    assert default_jobs([SWAP], Capacity(8, 100 * half)) == 8
    assert default_jobs([SWAP], Capacity(64, 4 * half)) == 4
    assert default_jobs([SWAP], Capacity(8, None)) == 8
    assert default_jobs([SWAP], Capacity(1, 0)) == 1
    larger = half_bytes(EXT4.plan.definition)
    assert larger != half
    assert default_jobs([SWAP, EXT4], Capacity(64, 4 * max(half, larger))) == 4
    both = replace(SWAP, plan=replace(SWAP.plan, at_once=True))
    assert default_jobs([both], Capacity(8, 100 * half)) == 4
    assert default_jobs([both], Capacity(64, 4 * half)) == 2
