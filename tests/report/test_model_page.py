"""The page and the pictures of a run of the model."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.cli.program import call

from ioflusher.model.halves import ModelHalf, play_halves, sampled
from ioflusher.report.model_page import render_page
from ioflusher.report.model_pictures import memory_and_queues
from ioflusher.scenario.file import builtin_scenarios, parse_scenario

SCENARIO = parse_scenario(builtin_scenarios()["ext4-on-nbd-throttled"])


@pytest.fixture(scope="module")
def halves() -> tuple[ModelHalf, ModelHalf]:
    return play_halves(SCENARIO, version=(6, 12))


@pytest.fixture(scope="module")
def page(halves: tuple[ModelHalf, ModelHalf]) -> str:
    return render_page(SCENARIO, (6, 12), halves)


def data(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    halves: list[dict[str, Any]] = json.loads(found[1])
    return halves


def test_the_page_loads_nothing(page: str) -> None:
    """No address, no file: its policy forbids them, and there are none."""
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)\s*=|https?://|@import|url\(""", page)


def test_the_end_of_the_freeze(page: str, halves: tuple[ModelHalf, ModelHalf]) -> None:
    """The last step shows what the run came to: the daemon waits, the circle, memory at its limit."""
    without, _ = data(page)
    assert without["cycle"] == ["nbd-daemon (6)", "nbd-daemon (6)"]
    last = without["steps"][-1]
    daemon = next(number for number, task in enumerate(without["tasks"]) if task["daemon"])
    doing, text, stack, soft = last["m"][daemon]
    assert (doing, soft) == (3, 0)
    assert without["texts"][text] == "less dirty memory in the machine"
    assert without["stacks"][stack][0] == "balance_dirty_pages"
    names = [variable["name"] for variable in without["variables"]]
    assert dict(zip(names, last["v"], strict=True)) == halves[0].result.values
    marks = {level["name"]: (last["a"][n], last["e"][n]) for n, level in enumerate(without["levels"])}
    assert marks["limit"][1] >= marks["limit"][0]
    assert without["order"][0] == daemon


def test_steps_differ_by_what_is_said(page: str) -> None:
    """Forwards and backwards: each step's change is the difference to the step before."""
    for half in data(page):
        assert len(half["steps"]) > 50
        for before, after in zip(half["steps"], half["steps"][1:], strict=False):
            changed = {number: old for number, old in after["d"]}
            for number, (old, new) in enumerate(zip(before["v"], after["v"], strict=True)):
                assert (changed[number] == old) if number in changed else (old == new)


def test_the_other_half_is_shown_at_the_same_time(page: str) -> None:
    """Where the one froze, the other goes on."""
    without, with_ = data(page)
    froze = without["steps"][-1]["t"]
    assert with_["steps"][0]["t"] < froze < with_["steps"][-1]["t"]
    assert any(step["c"] for step in with_["steps"] if step["t"] > froze)


def test_the_pictures_are_of_the_run(halves: tuple[ModelHalf, ModelHalf]) -> None:
    """Dirty memory reaches the limit and stays in the half that froze."""
    noted = [sampled(SCENARIO, half) for half in halves]
    figure = memory_and_queues(noted)
    assert len(figure.axes) == 8
    dirty = figure.axes[2]
    assert dirty.get_ylabel() == "dirty memory, MiB"
    course: Any = dirty.lines[0].get_ydata()
    assert course[-1] == course[-2] >= 8.0
    end = noted[1].result.at_ns / 1e9
    assert dirty.get_xlim() == (0, end)
    without: Any = figure.axes[3].lines[0].get_ydata()
    with_: Any = figure.axes[7].lines[0].get_ydata()
    assert (without[-1], with_[-1]) == (4, 0)


def test_a_report(tmp_path: Path) -> None:
    """A page and a picture of each kind, and where they are."""
    ended = call("model", "run", "swap-on-nbd", "--without", "--report", tmp_path)
    assert (ended.status, ended.stderr) == (0, "")
    assert f"report: {tmp_path}/swap-on-nbd-model.html\n" in ended.stdout
    names = {path.name for path in tmp_path.iterdir()}
    picture = "swap-on-nbd-model-memory-and-queues"
    assert names == {"swap-on-nbd-model.html", f"{picture}.svg", f"{picture}.png"}
    (tmp_path / "file").write_text("")
    ended = call("model", "run", "swap-on-nbd", "--report", tmp_path / "file" / "x")
    assert ended.status == 2
    assert "cannot be written" in ended.stderr
