"""What could not be read while a machine is looked at, one record a kind."""

import errno
from collections.abc import Iterable
from dataclasses import dataclass

from ioflusher.machine.unreadable import Unreadable


@dataclass(frozen=True, slots=True)
class Noted:
    """What `Notes` hold: (what, why) of the machine, ((name, why), pids) of processes, and `refused`."""

    machine: list[tuple[str, str]]
    processes: list[tuple[tuple[str, str], list[int]]]
    refused: bool


class Notes:
    """Collects what could not be read. Calling it notes something of the machine."""

    def __init__(self) -> None:
        self._machine: dict[tuple[str, str], None] = {}
        self._processes: dict[tuple[str, str], list[int]] = {}
        self.refused = False  # whether something of a process needs more privilege

    def __call__(self, what: str, why: str) -> None:
        """Note something of the machine: a path or words, and the reason."""
        self._machine[what, why] = None

    def of_process(self, pid: int, name: str, why: str | OSError) -> None:
        """Note a file of /proc/PID, by its name there."""
        if isinstance(why, OSError):
            self.refused |= why.errno in (errno.EACCES, errno.EPERM)
            why = why.strerror or str(why)
        self._processes.setdefault((name, why), []).append(pid)

    def noted(self) -> Noted:
        """All that was noted, to be merged elsewhere."""
        return Noted(list(self._machine), list(self._processes.items()), self.refused)

    def merge(self, noted: Noted) -> None:
        """Take over what was noted elsewhere; what was noted here too counts once."""
        self._machine |= dict.fromkeys(noted.machine)
        for kind, pids in noted.processes:
            self._processes.setdefault(kind, []).extend(pids)
        self.refused |= noted.refused

    def unreadable(self, apart: Iterable[int] = ()) -> tuple[Unreadable, ...]:
        """The records: one a kind, and one for each process of `apart`."""
        apart = frozenset(apart)
        records = [Unreadable(what, why) for what, why in self._machine]
        for (name, why), noted in self._processes.items():
            pids = sorted(set(noted))
            alone = [pid for pid in pids if pid in apart or len(pids) == 1]
            others = len(pids) - len(alone)
            records += [Unreadable(f"/proc/{pid}/{name}".rstrip("/"), why, pid) for pid in alone]
            if others:
                many = "process" if others == 1 else "processes"
                records.append(Unreadable(f"{f'/proc/PID/{name}'.rstrip('/')} of {others} {many}", why))
        return tuple(sorted(records, key=lambda record: (record.pid or 0, record.what, record.why)))
