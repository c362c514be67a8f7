"""What the daemon's OOM score is worth: runs inside a guest whose memory other programs use up.

    ioflusher lab exec --memory 512M --load "nbd nbds_max=1" -- \\
        .venv/bin/python -m tests.nbd.guest_oom_score TIMES

In turn without a score and with --oom-score-adj -1000 a daemon with its memory locked and a reserve serves an
ext4 file system, and programs that are each smaller than the daemon take memory until the kernel kills
something. Prints a JSON line for each time: whom it killed, and whether the file system could be written to.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.nbd.guest_reconnect import DEVICE, HERE, MOUNT, PROGRAM, command, kill, until

HOGS, HOG_SIZE, STEP = 24, 48 << 20, 1 << 20  # bytes
SCORES: dict[str, list[str]] = {"none": [], "-1000": ["--oom-score-adj", "-1000"]}
_KILLED = re.compile(r"Killed process \d+ \((.*?)\)")


def hog() -> int:
    """A process that takes memory, a piece at a time, and keeps it."""
    pid = os.fork()
    if not pid:
        kept = []
        for _ in range(HOG_SIZE // STEP):
            kept.append(b"x" * STEP)
            time.sleep(0.01)
        signal.pause()
    return pid


def kills() -> int:
    """How many processes the kernel has killed for memory since it booted."""
    return int(re.findall(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)[0])


@contextmanager
def served(options: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A daemon whose device has a file system, mounted."""
    image, path = HERE / "oom-image", HERE / "oom-socket"
    path.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(64 << 20)
    serve = ["serve", "--file", str(image), "--unix", str(path), "--max-payload", "1M", "--lock-memory"]
    serve += ["--heap", "8M", "--reserve", "48M", *options]
    with ExitStack() as stack:
        daemon = stack.enter_context(subprocess.Popen([*PROGRAM, *serve], stdout=subprocess.PIPE, text=True))
        stack.callback(daemon.kill)
        assert daemon.stdout is not None
        uri = daemon.stdout.readline().split()[2]
        attached = command("attach", "--netlink", "--timeout", "20", DEVICE, uri)
        assert attached.returncode == 0, attached.stderr
        stack.callback(command, "detach", DEVICE)
        subprocess.run(["mkfs.ext4", "-q", "-F", DEVICE], check=True, timeout=60)
        subprocess.run(["mount", DEVICE, str(MOUNT)], check=True, timeout=60)
        stack.callback(subprocess.run, ["umount", "-l", str(MOUNT)], timeout=60)
        yield daemon


def can_write() -> bool:
    """Whether what is written to the file system reaches the daemon's store."""
    with contextlib.suppress(OSError), (MOUNT / "file").open("wb", buffering=0) as file:
        file.write(b"x" * 4096)
        os.fsync(file.fileno())
        return True
    return False


def once(score: str) -> None:
    """One daemon, and one killing."""
    with served(SCORES[score]) as daemon:
        subprocess.run(["dmesg", "--clear"], check=True, timeout=20)
        before = kills()
        hogs = [hog() for _ in range(HOGS)]
        happened = until(lambda: kills() > before, 60)
        for pid in hogs:
            kill(pid)
        log = subprocess.run(["dmesg"], capture_output=True, text=True, timeout=20).stdout
        print(
            json.dumps(
                {
                    "score": score,
                    "happened": happened,
                    "killed": _KILLED.findall(log),
                    "daemon_lives": daemon.poll() is None,
                    "can_write": can_write(),
                }
            ),
            flush=True,
        )


def main(times: int) -> None:
    MOUNT.mkdir(exist_ok=True)
    for _ in range(times):
        for score in SCORES:
            once(score)


if __name__ == "__main__":
    main(int(sys.argv[1]))
