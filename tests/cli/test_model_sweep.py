"""`ioflusher model sweep`: who freezes where, as table, JSON and picture."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.program import PROGRAM, call

NBD = "ext4-on-nbd-throttled"
LIMITS = ("--over", "kernel.sysctl.vm.dirty_bytes=8M,32M")


def test_a_table_and_a_picture(tmp_path: Path) -> None:
    """A row for each combination; the picture has both halves."""
    picture = tmp_path / "phase.svg"
    ended = call("model", "sweep", NBD, *LIMITS, "--seeds", "1", "--picture", str(picture))
    assert ended.status == 0, ended.stderr
    rows = [" ".join(line.split()) for line in ended.stdout.splitlines()]
    assert rows[0] == "dirty_bytes without with"
    assert rows[1].startswith("8 MiB froze 1 of 1 done, at most ")
    assert rows[2].startswith("32 MiB done, at most ")
    drawn = picture.read_text()
    assert drawn.startswith("<?xml")
    assert "without the state" in drawn
    assert "with the state" in drawn


def test_json_and_what_cannot_be_played() -> None:
    """A combination that is no scenario is there with the reason; 1 says that something is missing."""
    ended = call("model", "sweep", NBD, "--over", "queue_depth=0,4", "--seeds", "1", "--json")
    assert ended.status == 1
    record = json.loads(ended.stdout)
    bad, good = record["cells"]
    assert "device.queue_depth" in bad["not_played_because"]
    assert good["values"] == {"device.queue_depth": 4}
    assert good["with"] == {"runs": 1, "frozen": 0, "done": 1, "longest_s": good["with"]["longest_s"]}


CLUSTER = """
import subprocess, sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        program = [sys.executable, "-m", "ioflusher", "model", "sweep", *sys.argv[1:]]
        program += ["--dask", cluster.scheduler_address]
        done = subprocess.run(program, capture_output=True, timeout=100)
    sys.stdout.buffer.write(done.stdout)
    sys.exit(done.returncode)
"""


def _plays(process: str) -> bool:
    """Whether a process has used the processor for half a second: then it is in the middle of runs."""
    return int(Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[11]) >= 50


def test_ctrl_c_plays_nothing_more() -> None:
    """A thousand combinations would take minutes; those that are being played take a moment."""
    words = ("model", "sweep", NBD, "--over", "queue_depth=1..1000:1", "--seeds", "1", "--jobs", "2")
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children")
        deadline = time.monotonic() + 60
        while len(players := children.read_text().split()) < 2 or not all(map(_plays, players)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        program.send_signal(signal.SIGINT)
        try:
            out, err = program.communicate(timeout=60)
        finally:
            program.kill()
    assert (program.returncode, out) == (130, b"")
    assert b"interrupted" in err
    assert len(players) == 2
    assert not any(Path("/proc", player).exists() for player in players)


def test_a_cluster_may_play_it() -> None:
    """The workers of a local Dask cluster give the same answer as processes, in the same order."""
    pytest.importorskip("distributed", reason="install the extra dask to run this")
    words = [NBD, "--over", "queue_depth=1..4", *LIMITS, "--seeds", "1", "--json"]
    done = subprocess.run([sys.executable, "-c", CLUSTER, *words], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == json.loads(call("model", "sweep", *words).stdout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--over", "queue_depth=1", "--over", "device.queue_depth=2"), "is given twice"),
        (("--over", "queue_depth=1", "--picture", "x.gif"), "expected FILE.svg or FILE.png"),
        (("--over", "colour=1"), "scenarios have no key 'colour'"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], message: str) -> None:
    """Said before anything is played."""
    ended = call("model", "sweep", NBD, *words)
    assert ended.status == 2
    assert message in ended.stderr
