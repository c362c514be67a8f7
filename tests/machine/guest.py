"""What scripts inside a guest share: running and starting programs, and saying what collect() sees."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ioflusher.machine.codec import dump_snapshot
from ioflusher.machine.collect.machine import collect
from ioflusher.machine.serving.infer import services

RUN = Path("/run")
SIZE = 32 << 20
BUS_NAMES = (
    *("dbus-send", "--system", "--print-reply", "--dest=org.freedesktop.DBus", "/"),
    "org.freedesktop.DBus.ListNames",
)
STARTED: dict[str, "subprocess.Popen[bytes]"] = {}


def run(*command: str, timeout: float = 60) -> str:
    """What the command prints; its failure is ours, with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}: {(done.stderr or done.stdout)[-400:]}")
    return done.stdout


def start(*command: str) -> None:
    """A daemon in the foreground of its own; its output is kept for the case that it fails."""
    name = Path(command[0]).name
    with open(RUN / f"{name}.out", "ab") as out:
        STARTED[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def until(what: str, true: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.05)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def image(name: str) -> Path:
    """An empty file in memory, as large as every disk here."""
    path = RUN / name
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def lay_over(tree: str) -> None:
    """The packages' files over the guest's own, and the loopback interface."""
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={tree}/usr:/usr", "/usr")
    for directory in ("etc", "var"):
        if not Path(tree, directory).is_dir():
            continue
        run("cp", "-an", f"{tree}/{directory}/.", f"/{directory}/")
    write(Path("/etc/resolv.conf"), "")
    # daemons that close every possible descriptor take seconds under emulation
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    run("ip", "link", "set", "lo", "up")


def play(name: str, *steps: Callable[[], None]) -> None:
    """Take the steps, then print {"snapshot": NAME, "services": [...], "whole": ...}, one line of JSON.

    A step that fails prints {"failed": WHAT, "why": ...}; the others are taken all the same.
    """
    for step in steps:
        begun = time.monotonic()
        word = getattr(step, "__name__", str(step))
        try:
            step()
        except Exception as error:
            print(json.dumps({"failed": word, "why": str(error)}), flush=True)
        print(f"{word}: {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
    begun = time.monotonic()
    snapshot = collect()
    comms = {process.pid: process.comm for process in snapshot.processes}
    found = [
        {
            **asdict(service),
            "role": service.role.value,
            "kind": service.kind.value,
            "comm": comms.get(service.pid or 0),
        }
        for service in services(snapshot)
    ]
    whole = json.loads(dump_snapshot(snapshot))
    record = {"snapshot": name, "services": found, "whole": whole}
    print(json.dumps(record, default=lambda word: word.value), flush=True)
    print(f"look at {name}: {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
