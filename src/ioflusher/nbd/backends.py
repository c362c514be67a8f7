"""Where a server's bytes live: memory, a file or block device, another NBD server.

The shape is that of nbdkit's plugins. A back end may be called by several threads at once. It reports
failure by raising OSError or IoflusherError; the `errno` of that reaches the client.
"""

import errno
import fcntl
import mmap
import os
import stat
from abc import ABC, abstractmethod

from ioflusher.kernel import falloc
from ioflusher.nbd import wire
from ioflusher.nbd.address import Address
from ioflusher.nbd.client import Client
from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.wire import Cmd, TransmissionFlag


class BackendError(NbdError):
    """A back end could not be opened."""


class Backend(ABC):
    """What a server serves. A read-only one defines `size` and `read_into` and is done.

    Offsets and lengths are bytes; the server has checked them against `size` and `minimum_block`.

    Attributes:
        can_write: whether `write` works; without it the export is read-only.
        can_flush: whether `flush` works; without it clients do not ask, and are not promised FUA.
        can_trim, can_zero: whether `trim` and `zero` work.
        minimum_block: the alignment that offsets and lengths need, a power of two.
    """

    can_write = False
    can_flush = False
    can_trim = False
    can_zero = False
    minimum_block = 1

    @property
    @abstractmethod
    def size(self) -> int:
        """Size of the export."""

    @abstractmethod
    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill all of `view` with what is stored from `offset` on."""

    def write(self, offset: int, view: memoryview) -> None:
        """Store `view` at `offset`; its memory is used anew after the return."""
        raise OSError(errno.EPERM, "read-only back end")

    def flush(self) -> None:
        """Return when everything written before is on stable storage."""
        raise OSError(errno.EOPNOTSUPP, "no flush in this back end")

    def trim(self, offset: int, length: int) -> None:
        """The client needs these bytes no more; what they read as afterwards is undefined."""
        raise OSError(errno.EOPNOTSUPP, "no trim in this back end")

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        """Make these bytes read as zeroes; `may_trim`: their storage may be given back."""
        raise OSError(errno.EOPNOTSUPP, "no zeroing in this back end")

    def interrupt(self) -> None:  # noqa: B027 - most back ends have nothing to do here
        """Called by another thread when a server closes and a request takes too long: let it fail."""

    def close(self) -> None:  # noqa: B027
        """Give everything back. No request is under way or will come."""

    def __enter__(self) -> "Backend":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class MemoryBackend(Backend):
    """Anonymous memory: the kernel gives a page when it is first touched, or all at once when locked.

    Nothing is ever given back (no trim): what a device stores into must not have to be asked for again.
    """

    can_write = can_flush = can_zero = True

    def __init__(self, size: int) -> None:
        if size <= 0:
            raise BackendError(f"a memory back end of {size} bytes; expected at least one")
        try:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise BackendError(
                f"cannot reserve {size} bytes of memory: {error}", errno=errno.ENOMEM
            ) from error
        self._memory = memoryview(memory)

    @property
    def size(self) -> int:
        return len(self._memory)

    def read_into(self, offset: int, view: memoryview) -> None:
        view[:] = self._memory[offset : offset + len(view)]

    def write(self, offset: int, view: memoryview) -> None:
        self._memory[offset : offset + len(view)] = view

    def flush(self) -> None:
        """Nothing to do: this is as stable as it gets."""

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        _in_zeroes(self, offset, length)


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
            _in_zeroes(self, offset, length)

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


class RemoteBackend(Backend):
    """Another NBD server: every request is forwarded to it, one after the other on one connection.

    It never reconnects: when the connection is lost, every request fails with EIO.

    Args:
        address: of the other server.
        export: overrides the export that the address names.

    Raises:
        NbdError: the server cannot be reached, refuses, or breaks the protocol.
    """

    def __init__(self, address: Address, export: str = "") -> None:
        self._client = Client(address.with_export(export) if export else address)
        remote = self._client.export
        self.can_write = not remote.has(TransmissionFlag.READ_ONLY)
        self.can_flush = remote.has(TransmissionFlag.SEND_FLUSH)
        self.can_trim = self.can_write and remote.has(TransmissionFlag.SEND_TRIM)
        self.can_zero = self.can_write and remote.has(TransmissionFlag.SEND_WRITE_ZEROES)
        self.minimum_block = remote.block_size.minimum
        # Pieces that the other server takes, aligned as it wants them.
        self._piece = remote.block_size.maximum // self.minimum_block * self.minimum_block

    @property
    def size(self) -> int:
        return self._client.export.size

    def read_into(self, offset: int, view: memoryview) -> None:
        for start in range(0, len(view), self._piece):
            self._client.read_into(offset + start, view[start : start + self._piece])

    def write(self, offset: int, view: memoryview) -> None:
        for start in range(0, len(view), self._piece):
            self._client.write(offset + start, view[start : start + self._piece])

    def flush(self) -> None:
        self._client.command(Cmd.FLUSH)

    def trim(self, offset: int, length: int) -> None:
        self._client.command(Cmd.TRIM, offset, length)

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self._client.command(Cmd.WRITE_ZEROES, offset, length, 0 if may_trim else wire.CmdFlag.NO_HOLE)

    def interrupt(self) -> None:
        self._client.interrupt()

    def close(self) -> None:
        self._client.close()


# One block of zeroes for everybody, page-aligned for O_DIRECT; never written to.
_ZEROES = memoryview(mmap.mmap(-1, 64 << 10, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)).toreadonly()


def _in_zeroes(backend: Backend, offset: int, length: int) -> None:
    """Zero a range by writing it."""
    while length:
        piece = _ZEROES[: min(length, len(_ZEROES))]
        backend.write(offset, piece)
        offset, length = offset + len(piece), length - len(piece)


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
