"""Logs from files of every packing, and what is wrong with some."""

import bz2
import gzip
import lzma
import os
import subprocess
from pathlib import Path

import pytest

from ioflusher.kernlog.errors import LogUnreadableError
from ioflusher.kernlog.fleet import LogResult, Options, diagnose_file, diagnose_files
from ioflusher.kernlog.reading.inputs import kernel_ring_buffer, opened

LOG = (Path(__file__).parent / "logs" / "pos_nbd_xfs_inode_write.txt").read_bytes()


def result_of(path: Path) -> LogResult:
    return diagnose_file(str(path), Options())


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_log_is_told_by_its_bytes(tmp_path: Path, pack: object) -> None:
    """The name does not matter."""
    assert callable(pack)
    path = tmp_path / "log"
    path.write_bytes(pack(LOG))
    assert result_of(path).diagnosis.recursion


@pytest.mark.needs("zstd")
def test_zstd_is_read_through_its_program(tmp_path: Path) -> None:
    """Python's own library has zstd from 3.14 on only."""
    path = tmp_path / "log.zst"
    path.write_bytes(subprocess.run(["zstd", "-c"], input=LOG, capture_output=True, timeout=30).stdout)
    assert result_of(path).diagnosis.recursion
    path.write_bytes(path.read_bytes()[:-20])
    assert "zstd failed" in (result_of(path).trouble or "")


def test_without_zstd_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No program, no log, and a hint."""
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "log"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + b"x" * 100)
    result = result_of(path)
    assert "zstd was not found" in (result.trouble or "")
    assert result.hint


def test_a_damaged_log_is_read_up_to_the_damage(tmp_path: Path) -> None:
    """What came before it is diagnosed, and the damage is told."""
    path = tmp_path / "log.gz"
    noise = os.urandom(200_000).hex().encode()
    path.write_bytes(gzip.compress(LOG * 100 + noise)[:-1000])
    result = result_of(path)
    assert result.diagnosis.recursion
    assert "to its end" in (result.trouble or "")


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        (b"", "is empty"),
        (bytes(range(256)) * 100, "is not text"),
        (b"hello\n", None),
        (b"\0\0" + b"hello " * 99, None),
    ],
)
def test_what_is_no_log_is_said_to_be_none(tmp_path: Path, content: bytes, trouble: str | None) -> None:
    """An empty and a binary file; a text without stacks is no trouble."""
    path = tmp_path / "log"
    path.write_bytes(content)
    found = result_of(path).trouble
    assert (trouble in found) if trouble and found else found is None


def test_a_missing_log_and_a_directory_are_told(tmp_path: Path) -> None:
    """The message names what was asked for."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(LogUnreadableError, match=str(path)), opened(str(path)) as stream:
            stream.readinto(memoryview(bytearray(10)))


def test_the_ring_buffers_form_is_read(tmp_path: Path) -> None:
    """A file of records stands in for /dev/kmsg, which this machine may forbid."""
    path = tmp_path / "kmsg"
    path.write_bytes(b"".join(b"4,1,%d,-;%s\n" % (n, line[15:]) for n, line in enumerate(LOG.splitlines())))
    path.write_bytes(kernel_ring_buffer(path))
    assert result_of(path).diagnosis.recursion
    with pytest.raises(LogUnreadableError):
        kernel_ring_buffer(tmp_path / "none")


def test_many_logs_come_back_in_their_order(tmp_path: Path) -> None:
    """A fleet's logs, each by itself."""
    names = []
    for number in range(4):
        path = tmp_path / f"host{number}"
        path.write_bytes(LOG if number % 2 else b"nothing\n")
        names.append(str(path))
    results = list(diagnose_files(names, Options()))
    assert [result.name for result in results] == names
    assert [result.diagnosis.recursion for result in results] == [False, True, False, True]
