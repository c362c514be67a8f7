"""The guest's end of the channels to the outside: virtio-serial ports, found by name."""

import os
import threading
import time
from pathlib import Path

import msgspec

from ioflusher.lab.messages import EVENTS_PORT, TimedReport, encode_report


def open_port(name: str, flags: int) -> int:
    """A file descriptor of the port; raises FileNotFoundError when the machine has none of that name."""
    for entry in Path("/sys/class/virtio-ports").iterdir():
        if (entry / "name").read_text().strip() == name:
            return os.open(f"/dev/{entry.name}", flags | os.O_CLOEXEC)
    raise FileNotFoundError(f"no virtio port named {name}")


class ReportPort:
    """Says reports to the outside; each is on its way when `say` returns."""

    def __init__(self) -> None:
        self._fd = open_port(EVENTS_PORT, os.O_WRONLY)
        self._lock = threading.Lock()  # a shell's end and its workload's samples come from two threads

    def say(self, report: TimedReport) -> None:
        """Send one report, stamped with the time."""
        line = encode_report(msgspec.structs.replace(report, time_s=round(time.monotonic(), 3)))
        with self._lock:
            while line:
                line = line[os.write(self._fd, line) :]
