"""The lab's command as a user starts it, and one lab for all tests that boot guests themselves."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ioflusher.lab.session import Lab

PROGRAM = Path(sys.executable).with_name("ioflusher")


def ioflusher(
    *words: str, stdin: bytes = b"", environment: dict[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[bytes]:
    """Run the program as installed; the deadline is far above what a boot takes."""
    return subprocess.run(
        [str(PROGRAM), *words],
        input=stdin,
        capture_output=True,
        timeout=timeout,
        env={**os.environ, "NO_COLOR": "1", **(environment or {})},
        check=False,
    )


@pytest.fixture(scope="session", autouse=True)
def temporary_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A temporary directory of these tests' own, so that what stays behind is theirs."""
    place = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place))
        patch.setattr(tempfile, "tempdir", str(place))
        yield place


@pytest.fixture(scope="session")
def lab(temporary_place: Path) -> Iterator[Lab]:
    """One lab, entered once: the walk over this machine's directories is shared by all guests."""
    with Lab() as ready:
        yield ready


def leftovers(before: Sequence[str]) -> list[str]:
    """Temporary lab directories that were not there before."""
    return sorted(set(temporary_directories()) - set(before))


def temporary_directories() -> list[str]:
    """The lab's temporary directories that exist now."""
    return [str(path) for path in Path(tempfile.gettempdir()).glob("ioflusher-lab-*")]


def emulators(parent: int) -> list[int]:
    """QEMU processes that descend from the process."""
    out = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    children: dict[int, list[tuple[int, str]]] = {}
    for line in out.splitlines():
        child, ppid, comm = line.split(None, 2)
        children.setdefault(int(ppid), []).append((int(child), comm))
    found: list[int] = []
    pending = [parent]
    while pending:
        for pid, comm in children.get(pending.pop(), ()):
            pending.append(pid)
            if comm.startswith("qemu"):
                found.append(pid)
    return found
