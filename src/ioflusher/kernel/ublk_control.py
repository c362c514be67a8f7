"""The ublk driver's control device: commands to it and their answers.

Source: drivers/block/ublk_drv.c, ublk_ctrl_uring_cmd (6.1, 6.12).
"""

import errno
import mmap
import os

from ioflusher.kernel import ublk
from ioflusher.kernel.io_uring import CommandRing
from ioflusher.kernel.syscalls import address_of

_UNKNOWN_NUMBER = (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP)


class UblkControl:
    """/dev/ublk-control, open.

    Commands have the numbers that they have since Linux 6.4 or, where the first one shows that these are not
    known, those from before.

    Raises:
        OSError: the driver is not loaded, or this process may not use it.
    """

    def __init__(self) -> None:
        self._fd = os.open(ublk.CONTROL_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._ring = CommandRing(4)
        except BaseException:
            os.close(self._fd)
            raise
        self._buffer = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._encoded = self._sure = False

    def command(self, which: ublk.Control, device: int, *, buffer: bytes = b"", data: int = 0) -> bytes:
        """Give a command and wait for it; what the kernel left in the buffer.

        Raises:
            OSError: the kernel refused; says the command.
        """
        if self._sure:
            return self._command(which, device, buffer, data)
        self._encoded = True
        try:
            answer = self._command(which, device, buffer, data)
        except OSError as error:
            if error.errno not in _UNKNOWN_NUMBER:
                raise
            self._encoded = False
            answer = self._command(which, device, buffer, data)
        self._sure = True
        return answer

    def number(self, which: ublk.Control | ublk.Io) -> int:
        """The command's number, as this kernel takes it."""
        return ublk.encoded(which) if self._encoded else int(which)

    def add(self, queues: int, depth: int, largest_bytes: int, *, recoverable: bool = False) -> ublk.Granted:
        """Make a device.

        Raises:
            OSError: the kernel refused.
        """
        flags = ublk.RECOVERABLE if recoverable else ublk.NO_FEATURE
        info = ublk.device_info(queues, depth, largest_bytes, flags)
        return ublk.granted(self.command(ublk.Control.ADD_DEV, ublk.ANY_DEVICE, buffer=info))

    def info(self, device: int) -> ublk.Granted:
        """A device that there is.

        Raises:
            OSError: there is none of this number, or it is not to be told.
        """
        buffer = bytes(ublk.DEVICE_INFO_BYTES)
        return ublk.granted(self.command(ublk.Control.GET_DEV_INFO, device, buffer=buffer))

    def close(self) -> None:
        """Close it."""
        self._ring.close()
        os.close(self._fd)

    def _command(self, which: ublk.Control, device: int, buffer: bytes, data: int) -> bytes:
        self._buffer[: len(buffer)] = buffer
        address = address_of(self._buffer) if buffer else 0
        words = ublk.control_command(device, address=address, length=len(buffer), data=data)
        self._ring.send(self._fd, self.number(which), words, 0)
        ((_, result),) = self._ring.completed()
        if result < 0:
            raise OSError(-result, f"{which.name}: {os.strerror(-result)}")
        return self._buffer[: len(buffer)]
