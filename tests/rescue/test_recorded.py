"""Freezes in a snapshot, a diagnosis, an alarm."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ioflusher.machine.codec import dump_snapshot
from ioflusher.machine.snapshot import Memory
from ioflusher.machine.storage import DeviceKind
from ioflusher.report.rescue_text import plan_lines
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import FreezeWay, SeenIn
from ioflusher.rescue.plan import plan
from ioflusher.rescue.recorded import (
    freezes_of_alarm,
    freezes_of_diagnosis,
    freezes_of_snapshot,
    memory_of_alarm,
)
from tests.audit.machines import BARE, DEVICE, SWAP_ON_NBD, WELL, machine, threads
from tests.cli.program import call
from tests.rescue.freezes import NBD0, THROTTLED, freeze

LOGS = Path(__file__).parent.parent / "kernlog" / "logs"
RECORDING = Path(__file__).parent.parent / "watch" / "recordings" / "frozen-nbd.jsonl"
ALARM = {
    "kind": "stall",
    "device": "nbd0",
    "wait": "dirty throttling",
    "pid": 7,
    "comm": "server",
    "serves": "NBD server of /dev/nbd0",
    "covered": False,
    "seconds": 6.5,
}


def test_a_snapshot_at_its_dirty_limit() -> None:
    """The figures speak for it, and it is not certain."""
    (found,) = freezes_of_snapshot([NBD0], THROTTLED)
    assert (found.way, found.certain, found.seen) == (
        FreezeWay.DIRTY_THROTTLING,
        False,
        SeenIn.SNAPSHOT,
    )
    assert "4 requests of /dev/nbd0 in flight, 7 of at most 8 MiB dirty" in found.reason


@pytest.mark.parametrize(
    ("changes", "way"),
    [
        ({"missing": ("NBD server",)}, FreezeWay.DAEMON_GONE),
        ({"swaps": ("/dev/nbd0",)}, FreezeWay.RECLAIM),
        ({"multipath": "mpatha"}, FreezeWay.PATHS_LOST),
        ({}, FreezeWay.UNKNOWN),
    ],
)
def test_what_else_a_snapshot_shows(changes: dict[str, object], way: FreezeWay) -> None:
    """Far from the limit."""
    memory = replace(THROTTLED, writeback_kib=100)
    (found,) = freezes_of_snapshot([replace(NBD0, **changes)], memory)  # type: ignore[arg-type]
    assert found.way is way


@pytest.mark.parametrize(
    ("memory", "throttled"),
    [
        (replace(THROTTLED, writeback_kib=6144), True),  # three quarters of 8 MiB
        (replace(THROTTLED, writeback_kib=6143), False),
        (replace(THROTTLED, writeback_kib=None), False),
        (replace(THROTTLED, dirty_kib=None), False),
        (replace(THROTTLED, dirty_bytes=None, dirty_ratio=None), False),
    ],
)
def test_how_near_to_the_limit(memory: Memory, throttled: bool) -> None:
    """From three quarters of it on, where all is known."""
    (found,) = freezes_of_snapshot([NBD0], memory)
    assert found.way is (FreezeWay.DIRTY_THROTTLING if throttled else FreezeWay.UNKNOWN)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nbd12", DeviceKind.NBD),
        ("ublkb0", DeviceKind.UBLK),
        ("dm-3", DeviceKind.DM),
        ("loop0", DeviceKind.OTHER),
    ],
)
def test_a_device_that_no_snapshot_has_is_known_by_its_name(name: str, kind: DeviceKind) -> None:
    """As far as an action depends on it."""
    (found,) = freezes_of_alarm({**ALARM, "device": name})
    assert (found.device.name, found.device.kind) == (name, kind)


def test_nothing_in_flight_is_no_freeze_unless_it_is_asked_for() -> None:
    """By its name."""
    quiet = replace(NBD0, in_flight=0)
    assert freezes_of_snapshot([quiet], THROTTLED) == ()
    assert len(freezes_of_snapshot([quiet], THROTTLED, ["nbd0"])) == 1


def test_the_program_plans_for_a_recorded_machine(tmp_path: Path) -> None:
    """With the exact command; status 1, since something may be frozen."""
    snapshot = machine(
        {"threads": threads(BARE)},
        memory=THROTTLED,
        devices=(replace(DEVICE, in_flight=3), *WELL.devices[1:]),
        swaps=(SWAP_ON_NBD,),
    )
    file = tmp_path / "host.json"
    file.write_bytes(dump_snapshot(snapshot))
    # the snapshot's own sockets do not say who serves it: the pid of the device does
    ended = call("rescue", "--plan", "--snapshot", file)
    assert ended.status == 1, ended.output
    assert "/dev/nbd0: perhaps frozen by dirty throttling, as seen in a snapshot" in ended.stdout
    assert "do:   echo 82837504 > /proc/sys/vm/dirty_bytes" in ended.stdout
    record = json.loads(call("rescue", "--plan", "--snapshot", file, "--json").stdout)
    (found,) = record["freezes"]
    assert found["device"] == "/dev/nbd0"
    assert found["steps"][0]["action"] == "dirty-limits"
    assert found["steps"][0]["loss"] == "nothing"


def test_a_diagnosis_is_planned_for(tmp_path: Path) -> None:
    """What `diagnose --json` printed of a real log, without a snapshot: the daemon's number is in it."""
    answer = call("diagnose", "--json", LOGS / "pos_nbd_xfs_inode_write.txt")
    (found, *_) = freezes_of_diagnosis(json.loads(answer.stdout))
    assert (found.way, found.certain, found.seen) == (FreezeWay.RECLAIM, True, SeenIn.DIAGNOSIS)
    assert found.device.path == "a device that the record does not name"
    assert found.device.daemons
    file = tmp_path / "answer.json"
    file.write_text(answer.stdout)
    ended = call("rescue", "--diagnosis", file)
    assert ended.status == 1
    assert f"ioflusher set --timeout 60 {found.device.daemons[0].pid}" in ended.stdout
    assert "without --snapshot" in ended.stderr


def test_an_alarm_is_planned_for() -> None:
    """A stall, with the device of the snapshot where there is one."""
    (found,) = freezes_of_alarm(ALARM, [NBD0])
    assert found.device is NBD0
    assert (found.way, found.stalled_s) == (FreezeWay.DIRTY_THROTTLING, 6.5)
    assert found.reason.startswith("server (7) was in dirty throttling while a request of /dev/nbd0")
    (alone,) = freezes_of_alarm({**ALARM, "wait": "direct reclaim"})
    assert (alone.way, alone.device.daemons[0].pid) == (FreezeWay.RECLAIM, 7)


def test_what_watch_prints_is_an_alarm() -> None:
    """A line of a real `watch --json`, and one alarm of it; one without alarms is none."""
    lines = [json.loads(line) for line in RECORDING.read_text().splitlines()[1:]]
    stalled = next(line for line in lines for told in line["alarms"] if told["alarm"]["kind"] == "stall")
    for record in (stalled, stalled["alarms"][0], stalled["alarms"][0]["alarm"]):
        (found,) = freezes_of_alarm(record)
        assert (found.device.name, found.way) == ("nbd0", FreezeWay.DIRTY_THROTTLING)
    with pytest.raises(RescueError, match="expected an alarm"):
        freezes_of_alarm(lines[0])


def test_a_recording_has_its_last_stall(tmp_path: Path) -> None:
    """The file of `watch --record` as it is; one without a stall is said to have none."""
    ended = call("rescue", "--alarm", RECORDING)
    assert ended.status == 1
    assert "/dev/nbd0: frozen by dirty throttling, as seen in an alarm" in ended.stdout
    heading = tmp_path / "short.record"
    heading.write_text(RECORDING.read_text().splitlines()[0] + "\n")
    assert "expected an alarm of `ioflusher watch`" in call("rescue", "--alarm", heading).stderr


def test_a_line_of_watch_has_the_figures_of_memory(tmp_path: Path) -> None:
    """So the dirty limits can be raised, and put back; without them that is not planned, and said why."""
    line = json.loads(
        next(line for line in RECORDING.read_text().splitlines() if '"stall"' in line and '"sample"' in line)
    )
    assert memory_of_alarm(line["alarms"][0]) == Memory()
    line["sample"]["memory"] |= {
        "dirty_bytes": 8 << 20,
        "dirty_background_bytes": 4 << 20,
        "dirty_ratio": 0,
        "dirty_background_ratio": 0,
    }
    memory = memory_of_alarm(line)
    assert (memory.dirty_bytes, memory.total_kib) == (8 << 20, line["sample"]["memory"]["total_kib"])
    file = tmp_path / "line.json"
    file.write_text(json.dumps(line))
    planned = call("rescue", "--plan", "--alarm", file)
    assert (planned.status, planned.stderr) == (1, "")
    assert "1. dirty-limits (loses nothing)" in planned.stdout
    assert "echo 8388608 > /proc/sys/vm/dirty_bytes" in planned.stdout
    del line["sample"]
    file.write_text(json.dumps(line))
    planned = call("rescue", "--plan", "--alarm", file)
    assert "not dirty-limits: the machine's dirty limits and dirty pages are not known" in planned.stdout
    assert "without --snapshot the machine's figures are not known" in planned.stderr


def test_a_stall_of_the_kernels_own_target() -> None:
    """No process of it takes the state; the limits are the machine's."""
    told = {"serves": "iSCSI target of /dev/sda", "device": "sda", "comm": "iscsi_trx", "takes_state": False}
    (found,) = freezes_of_alarm({**ALARM, **told, "tid": 7, "thread": "iscsi_trx"})
    assert found.device.servers == ("the kernel's own iSCSI target",)
    planned = plan(found, THROTTLED)
    assert [step.action for step in planned.steps] == ["dirty-limits"]
    assert "nothing puts the state on a thread of the kernel" in planned.others[0].why


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "expected an alarm of `ioflusher watch`: the key kind is missing"),
        ({**ALARM, "kind": "near miss"}, "the alarm is a near miss, not a stall: nothing stands still"),
        ({**ALARM, "pid": "x"}, "expected an alarm of `ioflusher watch`: invalid literal for int"),
    ],
)
def test_what_is_no_stall(record: dict[str, object], said: str) -> None:
    """Said in words."""
    with pytest.raises(RescueError) as raised:
        freezes_of_alarm(record)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_plan_on_a_terminal(tmp_path: Path, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prose in whole words within its columns, 100 at most."""
    monkeypatch.setenv("COLUMNS", str(columns))
    file = tmp_path / "alarm.json"
    file.write_text(json.dumps(ALARM))
    lines = call("rescue", "--plan", "--alarm", file).stdout.splitlines()
    width = min(columns, 100)
    assert width - 20 < max(map(len, lines)) <= width
    text = " ".join(line.strip() for line in lines)
    assert "why: server (7) was in dirty throttling while a request of /dev/nbd0 had waited for 6.5 s" in text


def test_a_command_is_one_line_to_be_copied() -> None:
    """Whatever the width."""
    planned = plan(freeze(), THROTTLED)
    lines = list(plan_lines([planned], width=40))
    commands = [
        line.partition(":")[2].strip() for line in lines if line.startswith(("     do:", "     undo:"))
    ]
    assert commands == [command for step in planned.steps for command in (*step.commands, *step.undo)]
    assert max(map(len, commands)) > 40


@pytest.mark.parametrize("record", [{}, {"episodes": 1}, {"episodes": [{}]}, {"episodes": [1]}])
def test_what_is_no_diagnosis(record: dict[str, object]) -> None:
    """Said."""
    with pytest.raises(RescueError, match="diagnos"):
        freezes_of_diagnosis(record)
