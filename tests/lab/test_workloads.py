"""The programs that use the device: their plan covers all, and what comes back wrong is counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ioflusher.lab.guest import workloads
from ioflusher.lab.guest.workloads import pattern, pieces


@given(st.integers(0, 4096), st.integers(1, 5000))
def test_pieces_cover_the_whole(size: int, chunk: int) -> None:
    """Chunks lie end to end, none is empty or longer than asked; each has its own content."""
    chunks = pieces(size, chunk)
    assert [at for at, _ in chunks] == list(range(0, size, chunk))
    assert sum(length for _, length in chunks) == size
    assert all(0 < length <= chunk for _, length in chunks)
    assert len(pattern(1, chunk)) == chunk
    assert chunk < 8 or pattern(1, chunk) != pattern(2, chunk)


def test_what_comes_back_wrong_is_counted(tmp_path: Path) -> None:
    """Files as they were written have no wrong chunk; a changed, a swapped and a cut-off one are counted."""
    plan = workloads.file_plan(str(tmp_path), 70_000, 40_000, 16_384)
    assert [(os.path.basename(path), lengths) for path, lengths in plan] == [
        ("file0", [16_384, 16_384, 7_232]),
        ("file1", [16_384, 13_616]),
    ]
    workloads.write_files(plan, 0)
    assert workloads.wrong_chunks(workloads.read_files(plan)) == 0
    first, second = (Path(path) for path, _ in plan)
    data = first.read_bytes()
    first.write_bytes(data[16_384:32_768] + data[:16_384] + data[32_768:])  # two swapped
    assert workloads.wrong_chunks(workloads.read_files(plan)) == 2
    second.write_bytes(second.read_bytes()[:-1])  # one cut off
    assert workloads.wrong_chunks(workloads.read_files(plan)) == 3
    second.write_bytes(b"")
    assert workloads.wrong_chunks(workloads.read_files(plan)) == 4


def test_the_anonymous_workload_says_how_it_went() -> None:
    """Run as in a guest, without site packages: ready, then written and verified after the word to begin."""
    order = {"size": 300_000, "chunk": 65_536, "pause_s": 0}
    done = subprocess.run(
        [sys.executable, "-S", "-I", workloads.__file__, "anonymous", json.dumps(order)],
        input=b"go\n",
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"event": "work-ready"},
        {"event": "work-written", "written_bytes": 300_000},
        {"event": "work-verified", "verified_bytes": 300_000, "wrong_chunks": 0},
    ]
