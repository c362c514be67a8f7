"""Reading the small text files of /proc and /sys below any root, a live one or a recorded one."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

from ioflusher.support.text import text_of

Note = Callable[[str, str], None]

LARGEST_ATTRIBUTE = 1 << 16
# errors of what does not exist, or no more; others mean that it may not be read
_ABSENT = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.ESRCH))
# attributes answer with these while the object behind them is not set up
_UNSET = frozenset((errno.EINVAL, errno.ENOTCONN, errno.ENODATA, errno.EOPNOTSUPP))
_DIGITS = re.compile(r"(\d+)")


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts nbd2 before nbd10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(name) if part]


class Tree:
    """The files below a root. What may not be read is noted; what is not there is None.

    Attributes:
        root: where /proc, /sys and /dev are looked for.
        note: called with a path (as on the machine itself) and the reason.
    """

    def __init__(self, root: Path, note: Note) -> None:
        self._root = os.path.abspath(root).rstrip("/")
        self.note = note

    def place(self, path: str) -> str:
        """The file to open for a path of the machine, given with or without its leading slash."""
        return f"{self._root}/{path.lstrip('/')}"

    def failed(self, path: str, error: OSError) -> None:
        """Note the error, unless it says that there is nothing."""
        if error.errno not in _ABSENT:
            self.note(f"/{path.lstrip('/')}", error.strerror or str(error))

    def data(self, path: str, largest: int = LARGEST_ATTRIBUTE) -> bytes | None:
        """What the file holds, at most `largest` bytes of it; None where it is not there or unreadable."""
        try:
            descriptor = os.open(self.place(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            self.failed(path, error)
            return None
        try:
            parts = []
            while largest > 0 and (part := os.read(descriptor, min(largest, 1 << 20))):
                parts.append(part)
                largest -= len(part)
            return b"".join(parts)
        except OSError as error:
            if error.errno not in _UNSET:
                self.failed(path, error)
            return None
        finally:
            os.close(descriptor)

    def text(self, path: str) -> str | None:
        """What the file holds without the newline at its end."""
        data = self.data(path)
        return None if data is None else text_of(data.removesuffix(b"\n"))

    def number(self, path: str) -> int | None:
        """The number in the file; None where there is none."""
        text = self.text(path)
        if text is None:
            return None
        try:
            return int(text)
        except ValueError:
            self.note(f"/{path}", f"expected a number, found {text[:40]!r}")
            return None

    def flag(self, path: str) -> bool | None:
        """Whether the number in the file is not zero."""
        number = self.number(path)
        return None if number is None else number != 0

    def names(self, path: str) -> list[str]:
        """What the directory holds, in natural order; nothing where it is not there or unreadable."""
        try:
            return sorted(os.listdir(self.place(path)), key=natural)
        except OSError as error:
            self.failed(path, error)
            return []

    def link(self, path: str) -> str | None:
        """Where the symbolic link leads, as an absolute path of the machine; None where there is none."""
        try:
            target = os.readlink(self.place(path))
        except OSError as error:
            if error.errno != errno.EINVAL:  # something else than a link is there
                self.failed(path, error)
            return None
        return os.path.normpath(os.path.join("/", os.path.dirname(path), target))

    def exists(self, path: str) -> bool:
        """Whether there is such a file or directory."""
        return os.path.lexists(self.place(path))
