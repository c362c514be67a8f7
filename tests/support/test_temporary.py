"""Temporary directories: gone with their owner, at the latest when the next one starts."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ioflusher.support.temporary import OwnedDirectory, sweep

HOLDER = """
import sys, time
from pathlib import Path
from ioflusher.support.temporary import OwnedDirectory
with OwnedDirectory("held-", Path(sys.argv[1])) as owned:
    (owned.path / "file").write_text("x")
    print(owned.path, flush=True)
    time.sleep(60)
"""


def holder(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a directory, and the directory."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_goes_with_the_block(tmp_path: Path) -> None:
    """With all that is in it, whatever ends the block; closing it twice is harmless."""
    with OwnedDirectory("x-", tmp_path) as owned:
        assert owned.path.parent == tmp_path
        assert owned.path.name.startswith("x-")
        (owned.path / "deep").mkdir()
        (owned.path / "deep" / "file").write_text("x")
    assert not any(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), OwnedDirectory("x-", tmp_path):
        raise ZeroDivisionError
    assert not any(tmp_path.iterdir())
    descriptors = len(os.listdir("/proc/self/fd"))
    owned.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_killed_owners_directory_is_swept(tmp_path: Path) -> None:
    """Not while it lives; after SIGKILL the next sweep takes it, and nothing else."""
    process, held = holder(tmp_path)
    with process:
        try:
            (tmp_path / "held-file").write_text("no directory")
            (tmp_path / "other").mkdir()
            (tmp_path / "held-link").symlink_to(tmp_path / "other")
            assert sweep("held-", tmp_path) == []
            assert (held / "file").read_text() == "x"
        finally:
            process.kill()
    assert sweep("held-", tmp_path) == [held]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held-file", "held-link", "other"]
    assert sweep("held-", tmp_path) == []


def test_another_users_directory_is_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in /tmp are anybody's."""
    (tmp_path / "held-x").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert sweep("held-", tmp_path) == []
    monkeypatch.undo()
    assert sweep("held-", tmp_path) == [tmp_path / "held-x"]


def test_a_sweep_between_making_and_locking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is gone before its maker has the lock: it makes another one."""
    made: list[str] = []
    mkdtemp = tempfile.mkdtemp

    def then_swept(**words: Any) -> str:
        made.append(mkdtemp(**words))
        if len(made) == 1:
            # a sweeper that opened the directory before our lock removes it afterwards
            sweeper = os.open(made[0], os.O_RDONLY)
            fcntl.flock(sweeper, fcntl.LOCK_EX)

            def remove() -> None:
                time.sleep(0.05)
                os.rmdir(made[0])
                os.close(sweeper)

            threading.Thread(target=remove).start()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", then_swept)
    with OwnedDirectory("x-", tmp_path) as owned:
        assert len(made) == 2
        assert owned.path == Path(made[1])
        assert owned.path.is_dir()


def test_a_sweep_between_making_and_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is gone before its owner can hold it: another one is made."""
    make = tempfile.mkdtemp
    swept: list[Path] = []

    def made_and_swept(**how: Any) -> str:
        path = str(make(**how))
        if not swept:
            swept.extend(sweep("held-", tmp_path))
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", made_and_swept)
    with OwnedDirectory("held-", tmp_path) as owned:
        assert len(swept) == 1
        assert owned.path not in swept
        assert list(tmp_path.iterdir()) == [owned.path]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories can be used there, and are never swept."""

    def refuse(fd: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with OwnedDirectory("x-", tmp_path) as owned:
        assert sweep("x-", tmp_path) == []
        assert owned.path.is_dir()
    assert not any(tmp_path.iterdir())


def test_ended_by_a_signal_it_is_swept(tmp_path: Path) -> None:
    """A program that does not heed SIGTERM dies of it, and leaves its directory to the next."""
    process, held = holder(tmp_path)
    with process:
        process.send_signal(signal.SIGTERM)
    assert held.is_dir()
    assert sweep("held-", tmp_path) == [held]
