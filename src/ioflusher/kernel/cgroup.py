"""Control groups of a process: the text of /proc/PID/cgroup, and the values of memory.* files."""

from dataclasses import dataclass

# What version 1 shows for "no limit": PAGE_COUNTER_MAX pages, include/linux/page_counter.h, which is
# LONG_MAX rounded down to a whole page of 4 to 64 KiB.
_NO_LIMIT = (1 << 63) - (1 << 16)


@dataclass(frozen=True, slots=True)
class Membership:
    """One line: the group of a process in one hierarchy.

    Attributes:
        controllers: names, as ("cpu", "cpuacct"); empty for version 2.
        path: the group below the hierarchy's mount, "/" first.
    """

    controllers: tuple[str, ...]
    path: bytes

    @property
    def version(self) -> int:
        """1 or 2."""
        return 1 if self.controllers else 2


def parse_cgroup(text: bytes) -> tuple[Membership, ...]:
    """The lines of /proc/PID/cgroup in their order (kernel/cgroup/cgroup.c, proc_cgroup_show).

    Raises:
        ValueError: where a line is not of the form 'number:controllers:path'.
    """
    groups = []
    for line in text.split(b"\n"):
        if not line:
            continue
        fields = line.split(b":", 2)
        if len(fields) != 3 or not fields[0].isdigit():
            raise ValueError(f"expected 'number:controllers:path', found {line[:80]!r}")
        names = fields[1].decode("utf-8", "backslashreplace")
        groups.append(Membership(tuple(names.split(",")) if names else (), fields[2]))
    return tuple(groups)


def parse_limit(text: bytes) -> int | None:
    """The bytes in a file such as memory.max or memory.limit_in_bytes; None for no limit.

    Raises:
        ValueError: where it is neither "max" nor a number.
    """
    value = text.strip()
    if value == b"max":
        return None
    number = int(value)
    return None if number >= _NO_LIMIT else number
