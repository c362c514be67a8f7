"""A back end on a regular file or a block device."""

import errno
import fcntl
import mmap
import os
import stat

from ioflusher.kernel import falloc
from ioflusher.nbd.backends.backend import Backend, BackendError, write_zeroes


class FileBackend(Backend):
    """A regular file or a block device.

    Args:
        path: of a file that exists; its size is the export's.
        readonly: open for reading only.
        direct: bypass the page cache (O_DIRECT). A buffered daemon dirties pages that may wait for itself.

    Raises:
        BackendError: it cannot be opened so.
    """

    can_flush = True

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False, direct: bool = False) -> None:
        flags = (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC | (os.O_DIRECT if direct else 0)
        how = ("for reading" if readonly else "for writing") + (" with O_DIRECT" if direct else "")
        try:
            self._fd = os.open(path, flags)
        except OSError as error:
            hint = "its file system may not know O_DIRECT" if direct and error.errno == errno.EINVAL else None
            raise BackendError(
                f"cannot open {os.fspath(path)!r} {how}: {error.strerror}", errno=error.errno, hint=hint
            ) from error
        try:
            self._size, self._is_block, sector = _measure(self._fd, path)
            self.waits = direct
            if direct:
                self.minimum_block = _direct_alignment(self._size, sector, path)
        except BaseException:
            os.close(self._fd)
            raise
        self.can_write = self.can_trim = self.can_zero = not readonly

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, view: memoryview) -> None:
        while view:
            count = os.preadv(self._fd, [view], offset)
            if count == 0:
                raise OSError(errno.EIO, f"the file ends at {offset}; it was longer when it was opened")
            view, offset = view[count:], offset + count

    def write(self, offset: int, view: memoryview) -> None:
        while view:
            count = os.pwrite(self._fd, view, offset)
            view, offset = view[count:], offset + count

    def flush(self) -> None:
        os.fdatasync(self._fd)

    def trim(self, offset: int, length: int) -> None:
        self._range_ioctl(falloc.BLKDISCARD, falloc.FS_IOC_UNRESVSP64, offset, length)

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        of_file = falloc.FS_IOC_UNRESVSP64 if may_trim else falloc.FS_IOC_ZERO_RANGE
        if not self._range_ioctl(falloc.BLKZEROOUT, of_file, offset, length):
            write_zeroes(self, offset, length)

    def _range_ioctl(self, of_block: int, of_file: int, offset: int, length: int) -> bool:
        """Let the kernel trim or zero a range; False where the file or device cannot."""
        try:
            if self._is_block:
                fcntl.ioctl(self._fd, of_block, falloc.BLOCK_RANGE.pack(offset, length))
            else:
                fcntl.ioctl(self._fd, of_file, falloc.SPACE_RESV.pack(0, os.SEEK_SET, offset, length, 0, 0))
        except OSError as error:
            # EINVAL: a block device's range must be aligned to its sectors, a client's need not be.
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EINVAL):
                return False
            raise
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _measure(fd: int, path: str | os.PathLike[str]) -> tuple[int, bool, int]:
    """Size in bytes, whether it is a block device, and the logical block size."""
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise BackendError(f"{os.fspath(path)!r} is neither a regular file nor a block device")
    is_block = stat.S_ISBLK(mode)
    sector = int.from_bytes(fcntl.ioctl(fd, falloc.BLKSSZGET, bytes(4)), "little") if is_block else 512
    return os.lseek(fd, 0, os.SEEK_END), is_block, sector


def _direct_alignment(size: int, sector: int, path: str | os.PathLike[str]) -> int:
    """The alignment that O_DIRECT gets: a page where the size allows it, else the logical block size."""
    alignment = mmap.PAGESIZE if size % mmap.PAGESIZE == 0 else sector
    if size % alignment:
        raise BackendError(
            f"{os.fspath(path)!r} has {size} bytes, which is no multiple of {alignment} as O_DIRECT needs",
            hint="make the file longer, with truncate --size=%4096 for example",
        )
    return alignment
