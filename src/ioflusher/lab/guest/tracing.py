"""Inside the guest: a tracefs instance of our own, whose buffer is read page by page without waiting.

The kernel formats nothing for a read, and allocates nothing but its one spare page, so that an observer can
go on in a machine without memory. The buffer keeps the newest events; that some were overwritten before they
were read is known.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from ioflusher.kernel.trace_events import (
    EventReader,
    TraceEvent,
    TraceFormat,
    TraceFormatError,
    parse_trace_format,
)

TRACEFS = Path("/sys/kernel/tracing")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class TraceInstance:
    """One instance with some events; its clock is CLOCK_MONOTONIC.

    Raises OSError where the kernel has no tracefs or lets no instance be made.
    """

    def __init__(self, name: str, *, buffer_kib: int, tracefs: Path = TRACEFS) -> None:
        self._directory = tracefs / "instances" / name
        self._directory.mkdir()
        # before any event is enabled, which fills the buffer's place with pages
        (self._directory / "buffer_size_kb").write_text(str(buffer_kib))
        (self._directory / "trace_clock").write_text("mono")
        self._wanted: list[tuple[TraceFormat, tuple[str, ...]]] = []
        self._reader = EventReader(())
        self._cpus: list[int] = []
        self._page = bytearray(PAGE_BYTES)

    def want(self, event: str, fields: tuple[str, ...], *, only: str = "") -> TraceFormat | None:
        """Record this event, "system/name", with these fields, where the filter `only` holds.

        Returns its format; None where the kernel has no such event, or not with these fields.
        """
        directory = self._directory / "events" / event
        try:
            found = parse_trace_format((directory / "format").read_text())
            EventReader([(found, fields)])
            if only:
                (directory / "filter").write_text(only)
            (directory / "enable").write_text("1")
        except (OSError, TraceFormatError):
            return None
        self._wanted.append((found, fields))
        self._reader = EventReader(self._wanted)
        return found

    def follow(self, tids: Iterable[int]) -> None:
        """Record these threads alone, and from now on the threads and processes that they make, and theirs.

        May be called again with further threads.
        """
        (self._directory / "options" / "event-fork").write_text("1")
        # without O_APPEND the threads so far are forgotten; Python's own "a" seeks, which this file refuses
        file = os.open(self._directory / "set_event_pid", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(file, (" ".join(map(str, tids)) + "\n").encode())
        finally:
            os.close(file)

    def open(self) -> None:
        """Open what `read` needs, so that reading opens nothing."""
        self._cpus = [
            os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            for file in sorted(self._directory.glob("per_cpu/cpu*/trace_pipe_raw"))
        ]

    def read(self) -> tuple[list[TraceEvent], bool]:
        """The events since the last call, processor by processor, and whether some were lost."""
        events: list[TraceEvent] = []
        lost = False
        for cpu in self._cpus:
            while True:
                try:
                    count = os.readv(cpu, [self._page])
                except BlockingIOError:
                    break  # no event is left there
                if not count:
                    break
                try:
                    page = self._reader.read(self._page)
                except TraceFormatError:
                    lost = True
                    continue
                events += page.events
                lost = lost or page.lost
        return events, lost
