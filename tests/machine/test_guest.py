"""status and snapshot of real processes in a guest: with the state, swapped out, and hidden."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.lab.conftest import ioflusher

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What guest_status.py found in the guest, by check."""
    script = str(Path(__file__).with_name("guest_status.py"))
    done = ioflusher(
        "lab", "exec", "--timeout", "200", "--load", "zram", "--", sys.executable, script, timeout=300
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_status_of_a_protected_daemon(found: dict[str, Any]) -> None:
    """Both threads carry the state; memory, OOM score, scheduling, capabilities are as they were made."""
    daemon = found["daemon"]
    assert (daemon["threads_covered"], daemon["threads_living"], daemon["threads_half_set"]) == (2, 2, 0)
    assert all(thread["io_flusher"] for thread in daemon["threads"])
    assert daemon["locked_kib"] == 1024
    assert daemon["swapped_kib"] >= 8000
    assert daemon["oom_score_adj"] == -900
    assert daemon["scheduling"] == [
        {"policy": "fifo", "priority": 50, "nice": 0, "threads": 1},
        {"policy": "other", "priority": 0, "nice": 0, "threads": 1},
    ]
    assert daemon["capabilities"] == ["CAP_SYS_RESOURCE", "CAP_IPC_LOCK", "CAP_SYS_NICE"]
    assert "2 of 2 threads covered" in found["text"]
    (line,) = found["line"]
    assert line.split()[2:] == ["2/2", "-", "1M", "8M", "-900", "fifo", "50,", "other", "RLN"]
    assert found["flagged"].count(True) == 1


def test_snapshot_of_root_misses_nothing(found: dict[str, Any]) -> None:
    """With every capability nothing is unreadable, and swap is as used as it is."""
    assert found["privileged"] == [True, []]
    assert found["swap"] == [["/dev/zram0", True]]


def test_hidden_processes_are_said_to_be(found: dict[str, Any]) -> None:
    """Under hidepid another user is told that processes are missing, by both verbs."""
    unreadable, seen = found["hidden"]
    assert [item["what"] for item in unreadable] == ["processes of other users"]
    assert "hidepid=invisible" in unreadable[0]["why"]
    assert seen >= 1
    assert found["hidden, named"] == [2]
    assert any(item["what"] == "processes of other users" for item in found["hidden, snapshot"])
