"""What could not be read, as a snapshot holds it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something that could not be read.

    Attributes:
        what: a path, or words such as "peers of Unix sockets".
        why: the system's or our reason.
        pid: the process it belongs to, None for the machine.
    """

    what: str
    why: str
    pid: int | None = None
