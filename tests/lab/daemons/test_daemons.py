"""The lab's own daemons as programs: what they load, what they refuse, and what they do in a real kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ioflusher.lab.daemons.store import FileStore
from tests.lab.conftest import ioflusher

SRC = Path(__file__).parents[3] / "src"
NAMES = ("ublk", "fuse_file", "nbd")


def daemon(name: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a daemon to its end, without site packages as a guest does."""
    return subprocess.run(
        [sys.executable, "-S", "-m", f"ioflusher.lab.daemons.{name}", *words],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_needs_the_standard_library_alone(name: str) -> None:
    """It starts where no package is installed, and says what it can do."""
    done = daemon(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "--no-io-flusher" in done.stdout
    assert "--store FILE" in done.stdout


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("ublk", ("--store", "x", "--depth", "0"), "--depth: expected 1 to 4096, found 0"),
        ("ublk", ("--store", "x", "--queues", "65"), "--queues: expected 1 to 64, found 65"),
        ("ublk", ("--store", "x", "--largest", "2"), "--largest: expected 4 to 1024, found 2"),
        ("fuse_file", ("--store", "x", "--threads", "0", "/mnt"), "--threads: expected 1 to 64, found 0"),
        ("fuse_file", ("--store", "x"), "required: mountpoint"),
        ("ublk", (), "required: --store"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, words: tuple[str, ...], says: str) -> None:
    """With what was expected and found, before anything is touched."""
    done = daemon(name, *words)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_store_is_read_and_written_as_a_whole(tmp_path: Path) -> None:
    """What lies behind the file's end reads as zeros, whatever was in the memory before."""
    file = tmp_path / "store"
    file.write_bytes(b"a" * 5000)
    store = FileStore(str(file))
    assert store.size == 5000
    memory = bytearray(b"x" * 6000)
    store.read_into(memoryview(memory), 10)
    assert memory == b"a" * 4990 + bytes(1010)
    store.write(memoryview(b"b" * 3000), 1000)
    store.flush()
    assert file.read_bytes() == b"a" * 1000 + b"b" * 3000 + b"a" * 1000


@pytest.mark.vm
def test_both_serve_a_kernel() -> None:
    """In one guest: /dev/ublkb0 and a loop device over the FUSE file keep an ext4 file system whole, requests
    of several queues come at once, nothing is left after SIGTERM, and the state is on every thread."""
    script = Path(__file__).with_name("guest_daemons.sh")
    load = [word for module in ("ublk_drv", "loop max_loop=1") for word in ("--load", module)]
    environment = (f"PYTHONPATH={SRC}", f"PYTHON={sys.executable}")
    done = ioflusher(
        *("lab", "exec", "--memory", "512M", "--cpus", "2", *load, "--timeout", "150"),
        *("--", "env", *environment, "sh", str(script)),
        timeout=300,
    )
    assert done.stdout.decode().splitlines() == [
        "serving /dev/ublkb0",
        "ublk: content as written",
        "ublk: 2 hardware queues",
        "ublk: all threads carry the state",
        "ublk: status 0, device gone",
        "serving /run/mount/image",
        "fuse: content as written",
        "fuse: 0 threads carry the state",
        "fuse: status 0, mount gone",
    ], done.stderr.decode()
