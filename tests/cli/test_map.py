"""`ioflusher map` on recorded machines: formats, parts, exit status, errors."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli import program
from tests.cli.program import Ended
from tests.machine.graphs import daemon, machine, nbd, swap_on

from ioflusher.kernel.task import Thread
from ioflusher.machine.codec import dump_snapshot
from ioflusher.machine.endpoints import Connection, Family, SocketEnd
from ioflusher.machine.snapshot import Snapshot

DEVICE = replace(nbd(0), serving_pid=700)


def host(covered: int) -> Snapshot:
    """Swap on nbd0, whose client is 700 and whose server is 812: found by its socket."""
    client = replace(daemon(700, "nbd-client", covered=1, threads=1))
    pair = Connection(Family.UNIX, (SocketEnd(1, "", (700,)), SocketEnd(2, "/run/nbd.sock", (812,))))
    snapshot = machine((DEVICE,), swaps=(swap_on(DEVICE),), processes=(client, daemon(812, covered=covered)))
    return replace(snapshot, connections=(pair,))


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A recorded machine with a cycle."""
    path = tmp_path / "bare.json"
    path.write_bytes(dump_snapshot(host(0)))
    return str(path)


@pytest.fixture
def covered(tmp_path: Path) -> str:
    """The same machine with the state on the server."""
    path = tmp_path / "covered.json"
    path.write_bytes(dump_snapshot(host(2)))
    return str(path)


def run(*arguments: str, stdin: bytes = b"") -> Ended:
    """The verb in this process."""
    return program.call("map", *arguments, stdin=stdin)


def test_a_cycle_is_status_one(bare: str) -> None:
    """The tree names the daemon, the cycle is told in words with its remedy, and the status is 1."""
    done = run("--snapshot", bare)
    assert done.status == 1
    assert "served by nbd-server (812)" in done.output
    assert "cycle 1: nbd-server (812) can wait for itself" in done.output
    assert "ioflusher set 812" in done.output


def test_no_cycle_is_status_zero(covered: str) -> None:
    """With the state on the server there is none."""
    done = run("--snapshot", covered)
    assert (done.status, "cycle 1" in done.output) == (0, False)


def test_json_of_one_and_of_several(bare: str, covered: str) -> None:
    """One machine is an object with nodes, edges and cycles; several are a list of those."""
    record = json.loads(run("--snapshot", bare, "--json").output)
    assert {"nodes", "edges", "cycles"} <= set(record)
    assert len(record["cycles"]) == 1
    several = json.loads(run("--snapshot", bare, "--snapshot", covered, "--format", "json").output)
    assert [len(each["cycles"]) for each in several["machines"]] == [1, 0]


@pytest.mark.parametrize(
    ("kind", "beginning"),
    [
        ("dot", "digraph"),
        pytest.param("svg", "<svg", marks=pytest.mark.needs("dot")),
        ("mermaid", "%% storage1"),
        ("html", "<!doctype"),
        ("text", "storage1"),
    ],
)
def test_files(bare: str, tmp_path: Path, kind: str, beginning: str) -> None:
    """Each format goes to a file, with the same status."""
    target = tmp_path / "out"
    done = run("--snapshot", bare, "--format", kind, "--output", str(target))
    assert (done.status, done.output) == (1, "")
    assert target.read_text().startswith(beginning)


def test_a_part(bare: str) -> None:
    """One device: its own cycle and nothing of the rest; what is not there is an error."""
    part = json.loads(run("/dev/nbd0", "--snapshot", bare, "--json").output)
    assert "mount:20" not in {node["id"] for node in part["nodes"]}
    assert len(part["cycles"]) == 1
    assert "expected a block device" in run("/nowhere", "--snapshot", bare).stderr


def test_a_prediction(tmp_path: Path) -> None:
    """--would-add on a recorded machine: 1 where a cycle would be new, 0 where none, 2 where not clear."""
    path = tmp_path / "idle.json"
    path.write_bytes(dump_snapshot(replace(host(0), swaps=())))
    idle = str(path)
    assert run("--snapshot", idle).status == 0
    done = run("--snapshot", idle, "--would-add", "swapon /dev/nbd0")
    assert done.status == 1
    assert "cycle 1 (would be new): nbd-server (812) can wait for itself" in done.output
    assert run("--snapshot", idle, "--would-add", "mount -r /dev/nbd0 /srv").status == 0
    wrong = run("--snapshot", idle, "--would-add", "rm -rf /")
    assert wrong.status == 2
    assert "cannot predict 'rm -rf /': the command 'rm' is none of these" in wrong.stderr


def test_an_old_cycle_is_no_prediction(bare: str) -> None:
    """A cycle that is there already is shown, and does not make the status 1."""
    done = run("--snapshot", bare, "--would-add", "mount -r /dev/nbd0 /srv")
    assert (done.status, "cycle 1: nbd-server" in done.output) == (0, True)


def test_cycles_alone(bare: str) -> None:
    """--cycles leaves the tree out, and of the picture what is in no cycle."""
    done = run("--cycles", "--snapshot", bare)
    assert "cycle 1" in done.output
    assert "vda" not in done.output
    assert "vda" not in run("--cycles", "--snapshot", bare, "--format", "dot").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "svg"], "takes one machine"),
        (["--format", "dot", "--json"], "contradict"),
    ],
)
def test_wrong_usage(bare: str, arguments: list[str], said: str) -> None:
    """Status 2 with a sentence."""
    done = run("--snapshot", bare, "--snapshot", bare, *arguments)
    assert done.status == 2
    assert said in done.output


@pytest.mark.live
@pytest.mark.parametrize(
    ("arguments", "environment", "colours", "ascii_only"),
    [
        ([], {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, False, True),
        ([], {"LC_ALL": "C.UTF-8"}, False, False),
        ([], {"LC_ALL": "C.UTF-8", "FORCE_COLOR": "1"}, True, False),
        ([], {"LC_ALL": "C.UTF-8", "FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_terminals(
    bare: str, arguments: list[str], environment: dict[str, str], colours: bool, ascii_only: bool
) -> None:
    """The program itself: colours only where they are wanted, nothing but ASCII where there is no Unicode."""
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "LANG")}
    done = subprocess.run(
        [sys.executable, "-m", "ioflusher", "map", "--snapshot", bare, *arguments],
        capture_output=True,
        timeout=60,
        env={**clean, "TERM": "xterm-256color", **environment},
    )
    assert done.returncode == 1, done.stderr
    assert (b"\x1b[3" in done.stdout or b"\x1b[1;3" in done.stdout) is colours
    assert done.stdout.isascii() is ascii_only


@pytest.mark.live
def test_errors_of_the_program(tmp_path: Path) -> None:
    """A file that is no snapshot, an unknown name, a place that cannot be written: status 2, no traceback."""
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    good = tmp_path / "good.json"
    good.write_bytes(dump_snapshot(host(0)))
    for arguments in (
        ["--snapshot", str(broken)],
        ["--snapshot", str(good), "/nowhere\x1b[31m"],
        ["--snapshot", str(good), "--output", str(tmp_path / "no" / "such" / "place")],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ioflusher", "map", *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2
        assert done.stderr.startswith("ioflusher: ")
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stderr


@pytest.mark.live
def test_this_machine() -> None:
    """The live machine has a graph."""
    done = subprocess.run(
        [sys.executable, "-m", "ioflusher", "map", "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (0, 1), done.stderr
    assert json.loads(done.stdout)["nodes"]


def test_a_pipe_is_a_file(bare: str) -> None:
    """The snapshot of another machine comes through standard input."""
    done = run("--snapshot", "-", "--json", stdin=Path(bare).read_bytes())
    assert json.loads(done.output)["host"] == "storage1"


def test_a_dead_thread_alone_serves_nothing(tmp_path: Path) -> None:
    """A process of which only the dead is left has no coverage to speak of, and no traceback comes of it."""
    ghost = replace(daemon(812), threads=(Thread(812, "nbd-server", "Z", 0),))
    path = tmp_path / "ghost.json"
    path.write_bytes(dump_snapshot(replace(host(0), processes=(ghost,))))
    assert run("--snapshot", str(path)).status in (0, 1)
