"""How much a snapshot may take: time, and of each process."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SnapshotLimits:
    """How much a snapshot may take; `Snapshot.unreadable` names what is cut off.

    Attributes:
        seconds: for all processes together.
        answer_seconds: for one read that the kernel may hold up: of memory maps and command lines, which
            wait for a lock that a frozen process may hold, and of the sockets.
        threads, descriptors, files: of one process.
        argument_bytes: of one command line.
        text_bytes: of any one file of /proc.
    """

    seconds: float = 60.0
    answer_seconds: float = 2.0
    threads: int = 50_000
    descriptors: int = 200_000
    files: int = 4_096
    argument_bytes: int = 4_096
    text_bytes: int = 16 << 20
