"""`ioflusher lab minimise`: what a user sees of the search. Guests are prepared halves."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cli import program
from tests.cli.program import Ended
from tests.lab.halves import FINISHED, FROZEN

from ioflusher.lab import repeat
from ioflusher.lab.outcome import Half
from ioflusher.lab.qemu import Accelerator
from ioflusher.scenario.file import parse_scenario
from ioflusher.scenario.records import Scenario

pytest.importorskip("tomlkit", reason="needs tomlkit: make setup")

LIVED = replace(FINISHED, io_flusher=False)


class Guests:
    """Freezes without the state as long as there is pressure; `stop_at` machines, then Ctrl-C."""

    def __init__(self) -> None:
        self.booted = 0
        self.stop_at = 10_000
        self.needs = "reader"

    def run_half(self, lab: Any, scenario: Scenario, *, io_flusher: bool, **_: Any) -> Half:
        self.booted += 1
        if self.booted > self.stop_at:
            raise KeyboardInterrupt
        return FINISHED if io_flusher else FROZEN if scenario.pressure.kind == self.needs else LIVED


class ReadyLab:
    """A lab whose kernel is found."""

    kernel = SimpleNamespace(release="6.12.117")
    accelerator = Accelerator.TCG

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> "ReadyLab":
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def guests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Guests:
    """Prepared guests, with a directory and a store of the test's own."""
    found = Guests()
    monkeypatch.setattr(repeat, "run_half", found.run_half)
    monkeypatch.setattr(repeat, "versions", lambda scenario: {})
    monkeypatch.setattr("ioflusher.lab.session.Lab", ReadyLab)
    monkeypatch.setattr("ioflusher.lab.setup.check_programs", lambda scenario: None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return found


def call(*words: str) -> Ended:
    """Run `ioflusher lab minimise swap-on-nbd` through the program's real entry."""
    return program.call("lab", "minimise", "swap-on-nbd", "--sequential", *words)


def test_the_smallest_is_printed(guests: Guests) -> None:
    """Standard output is a scenario's file and nothing else; each try is a line on standard error."""
    ended = call("--runs", "1")
    assert ended.status == 0
    found = parse_scenario(ended.stdout)
    assert (found.name, found.pressure.kind, found.kernel.sysctl) == ("swap-on-nbd-minimal", "reader", {})
    tries = [line for line in ended.stderr.splitlines() if line.startswith("ioflusher: try ")]
    assert tries[0] == "ioflusher: try 0, as it is: shows the contrast"
    assert any(line.endswith("without pressure: does not: finished without, finished with") for line in tries)
    assert f"{len(tries)} tries of 1 run, done" in ended.stdout
    assert "[pressure]" in ended.stdout
    assert "# needed; without it: finished without, finished with" in ended.stdout


def test_into_a_file_and_as_json(guests: Guests) -> None:
    """A second search plays nothing, and finds the same."""
    assert call("--runs", "1", "--output", "small.toml").stdout == ""
    booted = guests.booted
    found = json.loads(call("--runs", "1", "--json").stdout)
    assert guests.booted == booted
    assert found["scenario"] == Path("small.toml").read_text()
    assert found["ending"] == "done"
    assert found["tries"][0] == {
        "number": 0,
        "what": "as it is",
        "shows": True,
        "seen": "frozen without, finished with",
        "played": 0,
    }
    call("--runs", "1", "--again")
    assert guests.booted == 2 * booted


def test_ctrl_c(guests: Guests) -> None:
    """The smallest so far is printed, as such; the same command goes on."""
    guests.stop_at = 6
    ended = call("--runs", "1")
    assert ended.status == 130
    assert "tries of 1 run, interrupted" in ended.stdout
    assert parse_scenario(ended.stdout).name == "swap-on-nbd-minimal"
    assert "interrupted; the same command goes on" in ended.stderr


def test_no_contrast(guests: Guests) -> None:
    """1, and nothing is printed that could pass for a scenario."""
    guests.needs = "nothing of the kind"
    ended = call()
    assert (ended.status, ended.stdout) == (1, "")
    assert "swap-on-nbd does not show the contrast: finished without, finished with" in ended.stderr


def test_wrong_usage(guests: Guests) -> None:
    """2, before anything boots."""
    assert call("--again", "--since", "2026-01-01").status == 2
    assert call("--runs", "0").status == 2
    assert guests.booted == 0
