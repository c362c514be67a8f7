"""Nothing is left behind, at whatever point and by whatever a lab is ended."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ioflusher.lab.vm import DIRECTORY_PREFIX
from tests.lab.conftest import PROGRAM, ioflusher
from tests.lab.left import look

pytestmark = pytest.mark.vm
DEADLINE_S = 120


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary directory whose name leaves room for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="left-") as name:
        yield Path(name)


def ended_at(stage: str, number: signal.Signals, place: Path) -> tuple[int, str]:
    """Start a run of both halves, send the signal once its progress names the stage; status and errors."""
    with subprocess.Popen(
        [str(PROGRAM), "lab", "run", "ext4-on-nbd-throttled", "--report", str(place / "reports")],
        env={**os.environ, "TMPDIR": str(place), "XDG_STATE_HOME": str(place / "state")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # a test run in the background of a shell ignores SIGINT, and its children would too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            assert process.stderr is not None
            said = ""
            while stage not in said:
                line = process.stderr.readline()
                assert line, f"it ended before {stage!r}: {said}"
                said += line
            process.send_signal(number)
            _, rest = process.communicate(timeout=DEADLINE_S)
            return process.returncode, said + rest
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("stage", "number", "status"),
    [
        ("finding a kernel", signal.SIGINT, 130),
        ("booting", signal.SIGTERM, 143),  # and this machine's directories are being walked
        ("putting ext4 on", signal.SIGHUP, 129),
        ("the work begins", signal.SIGINT, 130),
    ],
)
def test_a_signal_at_every_stage(stage: str, number: signal.Signals, status: int, place: Path) -> None:
    """Status 128 and the signal's number; no process, no socket, no directory but the store."""
    before = look(place)
    found, said = ended_at(stage, number, place)
    assert found == status, said
    assert "Traceback" not in said
    left = look(place).beyond(before)
    assert left in ("", "files: state"), left


def test_a_killed_program(place: Path) -> None:
    """SIGKILL: the machines die with it, and the next lab removes the directories."""
    before = look(place)
    status, said = ended_at("booting", signal.SIGKILL, place)
    assert status == -signal.SIGKILL, said
    deadline = time.monotonic() + 30
    while look(place).processes:
        assert time.monotonic() < deadline, look(place).beyond(before)
        time.sleep(0.1)
    assert [name for name in look(place).files if name.startswith(DIRECTORY_PREFIX)]
    again = ioflusher(
        "lab", "exec", "--kernel", "/no/such/kernel", "--", "true", environment={"TMPDIR": str(place)}
    )
    assert again.returncode == 2
    assert look(place).beyond(before) in ("", "files: state")
