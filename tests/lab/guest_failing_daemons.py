"""In a guest with a disk at /dev/vdb: each kind of stack with daemons that do not serve, and what is said.

    guest_failing_daemons.py DEADLINE_S [KIND...]

One JSON object a line: the kind, how its daemon fails, the message, the seconds until it came.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ioflusher.lab.guest import processes
from ioflusher.lab.guest.processes import Processes, SetupFailed
from ioflusher.lab.messages import PlayHalf
from ioflusher.lab.scenario_file import builtin_scenarios, find_scenario
from ioflusher.lab.stacks import STACKS, base
from ioflusher.lab.stacks.scsi import CONFIGFS
from ioflusher.lab.variant import with_daemon

assert builtin_scenarios()
FAILURES = {
    "does not start": ["/no/such/daemon"],
    "exits": ["sh", "-c", "echo no export here >&2; exit 3", "daemon"],
    "never serves": ["sh", "-c", "echo waiting for the moon >&2; exec sleep 1000", "daemon"],
}


def clean_up(staged: Processes) -> None:
    """End what was started and undo what the stack made."""
    for process in staged.staged:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with contextlib.suppress(OSError):
        os.kill(int(Path("/run/dbus/pid").read_text()), signal.SIGKILL)
        os.unlink("/run/dbus/pid")
    for directory in ("user_0/lab", "user_0"):
        with contextlib.suppress(OSError):
            (CONFIGFS / "target" / "core" / directory).rmdir()
    for command in (
        ["losetup", "-D"],
        ["umount", "/run/lab/fuse"],
        ["rmdir", "/run/lab/fuse"],
        ["umount", "/store"],
    ):
        subprocess.run(command, check=False, capture_output=True)


def message_of(kind: str, words: list[str]) -> str:
    """What a stack says whose daemon is started with these words, and the placeholders behind them."""
    command = [*words, *STACKS[kind].places["file"]]
    scenario = with_daemon(find_scenario("ext4-on-nbd-throttled"), command, kind)
    staged = Processes()
    stack = STACKS[kind].load()(PlayHalf(scenario, False, ""), staged)
    try:
        with staged.told():
            stack.start()
    except SetupFailed as error:
        return str(error)
    finally:
        clean_up(staged)
    return ""


def main() -> None:
    """The program."""
    processes.SETUP_DEADLINE_S = float(sys.argv[1])
    base.find_disk = lambda name: "/dev/vdb"
    Path("/run/lab").mkdir(exist_ok=True)
    for kind in sys.argv[2:] or STACKS:
        for fails, words in FAILURES.items():
            began = time.monotonic()
            said = message_of(kind, words)
            seconds = round(time.monotonic() - began, 1)
            print(json.dumps({"kind": kind, "fails": fails, "said": said, "seconds": seconds}), flush=True)


main()
