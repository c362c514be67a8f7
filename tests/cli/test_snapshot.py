"""`ioflusher snapshot`: the file, its safety, and what is told on standard error."""

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.machine.recorded import Recorded

from ioflusher.machine.codec import load_snapshot, read_snapshot

PROGRAM = [sys.executable, "-m", "ioflusher", "snapshot"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run the program as a user would."""
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, timeout=60)


@pytest.mark.live
def test_this_machine() -> None:
    """Standard output is a snapshot, alone, without command lines unless asked."""
    done = run()
    assert done.returncode == 0
    snapshot = load_snapshot(done.stdout)
    assert any(process.pid == os.getpid() for process in snapshot.processes)
    assert all(process.arguments is None for process in snapshot.processes)
    asked = load_snapshot(run("--arguments").stdout)
    own = next(process for process in asked.processes if process.pid == os.getpid())
    assert own.arguments is not None
    assert own.arguments[0] in (sys.orig_argv[0], *sys.orig_argv)


def test_a_file(tmp_path: Path) -> None:
    """--output writes the whole file, for its owner alone; --root reads a recorded tree."""
    Recorded(tmp_path / "root").machine().process(812, b"daemon")
    done = run("--root", tmp_path / "root", "--output", tmp_path / "host.json")
    assert (done.returncode, done.stdout) == (0, b"")
    assert read_snapshot(tmp_path / "host.json").system.hostname == "store7"
    assert stat.S_IMODE((tmp_path / "host.json").stat().st_mode) == 0o600
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["host.json", "root"]


def test_what_is_no_file_is_written_as_it_is(tmp_path: Path) -> None:
    """A pipe stays a pipe, a link stays a link."""
    Recorded(tmp_path / "root").machine()
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    receive = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("--root", tmp_path / "root", "-o", pipe).returncode == 0
        assert load_snapshot(os.read(receive, 1 << 16)).system.hostname == "store7"
    finally:
        os.close(receive)
    assert pipe.is_fifo()
    file.write_text("old")
    link.symlink_to(file)
    assert run("--root", tmp_path / "root", "-o", link).returncode == 0
    assert link.is_symlink()
    assert read_snapshot(file).system.hostname == "store7"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """An error that names the file, and nothing left behind."""
    Recorded(tmp_path / "root").machine()
    done = run("--root", tmp_path / "root", "-o", tmp_path / "no" / "host.json")
    assert done.returncode == 2
    assert b"cannot write" in done.stderr


def test_a_root_that_is_none(tmp_path: Path) -> None:
    """A directory without proc is told as such."""
    done = run("--root", tmp_path)
    assert done.returncode == 2
    assert b"cannot list" in done.stderr
    assert b"hint:" in done.stderr


def test_a_terminal_gets_no_json(tmp_path: Path) -> None:
    """Refused with a word on what to do, unless forced."""
    Recorded(tmp_path).machine()
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            [*PROGRAM, "--root", str(tmp_path)], stdout=follower, stderr=subprocess.PIPE, timeout=60
        )
        assert done.returncode == 2
        assert b"--output FILE" in done.stderr
        forced = subprocess.run([*PROGRAM, "--root", str(tmp_path), "--force"], stdout=follower, timeout=60)
        assert forced.returncode == 0
        assert os.read(leader, 20).startswith(b'{"system"')
    finally:
        os.close(follower)
        os.close(leader)


def test_what_could_not_be_read_is_told(tmp_path: Path) -> None:
    """A word on standard error, the details in the file."""
    machine = Recorded(tmp_path).machine()
    machine.process(812, b"daemon")
    machine.write("proc/812/oom_score_adj", "rubbish\n")
    done = run("--root", tmp_path)
    assert b"could not be read" in done.stderr
    assert load_snapshot(done.stdout).unreadable


@pytest.mark.parametrize("words", [["snapshot"], ["status", "--json"], ["status"]])
@pytest.mark.live
def test_a_full_disk_is_an_error(words: list[str]) -> None:
    """Told in a line, with status 2."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM[:-1], *words], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 2
    assert b"cannot write to standard output: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.live
def test_a_reader_that_goes_away() -> None:
    """The program ends without a word on it, as others do."""
    receive, send = os.pipe()
    os.close(receive)
    with open(send, "wb") as pipe:
        done = subprocess.run(
            [*PROGRAM[:-1], "status", "--json"], stdout=pipe, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr
