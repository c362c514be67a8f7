"""Snapshots as JSON: both ways, and what is refused."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.kernel.task import Policy, Thread
from ioflusher.machine.codec import dump_snapshot, load_snapshot
from ioflusher.machine.errors import SnapshotError
from ioflusher.machine.process import FileKind, FileUse, Process
from ioflusher.machine.snapshot import Memory, Snapshot, System, Unreadable
from ioflusher.machine.storage import BlockDevice, DeviceKind, DeviceMapper, Mount, Swap

WHOLE = Snapshot(
    system=System("host", "6.12.0", "x86_64", "2026-11-25T01:00:00Z", privileged=True),
    memory=Memory(total_kib=1 << 20, min_free_kib=8192),
    processes=(
        Process(
            pid=7,
            ppid=1,
            comm="nbd) \\xff \n\x1b[31m",
            uid=0,
            threads=(Thread(7, "nbd", "S", 0x00580140, Policy.FIFO, 50, 0),),
            files=(FileUse("/usr/bin/x", FileKind.EXECUTABLE, "8:1", 29),),
        ),
    ),
    devices=(
        BlockDevice("dm-0", "254:0", 1 << 30, DeviceKind.DM, dm=DeviceMapper("root", "LVM-x", ("linear",))),
    ),
    mounts=(Mount(29, 1, "254:0", "/", "/", "ext4", "/dev/mapper/root", (("rw", ""),)),),
    swaps=(Swap("/dev/nbd0", False, "43:0", 1 << 28, 4096, -2),),
    unreadable=(Unreadable("/proc/9/maps", "Permission denied", 9),),
)


def test_round_trip() -> None:
    """What is written comes back the same, any text included."""
    assert load_snapshot(dump_snapshot(WHOLE)) == WHOLE


@given(cut=st.integers(0, len(dump_snapshot(WHOLE)) - 2))
def test_a_cut_file_is_refused(cut: int) -> None:
    """A snapshot cut anywhere gives the room's error, never another one."""
    with pytest.raises(SnapshotError):
        load_snapshot(dump_snapshot(WHOLE)[:cut])


@given(
    data=st.binary() | st.recursive(st.none() | st.booleans(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    """Bytes that are no snapshot give the room's error, never another one."""
    with pytest.raises(SnapshotError):
        load_snapshot(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "other"}, 'expected "format"'),
        ({"version": 99}, "version 1, found 99"),
        ({"swaps": [{"path": 3}]}, r"\$\.swaps\[0\]"),
        ({"processes": "none"}, r"\$\.processes"),
    ],
)
def test_wrong_values_are_named(change: dict[str, object], said: str) -> None:
    """The message says which value is wrong."""
    record = {**json.loads(dump_snapshot(WHOLE)), **change}
    with pytest.raises(SnapshotError, match=said):
        load_snapshot(json.dumps(record).encode(), "x.json")


def test_a_deep_nest_is_refused() -> None:
    """A million brackets end in the room's error."""
    with pytest.raises(SnapshotError):
        load_snapshot(b'{"format": ' + b"[" * 1_000_000)


def test_equal_snapshots_are_equal_bytes() -> None:
    """The same machine gives the same text, so that two files can be compared."""
    assert dump_snapshot(replace(WHOLE)) == dump_snapshot(WHOLE)
