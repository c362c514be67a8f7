"""`ioflusher set` and `unset`: what they print, and their exit statuses, on a real process."""

import errno
import json
import os
import subprocess
from collections.abc import Iterator

import pytest
from tests.cli.program import start

from ioflusher.flag import coverage

pytestmark = pytest.mark.live


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process without the capability, and so without the state."""
    if coverage().complete:
        pytest.skip("the test itself runs in the state")
    process = subprocess.Popen(["sleep", "120"])
    yield process.pid
    process.kill()
    process.wait(30)


@pytest.mark.refused
def test_what_is_not_permitted_is_said(sleeper: int) -> None:
    """Exit status 1, the thread, the capability, and what to do; nothing changed."""
    done = start("set", str(sleeper))
    assert done.status == 1
    assert str(sleeper) in done.stdout
    assert "CAP_SYS_RESOURCE" in done.stdout
    assert "ioflusher run" in done.stdout
    done = start("set", "--json", str(sleeper))
    assert done.status == 1
    (process,) = json.loads(done.stdout)["processes"]
    assert (process["pid"], process["state"], process["complete"]) == (sleeper, True, False)
    assert [(t["tid"], t["outcome"]) for t in process["threads"]] == [(sleeper, "not_permitted")]


def test_nothing_to_clear(sleeper: int) -> None:
    """A process without the state is left alone by `unset`, which is a success."""
    done = start("unset", str(sleeper))
    assert done.status == 0
    assert "1 was clear" in done.stdout


def test_one_that_does_not_exist_does_not_stop_the_others(sleeper: int) -> None:
    """An error for it, the exit status says so, and the other process had its turn."""
    done = start("unset", "4194305", str(sleeper))
    assert done.status == 2
    assert "4194305" in done.stderr
    assert f"{sleeper} sleep: 1 was clear" in done.stdout


def test_one_that_only_waits_to_be_collected() -> None:
    """A process that ended is no process any more, though it still has a number; JSON tells of it too."""
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    done = start("set", "--json", str(ended.pid))
    assert ended.wait(30) == 0
    assert (done.status, f"no process {ended.pid}" in done.stderr) == (2, True)
    assert json.loads(done.stdout)["processes"] == []
    (error,) = json.loads(done.stdout)["errors"]
    assert (error["pid"], error["errno"]) == (ended.pid, errno.ESRCH)


@pytest.mark.parametrize("words", [(), ("x",), ("0",), ("--timeout", "0", "1")])
def test_bad_arguments(words: tuple[str, ...]) -> None:
    """No process, no number, no time: status 2 and a word on what is wrong."""
    done = start("set", *words)
    assert done.status == 2
    assert "Error" in done.stderr
