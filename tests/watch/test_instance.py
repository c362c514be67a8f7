"""The tracefs instance: whose is whose, and what is said where there can be none."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ioflusher.kernel.task import parse_start_time
from ioflusher.watch.instance import OwnInstance, own_name, sweep
from ioflusher.watch.sampler import make_sampler

NAMESPACE = os.stat("/proc/self/ns/pid").st_ino
STARTED = parse_start_time(Path("/proc/self/stat").read_bytes())
GONE = 4194305  # above the kernel's limit for process numbers


@pytest.fixture
def tracefs(tmp_path: Path) -> Path:
    """A directory in the place of tracefs: what is made below instances stays empty."""
    (tmp_path / "instances").mkdir()
    return tmp_path


def there(tracefs: Path) -> list[str]:
    return sorted(path.name for path in (tracefs / "instances").iterdir())


def test_what_is_swept(tracefs: Path) -> None:
    """What a process left that is not there any more, or whose number is another's now; nothing else."""
    left = [
        f"ioflusher-watch-{GONE}-7-{NAMESPACE}",
        f"ioflusher-watch-{os.getpid()}-{STARTED + 1}-{NAMESPACE}",
    ]
    kept = ["foreign", f"ioflusher-watch-{GONE}-7-{NAMESPACE + 1}", own_name()]
    for name in (*left, *kept):
        (tracefs / "instances" / name).mkdir()
    assert sorted(sweep(tracefs)) == sorted(left)
    assert there(tracefs) == sorted(kept)


def test_the_child_removes_it(tracefs: Path) -> None:
    """Killed, the maker removes nothing itself; it is gone soon all the same."""
    code = (
        "import pathlib, sys, time\n"
        "import ioflusher.watch.instance as instance\n"
        "instance.OwnInstance.write = lambda *_, **__: None\n"
        "made = instance.OwnInstance(pathlib.Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tracefs)], stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"ready\n"
        assert len(there(tracefs)) == 1
        maker.kill()
    end = time.monotonic() + 20
    while there(tracefs) and time.monotonic() < end:
        time.sleep(0.01)
    assert there(tracefs) == []


def test_a_failure_leaves_nothing(tracefs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the directory nor the child."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(OwnInstance, "write", refuse)
    with pytest.raises(PermissionError):
        OwnInstance(tracefs)
    assert there(tracefs) == []


def test_without_tracefs(tmp_path: Path) -> None:
    """Sampling goes on, and says why."""
    (note,) = make_sampler(tracefs=tmp_path).look().notes
    assert note == f"reclaim and throttling are only sampled: tracefs is not mounted at {tmp_path}"


def test_without_the_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise, with the path and the kernel's words."""

    def refuse(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    (note,) = make_sampler(tracefs=tmp_path).look().notes
    assert note == f"reclaim and throttling are only sampled: {tmp_path}/instances: Permission denied"


def test_a_kernel_without_histograms(tracefs: Path) -> None:
    """The instance has none of the files: it is removed, and that is said."""
    (note,) = make_sampler(tracefs=tracefs).look().notes
    assert "buffer_size_kb: No such file or directory" in note
    assert there(tracefs) == []
