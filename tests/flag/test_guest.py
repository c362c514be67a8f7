"""The kernel's own rules and the library on top of them, in a guest that permits the call."""

import errno
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.lab.conftest import ioflusher

pytestmark = pytest.mark.vm
SET, CLEAR = "0x180000", "0x0"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What guest_flag.py found in the guest, by check."""
    script = str(Path(__file__).with_name("guest_flag.py"))
    done = ioflusher("lab", "exec", "--timeout", "240", "--", sys.executable, script, timeout=300)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_errno_rules(found: dict[str, Any]) -> None:
    """Arguments that must be zero, values that exist, the capability: as kernel/sys.c has it."""
    assert found["at first"] == [0, CLEAR]
    assert found["set to 2"] == "EINVAL"
    assert found["set, unused arguments"] == ["EINVAL"] * 3
    assert found["get, unused arguments"] == ["EINVAL"] * 2
    assert found["untouched by errors"] == CLEAR
    assert found["set"] == [1, SET, True]
    assert found["cleared"] == [0, CLEAR, False]
    refused = f"-1 {errno.EPERM}"
    assert found["without capability, set"] == found["without capability, get"] == refused
    assert found["without capability, the library reads"] == "False"


def test_inheritance(found: dict[str, Any]) -> None:
    """New threads, children and programs have it; those born before do not; it outlives privileges."""
    assert found["a thread born before"] == CLEAR
    for heir in ("a thread born after", "a forked child", "an executed program", "without privileges"):
        assert found[heir] == SET, heir
    assert found["cleared for a thread"] == CLEAR
    assert found["a child without it"] == CLEAR


def test_scopes_and_pools(found: dict[str, Any]) -> None:
    """Each scope restores what it found; a pool's workers all carry the state."""
    assert found["scopes"] == [CLEAR, SET, CLEAR, CLEAR, SET, SET, CLEAR]
    assert found["a pool's workers"] == [SET]


def test_launcher(found: dict[str, Any]) -> None:
    """The command runs in the state as the user asked for, hardened, and its end is its own."""
    assert found["run as nobody"] == [SET, "65534 65534 [65534] 0000000000000000"]
    assert found["run hardened"] == "-900 2 7 -1"
    assert found["run, status"] == 7
    assert found["run, signal"] == -signal.SIGUSR1
