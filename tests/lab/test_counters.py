"""Requests of what is served, as the kernel counts them."""

import errno
from pathlib import Path

import pytest

from ioflusher.lab.guest.counters import BlockCounters, NfsCounters, RepeatedFile, Requests, nfs_requests

# of Linux 6.12 with NFS-Ganesha 4.3 on the same machine, shortened
MOUNTSTATS = b"""\
device proc mounted on /proc with fstype proc
device 127.0.0.1:/export mounted on /nfs with fstype nfs4 statvers=1.1
\topts:\trw,vers=4.1,rsize=1048576,wsize=1048576,hard,proto=tcp,timeo=600,local_lock=none
\tage:\t1
\tevents:\t0 0 0 0 0 0 4 4 0 0 0 1 0 0 2 1 0 1 0 0 4 0 0 0 0 0 0
\tbytes:\t0 4194304 0 0 0 4194304 0 4
\tRPC iostats version: 1.1  p/v: 100003/4 (nfs)
\txprt:\ttcp 0 0 2 0 0 37 30 0 36 0 4 8 4
\tper-op statistics
\t        NULL: 1 1 0 44 24 38 19 59 0
\t       WRITE: 4 4 0 4195136 736 226 1454 1681 0
device elsewhere:/x mounted on /other with fstype nfs4 statvers=1.1
\txprt:\ttcp 0 0 2 0 0 1000 900 0 36 0 4 8 4
\txprt:\ttcp 0 0 2 0 0 5 10 0 36 0 4 8 4
device tmpfs mounted on /run with fstype tmpfs
"""


@pytest.mark.parametrize(
    ("mount_point", "expected"),
    [
        (b"/nfs", Requests(completed=30, in_flight=7)),
        (b"/other", Requests(completed=910, in_flight=95)),  # two connections
        (b"/run", Requests(completed=0, in_flight=0)),
        (b"/nf", Requests(completed=0, in_flight=0)),
    ],
)
def test_calls_of_one_mount(mount_point: bytes, expected: Requests) -> None:
    """Sends and receives of the mount at this place alone."""
    assert nfs_requests(MOUNTSTATS, mount_point) == expected


def test_the_file_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading is of now."""
    texts = iter([MOUNTSTATS, MOUNTSTATS.replace(b"37 30", b"38 33")])
    monkeypatch.setattr(RepeatedFile, "read", lambda self: next(texts))
    counters = NfsCounters("/nfs")
    assert [counters.read(), counters.read()] == [Requests(30, 7), Requests(33, 5)]


def test_a_file_that_comes_in_pieces(tmp_path: Path) -> None:
    """All of it is read, each time from the beginning."""
    file = tmp_path / "mountstats"
    file.write_bytes(bytes(range(200)))
    repeated = RepeatedFile(file, size=64)
    assert repeated.read() == bytes(range(200))
    file.write_bytes(b"less")
    assert repeated.read() == b"less"
    assert repeated.read() == b"less"


def test_a_device_that_is_taken_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ublk's is when its server is killed: what it completed stays known, and nothing is in flight."""
    stat, there = b"3 0 0 0 4 0 0 0 2 0 0", [True]

    def read(file: object) -> bytes:
        if not there[0]:
            raise OSError(errno.ENODEV, "No such device")
        return stat if file is counters._stat else b"1 1"

    monkeypatch.setattr(RepeatedFile, "__init__", lambda *_: None)
    monkeypatch.setattr(RepeatedFile, "read", read)
    counters = BlockCounters("/dev/ublkb0")
    assert counters.read() == Requests(completed=7, in_flight=2)
    there[0] = False
    assert counters.read() == Requests(completed=7, in_flight=0)


def test_another_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a device that is gone counts as none."""

    def read(file: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(RepeatedFile, "__init__", lambda *_: None)
    monkeypatch.setattr(RepeatedFile, "read", read)
    with pytest.raises(OSError, match="Input/output error"):
        BlockCounters("/dev/ublkb0").read()
