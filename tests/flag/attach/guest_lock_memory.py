"""Runs inside a guest: `set --lock-memory` on the daemon that serves the guest's swap, and on others.

Prints one JSON line a check. The script itself carries the state, has its memory locked and a real-time
priority, so that it goes on where the rest of the guest stands still.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE

from ioflusher import coverage
from ioflusher.flag import set_io_flusher
from ioflusher.harden import RealtimePolicy, lock_memory, set_oom_score_adj, set_realtime

PROGRAM = str(Path(sys.executable).with_name("ioflusher"))
SOCKET = "/tmp/swap.sock"
GROUPS = Path("/sys/fs/cgroup")
STALLED_S = 60  # without a completed request: the device stands still, however slow the emulation is

# Takes so many MiB, says so, and ends when its input does.
HOG = """
import mmap, os, sys
memory = mmap.mmap(-1, int(sys.argv[1]) << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
page = os.urandom(4096)
for at in range(0, len(memory), 4096):
    memory[at : at + 4096] = page
print("taken", flush=True)
sys.stdin.read()
"""
# Fills so many MiB, each page with its own number, and says how many pages read back wrong.
SWAPPER = """
import mmap, sys
memory = mmap.mmap(-1, int(sys.argv[1]) << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
places = range(0, len(memory), 4096)
for at in places:
    memory[at : at + 4096] = at.to_bytes(8, "little") * 512
print(open("/proc/self/status").read().partition("VmSwap:")[2].split()[0], flush=True)
print(sum(memory[at : at + 4096] != at.to_bytes(8, "little") * 512 for at in places), flush=True)
"""


def say(check: str, found: object) -> None:
    """One line for the test outside."""
    print(json.dumps([check, found]), flush=True)


def ordinary() -> None:
    """In a child: nothing of this script's privileges is left."""
    set_io_flusher(False)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    set_oom_score_adj(0)


def start(*command: str, **options: object) -> "subprocess.Popen[str]":
    """An ordinary process whose first line is awaited where it has a pipe."""
    return subprocess.Popen(command, preexec_fn=ordinary, text=True, **options)  # type: ignore[call-overload,no-any-return]


def kib(pid: int, name: str) -> int:
    """A line of /proc/PID/status."""
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"{name}:")[2].split()[0])


def set_state(pid: int, *options: str) -> dict[str, object]:
    """What `ioflusher set --lock-memory --json` says of the memory, with its exit status."""
    command = (PROGRAM, "set", "--lock-memory", "--json", *options, str(pid))
    with start(*command, stdout=PIPE) as process:
        output, _ = process.communicate(timeout=300)
    (found,) = json.loads(output)["processes"]
    memory: dict[str, object] = found["memory"]
    return {"status": process.returncode, "complete": found["complete"], **memory}


def group(name: str, limit: str) -> Path:
    """A memory control group of this name with this limit."""
    if not (GROUPS / "cgroup.procs").exists():
        subprocess.run(["mount", "-t", "cgroup2", "none", str(GROUPS)], check=True, timeout=20)
    (GROUPS / "cgroup.subtree_control").write_text("+memory")
    made = GROUPS / name
    made.mkdir()
    (made / "memory.max").write_text(limit)
    return made


def in_group(place: Path, *command: str, **options: object) -> "subprocess.Popen[str]":
    """A process that begins in the control group."""
    return start("sh", "-c", f'echo $$ >{place}/cgroup.procs; exec "$@"', "sh", *command, **options)


def serve_swap() -> "subprocess.Popen[str]":
    """nbdkit, which keeps what is swapped out in its own memory."""
    server = start("nbdkit", "-f", "-U", SOCKET, "memory", "300M")
    while not os.path.exists(SOCKET):
        time.sleep(0.05)
    client = start(PROGRAM, "nbd", "attach", "/dev/nbd0", f"nbd+unix:///?socket={SOCKET}", stdout=PIPE)
    assert client.stdout is not None
    client.stdout.readline()
    for command in (["mkswap", "/dev/nbd0"], ["swapon", "/dev/nbd0"]):
        subprocess.run(command, check=True, timeout=60, stdout=DEVNULL)
    return server


def requests() -> int:
    """How many reads and writes the device completed (Documentation/block/stat.rst)."""
    fields = Path("/sys/block/nbd0/stat").read_text().split()
    return int(fields[0]) + int(fields[4])


def stacks(process: "subprocess.Popen[str]") -> list[str]:
    """The kernel stacks of a process's threads."""
    return [file.read_text() for file in Path(f"/proc/{process.pid}/task").glob("*/stack")]


def swap_works(daemon: "subprocess.Popen[str]") -> None:
    """Three quarters of a process's memory go to swap and come back as they were."""
    swapper = in_group(group("swapper", "40M"), sys.executable, "-c", SWAPPER, "120", stdout=PIPE)
    completed, since = requests(), time.monotonic()
    while swapper.poll() is None:
        time.sleep(0.5)
        if requests() != completed:
            completed, since = requests(), time.monotonic()
        elif time.monotonic() - since > STALLED_S:
            say("swap", {"stalled": stacks(daemon)})
            os._exit(1)
    assert swapper.stdout is not None
    swapped, wrong = map(int, swapper.stdout.read().split())
    say("swap", {"in swap MiB": swapped // 1024, "wrong pages": wrong, "status": swapper.returncode})


def without_room(server: "subprocess.Popen[str]") -> None:
    """The machine of the issue: far less is free than mlockall would populate."""
    with start(sys.executable, "-c", HOG, sys.argv[1], stdin=PIPE, stdout=PIPE) as hog:
        assert hog.stdout is not None
        assert hog.stdin is not None
        hog.stdout.readline()
        say("planned", set_state(server.pid, "--dry-run"))
        say("still without", [coverage(server.pid).complete, kib(server.pid, "VmLck")])
        began = time.monotonic()
        say("locked", set_state(server.pid))
        say("seconds", time.monotonic() - began)
        say("then", [coverage(server.pid).complete, kib(server.pid, "VmLck") > 0, kib(server.pid, "VmRSS")])
        hog.stdin.close()
        hog.wait(60)


def with_room() -> None:
    """A small process on a machine with room: all of it is brought into memory."""
    with start("sleep", "1000") as process:
        say("with room", set_state(process.pid))
        say("with room, then", [kib(process.pid, "VmLck"), kib(process.pid, "VmSize")])
        process.kill()


def brought_back() -> None:
    """A process that was swapped out: its pages come back, and then it is locked as any other."""
    place = group("swapped", "max")
    with in_group(place, sys.executable, "-c", HOG, "24", stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        # by an ordinary process: this one has the state, and what it reclaims is not written to swap
        start("sh", "-c", f"echo 20M >{place}/memory.reclaim").wait(60)
        before = kib(process.pid, "VmSwap")
        say("swapped out", [before, set_state(process.pid), kib(process.pid, "VmSwap")])
        process.kill()


def refused() -> None:
    """Without CAP_IPC_LOCK the limit counts, for what comes later too: nothing is changed."""
    command = ("prlimit", "--memlock=4194304", "setpriv", "--bounding-set", "-ipc_lock", "sleep", "1000")
    with start(*command) as process:
        time.sleep(1)
        say("limited", [set_state(process.pid), kib(process.pid, "VmLck")])
        process.kill()


if __name__ == "__main__":
    set_io_flusher(True)
    lock_memory()
    set_realtime(RealtimePolicy.FIFO, 50)
    set_oom_score_adj(-1000)
    daemon = serve_swap()
    without_room(daemon)
    swap_works(daemon)
    if "--only" not in sys.argv:
        with_room()
        brought_back()
        refused()
    say("daemon", daemon.poll())
    os._exit(0)
