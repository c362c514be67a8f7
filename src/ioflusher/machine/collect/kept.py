"""Files of /proc and /sys that are read again and again: opened once, not in a frozen machine."""

import contextlib
import os
from pathlib import Path

from ioflusher.machine.collect.tree import LARGEST_ATTRIBUTE, Tree


class KeptFile:
    """A file of /proc or /sys, opened when it is first read and then kept; None where it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def read(self) -> bytes | None:
        """Its text now."""
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            parts = []
            length = 0
            while part := os.pread(self._file, 1 << 16, length):
                parts.append(part)
                length += len(part)
            return b"".join(parts)
        self.close()  # a device that went away and comes back has another file
        return None

    def close(self) -> None:
        """Let it go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class KeptTree(Tree):
    """A tree whose files are kept open once they have been read; what cannot be read is None."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, note=lambda path, why: None)
        self._files: dict[str, KeptFile] = {}

    def data(self, path: str, largest: int = LARGEST_ATTRIBUTE) -> bytes | None:
        kept = self._files.setdefault(path, KeptFile(Path(self.place(path))))
        data = kept.read()
        return None if data is None else data[:largest]

    def close(self) -> None:
        """Let the files go."""
        for file in self._files.values():
            file.close()
