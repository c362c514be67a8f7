"""`ioflusher status`: right for this machine's own processes, and safe for a terminal."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console
from tests.cli.program import start

from ioflusher.kernel.capability import CapabilitySets
from ioflusher.kernel.task import Policy, Thread
from ioflusher.machine.process import Process
from ioflusher.report.status import SORT_KEYS, sorted_by, status_record
from ioflusher.report.status_text import print_machine, print_process, verdict
from ioflusher.support.text import printable, text_of

EVIL = "\x1b[31mred\n\x9b2J\u202e[bold]"
DAEMON = Process(
    pid=7,
    ppid=1,
    comm=EVIL,
    uid=0,
    threads=(
        Thread(7, EVIL, "S", 0x00580140, Policy.FIFO, 50),
        Thread(8, "half", "S", 0x00480140, Policy.OTHER, 0, -5),
        Thread(9, "iou-wrk-7", "S", 0x00404010, Policy.OTHER),
        Thread(10, "dead", "Z", 0x00400004, Policy.OTHER),
    ),
    capabilities=CapabilitySets(effective=1 << 24 | 1 << 14, permitted=0, bounding=0),
    locked_kib=2048,
    swapped_kib=12,
    resident_kib=3 << 20,
    oom_score_adj=-1000,
)


def drawn(*processes: Process, every_thread: bool = False) -> str:
    """What a terminal with colours would get."""
    console = Console(record=True, width=200, height=50, force_terminal=True, file=io.StringIO())
    if every_thread:
        print_process(processes[0], console)
    else:
        print_machine(list(processes), console)
    return console.export_text()


@pytest.mark.live
def test_json_of_this_process() -> None:
    """The JSON form names the process, its threads, and agrees with /proc."""
    done = start("status", "--json", str(os.getpid()))
    (process,) = json.loads(done.stdout)["processes"]
    assert list(process)[:3] == ["pid", "comm", "threads"]
    assert process["pid"] == os.getpid()
    threads = process["threads"]
    assert {t["tid"] for t in threads} == {int(name) for name in os.listdir("/proc/self/task")}
    for thread in threads:
        assert set(thread) == {"tid", "comm", "flags", "io_flusher"}
        assert thread["io_flusher"] is (thread["flags"] & 0x180000 == 0x180000)
    assert process["uid"] == os.geteuid()
    assert process["scheduling"][0]["policy"] == "other"


@pytest.mark.live
def test_text_of_this_process() -> None:
    """The text form counts the covered threads and lists each."""
    done = start("status", str(os.getpid()))
    assert f"{os.getpid()} " in done.stdout
    assert "threads covered" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that only sleeps."""
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


@pytest.mark.live
def test_one_missing_process_hides_no_other(sleeper: subprocess.Popen[bytes]) -> None:
    """A number without a process ends with status 2 and a message; the others are shown."""
    done = start("status", "4194305", str(sleeper.pid))
    assert done.status == 2
    assert "no process 4194305" in done.stderr
    assert f"{sleeper.pid} " in done.stdout


@pytest.mark.live
def test_the_machine(sleeper: subprocess.Popen[bytes]) -> None:
    """Without numbers every process that runs a program has its line; kernel threads on demand."""
    listed = json.loads(start("status", "--json").stdout)["processes"]
    pids = [process["pid"] for process in listed]
    assert sleeper.pid in pids
    assert os.getpid() in pids
    assert pids == sorted(pids)
    everything = json.loads(start("status", "--json", "--kernel", "--sort=-threads").stdout)["processes"]
    counts = [process["threads_living"] for process in everything]
    assert counts == sorted(counts, reverse=True)
    assert start("status", "--flagged").status == 0
    serving = json.loads(start("status", "--json", "--serving").stdout)["processes"]
    assert sleeper.pid not in [process["pid"] for process in serving]
    assert re.search(rf"^ *{sleeper.pid} sleep ", start("status").stdout, re.MULTILINE)


@pytest.mark.live
@pytest.mark.needs("root")  # only root can become somebody else
def test_unprivileged(sleeper: subprocess.Popen[bytes]) -> None:
    """Another user sees the same of a process of root's."""
    # loaded first: this installation may lie where only root may read
    code = (
        "import msgspec, os, sys, ioflusher.cli.status; from ioflusher.cli.main import main;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "sys.argv[1:] = ['status', '--json', sys.argv[1]]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(sleeper.pid)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    mine = json.loads(start("status", "--json", str(sleeper.pid)).stdout)["processes"]
    assert json.loads(done.stdout)["processes"] == mine


@pytest.mark.live
def test_a_wrong_key_is_refused() -> None:
    """The message lists the keys there are."""
    done = start("status", "--sort", "beauty")
    assert done.status == 2
    assert "locked" in done.stderr


@pytest.mark.parametrize("name", [b"\x1b[31mred", b"a\nb", b"\x9b2J", b"\xff\xfe", "‮evil".encode()])
def test_no_name_controls_the_terminal(name: bytes) -> None:
    """Escape codes, newlines, broken UTF-8 and direction marks come out printable."""
    assert printable(text_of(name)).isprintable()


def test_no_name_of_a_process_reaches_a_table_unescaped() -> None:
    """In both forms; and what looks like rich's markup is text."""
    for text in (drawn(DAEMON), drawn(DAEMON, every_thread=True)):
        assert "\\x1b[31mred\\n\\x9b2J\\u202e[bold]" in text
        assert all(line.isprintable() for line in text.split("\n"))


def test_the_line_of_a_process() -> None:
    """Covered of living, half set, memory, OOM score, scheduling, capabilities."""
    line = next(line for line in drawn(DAEMON).split("\n") if line.lstrip().startswith("7 "))
    assert line.split("[bold]")[1].split() == (
        ["1/3", "1", "2M", "12K", "-1000", "fifo", "50,", "other", "nice", "-5,", "other", "RL-"]
    )


def test_what_is_unknown_is_told_as_unknown() -> None:
    """A question mark, never a zero."""
    unknown = replace(
        DAEMON, comm="x", capabilities=None, locked_kib=None, swapped_kib=None, oom_score_adj=None
    )
    line = next(line for line in drawn(unknown).split("\n") if line.lstrip().startswith("7 "))
    assert line.split()[4:7] == ["?", "?", "?"]
    assert status_record(unknown)["capabilities"] is None
    assert "capabilities  ?" in drawn(unknown, every_thread=True)


def test_half_set_is_told() -> None:
    """One bit of the two is neither set nor unset."""
    half = DAEMON.threads[1]
    assert verdict(half)[0] == "half set"
    record = status_record(DAEMON)
    assert [thread["io_flusher"] for thread in record["threads"]] == [True, False, False, False]
    assert (record["threads_covered"], record["threads_living"], record["threads_half_set"]) == (1, 3, 1)


@pytest.mark.parametrize("key", SORT_KEYS)
def test_every_key_sorts(key: str) -> None:
    """Ascending, descending with a minus, by number where equal; unknown values do no harm."""
    plain = Process(3, 1, "a", None, (Thread(3, "a", "S", 0),))
    zombie = Process(9, 1, "b", None, (Thread(9, "b", "Z", 0),))
    rows = [DAEMON, plain, zombie]
    values = [SORT_KEYS[key](row) for row in sorted_by(rows, key)]
    assert values == sorted(values)
    assert [SORT_KEYS[key](row) for row in sorted_by(rows, f"-{key}")] == values[::-1]


@pytest.mark.parametrize("key", ["locked", "swapped", "resident", "oom"])
def test_what_is_unknown_sorts_below_every_known_value(key: str) -> None:
    """Zero and scores below it are known values; what is unknown comes last in descending order."""

    def process(pid: int, value: int | None) -> Process:
        return replace(
            DAEMON, pid=pid, locked_kib=value, swapped_kib=value, resident_kib=value, oom_score_adj=value
        )

    rows = [process(3, 0), process(4, None), process(5, -1000), process(6, 7)]
    assert [row.pid for row in sorted_by(rows, f"-{key}")] == [6, 3, 5, 4]
