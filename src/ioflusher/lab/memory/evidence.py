"""What a guest's memory is asked, and what it tells: records that need neither drgn nor a guest."""

from dataclasses import dataclass, field

from ioflusher.lab.messages import ThreadReport


@dataclass(frozen=True, slots=True)
class MemoryQuestion:
    """What is looked for.

    Attributes:
        daemons: processes by number; their descendants are the daemon's, too.
        device: the served block device, as in /dev/nbd0; empty where it is not known.
    """

    daemons: tuple[int, ...] = ()
    device: str = ""


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """What was read from a guest's memory, all at one moment.

    Attributes:
        unreadable: why it could not be read; empty where it was.
        daemon: the daemons' threads, with their kernel stacks.
        waiting: every other task in uninterruptible sleep, with its stack.
        memory_kib: what these lines of /proc/meminfo would have said.
        completed: requests that the served device has completed since it exists; None where unknown.
        in_flight: requests that it has taken and not completed; None where unknown.
        missing: what else was asked for and not found, a sentence each.
    """

    unreadable: str = ""
    daemon: tuple[ThreadReport, ...] = ()
    waiting: tuple[ThreadReport, ...] = ()
    memory_kib: dict[str, int] = field(default_factory=dict)
    completed: int | None = None
    in_flight: int | None = None
    missing: tuple[str, ...] = ()
