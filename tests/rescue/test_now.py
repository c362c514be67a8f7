"""`rescue --now` as far as it can be seen without acting: who may, what is frozen, what it takes."""

import json
import os
from dataclasses import replace

import pytest

from ioflusher.cli import rescue as verb
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay, SeenIn
from ioflusher.rescue.perform import Rescue, RescueOutcome
from ioflusher.rescue.plan import RescuePlan
from tests.audit.machines import WELL
from tests.cli.program import call
from tests.rescue.freezes import NBD0


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded machine in place of this one; this process stays ordinary, and is taken for root's."""
    monkeypatch.setattr(verb, "live_machine", lambda names: (Analysis(WELL, ()), (NBD0,)))
    monkeypatch.setattr("ioflusher.rescue.protection.protect", lambda: ())
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_nothing_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said, with status 0, and nothing is done."""
    monkeypatch.setattr("ioflusher.rescue.live.find_freezes", lambda devices, seconds: ())
    ended = call("rescue", "--now")
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout == "nothing is frozen: 1 served device, none stood still for 3 s\n"
    assert json.loads(call("rescue", "--now", "--json").stdout) == {
        "frozen": False,
        "seen_all": True,
        "recovered": True,
        "untouched": [],
        "freezes": [],
    }


def test_what_may_only_be_slow_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack shows that the daemon waits for itself: nothing is done, and that is said."""
    slow = DeviceFreeze(NBD0, FreezeWay.UNKNOWN, SeenIn.LIVE, False, "it may only be slow", 3.0)
    monkeypatch.setattr("ioflusher.rescue.live.find_freezes", lambda devices, seconds: (slow,))
    ended = call("rescue", "--now")
    assert (ended.status, ended.stdout) == (1, "")
    assert "/dev/nbd0: it may only be slow; nothing is done" in ended.stderr
    assert "--only ACTION does one all the same; with --allow-loss /dev/nbd0 any" in ended.stderr
    record = json.loads(call("rescue", "--now", "--json").stdout)
    assert (record["frozen"], record["recovered"], record["freezes"]) == (True, False, [])
    (told,) = record["untouched"]
    assert (told["device"], told["why"]) == ("/dev/nbd0", "it may only be slow; nothing is done")


def test_what_was_done_for_one_device_may_end_the_freeze_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dirty limits are the machine's: of two devices on each other the second has caught up by then."""
    frozen = [
        DeviceFreeze(replace(NBD0, name=name), FreezeWay.DIRTY_THROTTLING, SeenIn.LIVE, True, "seen", 3.0)
        for name in ("loop0", "nbd0")
    ]
    looks = [tuple(frozen), ()]

    class Ended(Rescue):
        """One that did something for the first device, and would find nothing to do for the second."""

        def __init__(self, plan: RescuePlan, **_: object) -> None:
            assert plan.freeze is frozen[0]
            self.plan = plan

        def end(self) -> RescueOutcome:
            return RescueOutcome(self.plan, (), True, 0.5, (), (), False)

        def close(self) -> None:
            """Nothing is loaded."""

    monkeypatch.setattr("ioflusher.rescue.perform.Rescue", Ended)
    monkeypatch.setattr("ioflusher.rescue.live.find_freezes", lambda devices, seconds: looks.pop(0))
    ended = call("rescue", "--now")
    assert ended.status == 0
    assert "/dev/loop0 goes on, 0.50 s after the first action; lost: nothing" in ended.stdout
    assert "/dev/nbd0 goes on again: what was done for another device has ended" in ended.stdout
    looks += [tuple(frozen), ()]
    record = json.loads(call("rescue", "--now", "--json").stdout)
    assert record["recovered"] is True
    assert [freeze["seconds"] for freeze in record["freezes"]] == [0.5, None]


def test_a_device_that_vanishes_is_not_said_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the first action: said, with status 1."""
    gone = replace(NBD0, name="nbd999")
    frozen = DeviceFreeze(gone, FreezeWay.DIRTY_THROTTLING, SeenIn.LIVE, True, "seen", 3.0)
    monkeypatch.setattr("ioflusher.rescue.live.find_freezes", lambda devices, seconds: (frozen,))
    ended = call("rescue", "--now", "--only", "fuse-abort")
    assert ended.status == 1
    assert "/dev/nbd999 is not there: No such file or directory" in ended.stderr
    assert "nothing is frozen" not in ended.stdout


def test_what_cannot_be_seen_is_not_said_to_be_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without privileges nobody knows who serves what: nothing is found, and that says little."""
    monkeypatch.setattr("ioflusher.rescue.live.find_freezes", lambda devices, seconds: ())
    assert call("rescue", "--plan").stdout == "nothing is frozen: no served device stands still\n"
    blind = replace(WELL, system=replace(WELL.system, privileged=False))
    monkeypatch.setattr(verb, "live_machine", lambda names: (Analysis(blind, ()), (NBD0,)))
    ended = call("rescue", "--plan")
    assert ended.stdout == "no device is seen to stand still, and not all can be seen\n"
    assert json.loads(call("rescue", "--plan", "--json").stdout)["seen_all"] is False
    assert "run it as root" in ended.stderr
    ended = call("rescue", "--now")
    assert ended.stdout == "1 served device, none stood still for 3 s, and not all can be seen\n"
    assert json.loads(call("rescue", "--now", "--json").stdout)["seen_all"] is False


def test_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is looked at."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ended = call("rescue", "--now")
    assert (ended.status, ended.stdout) == (2, "")
    assert "--now needs root" in ended.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--now", "--snapshot", __file__], "takes no --snapshot"),
        (["--plan", "--allow-loss", "nbd0"], "--allow-loss is for --now"),
        (["--only", "dirty-limit"], "there is no action 'dirty-limit'; did you mean"),
    ],
)
def test_wrong_usage(words: list[str], said: str) -> None:
    """What was wrong."""
    ended = call("rescue", *words)
    assert ended.status == 2
    assert said in ended.stderr


def test_a_device_that_nobody_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, with those that there are."""
    monkeypatch.undo()
    with pytest.raises(Exception, match=r"/dev/sda is no device that a process .*; found: /dev/nbd0"):
        verb.check_names(["sda"], [NBD0])
