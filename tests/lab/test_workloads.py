"""The programs that use the device: their plan covers all, and what comes back wrong is counted."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.lab.file_systems import FileSystemCheck
from ioflusher.lab.guest import workloads
from ioflusher.lab.guest.workloads import pattern, pieces
from ioflusher.lab.messages import FileSystemChecked, decode_report


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


def test_small_files_lie_in_many_directories(tmp_path: Path) -> None:
    """Each is one chunk of its own content; they are read back and compared like the others."""
    plan = workloads.small_file_plan(str(tmp_path), 2_500, 1_000, 2)
    assert [(os.path.relpath(path, tmp_path), lengths) for path, lengths in plan] == [
        ("directory0/file0", [1_000]),
        ("directory0/file1", [1_000]),
        ("directory1/file2", [500]),
    ]
    workloads.write_files(plan, 0)
    assert workloads.wrong_chunks(workloads.read_files(plan)) == 0
    first, second, _ = (Path(path) for path, _ in plan)
    data = first.read_bytes()
    assert first.write_bytes(second.read_bytes()) == 1_000  # the content of its neighbour
    assert workloads.wrong_chunks(workloads.read_files(plan)) == 1
    first.write_bytes(data[:-1])
    assert workloads.wrong_chunks(workloads.read_files(plan)) == 1


def test_the_anonymous_workload_says_how_it_went() -> None:
    """Run as in a guest, without site packages: ready, then written and verified after the word to begin."""
    order = {"size": 300_000, "chunk": 65_536, "pause_s": 0, "passes": 2}
    done = subprocess.run(
        [sys.executable, "-S", "-I", workloads.__file__, "anonymous", json.dumps(order)],
        input=b"go\n",
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"event": "work-ready"},
        {"event": "work-written", "written_bytes": 600_000},
        {"event": "work-verified", "verified_bytes": 300_000, "wrong_chunks": 0},
    ]


def test_files_written_again_hold_the_last_pass(tmp_path: Path) -> None:
    """Each pass has content of its own, in the place of the one before; what stayed behind is wrong."""
    plan = workloads.file_plan(str(tmp_path), 70_000, 40_000, 16_384)
    workloads.write_files(plan, 0)
    inode = (tmp_path / "file0").stat().st_ino
    workloads.write_files(plan, 0, 5)
    assert (tmp_path / "file0").stat().st_ino == inode
    assert workloads.wrong_chunks(workloads.read_files(plan), 5) == 0
    assert workloads.wrong_chunks(workloads.read_files(plan)) == 5


@pytest.mark.parametrize("kind", ["files", "anonymous"])
def test_every_pass_has_content_of_its_own(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five chunks three times over are numbered from 0 to 14, and the last five are looked for."""
    written: list[int] = []
    real = workloads.pattern

    def pattern(number: int, size: int) -> bytes:
        written.append(number)
        return real(number, size)

    said: list[tuple[str, dict[str, int]]] = []
    monkeypatch.setattr(workloads, "drop_caches", lambda: None)
    monkeypatch.setattr(workloads, "pattern", pattern)
    monkeypatch.setattr(workloads, "ready", lambda: None)
    monkeypatch.setattr(workloads, "say", lambda event, **fields: said.append((event, fields)))
    monkeypatch.setattr(os, "sync", lambda: None)
    order = {
        "size": 70_000,
        "chunk": 16_384,
        "file_size": 40_000,
        "pause_s": 0,
        "passes": 3,
        "look_through": None,
    }
    getattr(workloads, kind)({**order, "directory": str(tmp_path)})
    chunks = len(written) // 4
    assert chunks == 5
    assert written == [*range(15), *range(10, 15)]
    assert said[-1] == ("work-verified", {"verified_bytes": 70_000, "wrong_chunks": 0})


def test_the_anonymous_pressure_touches_every_page_again_and_again() -> None:
    """It waits for the word; then all of its memory is there, and stays so."""
    size = 8 << 20
    with subprocess.Popen(
        [sys.executable, "-S", "-I", workloads.__file__, "touch", str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert json.loads(program.stdout.readline()) == {"event": "work-ready"}

        def resident() -> int:
            pages = Path(f"/proc/{program.pid}/statm").read_text().split()[1]
            return int(pages) * workloads.PAGE

        before = resident()
        program.stdin.write(b"go\n")
        program.stdin.flush()
        deadline = time.monotonic() + 30
        while resident() - before < size and time.monotonic() < deadline:
            time.sleep(0.01)
        assert resident() - before >= size
        assert program.poll() is None
        program.kill()


def look_through(capfd: pytest.CaptureFixture[str], **commands: str) -> FileSystemCheck:
    """What the workload says of its file system with these shell commands in the place of the real ones."""
    shell = {name: ["sh", "-c", commands.get(name, "true")] for name in ("unmount", "check", "mount")}
    workloads.look_through(shell)
    (line,) = capfd.readouterr().out.splitlines()
    report = decode_report(line.encode())
    assert isinstance(report, FileSystemChecked)
    return report.check


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Has an item for each time that the page cache would have been dropped."""
    times: list[bool] = []
    monkeypatch.setattr(workloads, "drop_caches", lambda: times.append(True))
    return times


def test_a_file_system_is_looked_through(capfd: pytest.CaptureFixture[str], dropped: list[bool]) -> None:
    """Clean, damaged, or not looked through, by the status of its own program, with what that printed."""
    for check, clean, said in (
        ("echo all is well", True, "all is well"),
        ("echo left >&2; exit 4", False, "left"),
        ("exit 12", False, ""),
        ("exit 1", False, ""),
        ("echo no such device; exit 8", None, "no such device"),
        ("no-such-program", None, "no-such-program"),
    ):
        found = look_through(capfd, check=check)
        assert found.command == f"sh -c {check}"
        assert found.clean is clean, check
        assert said in found.said
    assert not dropped, "unmounting has emptied the page cache"
    status, said = workloads.run(["/no/such/program"])
    assert (status, said) == (127, "/no/such/program: No such file or directory")


def test_a_file_system_that_is_busy(capfd: pytest.CaptureFixture[str], dropped: list[bool]) -> None:
    """It cannot be unmounted: nothing is looked through, that is said, and the page cache is dropped."""
    found = look_through(capfd, unmount="echo target is busy; exit 32", check="echo looked", mount="exit 9")
    assert found == FileSystemCheck("sh -c echo looked", None, "it was not unmounted: target is busy")
    assert dropped == [True]


def test_a_file_system_that_cannot_be_mounted_again(capfd: pytest.CaptureFixture[str]) -> None:
    """It is damaged, whatever was found before; the workload ends without having read anything back."""
    with pytest.raises(SystemExit, match="1"):
        look_through(capfd, check="echo fine", mount="echo wrong type; exit 32")
    report = decode_report(capfd.readouterr().out.encode())
    assert isinstance(report, FileSystemChecked)
    assert report.check.clean is False
    assert report.check.said == "fine\nit cannot be mounted again: wrong type"


def test_no_file_system(capfd: pytest.CaptureFixture[str], dropped: list[bool]) -> None:
    """Where there is none to look through, the page cache is dropped and nothing is said."""
    workloads.look_through(None)
    assert capfd.readouterr().out == ""
    assert dropped == [True]
