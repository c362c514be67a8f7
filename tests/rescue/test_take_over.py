"""Taking over as far as it can be seen without an nbd device: who has which store, and who is left alone."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ioflusher.errors import IoflusherError
from ioflusher.machine.storage import DeviceKind
from ioflusher.rescue.actions.nbd_take_over import NbdTakeOver
from ioflusher.rescue.actions.same_store import written_files
from ioflusher.rescue.actions.ublk_recovery import UblkRecovery
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import FreezeWay
from ioflusher.rescue.other_server import OtherServer
from tests.rescue.freezes import freeze
from tests.rescue.test_plan import steps


@contextmanager
def process_with(path: Path, flags: int) -> Iterator[int]:
    """A process that has the file open, and nothing else of interest."""
    file = os.open(path, flags)
    quiet = subprocess.DEVNULL
    with subprocess.Popen(["sleep", "100"], pass_fds=(file,), stdout=quiet, stderr=quiet) as process:
        os.close(file)
        try:
            yield process.pid
        finally:
            process.kill()


def test_what_a_process_may_write(tmp_path: Path) -> None:
    """By device and inode, as nothing but the file itself has; a log is no store."""
    file = tmp_path / "disk"
    file.touch()
    status = file.stat()
    (tmp_path / "hard").hardlink_to(file)
    with process_with(tmp_path / "hard", os.O_RDWR) as pid:
        assert written_files(pid) == {(status.st_dev, status.st_ino, False)}
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_APPEND):
        with process_with(file, flags) as pid:
            assert written_files(pid) == set()
    with pytest.raises(RescueError, match="files of process 4194305 cannot be seen"):
        written_files(4194305)


def test_a_descriptor_that_is_closed_meanwhile_is_passed_over(tmp_path: Path) -> None:
    """Before its flags are read, and after; a process that has ended is none without files."""
    process = tmp_path / "proc/7"
    (process / "fd").mkdir(parents=True)
    (process / "fdinfo").mkdir()
    with pytest.raises(RescueError, match="files of process 7 cannot be seen: it has ended"):
        written_files(7, tmp_path)
    disk = tmp_path / "disk"
    disk.touch()
    for number in (3, 5):
        (process / f"fdinfo/{number}").write_text("pos:\t0\nflags:\t0100002\nmnt_id:\t29\nino:\t4\n")
    (process / "fd/3").symlink_to(disk)
    for number in (4, 5):
        (process / f"fd/{number}").symlink_to(tmp_path / "gone")
    status = disk.stat()
    assert written_files(7, tmp_path) == {(status.st_dev, status.st_ino, False)}


def test_a_server_of_another_store_is_not_taken_and_nobody_is_killed(tmp_path: Path) -> None:
    """What was found when the machine was looked at is looked at again."""
    for name in ("first", "second"):
        (tmp_path / name).touch()
    with (
        process_with(tmp_path / "first", os.O_RDWR) as first,
        process_with(tmp_path / "second", os.O_RDWR) as second,
    ):
        other = OtherServer(second, "sleep", "nbd://127.0.0.1:1/", first, str(tmp_path / "first"))
        step = steps(FreezeWay.DIRTY_THROTTLING, other_server=other)["nbd-take-over"]
        with pytest.raises(IoflusherError, match="does not have the same store as process"):
            NbdTakeOver().prepare(freeze(other_server=other), step)
        frozen = freeze(kind=DeviceKind.UBLK, name="ublkb0", other_server=other)
        step = steps(FreezeWay.DIRTY_THROTTLING, kind=DeviceKind.UBLK, name="ublkb0", other_server=other)[
            "ublk-recovery"
        ]
        assert step.commands == (f"kill -9 {first}",)
        with pytest.raises(IoflusherError, match="does not have the same store as process"):
            UblkRecovery().prepare(frozen, step)
        assert os.waitid(os.P_PID, first, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
