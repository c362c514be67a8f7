"""The guest's end of the channels to the outside: virtio-serial ports, found by name."""

import os
import time
from pathlib import Path
from typing import Any

from ioflusher.lab.channel import Event
from ioflusher.lab.job import EVENTS_PORT


def open_port(name: str, flags: int) -> int:
    """A file descriptor of the port; raises FileNotFoundError when the machine has none of that name."""
    for entry in Path("/sys/class/virtio-ports").iterdir():
        if (entry / "name").read_text().strip() == name:
            return os.open(f"/dev/{entry.name}", flags | os.O_CLOEXEC)
    raise FileNotFoundError(f"no virtio port named {name}")


class EventPort:
    """Says events to the outside; each is on its way when `say` returns."""

    def __init__(self) -> None:
        self._fd = open_port(EVENTS_PORT, os.O_WRONLY)

    def say(self, kind: str, **data: Any) -> None:
        """Send one event."""
        line = Event(kind, time.monotonic(), data).to_line()
        while line:
            line = line[os.write(self._fd, line) :]
