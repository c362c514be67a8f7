"""Doing a plan on recorded trees: what ends it, what fails, what is put back. Nothing of this machine."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ioflusher.machine.snapshot import Memory
from ioflusher.rescue import perform
from ioflusher.rescue.actions.action import (
    FileWrite,
    Loss,
    Prepared,
    PreparedWrites,
    RescueAction,
    RescueStep,
)
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze
from ioflusher.rescue.perform import Rescue, RescueOutcome, StepResult
from ioflusher.rescue.plan import RescuePlan
from tests.rescue.freezes import freeze


class Device:
    """nbd0 as files: its requests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = root / "sys/class/block/nbd0"
        self.place.mkdir(parents=True)
        self.set(10, 3)

    def set(self, completed: int, in_flight: int) -> None:
        (self.place / "stat").write_text(f"{completed} 0 0 0 0 0 0 0 0 0 0\n")
        (self.place / "inflight").write_text(f"0 {in_flight}\n")


class Trick(Prepared):
    """An action of the test's own."""

    def __init__(self, do: Callable[[], object], log: list[str], name: str) -> None:
        self._do, self._log, self._name = do, log, name

    def do(self) -> str:
        self._log.append(f"do {self._name}")
        self._do()
        return "done"

    def undo(self) -> str:
        self._log.append(f"undo {self._name}")
        return f"{self._name} undone"


class Played(RescueAction):
    """An action that has its trick ready."""

    def __init__(self, name: str, prepared: Prepared) -> None:
        self.name = name
        self._prepared = prepared

    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep:
        raise AssertionError("the plan is the test's own")

    def prepare(self, freeze: DeviceFreeze, step: RescueStep) -> Prepared:
        return self._prepared


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@pytest.fixture
def end(device: Device, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[RescueOutcome, list[str]]]:
    """Do a plan of these actions, each a name with what it does, its loss and whether in the background."""
    monkeypatch.setattr(perform, "CAUGHT_UP_S", 0.1)
    monkeypatch.setattr(perform, "POLL_S", 0.01)

    def run(
        *tricks: tuple[str, Callable[[], object]],
        most: Loss = Loss.NOTHING,
        losses: dict[str, Loss] | None = None,
        background: str = "",
    ) -> tuple[RescueOutcome, list[str]]:
        log: list[str] = []
        steps = []
        actions: list[RescueAction] = []
        for name, do in tricks:
            steps.append(
                RescueStep(
                    name,
                    (losses or {}).get(name, Loss.NOTHING),
                    "all of it",
                    "why",
                    (f"do {name}",),
                    (f"undo {name}",),
                    background=name == background,
                    wait_s=0.2,
                )
            )

            actions.append(Played(name, Trick(do, log, name)))
        rescue = Rescue(
            RescuePlan(freeze(), tuple(steps), ()),
            most=most,
            settle_s=1.0,
            actions=tuple(actions),
            root=device.root,
        )
        try:
            return rescue.end(), log
        finally:
            rescue.close()

    return run


def results(outcome: RescueOutcome) -> dict[str, StepResult]:
    """What became of each action."""
    return {step.step.action: step.result for step in outcome.steps}


def test_the_first_that_works_is_enough(
    device: Device, end: Callable[..., tuple[RescueOutcome, list[str]]]
) -> None:
    """One without effect stays until the end; the next one ends it; all is put back, the last first."""
    outcome, log = end(("a", lambda: None), ("b", lambda: device.set(11, 0)), ("c", lambda: None))
    assert results(outcome) == {
        "a": StepResult.NO_EFFECT,
        "b": StepResult.ENDED_IT,
        "c": StepResult.NOT_NEEDED,
    }
    assert log == ["do a", "do b", "undo b", "undo a"]
    assert outcome.recovered
    assert outcome.seconds is not None
    assert 0.2 < outcome.seconds < 2
    assert outcome.put_back == ("b undone", "a undone")
    assert not outcome.stands_still_again


def test_what_loses_something_has_to_be_allowed(
    device: Device, end: Callable[..., tuple[RescueOutcome, list[str]]]
) -> None:
    """Else it is named and not done."""
    tricks = (("a", lambda: None), ("b", lambda: device.set(11, 0)))
    outcome, log = end(*tricks, losses={"b": Loss.DEVICE})
    assert results(outcome) == {"a": StepResult.NO_EFFECT, "b": StepResult.NOT_ALLOWED}
    assert log == ["do a", "undo a"]
    assert not outcome.recovered
    outcome, log = end(*tricks, losses={"b": Loss.DEVICE}, most=Loss.DEVICE)
    assert results(outcome)["b"] is StepResult.ENDED_IT


def test_one_that_fails_is_said_and_the_next_has_its_turn(
    device: Device, end: Callable[..., tuple[RescueOutcome, list[str]]]
) -> None:
    """What failed has put itself back and is not undone once more."""

    def fail() -> None:
        raise RescueError("no room")

    outcome, log = end(("a", fail), ("b", lambda: device.set(11, 0)))
    assert results(outcome) == {"a": StepResult.FAILED, "b": StepResult.ENDED_IT}
    assert outcome.steps[0].detail == "no room"
    assert log == ["do a", "do b", "undo b"]


@pytest.mark.parametrize(("moment", "completed"), [("_wait", 10), ("_settle", 11)])
def test_what_was_changed_is_put_back_where_a_signal_ends_it(
    device: Device,
    end: Callable[..., tuple[RescueOutcome, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    completed: int,
) -> None:
    """While it waits for a request, or for the device to catch up: nobody has to know what it was before."""
    undone = []

    def undo(self: Trick) -> str:
        undone.append(self._name)
        return "done"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trick, "undo", undo)
    monkeypatch.setattr(Rescue, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        end(("a", lambda: device.set(completed, 0)), ("b", lambda: None))
    assert undone == ["a"]


def test_what_cannot_be_put_back_is_said(
    device: Device, end: Callable[..., tuple[RescueOutcome, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to type; the others are put back all the same."""

    def undo(self: Trick) -> str:
        if self._name == "b":
            raise RescueError("read-only")
        return f"{self._name} undone"

    monkeypatch.setattr(Trick, "undo", undo)
    outcome, _ = end(("a", lambda: None), ("b", lambda: device.set(11, 0)))
    assert outcome.left == ("b: read-only; put it back by: undo b",)
    assert outcome.put_back == ("a undone",)


def test_one_that_hangs_holds_nobody_up(
    device: Device, end: Callable[..., tuple[RescueOutcome, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, with what to type, as it cannot be put back."""
    monkeypatch.setattr(perform, "DO_S", 2.0)
    ever = threading.Event()
    outcome, log = end(("a", ever.wait), ("b", lambda: device.set(11, 0)))
    assert results(outcome) == {"a": StepResult.HANGS, "b": StepResult.ENDED_IT}
    assert outcome.left == ("a hangs: undo a",)
    assert log[:2] == ["do a", "do b"]
    ever.set()


def test_the_one_in_the_background_is_begun_first(
    device: Device, end: Callable[..., tuple[RescueOutcome, list[str]]]
) -> None:
    """And nobody waits for it, nor undoes it."""
    outcome, log = end(
        ("a", lambda: device.set(11, 0)), ("state", lambda: time.sleep(0.6)), background="state"
    )
    assert log == ["do state", "do a", "undo a"]
    assert [(step.step.action, step.result) for step in outcome.steps] == [
        ("state", StepResult.BEGUN),
        ("a", StepResult.ENDED_IT),
        ("state", StepResult.DONE),
    ]


def test_what_goes_on_in_the_background_for_too_long_is_left_behind(
    device: Device, end: Callable[..., tuple[RescueOutcome, list[str]]]
) -> None:
    """It is said, and what was changed is put back."""
    ever = threading.Event()
    outcome, log = end(("a", lambda: device.set(11, 0)), ("state", ever.wait), background="state")
    last = outcome.steps[-1]
    assert (last.step.action, last.result) == ("state", StepResult.HANGS)
    assert last.detail == "not done yet, and goes on"
    assert log == ["do state", "do a", "undo a"]
    ever.set()


def test_a_device_that_stands_still_again_is_said(
    device: Device, end: Callable[..., tuple[RescueOutcome, list[str]]]
) -> None:
    """Its requests stand still once all is put back."""
    outcome, _ = end(("a", lambda: device.set(11, 3)))
    assert outcome.recovered
    assert outcome.stands_still_again


def test_a_device_that_vanishes_is_frozen_no_longer(
    device: Device, end: Callable[..., tuple[RescueOutcome, list[str]]]
) -> None:
    """It has no requests."""
    outcome, _ = end(("a", lambda: (device.place / "stat").write_text("")))
    assert outcome.recovered


def test_no_thread_stays(device: Device, end: Callable[..., tuple[RescueOutcome, list[str]]]) -> None:
    """A guard that ends a thousand freezes has no more threads than before."""
    before = threading.active_count()
    end(("a", lambda: None), ("b", lambda: device.set(11, 0)))
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_device_that_vanished_before(tmp_path: Path) -> None:
    """Nothing can be done for it."""
    with pytest.raises(RescueError, match="/dev/nbd0 is not there"):
        Rescue(RescuePlan(freeze(), (), ()), root=tmp_path)


def test_values_that_were_written_come_back(tmp_path: Path) -> None:
    """Half-way, too: where the second cannot be written, the first is put back, and that is said."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("1")
    second.write_text("1")
    whole = PreparedWrites((FileWrite(str(first), "2"),), (FileWrite(str(first), "1"),))
    assert whole.do() == f"{first} is 2"
    assert first.read_text() == "2"
    assert whole.undo() == f"{first} is 1 again"
    assert first.read_text() == "1"
    half = PreparedWrites(
        (FileWrite(str(first), "3"), FileWrite("/dev/full", "3")), (FileWrite(str(first), "1"),)
    )
    with pytest.raises(RescueError, match="No space left on device; what was written before is put back"):
        half.do()
    assert first.read_text() == "1"


def test_a_file_that_knows_no_places_takes_a_value(tmp_path: Path) -> None:
    """As those of fusectl: a FIFO refuses pwrite(2) with the same error."""
    path = tmp_path / "abort"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        prepared = PreparedWrites((FileWrite(str(path), "1"),), ())
        assert prepared.do() == f"{path} is 1"
        assert os.read(reader, 10) == b"1"
        prepared.close()
    finally:
        os.close(reader)


def test_what_cannot_be_opened_is_known_before_anything_is_done(tmp_path: Path) -> None:
    """With what is needed."""
    with pytest.raises(RescueError, match=r"cannot write .*/none: No such file") as caught:
        PreparedWrites((FileWrite(str(tmp_path / "none"), "1"),), ())
    assert caught.value.hint == "it needs root, and /proc/sys and /sys that are not read-only"
