"""`ioflusher lab replay`: the kept experiment is played again, and what differs is told."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cli import program
from tests.cli.program import Ended
from tests.cli.test_lab_run import LIVED_WITHOUT, Guests, ReadyLab
from tests.lab.halves import FINISHED, FROZEN, FROZEN_UNSEEN, plan

from ioflusher.lab import repeat
from ioflusher.lab.errors import LabError
from ioflusher.lab.outcome import Ending, Plan, Run
from ioflusher.lab.qemu import Accelerator
from ioflusher.lab.store import ExperimentStore
from ioflusher.lab.versions import versions
from ioflusher.scenario.file import find_scenario

HERE = {"QEMU": "7.2.22", "nbdkit": "1.32.5-1"}


class Labs(ReadyLab):
    """Labs as they were asked for: (kernel, accelerator)."""

    asked: list[tuple[str | None, Accelerator | None]]

    def __init__(self, kernel: str | None, *, accelerator: Accelerator | None, **_: Any) -> None:
        self.asked.append((kernel, accelerator))
        self.kernel = SimpleNamespace(release=kernel)


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, Accelerator | None]]:
    """The labs that are entered."""
    monkeypatch.setattr(Labs, "asked", [], raising=False)
    monkeypatch.setattr("ioflusher.lab.session.Lab", Labs)
    return Labs.asked


@pytest.fixture(autouse=True)
def guests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Guests]:
    """Prepared guests, with a store of the test's own."""
    played = Guests()
    monkeypatch.setattr(repeat, "run_half", played.run_half)
    monkeypatch.setattr(repeat, "versions", lambda scenario: HERE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield played
    assert not played.halves, "not all halves were played"


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The kernels that there are, by what one asks for."""
    there = {"6.12.117": "6.12.117"}

    def find(wanted: str) -> SimpleNamespace:
        if wanted not in there:
            raise LabError(f"the package lists know no kernel {wanted}")
        return SimpleNamespace(release=there[wanted])

    monkeypatch.setattr("ioflusher.lab.replay.find_kernel", find)
    return there


def kept(*runs: Run, change: Callable[[Plan], Plan] = lambda plan: plan) -> str:
    """The number under which an experiment of these runs is kept."""
    store = ExperimentStore()
    number = store.begin(change(replace(plan(runs=len(runs)), versions=HERE)))
    for place, run in enumerate(runs, start=1):
        store.keep(number, place, run)
    store.end(number, Ending.COMPLETE)
    return str(number)


def call(*words: str) -> Ended:
    """Run the verb."""
    return program.call("lab", "replay", *words)


def comparison(ended: Ended) -> dict[str, Any]:
    """What the JSON has of it."""
    found: dict[str, Any] = json.loads(ended.stdout)["replay"]
    return found


def words_of(text: str) -> str:
    """The text in one line."""
    return " ".join(text.split())


def test_it_came_out_as_it_did(guests: Guests, asked: list[Any]) -> None:
    """Same definition, kernel, accelerator; the comparison is the last word, and it is kept itself."""
    number = kept(Run(FROZEN, FINISHED))
    guests.will_play((replace(FROZEN, when_s=4.5), FINISHED))
    ended = call(number)
    assert ended.status == 0
    assert asked == [("6.12.117", Accelerator.TCG)]
    text = words_of(ended.stdout)
    assert "compared with run 1: without: frozen after 3.1 s then, frozen after 4.5 s now: alike" in text
    assert "with: finished after 10.1 s then, finished after 10.1 s now: alike it came out as then" in text
    assert "not as in run" not in ended.stderr
    assert ExperimentStore().load(2).plan.definition == ExperimentStore().load(1).plan.definition


@pytest.mark.parametrize("half", [LIVED_WITHOUT, FROZEN_UNSEEN])
def test_it_did_not(guests: Guests, half: Any) -> None:
    """A half that came out in a way in which it never had: status 1, whatever the verdict."""
    number = kept(Run(FROZEN, FINISHED))
    guests.will_play((half, FINISHED))
    ended = call(number, "--json")
    assert ended.status == 1
    found = comparison(ended)
    assert (found["of"], found["alike"]) == ("1", False)
    assert [(one["io_flusher"], one["alike"]) for one in found["halves"]] == [(False, False), (True, True)]
    assert found["halves"][0]["kept"] == [{"outcome": "frozen", "when_s": 3.1}]


def test_a_failure_that_fails_again_is_alike(guests: Guests) -> None:
    """The answer is not the scenario's verdict: what did not freeze then may not freeze now."""
    number = kept(Run(LIVED_WITHOUT, FINISHED))
    guests.will_play((LIVED_WITHOUT, FINISHED))
    assert call(number).status == 0


def test_a_kernel_of_the_same_series(guests: Guests, kernels: dict[str, str], asked: list[Any]) -> None:
    """The point release is not to be had: the newest of the series is taken, and that is said at once."""
    number = kept(Run(FROZEN, FINISHED), change=lambda plan: replace(plan, kernel="6.12.107+deb12"))
    kernels["6.12"] = "6.12.117"
    guests.will_play((FROZEN, FINISHED))
    ended = call(number)
    assert (ended.status, asked[0][0]) == (0, "6.12.117")
    assert "not as in run 1: kernel: 6.12.107+deb12 then, 6.12.117 now" in ended.stderr
    assert "compared with run 1: kernel: 6.12.107+deb12 then, 6.12.117 now" in words_of(ended.stdout)


def test_no_kernel_at_all(guests: Guests, asked: list[Any]) -> None:
    """Nothing is booted, and --kernel helps."""
    number = kept(Run(FROZEN, FINISHED), change=lambda plan: replace(plan, kernel="5.8.0-63-generic"))
    ended = call(number)
    assert ended.status == 2
    assert "neither the kernel 5.8.0-63-generic nor one like it is to be had" in ended.stderr
    assert "--kernel" in ended.stderr
    assert not asked
    guests.will_play((FROZEN, FINISHED))
    assert call(number, "--kernel", "./bzImage").status == 0
    assert asked[0][0] == "./bzImage"


def test_other_programs(guests: Guests) -> None:
    """Another version, one that is not there any more, one that is new."""
    then = {"QEMU": "7.2.10", "bindfs": "1.14.7-1"}
    number = kept(Run(FROZEN, FINISHED), change=lambda plan: replace(plan, versions=then))
    guests.will_play((FROZEN, FINISHED))
    assert comparison(call(number, "--json"))["differs_here"] == [
        {"what": "QEMU", "kept": "7.2.10", "here": "7.2.22"},
        {"what": "nbdkit", "kept": None, "here": "1.32.5-1"},
        {"what": "bindfs", "kept": "1.14.7-1", "here": None},
    ]


def test_runs_of_older_versions(guests: Guests) -> None:
    """What was not kept is said to be unknown, not to differ."""
    number = kept(Run(FROZEN, FINISHED), change=lambda plan: replace(plan, versions={}))
    guests.will_play((FROZEN, FINISHED))
    ended = call(number, "--json")
    assert "run 1 was kept without the versions of programs" in ended.stderr
    assert comparison(ended)["differs_here"] == []


def test_kvm_where_there_is_none(guests: Guests, asked: list[Any]) -> None:
    """It is emulated then, which is a difference."""
    number = kept(Run(FROZEN, FINISHED), change=lambda plan: replace(plan, accelerator="KVM"))
    guests.will_play((FROZEN, FINISHED))
    ended = call(number)
    assert asked == [("6.12.117", None)]
    assert "accelerator: KVM then, emulated now" in ended.stderr


def test_a_scenario_that_has_changed(guests: Guests) -> None:
    """The kept definition is played, and that is said."""
    changed = replace(plan().definition, deadline_s=77.0)
    number = kept(Run(FROZEN, FINISHED), change=lambda plan: replace(plan, definition=changed))
    guests.will_play((FROZEN, FINISHED))
    ended = call(number)
    assert "the scenario swap-on-nbd has changed since; the one that was kept is played" in ended.stderr
    assert ExperimentStore().load(2).plan.definition.deadline_s == 77.0


def test_how_often_and_which_half(guests: Guests) -> None:
    """As often as it was planned; once for one run of several; one half, where that was kept."""
    number = kept(Run(FROZEN, FINISHED), Run(FROZEN_UNSEEN, FINISHED))
    guests.will_play((FROZEN, FINISHED), (FROZEN_UNSEEN, FINISHED))
    ended = call(number)
    assert ended.status == 0, "both ways had been seen then"
    seen = "frozen 1 of 2 after 3.1 s, frozen, but not seen waiting for itself 1 of 2 after 4.0 s"
    assert f"without: {seen} then, {seen} now: alike" in words_of(ended.stdout)
    guests.will_play((FROZEN_UNSEEN, FINISHED))
    assert call(f"{number}.1").status == 1, "that run had not come out so"
    guests.will_play((FROZEN,), (FROZEN,), (FROZEN,))
    assert call(number, "--runs", "3", "--only", "without").status == 0
    half = kept(Run(FROZEN, None), change=lambda plan: replace(plan, only="without"))
    ended = call(half, "--only", "with")
    assert ended.status == 2
    assert f"run {half} has no half with the state" in ended.stderr


def test_ctrl_c(guests: Guests) -> None:
    """130, and what was played is compared."""
    number = kept(Run(FROZEN, FINISHED))
    guests.will_play((FROZEN, KeyboardInterrupt()))
    ended = call(number)
    assert ended.status == 130
    assert "without: frozen after 3.1 s then, frozen after 3.1 s now: alike" in words_of(ended.stdout)


@pytest.mark.live
def test_versions_of_this_machine(tmp_path: Path) -> None:
    """A daemon of a package has its version, one that somebody built a digest of its file."""
    daemon = tmp_path / "server"
    daemon.write_text("#!/bin/sh\n")
    daemon.chmod(0o755)
    scenario = find_scenario("ext4-on-nbdkit-throttled")

    def with_command(*command: str) -> dict[str, str]:
        return versions(replace(scenario, daemon=replace(scenario.daemon, command=command)))

    found = with_command(str(daemon), "{socket}", "{file}")
    assert {"ioflusher", "Python"} <= found.keys()
    digest = found[str(daemon)]
    assert re.fullmatch(r"sha256 [0-9a-f]{16}", digest)
    daemon.write_text("#!/bin/sh\nexit 1\n")
    assert with_command(str(daemon), "{socket}", "{file}")[str(daemon)] != digest
    assert str(daemon) in with_command("sh", str(daemon), "{socket}", "{file}"), "a script of an interpreter"
    assert with_command("/no/such/daemon", "{socket}").keys() <= {"ioflusher", "Python", "QEMU"}
