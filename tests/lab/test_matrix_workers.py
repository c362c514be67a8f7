"""Worker processes of a matrix: whatever ends the program, guests end and what is measured is kept."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ioflusher.lab.store import ExperimentStore
from ioflusher.lab.trials import measured_runs
from tests.lab.halves import FINISHED, FROZEN
from tests.lab.matrix_workers import trials

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until it is so; fails at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def members(group: int) -> list[int]:
    """Processes of a process group that still run; those that have ended and wait for their parent do not."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] not in "ZX":
                found.append(int(entry.name))
    return found


@pytest.fixture
def playing(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A matrix of which two runs are being played, in a process group of its own."""
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.lab.matrix_workers", str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # the halves of a run are played at once: the one that goes on may begin before the other is kept
        wait_for(
            lambda: (
                program.poll() is not None
                or (len(list(tmp_path.glob("guest-*"))) == 2 and all(kept(tmp_path)))
            )
        )
        assert program.poll() is None, program.communicate()
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.communicate()


def kept(place: Path) -> list[list[object]]:
    """The halves that are kept of each trial."""
    wanted = [trial.key for trial in trials()]
    found = measured_runs(ExperimentStore(place / "lab.sqlite"), wanted)
    return [[half for one in found[key] for half in one.run.halves] for key in wanted]


@pytest.mark.live
@pytest.mark.parametrize("whole_group", [True, False], ids=["as on a terminal", "the program alone"])
def test_ctrl_c(playing: "subprocess.Popen[str]", tmp_path: Path, whole_group: bool) -> None:
    """Guests are ended, first halves are kept, and nobody complains; on a terminal all processes get it."""
    os.killpg(playing.pid, signal.SIGINT) if whole_group else playing.send_signal(signal.SIGINT)
    out, err = playing.communicate(timeout=DEADLINE_S)
    assert (playing.returncode, out, err) == (0, "interrupted\n", "")
    assert list(tmp_path.glob("guest-*")) == []
    wait_for(lambda: not members(playing.pid))  # the tracker of its resources ends behind it
    assert kept(tmp_path) == [[FROZEN], [FROZEN]]


@pytest.mark.live
def test_a_program_that_is_killed(playing: "subprocess.Popen[str]", tmp_path: Path) -> None:
    """Its workers notice, and end their guests and themselves; what had ended before is kept."""
    playing.kill()
    playing.wait(timeout=DEADLINE_S)
    wait_for(lambda: not members(playing.pid))
    assert list(tmp_path.glob("guest-*")) == []
    assert kept(tmp_path) == [[FROZEN], [FROZEN]]


@pytest.mark.live
def test_a_worker_that_is_killed(playing: "subprocess.Popen[str]", tmp_path: Path) -> None:
    """As where memory runs out: an error with what to do, and the other worker ends its guest."""
    victim = int(next(tmp_path.glob("guest-*")).name.removeprefix("guest-"))
    os.kill(victim, signal.SIGKILL)
    _, err = playing.communicate(timeout=DEADLINE_S)
    assert playing.returncode == 1
    assert "LabError: a process that played a run was killed" in err
    assert [path.name for path in tmp_path.glob("guest-*")] == [f"guest-{victim}"]
    wait_for(lambda: not members(playing.pid))  # the tracker of its resources ends behind it
    assert kept(tmp_path) == [[FROZEN], [FROZEN]]


@pytest.mark.live
@pytest.mark.parametrize(
    ("how", "halves"), [("complete", [[FROZEN, FINISHED] * 2] * 2), ("interrupted", [[FROZEN], []])]
)
def test_a_cluster(tmp_path: Path, how: str, halves: list[list[object]]) -> None:
    """What its workers measure comes back and is kept here, also what had ended at Ctrl-C."""
    pytest.importorskip("distributed", reason="install the extra dask to run this")
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.matrix_cluster", str(tmp_path), how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert (done.returncode, done.stdout) == (0, f"{how} {{}}\n"), done.stderr
    assert kept(tmp_path) == halves
