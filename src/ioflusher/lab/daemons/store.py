"""The file behind a device: read and written at any place, all or nothing."""

import os


class FileStore:
    """A file or a block device of fixed size; several threads may use it at once.

    Args:
        path: of the file.
        direct: bypass the page cache (O_DIRECT); whoever reads or writes keeps to whole blocks, in memory
            as in the file.

    Raises:
        OSError: it cannot be opened.

    Attributes:
        size: bytes.
    """

    def __init__(self, path: str, *, direct: bool = False) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_DIRECT if direct else 0))
        self.size = os.lseek(self._fd, 0, os.SEEK_END)

    def read_into(self, memory: memoryview, offset: int) -> None:
        """Fill the memory from the file; what lies behind its end is zero.

        Raises:
            OSError: the file cannot be read.
        """
        at = 0
        while at < len(memory):
            count = os.preadv(self._fd, [memory[at:]], offset + at)
            if not count:
                memory[at:] = bytes(len(memory) - at)
                return
            at += count

    def write(self, memory: memoryview, offset: int) -> None:
        """Write all of the memory.

        Raises:
            OSError: the file cannot be written.
        """
        at = 0
        while at < len(memory):
            at += os.pwritev(self._fd, [memory[at:]], offset + at)

    def flush(self) -> None:
        """Wait until what was written is on the medium (fdatasync)."""
        os.fdatasync(self._fd)
