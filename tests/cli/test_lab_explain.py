"""`ioflusher lab explain`: a kept run's stacks and console, diagnosed like a log of any machine."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cli import program
from tests.cli.program import Ended
from tests.lab.halves import FINISHED, FROZEN, FROZEN_UNSEEN, STACK_IN_RECLAIM, plan
from tests.lab.test_recordings import judged, recording

from ioflusher.lab.outcome import Ending, Half, Run
from ioflusher.lab.store import ExperimentStore


@pytest.fixture(autouse=True)
def _store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A store of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def kept(*runs: Run) -> str:
    """The number under which an experiment of these runs is kept."""
    store = ExperimentStore()
    number = store.begin(plan(runs=len(runs)))
    for place, run in enumerate(runs, start=1):
        store.keep(number, place, run)
    store.end(number, Ending.COMPLETE)
    return str(number)


def explain(*words: str) -> Ended:
    """Run the verb."""
    return program.call("lab", "explain", *words)


def answer(*words: str) -> dict[str, Any]:
    """What it says as JSON."""
    found: dict[str, Any] = json.loads(explain(*words, "--json").stdout)
    return found


def test_the_daemon_is_told_by_its_stack() -> None:
    """The recursion of the half without is found, and why; the half with left nothing to explain."""
    number = kept(Run(FROZEN, FINISHED))
    ended = explain(number)
    assert ended.status == 1
    text = " ".join(ended.stdout.split())
    assert f"run {number}, without the state: RECLAIM RECURSION in 1 of 1 episode; 2 stacks read" in text
    assert "python (169), state D" in text
    assert f"run {number}, with the state: no reclaim recursion and no task that waits; 0 stacks read" in text
    (episode,) = answer(number)["episodes"]
    assert episode["input"] == f"run {number}, without the state"
    assert "serves the scenario's nbd device" in episode["why"], "no table of names knows a python"
    assert (episode["daemon"], episode["kernel"]) == ("python", "6.12.117")
    (task,) = episode["tasks"]
    assert (task["tid"], task["pid"], task["io_flusher"]) == (169, 168, False)
    assert [step["function"] for step in episode["chain"]][:2] == [
        "nbd_queue_rq",
        "__blk_mq_issue_directly",
    ]


def test_one_half_and_one_run_of_several() -> None:
    """Halves and runs that are not asked for are left out; without a recursion the status is 0."""
    number = kept(Run(FROZEN, FINISHED), Run(FROZEN_UNSEEN, FINISHED))
    names = [entry["name"] for entry in answer(number)["inputs"]]
    assert names == [
        f"run {number}.{run}, {state} the state" for run in (1, 2) for state in ("without", "with")
    ]
    assert explain(number).status == 1
    assert explain(f"{number}.2").status == 0
    assert explain(number, "--only", "with").status == 0
    assert [entry["name"] for entry in answer(f"{number}.1", "--only", "without")["inputs"]] == [
        f"run {number}.1, without the state"
    ]


def test_a_half_that_was_not_played() -> None:
    """It is said, rather than that nothing was found."""
    number = kept(Run(FROZEN, None))
    ended = explain(number, "--only", "with")
    assert (ended.status, ended.stdout) == (2, "")
    assert f"run {number} has no half with the state" in ended.stderr


def test_several_daemons_have_their_own_processes() -> None:
    """A second process of the device's path is a daemon too, where the run was kept with their numbers."""
    first, second = FROZEN.threads
    two = replace(FROZEN, threads=(replace(first, pid=168), replace(second, tid=300, pid=300)))
    (episode,) = answer(kept(Run(two, None)))["episodes"]
    assert (episode["tasks"][0]["pid"], episode["recursion"]) == (300, True)


@pytest.mark.parametrize(
    ("name", "kind", "tid"),
    [
        ("frozen-in-reclaim", "writeback-recursion", 169),
        ("frozen-throttled", "throttled-daemon", 166),
        ("silent-frozen", "throttled-daemon", 211),
    ],
)
def test_what_real_guests_left(name: str, kind: str, tid: int) -> None:
    """Stacks that the observer read, and those that a panic printed when it no longer could."""
    half: Half = judged(recording(name))
    number = kept(Run(half, None))
    assert explain(number).status == 1
    found = [episode for episode in answer(number)["episodes"] if episode["recursion"]]
    assert found[0]["kind"] == kind
    tids = {task["tid"] for episode in found for task in episode["tasks"]}
    daemons = {thread.tid for thread in half.threads}
    assert tids <= daemons, "a program that uses the device is no daemon"
    assert tid in tids


def test_a_page(tmp_path: Path) -> None:
    """The other forms of `diagnose`, into a file."""
    number = kept(Run(FROZEN, FINISHED))
    page = tmp_path / "page.html"
    ended = explain(number, "--format", "html", "--output", str(page))
    assert (ended.status, ended.stdout) == (1, "")
    assert "nbd_queue_rq()" in page.read_text()
    assert STACK_IN_RECLAIM.startswith("[<0>] nbd_queue_rq")
