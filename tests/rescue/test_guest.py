"""`rescue --now` and a guard on a real kernel: the freeze of their machine ends, and nothing is lost."""

from typing import Any

import pytest

from tests.rescue.hundred import came_back, play

pytestmark = pytest.mark.vm

ROUNDS = 3  # after the first freeze of a guest not every round freezes


@pytest.fixture(scope="module")
def freezes() -> dict[str, list[dict[str, Any]]]:
    """What guest_freezes.py saw, by what was done."""
    told: dict[str, list[dict[str, Any]]] = {}
    for line in play("rescue:1", f"guard:{ROUNDS}", timeout_s=300):
        told.setdefault(line["what"], []).append(line)
    return told


def test_rescue_ends_the_freeze(freezes: dict[str, list[dict[str, Any]]]) -> None:
    """Of that device, by the dirty limits, which are put back; the daemon gets the state, all can be read."""
    (told,) = freezes["rescued"]
    assert (told["frozen"], told["status"], told["devices"]) == (True, 0, ["/dev/nbd0"])
    assert told["way"] == ["dirty_throttling"]
    assert told["actions"] == [
        ["daemon-state", "begun"],
        ["dirty-limits", "ended_it"],
        ["daemon-state", "done"],
    ]
    assert 0 <= told["seconds"][0] < 5
    assert "/proc/sys/vm/dirty_bytes is 8388608 again" in told["put_back"][0][0]
    assert told["left"] == [[]]
    assert (told["work"]["status"], told["wrong"]) == (0, 0)


def test_a_guard_ends_each_freeze(freezes: dict[str, list[dict[str, Any]]]) -> None:
    """It is locked, in the state, real time; the device goes on, and what was written is read back.

    All with the capabilities of its unit.
    """
    (told,) = freezes["guard"]
    assert "NoNewPrivs:\t1" in told["confined"]
    assert told["locked"] >= told["resident"] - 1024
    assert (told["io_flusher"], told["policy"]) == (True, "RR")
    assert len(freezes["guarded"]) == ROUNDS
    froze = [told for told in freezes["guarded"] if told["seen_by"]]
    assert froze
    for ended in froze:
        assert "waits in balance_dirty_pages(): dirty throttling" in ended["said"][0]
        assert came_back(ended), ended
        assert ended["acted"]


def test_what_was_seen_is_kept_and_it_ends_when_told_to(freezes: dict[str, list[dict[str, Any]]]) -> None:
    """By SIGTERM; its history has stacks, memory and looks."""
    (told,) = freezes["guard ended"]
    assert told["status"] == 0
    assert told["kept"] > 5


@pytest.mark.parametrize(
    ("scenario", "part", "device", "action"),
    [
        ("ext4-on-nbd-throttled", "take-over", "/dev/nbd1", "nbd-take-over"),
        ("ext4-on-ublk-throttled", "ublk-recovery", "/dev/ublkb0", "ublk-recovery"),
    ],
)
def test_another_server_of_the_same_store_goes_on(scenario: str, part: str, device: str, action: str) -> None:
    """The frozen one is killed, by that action alone, and what was written can be read."""
    found = {line["what"]: line for line in play(part, scenario=scenario, timeout_s=300)}
    told = found["rescued"]
    assert (told["frozen"], told["status"], told["devices"]) == (True, 0, [device])
    assert told["actions"] == [[action, "ended_it"]]
    assert 0 <= told["seconds"][0] < 45
    assert (told["work"]["status"], told["wrong"]) == (0, 0)
    assert found["servers"] == {"what": "servers", "first": -9, "second": None}


def test_a_map_without_a_path_is_ended_by_rescue_and_by_a_guard() -> None:
    """Who reads gets an error, and reads once a path is back; the map keeps requests again."""
    played = play("multipath", "guarded-multipath", scenario="swap-on-multipath", timeout_s=300)
    found = {line["what"]: line for line in played}
    told = found["multipath"]
    assert (told["waits"], told["status"], told["way"]) == (True, 0, "paths_lost")
    assert told["actions"] == [["multipath-queueing", "ended_it"]]
    assert told["left"] == []
    guarded = found["guarded multipath"]
    assert guarded["said"][0].startswith("none of the 2 paths of ")
    assert any(line.startswith("multipath-queueing: ended it") for line in guarded["said"]), guarded
    assert guarded["acted"]
    for each in (told, guarded):
        assert each["reader"][0] == 1
        assert "Input/output error" in each["reader"][1]
        assert each["back"] >= 0
