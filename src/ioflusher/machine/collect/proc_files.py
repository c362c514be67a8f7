"""Files of /proc and /sys, whose length nobody knows before they are read."""

import os
from pathlib import Path


def read_text(path: str, limit: int) -> bytes:
    """The first `limit` bytes of a file of /proc or /sys, whole if it is shorter.

    Raises:
        OSError: as the system says.
    """
    with open(path, "rb", buffering=0) as file:
        first = file.read(min(limit, 1 << 16)) or b""
        # a file of /proc may come in pieces of any length
        pieces, length = [first], len(first)
        while pieces[-1] and length < limit:
            pieces.append(file.read(min(limit - length, 1 << 20)) or b"")
            length += len(pieces[-1])
    return b"".join(pieces)


def read_small(path: str | bytes, directory: int | None = None) -> bytes:
    """A file of /proc that is shorter than a page, in one read; the cheap way.

    `path` may be relative to `directory`, a descriptor.

    Raises:
        OSError: as the system says.
    """
    descriptor = os.open(path, os.O_RDONLY, dir_fd=directory)
    try:
        return os.read(descriptor, 8192)
    finally:
        os.close(descriptor)


def prefix(root: Path) -> str:
    """What to put before "/proc" and "/sys": nothing for this machine itself."""
    return root.as_posix().rstrip("/")
