"""`ioflusher status`: right for this machine's own processes, and safe for a terminal."""

import json
import os
import subprocess
import sys

import pytest

from ioflusher.cli.comm import printable
from ioflusher.cli.status import as_record, verdict
from ioflusher.flag import ThreadState
from ioflusher.kernel.task import TaskFlags

pytestmark = pytest.mark.live


def ioflusher(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "ioflusher", *arguments], capture_output=True, text=True, timeout=60
    )


def test_json_of_this_process() -> None:
    """The JSON form names the process, its threads, and agrees with /proc."""
    done = ioflusher("status", "--json", str(os.getpid()))
    (process,) = json.loads(done.stdout)["processes"]
    assert process["pid"] == os.getpid()
    threads = process["threads"]
    assert {t["tid"] for t in threads} == {int(name) for name in os.listdir("/proc/self/task")}
    for thread in threads:
        assert set(thread) == {"tid", "comm", "flags", "io_flusher"}
        assert thread["io_flusher"] is (thread["flags"] & 0x180000 == 0x180000)


def test_text_of_this_process() -> None:
    """The text form counts the covered threads and lists each."""
    done = ioflusher("status", str(os.getpid()))
    assert f"{os.getpid()} " in done.stdout
    assert "threads covered" in done.stdout


def test_no_such_process_is_an_error() -> None:
    """A number without a process ends with status 2 and a message."""
    done = ioflusher("status", "4194305")
    assert done.returncode == 2
    assert "no process 4194305" in done.stderr


def test_without_arguments() -> None:
    """Without numbers the machine is listed, and that always works."""
    assert ioflusher("status").returncode == 0
    assert "processes" in json.loads(ioflusher("status", "--json").stdout)


@pytest.mark.parametrize("name", [b"\x1b[31mred", b"a\nb", b"\x9b2J", b"\xff\xfe", "‮evil".encode()])
def test_no_name_controls_the_terminal(name: bytes) -> None:
    """Escape codes, newlines, broken UTF-8 and direction marks come out printable."""
    assert printable(name).isprintable()


def test_half_set_is_told() -> None:
    """One bit of the two is neither set nor unset."""
    half = ThreadState(tid=1, comm=b"x", state="S", flags=TaskFlags(0x80000))
    assert verdict(half) == "half set"
    assert as_record(1, (half,))["threads"][0]["io_flusher"] is False
