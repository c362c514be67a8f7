"""Running programs: what they get, what comes back, and every way in which they fail."""

import io
import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ioflusher.support import programs
from ioflusher.support.programs import (
    ProgramError,
    ProgramFailedError,
    ProgramMissingError,
    ProgramTimeoutError,
    call,
    find_program,
    run,
    start,
)


def test_input_is_empty_and_messages_are_english(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program cannot wait for a terminal, and its words do not depend on the user's language."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert run(["sh", "-c", "cat; echo $LC_ALL"], deadline_s=30) == "C.UTF-8\n"


def test_our_own_input_is_not_the_programs(tmp_path: Path) -> None:
    """What somebody types for us is not eaten by a program that we run."""
    ours = tmp_path / "input"
    ours.write_text("typed")
    saved = os.dup(0)
    try:
        with ours.open() as file, (tmp_path / "out").open("w+b") as output:
            os.dup2(file.fileno(), 0)
            assert run(["cat"], deadline_s=30) == ""
            assert start(["cat"], output=output).wait(30) == 0
            assert os.lseek(0, 0, os.SEEK_CUR) == 0
    finally:
        os.dup2(saved, 0)
        os.close(saved)
    assert (tmp_path / "out").read_bytes() == b""


def test_the_directory_and_further_variables(tmp_path: Path) -> None:
    """Where it runs and what it is given besides this process's environment."""
    done = call(["sh", "-c", "pwd; echo $WORD$PATH"], deadline_s=30, cwd=tmp_path, extra={"WORD": "w:"})
    assert done.output.startswith(f"{tmp_path}\nw:/")


def test_a_status_is_an_answer() -> None:
    """`call` gives status and both outputs apart, or merged in their order; bytes become text."""
    script = r"printf 'a\377'; echo b >&2; printf c; exit 3"
    done = call(["sh", "-c", script], deadline_s=30)
    assert (done.status, done.output, done.errors) == (3, "a\\xffc", "b\n")
    merged = call(["sh", "-c", script], deadline_s=30, merged=True)
    assert (merged.status, merged.output, merged.errors) == (3, "a\\xffb\nc", "")


def test_a_failure_says_what_to_repeat_and_what_was_said() -> None:
    """The command for a shell, the status, and the last lines of what it wrote."""
    with pytest.raises(ProgramFailedError) as caught:
        run(["sh", "-c", "seq 9 >&2; exit 4"], deadline_s=30)
    assert str(caught.value) == "`sh -c 'seq 9 >&2; exit 4'` exited 4:\n4\n5\n6\n7\n8\n9"
    assert caught.value.status == 4


def test_a_signal_is_named() -> None:
    """Death by a signal is no exit status."""
    with pytest.raises(ProgramFailedError, match=r"died of signal 9$") as caught:
        run(["sh", "-c", "kill -9 $$"], deadline_s=30)
    assert caught.value.status == -9


def test_a_deadline_ends_it() -> None:
    """A program that goes on is killed, and the message holds what it had said."""
    began = time.monotonic()
    with pytest.raises(ProgramTimeoutError, match=r"was still running after 0\.3 s:\nso far$"):
        run(["sh", "-c", "echo so far; exec sleep 60"], deadline_s=0.3)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("program", "says"),
    [("/nonexistent/program", "no such program"), ("/", "cannot run /: Permission denied")],
)
def test_what_cannot_be_started(program: str, says: str) -> None:
    """A missing program and one that may not be executed, by each of the three ways."""
    with pytest.raises(ProgramMissingError, match=says) as caught:
        call([program], deadline_s=30)
    assert caught.value.errno in (2, 13)
    with pytest.raises(ProgramMissingError, match=says), tempfile.TemporaryFile() as output:
        start([program], output=output)


def test_a_missing_directory_is_not_a_missing_program(tmp_path: Path) -> None:
    """The message does not send anybody to install a program that is there."""
    with pytest.raises(ProgramError, match="cannot run true: No such file or directory"):
        run(["true"], deadline_s=30, cwd=tmp_path / "none")


def test_finding_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From PATH, then from where system programs lie; the hint names the package and what installs it."""
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(programs, "SYSTEM_PATH", str(tmp_path))
    assert find_program("tool", package="tools") == str(program)
    with pytest.raises(ProgramMissingError, match="the program drill is not installed") as caught:
        find_program("drill", package="tools")
    assert caught.value.hint == "install the package tools"
    with pytest.raises(ProgramMissingError) as caught:
        find_program("drill", package="tools", installer="ioflusher lab setup")
    assert caught.value.hint == "run `ioflusher lab setup` as root, or install the package tools"


def test_a_program_beside_us(tmp_path: Path) -> None:
    """It writes both outputs to the file, has a process group of its own and no input."""
    script = "import os, sys; print(os.getpgrp() == os.getpid(), sys.stdin.read()); sys.stderr.write('e')"
    with (tmp_path / "out").open("w+b") as output:
        process = start([sys.executable, "-c", script], output=output)
        assert process.wait(30) == 0
        output.seek(0, io.SEEK_SET)
        assert sorted(output.read()) == sorted(b"True \ne")
