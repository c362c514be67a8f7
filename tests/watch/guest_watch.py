"""On the stage of ext4-on-nbd-throttled: a watch that sees a freeze come and go, and that leaves nothing.

    ioflusher lab shell ext4-on-nbd-throttled < tests/watch/guest_watch.sh

Prints one JSON object a line: what was checked, and what was found.
"""

import base64
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.rescue.stage import become_program, until

INSTANCES = Path("/sys/kernel/tracing/instances")
RECORD = Path("/run/watch.record")
SAMPLED = Path("/run/watch.sampled")


def say(check: str, found: Any) -> None:
    """One line for the test."""
    print(json.dumps([check, found]), flush=True)


def instances() -> list[str]:
    """Those of watches."""
    return sorted(path.name for path in INSTANCES.iterdir() if path.name.startswith("ioflusher-watch-"))


def events_enabled() -> list[str]:
    """Events that any instance but the lab's has enabled, by triggers too ("0*" or "1*")."""
    places = [INSTANCES.parent, *INSTANCES.glob("ioflusher-watch-*")]
    files = [place / "events" / system / "enable" for place in places for system in ("vmscan", "writeback")]
    found = []
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # an instance that is about to come or to go
            found.append(f"{file}: {file.read_text().strip()}")
    return [line for line in found if not line.endswith(": 0")]


def watch(*options: str, output: Path = Path(os.devnull)) -> int:
    """A watch that runs until it is ended; its number."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 1)
        become_program("watch", "--quiet", *options)
    return pid


def ended(pid: int) -> int:
    """Wait for its end; the exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def keeper(pid: int) -> int:
    """The child that removes the instance."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])


def on_terminal(screens: int) -> list[float]:
    """Show so many screens on a terminal of 160 columns; when each was drawn."""
    sys.stdout.flush()
    pid, terminal = pty.fork()
    if not pid:
        os.environ.update(TERM="xterm-256color", COLUMNS="160", LINES="45")
        become_program("watch", "--quiet", "--interval", "0.5")
    shown: list[float] = []

    def read() -> None:
        with contextlib.suppress(OSError):
            while True:
                if b"memory free" in os.read(terminal, 1 << 16):
                    shown.append(round(time.monotonic(), 2))

    threading.Thread(target=read, daemon=True).start()
    until(lambda: len(shown) >= screens)
    os.kill(pid, signal.SIGINT)
    say("ended by Ctrl-C", ended(pid))
    return shown


def main() -> None:
    mount = next(
        line.split()[1]
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.startswith(os.environ["IOFLUSHER_DEVICE"])
    )
    say("before", [instances(), events_enabled()])
    kill_one()
    kill_both()
    recorder = watch("--json", "--interval", "0.5", "--stalled", "3", "--record", str(RECORD))
    until(lambda: RECORD.exists() and RECORD.read_bytes().count(b"\n") > 3)
    say("while it counts", [len(instances()), len(events_enabled()) > 0])
    writing = f"f = open('{mount}/big', 'wb')\nfor _ in range(96): f.write(bytes(1 << 20))"
    writer = subprocess.Popen([sys.executable, "-c", writing])
    say("stall seen after", until(lambda: b'"stall"' in RECORD.read_bytes()))
    sampler = watch(
        "--no-trace", "--json", "--count", "6", "--interval", "0.3", "--stalled", "1", output=SAMPLED
    )
    shown = on_terminal(8)
    say("screens", [len(shown), round(max(b - a for a, b in pairwise(shown)), 2)])
    status = ended(sampler)
    lines = [json.loads(line) for line in SAMPLED.read_bytes().splitlines()]
    waits = sorted({each["alarm"]["wait"] for line in lines for each in line["alarms"]})
    say("sampled", [status, waits])
    say("sampled notes", lines[0]["sample"]["notes"])
    Path("/proc/sys/vm/dirty_bytes").write_text(str(256 << 20))
    say("written after", until(lambda: writer.poll() is not None))
    os.kill(recorder, signal.SIGTERM)
    say("ended by SIGTERM", ended(recorder))
    say("after it", [instances(), events_enabled()])
    say("record", base64.b64encode(zlib.compress(RECORD.read_bytes(), 9)).decode())


def kill_one() -> None:
    """kill -9: its child removes the instance."""
    victim = watch("--json")
    until(events_enabled)
    os.kill(victim, signal.SIGKILL)
    ended(victim)
    say("gone after kill -9", [until(lambda: not instances(), 10), events_enabled()])


def kill_both() -> None:
    """kill -9 of both, as a control group's kill: the next one removes it."""
    victim = watch("--json")
    until(events_enabled)
    os.kill(keeper(victim), signal.SIGKILL)
    os.kill(victim, signal.SIGKILL)
    ended(victim)
    time.sleep(0.3)
    left = instances()
    ended(watch("--once", "--json", "--interval", "0.1"))
    say("swept", [len(left), instances(), events_enabled()])


if __name__ == "__main__":
    main()
