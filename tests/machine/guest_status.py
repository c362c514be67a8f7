"""Runs inside a guest, as root with all capabilities: what `status` and `snapshot` say of real processes.

Prints one JSON line a check; the test outside (test_guest.py) holds them against what it expects.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = str(Path(sys.executable).with_name("ioflusher"))

# A daemon with locked memory, a real-time thread, and 8 MiB of its own memory swapped out.
DAEMON = """
import ctypes, mmap, os, signal, threading
memory = mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(os.urandom(8 << 20))
memory.madvise(21)  # MADV_PAGEOUT, include/uapi/asm-generic/mman-common.h
lock = mmap.mmap(-1, 1 << 20)
ctypes.CDLL(None).mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(lock))), 1 << 20)
def urgent():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    threading.Event().wait()
threading.Thread(target=urgent, daemon=True).start()
print("ready", flush=True)
signal.pause()
"""


def say(check: str, found: object) -> None:
    """One line for the test outside."""
    print(json.dumps([check, found]), flush=True)


def run(*words: str, user: int = 0) -> subprocess.CompletedProcess[str]:
    """The program, by root or by somebody else."""
    return subprocess.run(
        [PROGRAM, *words], capture_output=True, text=True, timeout=60, user=user, group=user, extra_groups=[]
    )


def status(*words: str) -> list[dict[str, Any]]:
    """The processes that `status --json` prints."""
    processes: list[dict[str, Any]] = json.loads(run("status", "--json", *words).stdout)["processes"]
    return processes


def swap_on() -> None:
    """Swap in compressed memory."""
    Path("/sys/block/zram0/disksize").write_text(str(64 << 20))
    for command in (["/sbin/mkswap", "/dev/zram0"], ["/sbin/swapon", "/dev/zram0"]):
        subprocess.run(command, check=True, capture_output=True, timeout=30)


def main() -> None:
    """All checks."""
    swap_on()
    daemon = subprocess.Popen(
        [PROGRAM, "run", "--oom-score-adj", "-900", "--", sys.executable, "-c", DAEMON],
        stdout=subprocess.PIPE,
    )
    assert daemon.stdout is not None
    assert daemon.stdout.readline() == b"ready\n"
    (process,) = status(str(daemon.pid))
    say("daemon", process)
    say("flagged", [found["pid"] == daemon.pid for found in status("--flagged")])
    say("text", run("status", str(daemon.pid)).stdout)
    say("machine", run("status", "--sort", "-covered").stdout)
    say("line", [line for line in run("status").stdout.splitlines() if line.split()[0] == str(daemon.pid)])
    snapshot = json.loads(run("snapshot").stdout)
    say("privileged", [snapshot["system"]["privileged"], snapshot["unreadable"]])
    say("swap", [(swap["path"], swap["used"] >= 8 << 20) for swap in snapshot["swaps"]])
    subprocess.run(["mount", "-o", "remount,hidepid=invisible", "/proc"], check=True, timeout=30)
    other = run("status", "--json", user=65534)
    say("hidden", [json.loads(other.stdout)["unreadable"], len(json.loads(other.stdout)["processes"])])
    say("hidden, named", [run("status", str(daemon.pid), user=65534).returncode])
    say("hidden, snapshot", json.loads(run("snapshot", user=65534).stdout)["unreadable"])
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait(timeout=30)


main()
