"""Memory control groups of a process, and their limits."""

import os

from ioflusher.kernel.cgroup import Membership, parse_cgroup, parse_limit
from ioflusher.machine.collect.proc_files import read_small
from ioflusher.machine.collect.threads import GONE
from ioflusher.machine.collect.unreadable_notes import Notes
from ioflusher.machine.process import MemoryLimit
from ioflusher.support.text import text_of

# Where systemd and container engines mount the hierarchies, below the root.
_MOUNTS = {
    1: ("sys/fs/cgroup/memory",),
    2: ("sys/fs/cgroup", "sys/fs/cgroup/unified"),
}
# files of max, high, swap_max, current
_FILES = {
    1: ("memory.limit_in_bytes", "memory.soft_limit_in_bytes", None, "memory.usage_in_bytes"),
    2: ("memory.max", "memory.high", "memory.swap.max", "memory.current"),
}
# groups below a limited one that are looked at for its members
MOST_GROUPS = 256


def read_cgroups(root: str, pid: int, notes: Notes) -> tuple[MemoryLimit, ...] | None:
    """The groups that hold the process's memory and set a limit, its own first; None where unknown.

    `root` is what comes before "/proc". What lies above the group that this machine's cgroup mount shows, as
    in a container, cannot be seen.
    """
    try:
        groups = parse_cgroup(read_small(f"{root}/proc/{pid}/cgroup"))
    except GONE:
        return None
    except OSError as error:
        notes.of_process(pid, "cgroup", error)
        return None
    except ValueError as error:
        notes.of_process(pid, "cgroup", str(error))
        return None
    group = next((group for group in groups if "memory" in group.controllers), None) or next(
        (group for group in groups if group.version == 2), None
    )
    if group is None:
        return ()
    place = _place(root, group)
    if place is None:
        notes.of_process(pid, "cgroup", f"no control group {text_of(group.path)!r} below /sys/fs/cgroup")
        return None
    return _limits(place, group.path, group.version)


def _place(root: str, group: Membership) -> bytes | None:
    """The directory of the hierarchy's mount, where the group is below it."""
    if b".." in group.path.split(b"/"):
        return None
    for mount in _MOUNTS[group.version]:
        place = os.fsencode(f"{root}/{mount}")
        if os.path.exists(place + group.path + b"/cgroup.procs"):
            return place
    return None


def _limits(place: bytes, path: bytes, version: int) -> tuple[MemoryLimit, ...]:
    found = []
    while True:
        directory = place + path.rstrip(b"/")
        maximum, high, swap, current = (_value(directory, name) for name in _FILES[version])
        if not (maximum is None and high is None and swap is None):
            members = None if maximum is None else _members(directory)
            found.append(MemoryLimit(text_of(path), version, maximum, high, swap, current, members))
        if path == b"/":
            return tuple(found)
        path = path.rpartition(b"/")[0] or b"/"


def _value(directory: bytes, name: str | None) -> int | None:
    """The value of a file; None also where there is none: the root group has no limits."""
    if name is None:
        return None
    try:
        return parse_limit(read_small(directory + b"/" + name.encode()))
    except (OSError, ValueError):
        return None


def _members(directory: bytes) -> tuple[int, ...] | None:
    """The processes of a group and of those below it; None where that cannot be known or is too many."""
    members: set[int] = set()
    try:
        for number, (place, _, files) in enumerate(os.walk(directory, onerror=_give_up)):
            if number >= MOST_GROUPS:
                return None
            if b"cgroup.procs" in files:
                members.update(map(int, read_small(place + b"/cgroup.procs").split()))
    except (OSError, ValueError):
        return None
    return tuple(sorted(members))


def _give_up(error: OSError) -> None:
    raise error
