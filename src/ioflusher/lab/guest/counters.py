"""Inside the guest: requests of a block device, read over and over without a new allocation of our own."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class RepeatedFile:
    """A file of /proc or /sys that is read over and over through one descriptor and one buffer."""

    def __init__(self, path: str | Path, size: int = 16384) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._buffer = bytearray(size)

    def read(self) -> bytes:
        """Its text now; the kernel gives out a long one piece by piece (fs/seq_file.c, seq_read_iter)."""
        text = bytearray()
        while count := os.preadv(self._fd, [self._buffer], len(text)):
            text += self._buffer[:count]
        return bytes(text)


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests that a device has completed since it exists, and those taken and not completed."""

    completed: int
    in_flight: int


class DeviceCounters(Protocol):
    """Where an observer reads a device's requests."""

    def read(self) -> Requests:
        """The numbers now."""
        ...


class NfsCounters:
    """Calls of one NFS mount that were sent, and those that were answered (Documentation of nfs-utils,
    mountstats; net/sunrpc/xprtsock.c, xs_tcp_print_stats).

    One that is sent again after a connection was lost counts once more as in flight.
    """

    def __init__(self, mount_point: str) -> None:
        self._mount_point = mount_point.encode()
        self._stats = RepeatedFile("/proc/self/mountstats", 65536)

    def read(self) -> Requests:
        return nfs_requests(self._stats.read(), self._mount_point)


def nfs_requests(mountstats: bytes, mount_point: bytes) -> Requests:
    """The calls in the text of /proc/PID/mountstats, of all connections of the mount at this place."""
    sent = answered = 0
    of_mount = False
    for line in mountstats.splitlines():
        words = line.split()
        if words[:1] == [b"device"]:
            of_mount = words[2:5] == [b"mounted", b"on", mount_point]
        elif of_mount and words[:2] == [b"xprt:", b"tcp"]:
            # ports, binds, connects, their time, idle time, sends, receives
            sent += int(words[7])
            answered += int(words[8])
    return Requests(answered, max(0, sent - answered))


class BlockCounters:
    """The kernel's own count (Documentation/block/stat.rst, Documentation/ABI/stable/sysfs-block)."""

    def __init__(self, device: str) -> None:
        directory = Path("/sys/block", os.path.basename(device))
        self._stat = RepeatedFile(directory / "stat")
        self._inflight = RepeatedFile(directory / "inflight")
        self._completed = 0

    def read(self) -> Requests:
        """The numbers now; of a device that was taken down, as ublk's with its server, none is in flight."""
        try:
            words, in_flight = self._stat.read().split(), self._inflight.read().split()
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return Requests(self._completed, 0)
        self._completed = int(words[0]) + int(words[4])
        return Requests(self._completed, sum(map(int, in_flight)))
