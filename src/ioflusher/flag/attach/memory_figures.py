"""The figures that decide how the memory of a running process is locked, read from /proc and /sys."""

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ioflusher.kernel.capability import CAP_IPC_LOCK
from ioflusher.kernel.cgroup import Membership, parse_cgroup, parse_limit
from ioflusher.kernel.lock_plan import LockFigures
from ioflusher.kernel.meminfo import parse_meminfo
from ioflusher.kernel.smaps import MappedMemory, absent_kib, parse_smaps, swapped_kib
from ioflusher.kernel.status import parse_status

# Where systemd and container engines mount the hierarchies of control groups, and the files of the limits and
# of the use, by the hierarchy's version.
_MOUNTS = {1: "/sys/fs/cgroup/memory", 2: "/sys/fs/cgroup"}
_LIMITS = {1: ("memory.limit_in_bytes",), 2: ("memory.max", "memory.high")}
_USED = {1: "memory.usage_in_bytes", 2: "memory.current"}


class MemoryUnreadableError(Exception):
    """The mappings of a process could not be read in time; the message says so."""


@dataclass(frozen=True, slots=True)
class MemoryView:
    """The memory of one process: what decides, and its mappings."""

    figures: LockFigures
    mappings: tuple[MappedMemory, ...]


def read_memory(pid: int, timeout: float, proc: Path) -> MemoryView:
    """The figures of process `pid`; what cannot be read is None there.

    Raises:
        MemoryUnreadableError: where its mappings cannot be read within `timeout` seconds: a thread of it
            holds the mmap_lock for writing, or waits to do so.
        OSError: where the process ended, or may not be read.
    """
    directory = proc / str(pid)
    mappings = parse_smaps(_read_in_time(directory / "smaps", timeout))
    capabilities = parse_status((directory / "status").read_bytes()).capabilities
    limited = "effective" in capabilities.missing(CAP_IPC_LOCK)
    total, available = machine_memory_kib(proc)
    return MemoryView(
        LockFigures(
            mapped_kib=sum((one.mapping.end - one.mapping.start) // 1024 for one in mappings),
            resident_kib=sum(one.resident_kib for one in mappings),
            swapped_kib=swapped_kib(mappings),
            absent_kib=absent_kib(mappings),
            limit_kib=parse_lock_limit((directory / "limits").read_bytes()) if limited else None,
            total_kib=total,
            available_kib=available,
            group_kib=group_room_kib(directory),
        ),
        mappings,
    )


def machine_memory_kib(proc: Path) -> tuple[int | None, int | None]:
    """All of the machine's memory, and what can be had without writing anything: free or clean page cache."""
    memory = parse_meminfo((proc / "meminfo").read_bytes())
    if memory.available_kib is None:
        return memory.total_kib, None
    unwritten = (memory.dirty_kib or 0) + (memory.writeback_kib or 0)
    return memory.total_kib, max(0, memory.available_kib - unwritten)


def parse_lock_limit(limits: bytes) -> int | None:
    """The soft RLIMIT_MEMLOCK in KiB from the text of /proc/PID/limits; None for unlimited, or not there."""
    for line in limits.splitlines():
        if line.startswith(b"Max locked memory"):
            soft = line.removeprefix(b"Max locked memory").split()[0]
            return None if soft == b"unlimited" else int(soft) // 1024
    return None


def group_room_kib(directory: Path, mounts: dict[int, str] = _MOUNTS) -> int | None:
    """The least room below a limit of the memory control groups of the process with this directory in /proc.

    Clean page cache of a group counts as room, as in `machine_memory_kib`. None where no limit is known.
    """
    try:
        groups = parse_cgroup((directory / "cgroup").read_bytes())
    except (OSError, ValueError):
        return None
    found = next((group for group in groups if "memory" in group.controllers), None)
    group = found or next((group for group in groups if group.version == 2), None)
    if group is None:
        return None
    return min(_rooms_kib(group, mounts[group.version]), default=None)


def _rooms_kib(group: Membership, mount: str) -> list[int]:
    """The room in the group and in each above it, where they have a limit."""
    rooms = []
    path = group.path
    while path.strip(b"/"):
        place = os.fsencode(mount) + path
        limits = [_bytes(place, name) for name in _LIMITS[group.version]]
        used = _bytes(place, _USED[group.version])
        if used is not None:
            used -= _clean_cache(place)
            rooms += [max(0, limit - used) // 1024 for limit in limits if limit is not None]
        path = path.rpartition(b"/")[0]
    return rooms


def _bytes(place: bytes, name: str) -> int | None:
    try:
        with open(place + b"/" + name.encode(), "rb") as file:
            return parse_limit(file.read())
    except (OSError, ValueError):
        return None


def _clean_cache(place: bytes) -> int:
    """The bytes of page cache of a group that are on no disk waiting to be written: memory.stat."""
    with suppress(OSError, ValueError), open(place + b"/memory.stat", "rb") as file:
        values = {line.split()[0]: int(line.split()[1]) for line in file}
        lists = values.get(b"active_file", 0) + values.get(b"inactive_file", 0)
        return max(0, lists - values.get(b"file_dirty", 0) - values.get(b"file_writeback", 0))
    return 0


def _read_in_time(path: Path, timeout: float) -> bytes:
    """The text of a file whose reading may wait for ever; a thread that does is left behind."""
    texts: list[bytes] = []
    errors: list[OSError] = []

    def read() -> None:
        try:
            texts.append(path.read_bytes())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=read, name="smaps", daemon=True)
    thread.start()
    thread.join(timeout)
    if errors:
        raise errors[0]
    if not texts:
        raise MemoryUnreadableError(
            f"its mappings could not be read in {timeout:g} s: a thread holds their lock, or waits for it"
        )
    return texts[0]
