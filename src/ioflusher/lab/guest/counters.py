"""Inside the guest: requests of a block device, read over and over without a new allocation of our own."""

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
        """Its text now."""
        count = os.preadv(self._fd, [self._buffer], 0)
        return bytes(self._buffer[:count])


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


class BlockCounters:
    """The kernel's own count (Documentation/block/stat.rst, Documentation/ABI/stable/sysfs-block)."""

    def __init__(self, device: str) -> None:
        directory = Path("/sys/block", os.path.basename(device))
        self._stat = RepeatedFile(directory / "stat")
        self._inflight = RepeatedFile(directory / "inflight")

    def read(self) -> Requests:
        words = self._stat.read().split()
        reads, writes = int(words[0]), int(words[4])
        return Requests(reads + writes, sum(map(int, self._inflight.read().split())))
