"""The rule that no other server promises: once warm, requests take no memory from the kernel."""

import subprocess
import sys
from pathlib import Path

import pytest

MOST_FAULTS = 5


@pytest.mark.parametrize(
    ("kind", "form"),
    [("memory", "simple"), ("memory", "structured"), ("file", "simple"), ("direct", "structured")],
)
def test_no_memory_is_taken_once_warm(kind: str, form: str) -> None:
    """Five minor faults at most, and neither mmap nor brk; statistics are counted all the while."""
    program = Path(__file__).parent / "memory_use.py"
    done = subprocess.run(
        [sys.executable, str(program), kind, form, "40000"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    requests, faults, changed_mappings = map(int, done.stdout.split())
    assert requests == (1250 - 1250 // 4) * 32, "all batches of 32 behind the first quarter"
    assert faults <= MOST_FAULTS
    assert changed_mappings == 0
