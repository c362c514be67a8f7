"""The same tests in a real kernel that permits the call: here the flags must really change."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.lab.conftest import ioflusher

HERE = Path(__file__).parent
# 51 threads whose timed waits last 1.5 s, fed every 0.5 s: the guest is emulated
SLOWLY = {
    "IOFLUSHER_WAITS": "51 1500 500",
    "IOFLUSHER_ROUNDS": "2",
    "IOFLUSHER_DEADLY_STEP": "7",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@pytest.mark.vm
def test_the_state_put_on_running_processes(compiled: Callable[[str], Path]) -> None:
    """test_attach.py and test_killed.py pass with all capabilities; none is skipped for want of it."""
    directory = {compiled(name).parent for name in ("waits", "corners", "rseq")}.pop()
    environment = [f"{name}={value}" for name, value in SLOWLY.items()]
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
    done = ioflusher(
        *("lab", "exec", "--timeout", "450", "--share", str(directory), "--"),
        *("env", *environment, f"IOFLUSHER_PROGRAMS={directory}"),
        *(*command, str(HERE / "test_attach.py"), str(HERE / "test_killed.py")),
        timeout=550,
    )
    output = done.stdout.decode()
    assert done.returncode == 0, output + done.stderr.decode()
    assert "CAP_" not in output, output
