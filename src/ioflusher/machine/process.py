"""Processes as a snapshot holds them.

Text that comes from the machine (names, paths) is str here: bytes that are not UTF-8 stand as \\xNN. It is
still the machine's: it goes through `support.text.printable` before it reaches a terminal.
"""

import re
from dataclasses import dataclass
from enum import Enum

from ioflusher.kernel.capability import CapabilitySets
from ioflusher.kernel.coverage import Coverage
from ioflusher.kernel.task import Thread


class FileKind(Enum):
    """What a process has a file for."""

    EXECUTABLE = "executable"
    LIBRARY = "library"  # mapped executable, but not the program itself
    LOG = "log"  # a regular file open for appending
    WRITTEN = "written"  # open for writing
    READ = "read"
    MAPPED = "mapped"  # mapped without being executable: data, locale archives
    DEVICE = "device"  # a block device


@dataclass(frozen=True, slots=True)
class FileUse:
    """A file that a process stands on.

    Attributes:
        path: its name in the process's own mount namespace.
        kind: what it is used for.
        device: "major:minor" of the file system that it lies on (st_dev), for a block device its own number;
            file systems such as btrfs and overlay show an anonymous number, "0:N".
        mount_id: of the mount it was opened through (fdinfo, statx), None where the kernel does not show it.
        direct: whether it is open with O_DIRECT.
    """

    path: str
    kind: FileKind
    device: str
    mount_id: int | None = None
    direct: bool = False


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """The limits of one memory control group, bytes; None for "max".

    Attributes:
        path: the group below the cgroup mount, "/" first.
        version: 1 or 2.
        max, high, swap_max, current: memory.max, .high, .swap.max, .current (version 1: limit_in_bytes,
            soft_limit_in_bytes, none, usage_in_bytes).
        members: numbers of the processes in the group and below it, where it has a `max`; None for unknown.
    """

    path: str
    version: int
    max: int | None
    high: int | None
    swap_max: int | None
    current: int | None
    members: tuple[int, ...] | None = None


# Special files by which programs serve storage, or have the kernel do it: who holds one of them is recorded,
# and nobody is ever seen to hold another.
SERVING_DEVICES = re.compile(
    r"/dev/(fuse|cuse|uio\d+|ublkc\d+|ublk-control|vduse/.+|nbd\d+|mapper/control|sg\d+|bsg/.+)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class DeviceHandle:
    """A special file of `SERVING_DEVICES` that a process holds open.

    Attributes:
        path: such as /dev/ublkc0, /dev/fuse, /dev/uio0, /dev/vduse/NAME, /dev/nbd0 (its client).
        number: "major:minor".
        connection: for /dev/fuse, the connection's number where the kernel names it in fdinfo.
    """

    path: str
    number: str
    connection: int | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """One process.

    Attributes:
        pid, ppid: numbers.
        comm: its main thread's name.
        uid: effective user number; None where it could not be read.
        threads: all of them, lowest number first.
        capabilities: None where they could not be read.
        locked_kib, swapped_kib, resident_kib, virtual_kib: VmLck, VmSwap, VmRSS, VmSize of /proc/PID/status;
            None for unknown.
        oom_score_adj: -1000 to 1000; None for unknown.
        cgroups: memory control groups from its own one up to the root that set a limit; None: not looked at.
        exe: what /proc/PID/exe names; None where it could not be read or there is none (kernel threads).
        arguments: its command line, only where the snapshot was asked for it.
        handles: special devices that it holds.
        files: what it stands on; None where nobody looked, because it serves nothing.
        mount_namespace: inode number of its mount namespace, None for unknown.
        named_mounts: mount points that its command line names (a FUSE daemon's own, say), as recorded.
    """

    pid: int
    ppid: int
    comm: str
    uid: int | None
    threads: tuple[Thread, ...]
    capabilities: CapabilitySets | None = None
    locked_kib: int | None = None
    swapped_kib: int | None = None
    resident_kib: int | None = None
    oom_score_adj: int | None = None
    cgroups: tuple[MemoryLimit, ...] | None = None
    exe: str | None = None
    arguments: tuple[str, ...] | None = None
    handles: tuple[DeviceHandle, ...] = ()
    files: tuple[FileUse, ...] | None = None
    mount_namespace: int | None = None
    named_mounts: tuple[str, ...] = ()
    virtual_kib: int | None = None

    @property
    def kernel_thread(self) -> bool:
        """Whether it belongs to the kernel itself."""
        return any(thread.kernel_thread for thread in self.threads[:1])

    @property
    def living(self) -> tuple[Thread, ...]:
        """Its threads that are not dead."""
        return tuple(thread for thread in self.threads if not thread.ended)

    @property
    def coverage(self) -> Coverage:
        """Which of the living threads that run the program carry the IO_FLUSHER state."""
        return Coverage(self.pid, tuple(thread for thread in self.living if not thread.kernel_worker))

    @property
    def covered(self) -> bool:
        """Whether every living thread that runs the program carries the IO_FLUSHER state."""
        return self.coverage.complete

    @property
    def memory_locked(self) -> bool | None:
        """Whether all of its resident memory but for a MiB is locked; None for unknown."""
        return self.locked_but(1024)

    def locked_but(self, kib: int) -> bool | None:
        """Whether all of its resident memory but so much is locked; None for unknown."""
        if self.locked_kib is None:
            return None
        if self.locked_kib == 0:
            # nothing is locked by mlockall, however little is resident; without user memory nothing has to be
            return self.resident_kib == 0
        return None if self.resident_kib is None else self.resident_kib - self.locked_kib <= kib

    @property
    def never_swapped(self) -> bool:
        """Whether a control group keeps its memory out of swap (memory.swap.max is 0)."""
        return any(group.version == 2 and group.swap_max == 0 for group in self.cgroups or ())
