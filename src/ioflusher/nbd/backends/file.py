"""A back end on a regular file or a block device."""

import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Iterator

from ioflusher.kernel import falloc, syscalls
from ioflusher.nbd.backends.backend import Backend, BackendError, write_zeroes
from ioflusher.nbd.protocol.extents import BlockState, Extent

LARGEST = (1 << 63) - 1  # bytes that an off_t can say
# Bytes that one write(2) gets through the page cache. Where a file system has large folios (ext4 does since
# Linux 6.16), a longer write makes a longer one, and each later write into it goes through all its blocks
# (fs/ext4/inode.c, ext4_block_write_begin).
WRITTEN_AT_ONCE = 64 << 10
_NOTHING = int(BlockState.HOLE | BlockState.ZERO)
# EINVAL: a block device's range must be aligned to its sectors, a client's need not be.
_UNABLE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EINVAL)


class FileBackend(Backend):
    """A regular file or a block device.

    Args:
        path: of a file that exists; its size is the export's.
        readonly: open for reading only.
        direct: bypass the page cache (O_DIRECT). A buffered daemon dirties pages that may wait for itself.
            Several requests are done at once then.

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
            self._at_once = LARGEST if direct else WRITTEN_AT_ONCE
            if direct:
                self.minimum_block = _direct_alignment(self._size, sector, path)
        except BaseException:
            os.close(self._fd)
            raise
        self.can_write = self.can_trim = self.can_zero = self.can_fast_zero = not readonly
        self.can_cache = not direct
        self.can_resize = self.can_write and not self._is_block
        self._has_holes = not self._is_block
        self._failed: OSError | None = None

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, view: memoryview) -> None:
        while (count := os.preadv(self._fd, [view], offset)) != len(view):
            if count == 0:
                raise OSError(errno.EIO, f"the file ends at {offset}; it was longer when it was opened")
            view, offset = view[count:], offset + count

    def write(self, offset: int, view: memoryview) -> None:
        most = self._at_once
        while (count := os.pwrite(self._fd, view if len(view) <= most else view[:most], offset)) != len(view):
            view, offset = view[count:], offset + count

    def write_through(self, offset: int, view: memoryview) -> None:
        while (count := os.pwritev(self._fd, [view], offset, os.RWF_DSYNC)) != len(view):
            view, offset = view[count:], offset + count

    def flush(self) -> None:
        """fdatasync(2), which tells of an error once and forgets the pages; this back end does not forget."""
        if self._failed is not None:
            raise self._failed
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            if error.errno == errno.EIO:
                self._failed = error
            raise

    def resize(self, size: int) -> None:
        if size > LARGEST:  # which os.ftruncate does not take for an OSError
            raise OSError(errno.EFBIG, f"a file of {size} bytes")
        os.ftruncate(self._fd, size)
        self._size = size

    def cache(self, offset: int, length: int) -> None:
        os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_WILLNEED)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Holes by lseek(2), SEEK_DATA and SEEK_HOLE; a block device tells of none."""
        end = offset + length
        while self._has_holes and offset < end:
            try:
                data = min(os.lseek(self._fd, offset, os.SEEK_DATA), end)
            except OSError as error:
                if error.errno == errno.EINVAL:  # a file system without SEEK_DATA
                    self._has_holes = False
                    break
                if error.errno != errno.ENXIO:  # which means that only a hole follows
                    raise
                data = end
            if data > offset:
                yield Extent(data - offset, _NOTHING)
            if data < end:
                hole = min(os.lseek(self._fd, data, os.SEEK_HOLE), end)
                if hole <= data:  # it was data a moment ago; another thread made a hole of it
                    hole = data
                else:
                    yield Extent(hole - data)
                offset = hole
            else:
                return
        if offset < end:
            yield Extent(end - offset)

    def trim(self, offset: int, length: int) -> None:
        self._range_ioctl(falloc.BLKDISCARD, falloc.FS_IOC_UNRESVSP64, offset, length)

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        if not self._range_ioctl(falloc.BLKZEROOUT, _zeroing(may_trim), offset, length):
            write_zeroes(self, offset, length)

    def fast_zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        if self._is_block:
            if not may_trim:
                raise OSError(errno.EOPNOTSUPP, "a block device zeroes fast by giving its blocks back only")
            mode = falloc.FALLOC_FL_PUNCH_HOLE | falloc.FALLOC_FL_KEEP_SIZE
            try:
                syscalls.fallocate(self._fd, mode, offset, length)
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise
                raise OSError(errno.EOPNOTSUPP, "the block device zeroes by writing") from error
            return
        if not self._range_ioctl(0, _zeroing(may_trim), offset, length):
            raise OSError(errno.EOPNOTSUPP, "the file system zeroes by writing")

    def _range_ioctl(self, of_block: int, of_file: int, offset: int, length: int) -> bool:
        """Let the kernel trim or zero a range; False where the file or device cannot."""
        try:
            if self._is_block:
                fcntl.ioctl(self._fd, of_block, falloc.BLOCK_RANGE.pack(offset, length))
            else:
                fcntl.ioctl(self._fd, of_file, falloc.SPACE_RESV.pack(0, os.SEEK_SET, offset, length, 0, 0))
        except OSError as error:
            if error.errno in _UNABLE:
                return False
            raise
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _zeroing(may_trim: bool) -> int:
    return falloc.FS_IOC_UNRESVSP64 if may_trim else falloc.FS_IOC_ZERO_RANGE


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
