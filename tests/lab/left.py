"""What a lab has left: processes, files and sockets; in this process also threads and descriptors."""

import os
import threading
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Left:
    """Counts, or names where somebody will want to know which.

    Attributes:
        processes: "PID command" of those that were started with this TMPDIR.
        files: what lies in TMPDIR.
        sockets: Unix sockets bound to a path below TMPDIR.
        descriptors: open files of this process.
        threads: of this process.
    """

    processes: tuple[str, ...]
    files: tuple[str, ...]
    sockets: tuple[str, ...]
    descriptors: int
    threads: int

    def beyond(self, before: "Left") -> str:
        """What is there now and was not before, for people; empty where there is no more of anything."""
        more = []
        for field in fields(self):
            now, then = getattr(self, field.name), getattr(before, field.name)
            if isinstance(now, int):
                if now > then:
                    more.append(f"{field.name}: {then}, now {now}")
            elif new := [one for one in now if one not in then]:
                more.append(f"{field.name}: {', '.join(new)}")
        return "; ".join(more)


def look(place: Path) -> Left:
    """What is there now, `place` being the TMPDIR of what is watched."""
    return Left(
        processes=tuple(_processes(place)),
        files=tuple(sorted(path.name for path in place.iterdir())),
        sockets=tuple(
            sorted(
                words[7]
                for words in (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
                if len(words) > 7 and words[7].startswith(f"{place}/")
            )
        ),
        descriptors=len(os.listdir("/proc/self/fd")) - 1,  # without the one that lists them
        threads=threading.active_count(),
    )


def _processes(place: Path) -> list[str]:
    """Processes but this one whose environment says so."""
    marker = b"TMPDIR=%s" % os.fsencode(place)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                found.append(f"{entry.name} {(entry / 'comm').read_text().strip()}")
        except OSError:
            continue  # it ended, or is another user's
    return found
