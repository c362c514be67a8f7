"""PressureTriggers stall triggers: the kernel wakes the guard up (Documentation/accounting/psi.rst)."""

import contextlib
import os
import select
from pathlib import Path

# microseconds of stall within a window of microseconds
TRIGGERS = {"io": "some 150000 1000000", "memory": "some 150000 1000000"}


class PressureTriggers:
    """Waits for pressure, or for a time; without PSI for the time alone.

    Attributes:
        watched: which kinds the kernel watches.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._poll = select.poll()
        self._files: list[int] = []
        watched = []
        for kind, trigger in TRIGGERS.items():
            with contextlib.suppress(OSError):  # PSI is off, or the kernel is older than 5.2
                file = os.open(root / "proc/pressure" / kind, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                self._files.append(file)
                os.write(file, trigger.encode())
                self._poll.register(file, select.POLLPRI)
                watched.append(kind)
        self.watched = tuple(watched)

    def wait(self, seconds: float) -> bool:
        """Until there is pressure, or so long; whether there is."""
        return bool(self._poll.poll(seconds * 1000))

    def close(self) -> None:
        """Have the kernel watch no longer."""
        while self._files:
            os.close(self._files.pop())
