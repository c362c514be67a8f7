"""What a test may assert with `reclaim_lab`, what a failure says, and what goes into JUnit's XML."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ioflusher.lab import repeat
from ioflusher.lab.capacity import Capacity
from ioflusher.lab.errors import LabError
from ioflusher.lab.outcome import Ending, Half
from ioflusher.lab.store import ExperimentStore
from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.file import find_scenario
from pytest_ioflusher import trial
from pytest_ioflusher.trial import ReclaimLab, ReclaimLabFailure
from tests.cli.test_lab_run import Guests, ReadyLab
from tests.lab.halves import FINISHED, FROZEN, FROZEN_UNSEEN, LOST, PANICKED

SWAP = "swap-on-nbd"


@pytest.fixture(autouse=True)
def guests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Guests]:
    """Prepared guests in the place of a lab, with a store and a cache of the test's own."""
    played = Guests()
    monkeypatch.setattr(repeat, "run_half", played.run_half)
    monkeypatch.setattr(repeat, "versions", lambda scenario: {})
    monkeypatch.setattr(trial, "Lab", ReadyLab)
    monkeypatch.setattr(trial, "find_qemu", lambda: "qemu")
    monkeypatch.setattr(trial, "find_kernel", lambda wanted, download: SimpleNamespace())
    monkeypatch.setattr(trial, "check_programs", lambda scenario: None)
    monkeypatch.delenv("IOFLUSHER_LAB_KERNEL", raising=False)
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    yield played
    assert not played.halves, "not all halves were played"


@pytest.fixture
def properties() -> list[tuple[str, object]]:
    """Those of the test in which the fixture is used."""
    return []


@pytest.fixture
def lab(tmp_path: Path, properties: list[tuple[str, object]]) -> ReclaimLab:
    """What the fixture gives in a project that lies in tmp_path."""
    return ReclaimLab(tmp_path, properties)


def test_each_assertion_plays_its_halves(guests: Guests, lab: ReclaimLab) -> None:
    """One half for one, both for the third, as often as it says; the evidence comes back."""
    prepared = lab.run(SWAP)
    guests.will_play((FROZEN,), (FROZEN,))
    assert [run.without for run in prepared.assert_freezes(runs=2).runs] == [FROZEN, FROZEN]
    guests.will_play((FINISHED,))
    assert prepared.assert_survives().runs[0].with_ == FINISHED
    guests.will_play((FROZEN, FINISHED))
    experiment = prepared.assert_proves()
    assert (experiment.ending, experiment.runs[0].proved) == (Ending.COMPLETE, True)
    assert [kept.id for kept in ExperimentStore().experiments()] == [3, 2, 1]


def test_properties(guests: Guests, lab: ReclaimLab, properties: list[tuple[str, object]]) -> None:
    """Kernel, outcomes and times of each half, and the number under which they are kept."""
    guests.will_play((FINISHED,), (replace(FINISHED, when_s=7.25),))
    lab.run(SWAP).assert_survives(runs=2)
    assert properties == [
        ("reclaim_lab.scenario", SWAP),
        ("reclaim_lab.kernel", "6.12.117"),
        ("reclaim_lab.accelerator", "emulated"),
        ("reclaim_lab.half", "with"),
        ("reclaim_lab.outcome", "finished; finished"),
        ("reclaim_lab.when_s", "10.1 7.2"),
        ("reclaim_lab.run", "1"),
    ]


def failure(assertion: Any, **arguments: Any) -> str:
    """What an assertion says that fails."""
    with pytest.raises(ReclaimLabFailure) as raised:
        assertion(**arguments)
    return str(raised.value)


def test_a_daemon_that_does_not_survive(
    guests: Guests, lab: ReclaimLab, properties: list[tuple[str, object]]
) -> None:
    """Which run, the half's story, threads, the stack, what would prevent it, and where it is kept."""
    frozen = replace(FROZEN, io_flusher=True)
    guests.will_play((FINISHED,), (frozen,), (FINISHED,))
    said = failure(lab.run(SWAP).assert_survives, runs=3)
    first, *lines = said.splitlines()
    assert first == f"{SWAP}: the daemon must survive with the state; it did not in 1 of 3 runs"
    assert "  machine  Linux 6.12.117, 400 MiB, 1 CPU, emulated" in lines
    assert any(line.startswith("run 2, with the state: FROZEN after 3.1 s: 10 requests") for line in lines)
    assert "  0 of 2 threads carry the state (0x00400940 x2)" in lines
    at = lines.index("  kernel stack of the daemon's thread 169 (python), state D:")
    assert lines[at + 1].split() == ["block", "nbd_queue_rq"]
    assert any("remedy: start it in the IO_FLUSHER state" in line for line in lines)
    assert lines[-1].startswith("kept as run 1: `ioflusher lab show 1`, `ioflusher lab explain 1`, ")
    assert ("reclaim_lab.outcome", "finished; frozen; finished") in properties


def test_a_daemon_that_does_not_survive_by_itself(guests: Guests, lab: ReclaimLab, tmp_path: Path) -> None:
    """It is not said that it had the state: that was its own to set."""
    guests.will_play((replace(FROZEN, io_flusher=True),))
    alone = lab.run(SWAP, daemon=[server_in(tmp_path), "{socket}"], by_itself=True)
    said = failure(alone.assert_survives)
    assert "the daemon must survive by itself; it did not in 1 of 1 runs" in said
    assert "run 1, by itself: FROZEN after 3.1 s" in said


@pytest.mark.parametrize(
    ("half", "says"),
    [
        (replace(FINISHED, io_flusher=False), "run 1, without the state: FINISHED after 10.1 s"),
        (FROZEN_UNSEEN, "run 1, without the state: FROZEN, BUT NOT SEEN WAITING FOR ITSELF after 4.0 s"),
    ],
)
def test_a_daemon_that_does_not_freeze(guests: Guests, lab: ReclaimLab, half: Half, says: str) -> None:
    """Surviving is a failure there, and so is a freeze of another cause."""
    guests.will_play((half,))
    said = failure(lab.run(SWAP).assert_freezes)
    assert "the daemon must freeze without the state, seen waiting for itself" in said
    assert says in said


def test_the_consoles_last_lines(guests: Guests, lab: ReclaimLab) -> None:
    """Where they matter."""
    guests.will_play((PANICKED,), (LOST,))
    said = failure(lab.run(SWAP).assert_survives, runs=2)
    assert "Kernel panic - not syncing" in said
    assert "last words" in said


def test_many_failures_are_told_short(guests: Guests, lab: ReclaimLab) -> None:
    """Three of them; the others are kept."""
    guests.will_play(*[(LOST,)] * 5)
    said = failure(lab.run(SWAP).assert_survives, runs=5)
    assert "run 3, with" in said
    assert "run 4, with" not in said
    assert "and 2 more" in said


def test_an_error_of_the_lab(guests: Guests, lab: ReclaimLab) -> None:
    """A daemon that does not start is a failure, with what it said; what was played before is told."""
    guests.will_play((FINISHED,), (LabError("the daemon ended with status 3\nno export"),))
    said = failure(lab.run(SWAP).assert_survives, runs=2)
    assert "the daemon ended with status 3\nno export" in said


def test_ctrl_c_ends_pytest(guests: Guests, lab: ReclaimLab) -> None:
    """It is not swallowed."""
    guests.will_play((KeyboardInterrupt(),))
    with pytest.raises(KeyboardInterrupt):
        lab.run(SWAP).assert_survives()


def test_a_store_that_cannot_be_written(
    guests: Guests, lab: ReclaimLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning, not a failure."""
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    guests.will_play((FINISHED,))
    with pytest.warns(UserWarning, match="the runs are not kept"):
        lab.run(SWAP).assert_survives()


# what is played


def server_in(directory: Path) -> Path:
    """A daemon's file."""
    directory.mkdir(exist_ok=True)
    server = directory / "server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    return server


def test_the_daemons_words(lab: ReclaimLab, tmp_path: Path) -> None:
    """What names a file of the project becomes its path, programs are found, placeholders stay."""
    server_in(tmp_path / "bin")
    (tmp_path / "file").write_text("")
    played = lab.run(SWAP, daemon=["./bin/server", "file", "{socket}", "--file=./{file}"])
    assert played.scenario.daemon.command == (
        str(tmp_path / "bin/server"),
        "file",
        "{socket}",
        "--file=./{file}",
    )
    played = lab.run(SWAP, daemon=["sh", "bin/server", "/no/such", "{socket}"], kernel="6.1")
    program, *words = played.scenario.daemon.command
    assert Path(program).name == "sh"
    assert words == [str(tmp_path / "bin/server"), "/no/such", "{socket}"]
    assert played.kernel == "6.1"


def test_the_daemon_by_itself(lab: ReclaimLab, tmp_path: Path) -> None:
    """Nothing is put upon it; with the scenario's own daemon that means nothing."""
    server = server_in(tmp_path)
    plain = lab.run(SWAP, daemon=[server, "{socket}"]).scenario
    assert (plain.hardening.state, plain.hardening.lock_memory) == ("all", True)
    alone = lab.run(SWAP, daemon=[server, "{socket}"], by_itself=True).scenario
    assert (alone.hardening.state, alone.hardening.lock_memory) == ("own", False)
    with pytest.raises(ScenarioError, match=r"is for a daemon.command"):
        lab.run(SWAP, by_itself=True)


def test_the_kernel_of_the_environment(lab: ReclaimLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for tests that name none: a CI system's matrix."""
    monkeypatch.setenv("IOFLUSHER_LAB_KERNEL", "6.1")
    assert lab.run(SWAP).kernel == "6.1"
    assert lab.run(SWAP, kernel="5.10").kernel == "5.10"


def test_what_cannot_be_asked(lab: ReclaimLab, tmp_path: Path) -> None:
    """Each is an error of the test, never a skip."""
    with pytest.raises(ScenarioError, match="no scenario 'swap-on-ndb'"):
        lab.run("swap-on-ndb")
    with pytest.raises(ScenarioError, match=r"program ./server is not there"):
        lab.run(SWAP, daemon=["./server", "{socket}"])
    with pytest.raises(ScenarioError, match="program no-such-server is not there"):
        lab.run(SWAP, daemon=["no-such-server", "{socket}"])
    with pytest.raises(ScenarioError, match="give daemon="):
        lab.run(SWAP, kind="fuse")
    with pytest.raises(ScenarioError, match=r"must have {socket} and {file}"):
        lab.run(SWAP, daemon=["sh"])


def test_a_scenario_of_the_project(lab: ReclaimLab, tmp_path: Path) -> None:
    """A TOML file, as a path."""
    from ioflusher.scenario.file import builtin_scenarios

    file = tmp_path / "mine.toml"
    file.write_text(builtin_scenarios()[SWAP])
    assert lab.run(file).scenario == find_scenario(SWAP)


def test_what_the_guest_sees(
    guests: Guests,
    lab: ReclaimLab,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The project, and where the daemon's files are; not the whole of /tmp or of a home directory."""
    seen: list[tuple[Path, ...]] = []

    class Lab(ReadyLab):
        def __init__(self, *_: Any, shares: tuple[Path, ...], **__: Any) -> None:
            seen.append(shares)

    monkeypatch.setattr(trial, "Lab", Lab)
    elsewhere = server_in(tmp_path_factory.mktemp("build"))
    guests.will_play((FINISHED,))
    lab.run(SWAP, daemon=[elsewhere, "{socket}"]).assert_survives()
    assert seen == [(tmp_path, elsewhere.parent)]
    monkeypatch.setenv("HOME", str(elsewhere.parent))
    with pytest.raises(ScenarioError, match="too large to be shown"):
        lab.run(SWAP, daemon=[elsewhere, "{socket}"]).assert_survives()


# what is not there


@pytest.mark.parametrize("lacking", ["find_qemu", "find_kernel", "check_programs", "Lab"])
def test_a_lab_that_cannot_play(lab: ReclaimLab, lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A skip with reason and remedy; a failure where the environment says so."""

    def missing(*_: Any, **__: Any) -> None:
        raise LabError("it is not there", hint="install it")

    monkeypatch.setattr(trial, lacking, missing)
    monkeypatch.delenv("IOFLUSHER_LAB_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"cannot play here: it is not there \(install it\)"):
        lab.run(SWAP).assert_survives()
    monkeypatch.setenv("IOFLUSHER_LAB_REQUIRE", "1")
    with pytest.raises(pytest.fail.Exception, match=r"\(install it\); IOFLUSHER_LAB_REQUIRE forbids"):
        lab.run(SWAP).assert_survives()


def test_as_many_guests_as_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, in whatever process or thread."""
    monkeypatch.setattr(trial, "this_machine", lambda: Capacity(1, None))
    monkeypatch.setattr(trial, "SLOT_LOOK_S", 0.01)
    scenario = find_scenario(SWAP)
    inside: list[str] = []

    def play(name: str) -> None:
        with trial._room_for(scenario):
            inside.append(name)

    with contextlib.ExitStack() as stack:
        stack.enter_context(trial._room_for(scenario))
        second = threading.Thread(target=play, args=("second",))
        second.start()
        second.join(timeout=0.3)
        assert not inside
        monkeypatch.setattr(trial, "this_machine", lambda: Capacity(2, 1))
        third = threading.Thread(target=play, args=("third",))
        third.start()
        third.join(timeout=0.3)
        assert not inside, "there is a processor, but no memory"
        monkeypatch.setattr(trial, "this_machine", lambda: Capacity(2, None))
        play("fourth")
        assert inside == ["fourth"]
    second.join(timeout=30)
    third.join(timeout=30)
    assert sorted(inside) == ["fourth", "second", "third"]
