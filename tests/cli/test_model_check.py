"""`ioflusher model check`: what a kept run did, and whether the model can do it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.program import call
from tests.lab.halves import FINISHED, FROZEN, plan, thread

from ioflusher.comparison import check
from ioflusher.lab.outcome import Ending, Half, HalfOutcome, Run
from ioflusher.lab.store import ExperimentStore
from ioflusher.model.scale import Scale

THROTTLED = """\
[<0>] balance_dirty_pages+0x1/0x2
[<0>] ext4_buffered_write_iter+0x1/0x2
[<0>] do_syscall_64+0x1/0x2
"""


@pytest.fixture
def keep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Keeps a run of swap-on-nbd in a store of the test's own; the instance is smaller, for time."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(check, "small", lambda scenario: Scale(scenario.workload.size // 5, queue_depth=1))

    def one(without: Half, with_: Half) -> str:
        store = ExperimentStore()
        number = store.begin(plan(runs=1))
        store.keep(number, 1, Run(without, with_))
        store.end(number, Ending.COMPLETE)
        return str(number)

    return one


def test_allowed(keep: Callable[..., str]) -> None:
    """A freeze that can be reached, a daemon in reclaim, and a half that lived."""
    ended = call("model", "check", keep(FROZEN, FINISHED))
    assert ended.status == 0, ended.stderr
    lines = [line.strip() for line in ended.stdout.splitlines()]
    assert "run 1, without the state: allowed" in lines
    assert any(line.startswith("it froze: allowed, a way of ") for line in lines)
    assert "its daemon waited: reclaim-io: allowed, the waits of its daemon in the model: reclaim-io" in lines
    assert "it was done: allowed, seed 0 is done, too" in lines


def test_not_allowed(keep: Callable[..., str]) -> None:
    """A half with the state that froze, in dirty throttling: the model can do neither."""
    frozen = replace(FROZEN, io_flusher=True, threads=(thread(THROTTLED, io_flusher=True),))
    ended = call("model", "check", keep(replace(FINISHED, io_flusher=False), frozen), "--json")
    assert ended.status == 1
    without, with_ = json.loads(ended.stdout)["halves"]
    assert without["deeds"] == [
        {"what": "it was done", "allowance": "unknown", "why": "none of 20 seeds is done"}
    ]
    froze, waited = with_["deeds"]
    assert froze["allowance"] == "not allowed"
    assert froze["why"].startswith("no freeze is among all ")
    assert (waited["what"], waited["allowance"]) == ("its daemon waited: dirty-throttled", "not allowed")


def test_not_known(keep: Callable[..., str]) -> None:
    """A half that was lost told nothing; an exploration that was cut short shows nothing."""
    lost = replace(FINISHED, outcome=HalfOutcome.LOST)
    ended = call("model", "check", keep(FROZEN, lost), "--states", "100")
    assert ended.status == 2
    assert "it froze: unknown, not covered after " in ended.stdout
    assert "the half was lost: nothing was observed" in ended.stdout


def test_a_freeze_that_a_small_instance_has_not(
    keep: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One unit of work reaches no freeze; a run of the whole does, so the model allows it."""
    small = Scale(8 << 20, queue_depth=1, work_units=1)
    monkeypatch.setattr(check, "small", lambda scenario: small)
    ended = call("model", "check", keep(FROZEN, FINISHED))
    assert ended.status == 0, ended.stdout
    assert "it froze: allowed, seed 0 freezes, too" in ended.stdout
