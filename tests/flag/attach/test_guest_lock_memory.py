"""`set --lock-memory` on the nbdkit that serves the swap of the guest itself, while little memory is free.

With mlockall(MCL_CURRENT | MCL_FUTURE), as before, the guest stood still for good: docs/flag.md.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.lab.conftest import ioflusher

pytestmark = [pytest.mark.vm, pytest.mark.alone]
SCRIPT = Path(__file__).with_name("guest_lock_memory.py")
TAKEN = "330"  # MiB that another process holds of the guest's 512


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What guest_lock_memory.py found in the guest, by check."""
    if shutil.which("nbdkit") is None:
        pytest.skip("needs nbdkit: tools/packages test")
    done = ioflusher(
        *("lab", "exec", "--memory", "512M", "--load", "nbd nbds_max=1", "--timeout", "600"),
        *("--", sys.executable, str(SCRIPT), TAKEN),
        timeout=700,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_the_plan_changes_nothing(found: dict[str, Any]) -> None:
    """The figures: eighteen stacks of 8 MiB and more would be populated, and far less is free."""
    plan = found["planned"]
    assert (plan["outcome"], plan["method"]) == ("would", "on_fault")
    assert plan["absent_kib"] > 300 << 10
    assert plan["available_kib"] < 100 << 10
    assert "more than half of what is free" in plan["detail"]
    assert found["still without"] == [False, 0]


def test_the_guest_lives_and_the_daemon_is_locked(found: dict[str, Any]) -> None:
    """All threads have the state, its memory is locked, and next to nothing was populated."""
    locked = found["locked"]
    assert (locked["status"], locked["complete"]) == (0, True)
    assert (locked["outcome"], locked["method"]) == ("done", "on_fault")
    covered, is_locked, resident_kib = found["then"]
    assert (covered, is_locked) == (True, True)
    assert resident_kib < 50 << 10
    assert found["daemon"] is None  # it runs


def test_swap_still_works(found: dict[str, Any]) -> None:
    """What another process keeps in that swap comes back as it was."""
    assert found["swap"]["in swap MiB"] > 60
    assert (found["swap"]["wrong pages"], found["swap"]["status"]) == (0, 0)


def test_with_room_all_of_it_is_brought_into_memory(found: dict[str, Any]) -> None:
    """A small process is populated; VmLck counts all that can be locked."""
    assert (found["with room"]["method"], found["with room"]["status"]) == ("populate", 0)
    locked_kib, mapped_kib = found["with room, then"]
    assert mapped_kib - locked_kib < 100


def test_what_is_in_swap_is_brought_back(found: dict[str, Any]) -> None:
    """Nothing is left in swap, and the memory is locked."""
    before, said, after = found["swapped out"]
    assert before > 8 << 10
    assert (said["outcome"], said["status"], said["swapped_kib"], after) == ("done", 0, 0, 0)


def test_a_limit_that_is_too_low(found: dict[str, Any]) -> None:
    """Refused with the figures, nothing locked."""
    said, locked_kib = found["limited"]
    assert (said["outcome"], said["status"], locked_kib) == ("refused", 1, 0)
    assert "RLIMIT_MEMLOCK) is 4 MiB" in said["detail"]
