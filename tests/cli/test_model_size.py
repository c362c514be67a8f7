"""`ioflusher model size`: its answer in words and as JSON, and its exit statuses."""

import json
from unittest.mock import Mock

import pytest
from tests.cli.program import call

from ioflusher.model import size as sizing
from ioflusher.model.explore import Stopped, Verdict
from ioflusher.model.scale import Scale
from ioflusher.model.size import Measure


@pytest.fixture
def _state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two combinations in place of eight, of a smaller instance: for time."""
    two = (frozenset[Measure](), frozenset((Measure.STATE,)))
    monkeypatch.setattr(sizing, "_combinations", lambda: iter(two))
    monkeypatch.setattr(sizing, "LARGEST_RESERVE", 1)
    monkeypatch.setattr(sizing, "small", lambda scenario: Scale(scenario.workload.size // 5, queue_depth=1))


@pytest.mark.usefixtures("_state_alone")
def test_the_answer() -> None:
    """Which combinations there are, what is enough, the reserve."""
    ended = call("model", "size", "swap-on-nbd")
    assert ended.status == 0, ended.stderr
    rows = [" ".join(line.split()) for line in ended.stdout.splitlines()]
    assert any(row.startswith("nothing a freeze in ") for row in rows)
    assert any(row.startswith("the state no freeze can be reached ") for row in rows)
    assert "Enough: the state." in rows
    assert "Necessary: the state." in rows
    assert any(row.startswith("The reserve: 1 request, 1.25 MiB") for row in rows)


@pytest.mark.usefixtures("_state_alone")
def test_json() -> None:
    """The same for programs, with the way to the freeze, step by step."""
    record = json.loads(call("model", "size", "swap-on-nbd", "--json").stdout)
    assert (record["sufficient"], record["necessary"], record["covered"]) == ([["state"]], ["state"], True)
    nothing, state = record["tried"]
    assert len(nothing["way"]) > 10
    assert {"task", "step", "calls"} == nothing["way"][0].keys()
    assert state["way"] is None
    assert (nothing["enough"], nothing["runs_at_full_size"]) == (False, None)
    assert (state["enough"], state["runs_at_full_size"]) == (True, {"seeds": 5, "frozen": []})


@pytest.mark.usefixtures("_state_alone")
def test_none_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """1, and said."""
    monkeypatch.setattr(sizing, "_combinations", lambda: iter((frozenset[Measure](),)))
    ended = call("model", "size", "swap-on-nbd")
    assert ended.status == 1
    assert "None of these is shown to be enough." in ended.stdout


@pytest.mark.usefixtures("_state_alone")
def test_too_small_an_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the exploration did not find and a run at full size did: not enough, and why."""
    monkeypatch.setattr(sizing, "small", lambda scenario: Scale(1 << 20, queue_depth=1, work_units=1))
    ended = call("model", "size", "ext4-on-nbd-throttled")
    assert "no freeze found in the small instance, but in 5 of 5 runs at full size" in ended.stdout
    assert "Enough: the state." in ended.stdout
    assert ended.status == 0


@pytest.mark.usefixtures("_state_alone")
def test_not_covered() -> None:
    """2, and what to raise."""
    ended = call("model", "size", "swap-on-nbd", "--states", "1000")
    assert ended.status == 2
    assert "Not everything was covered" in ended.stdout
    bad = call("model", "size", "swap-on-nbd", "--memory", "much")
    assert bad.status == 2
    assert "much" in bad.stderr


@pytest.mark.usefixtures("_state_alone")
def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """130 after Ctrl-C, with what was covered; that something is necessary is not said."""
    cut = Mock(verdict=Verdict.NOT_COVERED, stopped=Stopped.INTERRUPTED, freeze=None, states=7)
    monkeypatch.setattr(sizing, "explore", lambda system, bounds: cut)
    ended = call("model", "size", "swap-on-nbd")
    assert ended.status == 130, ended.output
    assert "not covered: it was interrupted" in ended.stdout
    assert "Necessary: none is shown to be." in ended.stdout
    assert "the state" not in ended.stdout, "it was not begun"
