"""Temporary directories that do not outlive their process for long, however it dies.

A directory is held by a lock on itself, flock(2), which the kernel drops with the process, SIGKILL included.
So whoever gets the lock of another's directory knows that its owner is gone, and `sweep` removes it. Whoever
makes one looks, once it has the lock, whether the directory is still at its place: a sweep may have come
between.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Self


class OwnedDirectory:
    """A new directory with a unique name; a context manager that removes it with all that is in it.

    Args:
        prefix: of its name; `sweep` finds it by that.
        parent: where it lies; None: the directory for temporary files.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # a sweep came before the lock
            with contextlib.suppress(OSError):  # a file system without locks: no sweep gets one either
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            if _still_at(self.path, self._fd):
                return
            os.close(self._fd)

    def close(self) -> None:
        """Remove the directory; harmless when done already."""
        if self._fd < 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        fd, self._fd = self._fd, -1
        os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep(prefix: str, parent: Path | None = None) -> list[Path]:
    """Remove this user's directories of that prefix whose owner is gone; returns their paths.

    What cannot be looked at or removed is let be: it is another's.
    """
    removed = []
    for path in sorted((parent or Path(tempfile.gettempdir())).glob(f"{prefix}*")):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.fstat(fd).st_uid != os.geteuid():
                continue
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _still_at(path, fd):
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        finally:
            os.close(fd)
    return removed


def _still_at(path: Path, fd: int) -> bool:
    """Whether the open directory is the one at the path."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except OSError:
        return False
