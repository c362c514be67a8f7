"""Disks of guests: images that are there, and empty ones that go away with the guest."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ioflusher.lab.errors import LabError
from ioflusher.lab.qemu import Disk
from ioflusher.support.sizes import SizeError, parse_size


@contextlib.contextmanager
def guest_disks(wanted: Sequence[str]) -> Iterator[tuple[Disk, ...]]:
    """Disks for a guest, each an image's path or the size of an empty one ("512M", sparse, temporary)."""
    with tempfile.TemporaryDirectory(prefix="ioflusher-lab-") as name:
        disks = []
        for number, item in enumerate(wanted):
            if Path(item).exists():
                disks.append(Disk(os.path.abspath(item)))
                continue
            try:
                size = parse_size(item)
            except SizeError:
                raise LabError(f"not a disk: {item!r}", hint="give an image that exists, or a size") from None
            path = Path(name) / f"disk{number}"
            with path.open("wb") as file:
                file.truncate(size)
            disks.append(Disk(str(path)))
        yield tuple(disks)
