"""`ioflusher map` of a real machine with real nbd daemons: one boot."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.lab.conftest import ioflusher

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What guest_map.py saw in the guest, by check."""
    script = str(Path(__file__).with_name("guest_map.py"))
    done = ioflusher(
        "lab", "exec", "--load", "nbd", "--timeout", "300", "--", sys.executable, script, timeout=400
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"["))


def test_swap_on_the_device_of_a_daemon_without_the_state(found: dict[str, Any]) -> None:
    """The daemon is found behind its socket, and waits for itself through reclaim and swap: status 1."""
    first, _ = found["pids"]
    way = ["dev:nbd0", f"pid:{first}", "reclaim", "swap:/dev/nbd0", "memory reclaim"]
    assert found["bare"] == [1, [way]]


def test_it_was_predicted(found: dict[str, Any]) -> None:
    """Before the swap was switched on, --would-add said the very same way round; of the mount alone, none."""
    assert found["predicted"] == found["bare"]
    assert found["predicted mount"] == [0, []]


def test_a_snapshot_of_it_says_the_same(found: dict[str, Any]) -> None:
    """Recorded there and read back."""
    assert found["from a file"] == found["bare"]


def test_with_the_state_the_cycle_is_gone(found: dict[str, Any]) -> None:
    """`ioflusher set` on the running daemon, whose memory is locked, leaves no cycle: status 0."""
    assert found["covered"] == [0, []]


def test_a_log_on_its_own_device(found: dict[str, Any]) -> None:
    """A daemon with the state and locked memory still waits for itself when its log lies on its device."""
    _, second = found["pids"]
    assert found["log"] == [1, [["dev:nbd1", f"pid:{second}", "fs:43:32", "log"]]]
