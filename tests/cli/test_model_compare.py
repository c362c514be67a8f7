"""`ioflusher model compare`: kept runs of the lab beside the model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.program import call
from tests.lab.halves import FINISHED, FROZEN, plan

from ioflusher.lab.outcome import Ending, Run
from ioflusher.lab.store import ExperimentStore


@pytest.fixture(autouse=True)
def _store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A store of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def keep(*runs: Run) -> None:
    """Keep runs of swap-on-nbd on 6.12."""
    store = ExperimentStore()
    number = store.begin(plan(runs=len(runs)))
    for place, run in enumerate(runs, start=1):
        store.keep(number, place, run)
    store.end(number, Ending.COMPLETE)


def test_alike() -> None:
    """A real half that froze in reclaim and one that lived: as the model has it."""
    keep(Run(FROZEN, FINISHED))
    ended = call("model", "compare", "swap-on-nbd", "--seeds", "2", "--json")
    assert ended.status == 0, ended.stderr
    (record,) = json.loads(ended.stdout)
    without, with_ = record["halves"]
    assert (record["kernel"], record["alike"]) == ("6.12", True)
    assert without["observed"]["outcomes"] == {"frozen": 1}
    assert without["predicted"]["outcomes"] == {"frozen": 2}
    assert without["observed"]["daemon_waits"] == {"reclaim-io": 1}
    assert without["predicted"]["daemon_waits"] == {"reclaim-io": 2}
    assert (with_["outcome"], with_["predicted"]["outcomes"]) == ("alike", {"finished": 2})
    text = " ".join(call("model", "compare", "swap-on-nbd", "--seeds", "2").stdout.split())
    assert "without the state 1 run 2 runs came out frozen 1 frozen 2 alike" in text


def test_different() -> None:
    """A half that never froze on a real kernel: 1, and the word."""
    keep(Run(replace(FINISHED, io_flusher=False), FINISHED))
    ended = call("model", "compare", "swap-on-nbd", "--seeds", "2")
    assert ended.status == 1
    assert "came out finished 1 frozen 2 different" in " ".join(ended.stdout.split())


def test_nothing_kept() -> None:
    """The prediction is printed, and what would make it a comparison."""
    keep(Run(FROZEN, FINISHED))
    ended = call("model", "compare", "swap-on-nbd", "--seeds", "1", "--kernel", "6.1")
    assert ended.status == 2
    assert "the model" in ended.stdout
    assert "nothing is kept of swap-on-nbd on Linux 6.1" in ended.stderr
    assert "ioflusher lab run swap-on-nbd --kernel 6.1" in ended.stderr


def test_since() -> None:
    """Runs of before do not count: what was measured is another thing where the lab was mended."""
    keep(Run(FROZEN, FINISHED))
    before = call("model", "compare", "swap-on-nbd", "--seeds", "1", "--since", "2026-01-01")
    assert before.status == 0, before.stderr
    after = call("model", "compare", "swap-on-nbd", "--seeds", "1", "--since", "2999-01-01T00:00")
    assert after.status == 2
    assert "nothing is kept of swap-on-nbd on Linux 6.12" in after.stderr


def test_a_table_of_several() -> None:
    """A row for each, in Markdown; of what is not kept, 2 and how to play it."""
    keep(Run(FROZEN, FINISHED))
    ended = call("model", "compare", "swap-on-nbd", "ext4-on-nbd-throttled", "--seeds", "1", "--markdown")
    assert ended.status == 2
    _, _, swap, throttled = ended.stdout.splitlines()
    assert swap == (
        "| `swap-on-nbd` | 6.12 | frozen 1 | frozen 1 | reclaim-io 1 | finished 1 | finished 1 | alike |"
    )
    assert throttled.startswith("| `ext4-on-nbd-throttled` | 6.12 | - | frozen 1 |")
    assert "ioflusher lab run ext4-on-nbd-throttled --kernel 6.12" in ended.stderr
