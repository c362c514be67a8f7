"""Disks that a guest is given: typed requests, and the files behind them.

A guest finds a disk by its name, which is the virtio disk's serial number, and not by its place in a row.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ioflusher.lab.errors import LabError
from ioflusher.lab.qemu import Disk
from ioflusher.lab.vm import DIRECTORY_PREFIX
from ioflusher.support.sizes import SizeError, parse_size
from ioflusher.support.temporary import OwnedDirectory

LONGEST_NAME = 20  # bytes of a virtio disk's serial number (VIRTIO_BLK_ID_BYTES)


@dataclass(frozen=True, slots=True)
class EmptyDisk:
    """A disk of `size_bytes` zeros that goes away with the guest."""

    size_bytes: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class ImageDisk:
    """A raw image that is there already; the guest may write to it."""

    path: Path
    name: str = ""


DiskRequest = EmptyDisk | ImageDisk


def parse_disk(text: str) -> DiskRequest:
    """A disk as people write it: a size such as "512M", or the path of an image.

    What reads as a size is one, whatever files there are: ./512M names the file.

    Raises:
        LabError: for what is neither a size nor an image that exists.
    """
    try:
        return EmptyDisk(parse_size(text))
    except SizeError:
        if Path(text).exists():
            return ImageDisk(Path(text))
        raise LabError(
            f"not a disk: {text!r} is no size, and there is no such image",
            hint='give a size such as "512M", or an image that exists',
        ) from None


@contextlib.contextmanager
def guest_disks(wanted: Sequence[DiskRequest]) -> Iterator[tuple[Disk, ...]]:
    """The disks, in the order of the requests, for as long as the guest needs them."""
    with OwnedDirectory(DIRECTORY_PREFIX) as owned:
        disks = []
        for number, request in enumerate(wanted):
            assert len(request.name.encode()) <= LONGEST_NAME
            match request:
                case ImageDisk(path, name):
                    disks.append(Disk(os.path.abspath(path), name=name))
                case EmptyDisk(size_bytes, name):
                    file_path = owned.path / f"disk{number}"
                    with file_path.open("wb") as file:
                        file.truncate(size_bytes)
                    disks.append(Disk(str(file_path), name=name))
        yield tuple(disks)
