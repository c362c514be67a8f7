"""Real nbd daemons in a guest: audited, and mended by the very commands that the findings print. One boot."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.audit.remedies import executed_in_a_guest
from tests.lab.conftest import ioflusher

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What guest_audit.py saw in the guest, by check."""
    script = str(Path(__file__).with_name("guest_audit.py"))
    lab = ("lab", "exec", "--load", "nbd", "--disk", "80M", "--timeout", "700")
    done = ioflusher(*lab, "--", sys.executable, script, timeout=800)
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
    assert found["swapped on again"]
    assert {f"executed {rule}" for rule in found["careless"][1]} <= found.keys()
    assert found["locked within its group"] == [], (
        "its group leaves less than an eighth of the machine's memory"
    )
    assert found["swap-on-served: commands"]
    assert found["in the end"] == {}


@pytest.mark.parametrize("check", executed_in_a_guest("test_guest.py"))
def test_a_remedy_that_was_executed(found: dict[str, Any], check: str) -> None:
    """The finding was there, its commands ended with status 0, and it is gone."""
    assert found[check] in (True, []), check


def test_daemons_that_lack_something(found: dict[str, Any]) -> None:
    """Each is found by its rule before it is mended, and a daemon without the capability gets no command."""
    assert found["partly"] == "warning"
    assert found["prlimit first"]
    assert found["without the capability"] == ["uncovered", "cannot-set"]
    assert found["no command"] == [[], []]
    assert found["swapped out"] == "note"
    assert found["unkillable"] == "note"
    assert found["still protected"]
    assert found["forwarding"] == "warning"
    assert found["unprivileged"] == "warning"


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
    assert found["log and store still there"]
    assert found["put right"] == []


def test_dirty_limits_and_a_daemon_that_died(found: dict[str, Any]) -> None:
    """A buffered store under a small limit is found and mended; so is a device whose server was killed."""
    assert found["buffered"] == {"uncovered": "error", "dirty-limits": "warning"}
    assert found["gone"] == {"daemon-gone": "warning"}
