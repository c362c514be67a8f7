"""Real nbd daemons in a guest: audited, and mended by the very commands that the findings print. One boot."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import ioflusher

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What guest_audit.py saw in the guest, by check."""
    script = str(Path(__file__).with_name("guest_audit.py"))
    lab = ("lab", "exec", "--load", "nbd", "--disk", "80M", "--timeout", "400")
    done = ioflusher(*lab, "--", sys.executable, script, timeout=500)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"["))


def test_a_quiet_machine_is_clean(found: dict[str, Any]) -> None:
    """A real kernel with nothing served gives no findings at all."""
    assert found["quiet"] == {}


def test_a_careless_daemon_under_swap(found: dict[str, Any]) -> None:
    """Each fault of the set-up is found, and nothing else; the daemon is found behind its socket."""
    assert found["careless"] == [
        1,
        {
            "uncovered": "error",
            "memory-not-locked": "error",
            "swap-on-served": "error",
            "oom-killable": "warning",
            "small-reserve": "warning",
            "memory-max": "note",
            "memory-high": "note",
        },
    ]
    pid, daemons = found["daemons"]
    assert daemons == [f"ioflusher ({pid}): NBD server of /dev/nbd0"]


def test_every_remedy_as_printed_mends(found: dict[str, Any]) -> None:
    """swapoff makes its finding go, swapon brings it back; the other remedies leave none in the end."""
    assert found["swapped off"]
    assert found["swapped on again"]
    assert found["mended"] == dict.fromkeys(found["careless"][1].keys() - {"swap-on-served"}, True)
    assert found["in the end"] == {}


def test_a_hardened_daemon_is_clean(found: dict[str, Any]) -> None:
    """Swap on the device of a daemon with the state, locked memory and protection: status 0."""
    assert found["hardened"] == [0, [], 1]


def test_files_on_what_they_serve(found: dict[str, Any]) -> None:
    """A log, a store and mapped code are found each by its rule; locking and closing put them right."""
    assert found["misplaced"] == {
        "library-on-served": "error",
        "log-on-served": "error",
        "file-on-served": "error",
    }
    assert found["misplaced, whose"] == [True]
    assert found["code locked"]
    assert found["log and store still there"]
    assert found["put right"] == []


def test_dirty_limits_and_a_daemon_that_died(found: dict[str, Any]) -> None:
    """A buffered store under a small limit is found and mended; so is a device whose server was killed."""
    assert found["buffered"] == {"uncovered": "error", "dirty-limits": "warning"}
    assert found["dirty limits mended"]
    assert found["gone"] == {"daemon-gone": "warning"}
    assert found["gone mended"]
