"""Recordings: whole lines, what survives a crash, and what is none."""

import os
from pathlib import Path

import pytest

from ioflusher.kernel.stall import SelfWait
from ioflusher.watch.alarms import judge
from ioflusher.watch.record import (
    RecordingError,
    ToldAlarm,
    WatchRecord,
    WatchRecorder,
    encode,
    own_heading,
    read_recording,
)
from tests.watch.samples import KERNEL, sample, thread


def a_record(at: float = 100.0) -> WatchRecord:
    """One with every kind of part."""
    held = thread(wait=SelfWait.RECLAIM, reclaim=(KERNEL,), reclaim_s=2.5)
    now = sample(held, at=at, oldest_s=9.0)
    alarms = tuple(
        ToldAlarm(alarm, alarm.what, alarm.advice, "[<0>] shrink_node+0x1/0x2\n")
        for alarm in judge(None, now)
    )
    return WatchRecord(now, alarms)


def written(path: Path, *records: WatchRecord) -> bytes:
    recorder = WatchRecorder(path)
    for record in records:
        recorder.write(record)
    recorder.close()
    assert (recorder.lost, recorder.failed) == (0, "")
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """The same records, alarms and stacks."""
    path = tmp_path / "r"
    written(path, a_record(), a_record(101.0))
    found = read_recording(path)
    assert found.records == (a_record(), a_record(101.0))
    assert found.records[0].alarms[0].stack == "[<0>] shrink_node+0x1/0x2\n"
    assert (found.heading.hostname, found.broken) == (os.uname().nodename, 0)


def test_every_length_of_a_file_that_a_crash_left(tmp_path: Path) -> None:
    """All whole lines are there, the half one is told; before the first line's end it is no recording."""
    path, torn = tmp_path / "r", tmp_path / "torn"
    data = written(path, a_record(), a_record(101.0))
    first = data.index(b"\n") + 1
    for length in range(first, len(data), 7):
        torn.write_bytes(data[:length])
        found = read_recording(torn)
        whole = data[:length].count(b"\n") - 1
        # a line that lacks its end alone is whole
        assert len(found.records) + found.broken - whole in (0, 1)
        assert found.records[:whole] == (a_record(), a_record(101.0))[:whole]


def test_a_recording_goes_on_behind_a_half_line(tmp_path: Path) -> None:
    """What was whole stays, the half line does not spoil the next."""
    path = tmp_path / "r"
    data = written(path, a_record(), a_record(101.0))
    path.write_bytes(data[:-20])
    written(path, a_record(102.0))
    found = read_recording(path)
    assert [record.sample.monotonic for record in found.records] == [100.0, 102.0]
    assert found.broken == 1


def test_a_file_of_something_else(tmp_path: Path) -> None:
    """Is left as it is, and is no recording."""
    path = tmp_path / "notes"
    path.write_text("remember the milk\n")
    with pytest.raises(RecordingError, match="is not a recording of ioflusher watch, and is left as it is"):
        WatchRecorder(path)
    assert path.read_text() == "remember the milk\n"
    with pytest.raises(RecordingError, match="is not a recording"):
        read_recording(path)
    with pytest.raises(RecordingError, match="No such file"):
        read_recording(tmp_path / "none")
    with pytest.raises(RecordingError, match="cannot write"):
        WatchRecorder(tmp_path / "none" / "r")


def test_another_version(tmp_path: Path) -> None:
    """Is said, not guessed at."""
    path = tmp_path / "r"
    path.write_bytes(encode(own_heading()).replace(b'"version":1', b'"version":2') + b"\n")
    with pytest.raises(RecordingError, match="expected ioflusher-watch version 1, found ioflusher-watch 2"):
        read_recording(path)


def test_a_full_disk() -> None:
    """WatchRecording fails, watching goes on, and what is lost is counted."""
    recorder = WatchRecorder(Path("/dev/full"))
    recorder.write(a_record())
    recorder.close()
    assert (recorder.lost, recorder.failed) == (2, "No space left on device")
