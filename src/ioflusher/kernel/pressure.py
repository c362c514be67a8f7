"""Pressure stall information: the text of /proc/pressure/*, and triggers.

Source: Documentation/accounting/psi.rst.
"""

import contextlib
import os
import re
import select
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(
    rb"^(some|full) avg10=([\d.]+) avg60=[\d.]+ avg300=[\d.]+ total=(\d+)$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class PressureLine:
    """One line: `kind` is "some" or "full", avg10 in percent, total in microseconds since boot."""

    kind: str
    avg10: float
    total_us: int


def parse_pressure(text: bytes) -> tuple[PressureLine, ...]:
    """The lines in the text of such a file, in the kernel's order."""
    return tuple(
        PressureLine(kind.decode("ascii"), float(avg10), int(total))
        for kind, avg10, total in _LINE.findall(text)
    )


class PressureTriggers:
    """Waits for pressure, or for a time; where the kernel takes no trigger, for the time alone.

    Args:
        triggers: for a resource ("memory", "io") the texts to try, "some 150000 1000000": microseconds of
            stall in a window of microseconds. The first that the kernel takes counts.

    Attributes:
        watched: the resources that the kernel watches.
    """

    def __init__(self, triggers: Mapping[str, Sequence[str]], root: Path = Path("/")) -> None:
        self._poll = select.poll()
        self._resources: dict[int, str] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.POLLIN)
        for resource, texts in triggers.items():
            for text in texts:
                with contextlib.suppress(OSError):  # PSI is off, older than 5.2, or the window not allowed
                    file = _open_trigger(root / "proc/pressure" / resource, text)
                    self._poll.register(file, select.POLLPRI)
                    self._resources[file] = resource
                    break
        self.watched = tuple(self._resources.values())

    def wait(self, seconds: float) -> tuple[str, ...]:
        """Until there is pressure, or so long, or `wake`; the resources that are under pressure, if any."""
        found = self._poll.poll(max(0.0, seconds) * 1000)
        return tuple(self._resources[file] for file, _ in found if file != self._wake)

    def wake(self) -> None:
        """Have `wait` return at once, from now on; other threads may call it."""
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Have the kernel watch no longer."""
        while self._resources:
            os.close(self._resources.popitem()[0])
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1


def _open_trigger(path: Path, text: str) -> int:
    """A file of /proc/pressure with its trigger, whose last byte the kernel overwrites with NUL.

    Source: kernel/sched/psi.c, psi_write().
    """
    file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(file, text.encode() + b"\0")
    except OSError:
        os.close(file)
        raise
    return file
