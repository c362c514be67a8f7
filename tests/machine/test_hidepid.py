"""hidepid, the mount option of /proc that hides other users' processes."""

from pathlib import Path

import pytest

from ioflusher.machine.collect.hidepid import note_hidden
from ioflusher.machine.collect.unreadable_notes import Notes
from ioflusher.machine.snapshot import Unreadable

HEAD = b"Name:\tx\nState:\tR (running)\nTgid:\t7\nTracerPid:\t0\nUid:\t0\t0\t0\t0\n"
ALL = HEAD + b"CapEff:\t000001ffffffffff\n"
NONE = HEAD + b"CapEff:\t0000000000000000\n"


def noted(tmp_path: Path, status: bytes, options: bytes) -> tuple[Unreadable, ...]:
    """What is noted of a /proc that is mounted so, by a program with these capabilities."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_bytes(status)
    line = b"22 29 0:21 / %s rw,nosuid - proc proc rw%s\n" % (bytes(tmp_path), options)
    other = b"99 29 0:99 / /elsewhere/proc rw - proc proc rw,hidepid=invisible\n"
    (tmp_path / "self/mountinfo").write_bytes(b"29 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + other + line)
    notes = Notes()
    note_hidden(str(tmp_path), notes)
    return notes.unreadable()


@pytest.mark.parametrize("value", [b"1", b"2", b"4", b"noaccess", b"invisible", b"ptraceable"])
def test_it_is_said(tmp_path: Path, value: bytes) -> None:
    """By the old numbers and by the names since 5.8, for the mount that is read and no other."""
    (item,) = noted(tmp_path, NONE, b",gid=7,hidepid=" + value)
    assert item.what == "processes of other users"
    assert f"hidepid={value.decode()}" in item.why


@pytest.mark.parametrize("options", [b"", b",hidepid=0", b",hidepid=off", b",subset=pid"])
def test_nothing_is_hidden(tmp_path: Path, options: bytes) -> None:
    """Without the option, and with it off."""
    assert noted(tmp_path, NONE, options) == ()


def test_root_sees_all(tmp_path: Path) -> None:
    """CAP_SYS_PTRACE is what counts."""
    assert noted(tmp_path, ALL, b",hidepid=2") == ()
