"""Freezes of a real kernel: `watch` sees one come and go, `rescue` and `guard` end others.

One guest plays all of it (guest_freezes.py), because booting one and loading Python there takes longer than
a freeze.
"""

import zlib
from base64 import b64decode
from typing import Any

import pytest

from ioflusher.kernel.stall import SelfWait
from ioflusher.watch.alarms import AlarmKind
from ioflusher.watch.record import WatchRecording, parse_recording
from ioflusher.watch.sample import CountedBy
from tests.rescue.hundred import came_back, play

pytestmark = pytest.mark.vm

GUARDED = 2


@pytest.fixture(scope="module")
def played() -> list[Any]:
    """All that was seen in the guest."""
    return play("watch", "rescue:1", f"guard:{GUARDED}", timeout_s=300)


@pytest.fixture(scope="module")
def found(played: list[Any]) -> dict[str, Any]:
    """What guest_watch.py found, by check."""
    return dict(line for line in played if isinstance(line, list))


@pytest.fixture(scope="module")
def freezes(played: list[Any]) -> dict[str, list[dict[str, Any]]]:
    """What came of each freeze, by what was done."""
    told: dict[str, list[dict[str, Any]]] = {}
    for line in played:
        if isinstance(line, dict):
            told.setdefault(line["what"], []).append(line)
    return told


@pytest.fixture(scope="module")
def recording(found: dict[str, Any]) -> WatchRecording:
    """What the watch recorded."""
    return parse_recording(zlib.decompress(b64decode(found["record"])), "the guest's")


def test_the_kernel_counts_only_while_somebody_watches(found: dict[str, Any]) -> None:
    """One instance with its events, and neither before nor after: SIGTERM, kill -9, kill -9 of both."""
    assert found["before"] == [[], []]
    assert found["while it counts"] == [1, True]
    assert found["ended by SIGTERM"] == 143
    assert found["after it"] == [[], []]
    seconds, events = found["gone after kill -9"]
    assert 0 <= seconds < 10
    assert events == []
    assert found["swept"] == [1, []]


def test_near_misses_come_before_the_stall(recording: WatchRecording) -> None:
    """The daemon is paused first; then a request is old, the stall is told, with the daemon's stack."""
    assert recording.broken == 0
    kinds = [told.alarm.kind for record in recording.records for told in record.alarms]
    assert kinds[0] is AlarmKind.NEAR_MISS
    assert AlarmKind.STALL in kinds
    stall = next(
        told for record in recording.records for told in record.alarms if told.alarm.kind is AlarmKind.STALL
    )
    assert (stall.alarm.wait, stall.alarm.device) == (SelfWait.DIRTY_THROTTLING, "nbd0")
    assert stall.alarm.seconds >= 2
    assert stall.stack is not None
    assert "balance_dirty_pages" in stall.stack


def test_the_freeze_is_over_in_the_end(found: dict[str, Any], recording: WatchRecording) -> None:
    """The dirty limit was raised: the writer ends, requests are young, nothing more is told."""
    assert 0 <= found["written after"] < 60
    last = recording.records[-1]
    assert last.alarms == ()
    assert last.sample.counted_by is CountedBy.KERNEL
    assert last.sample.lost == 0


def test_the_screen_goes_on(found: dict[str, Any]) -> None:
    """On a terminal, in the freeze, twice a second as asked; Ctrl-C ends it."""
    screens, longest = found["screens"]
    assert screens >= 6
    assert longest < 5.0  # on a machine that emulates and is busy; a screen that froze would stay
    assert found["ended by Ctrl-C"] == 130


def test_sampling_sees_what_goes_on(found: dict[str, Any]) -> None:
    """Without the kernel's counts a daemon that is throttled for long is found all the same."""
    status, waits = found["sampled"]
    assert (status, waits) == (1, ["dirty throttling"])


def test_rescue_ends_a_freeze_and_nothing_is_lost(freezes: dict[str, list[dict[str, Any]]]) -> None:
    """By the first action; the limits are as before, and all that was written is read back."""
    (told,) = freezes["rescued"]
    assert told["frozen"]
    assert (told["status"], told["way"]) == (0, ["dirty_throttling"])
    assert ["dirty-limits", "ended_it"] in told["actions"][0]
    assert told["seconds"][0] < 5
    assert told["left"] == [[]]
    assert (told["work"]["status"], told["wrong"]) == (0, 0)


def test_a_guard_ends_every_freeze(freezes: dict[str, list[dict[str, Any]]]) -> None:
    """It is locked, in the state, real time; each freeze that it saw goes on, and nothing is lost."""
    (told,) = freezes["guard"]
    assert told["locked"] >= told["resident"] - 1024
    assert (told["io_flusher"], told["policy"]) == (True, "RR")
    rounds = freezes["guarded"]
    assert len(rounds) == GUARDED
    for each in rounds:
        assert each["woken"], each
        assert came_back(each), each
        assert each["acted"], each
    assert freezes["guard ended"][0]["status"] == 0
    assert freezes["guard ended"][0]["kept"] > 10


def test_a_freeze_that_nobody_ends_stays(freezes: dict[str, list[dict[str, Any]]]) -> None:
    """So it was they who ended the others: the same without a guard completes no request."""
    (told,) = freezes["left alone"]
    assert told["frozen"]
    assert told["completed"] == 0
    assert any("balance_dirty_pages" in wait for wait in told["waits"])
    assert told["work"]["status"] == 0
