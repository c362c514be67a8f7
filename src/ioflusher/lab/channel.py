"""Events of a guest: one JSON object a line, over a channel of their own.

The console is for people and for the kernel's last words; no verdict hangs on it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_LINE = 4 << 20


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the guest's agent says.

    Attributes:
        kind: "hello", "phase", "sample", "frozen", "exit" and the like; the agent's modules define them.
        time_s: seconds since the guest's kernel started, by CLOCK_MONOTONIC in the guest.
        data: what comes with it, JSON values.
    """

    kind: str
    time_s: float
    data: dict[str, Any] = field(default_factory=dict)

    def to_line(self) -> bytes:
        """The event as one line of bytes."""
        record = {"event": self.kind, "time_s": round(self.time_s, 3), **self.data}
        return json.dumps(record, separators=(",", ":")).encode() + b"\n"


class ChannelReader:
    """Bytes to events, without I/O. A line that is no event is given back as an event of kind "garbled"."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Event]:
        """Events that are complete with these bytes."""
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            yield parse_event(line)
        if len(self._buffer) > MAX_LINE:
            self._buffer.clear()
            yield Event("garbled", 0.0, {"text": f"a line of more than {MAX_LINE} bytes"})


def parse_event(line: bytes) -> Event:
    """One line to an event."""
    try:
        record = json.loads(line)
        kind = record.pop("event")
        time_s = float(record.pop("time_s"))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return Event("garbled", 0.0, {"text": line[:200].decode("utf-8", "backslashreplace")})
    return Event(str(kind), time_s, record)
