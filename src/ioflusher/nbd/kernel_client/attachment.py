"""The kernel's NBD client: makes /dev/nbdN out of a connection that we negotiated, by ioctl.

Source: drivers/block/nbd.c. With ioctls a thread must stay inside NBD_DO_IT for as long as the device
lives; generic netlink (module `netlink`) needs nobody to stay.
"""

import errno
import fcntl
import mmap
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ioflusher.kernel import nbd
from ioflusher.nbd.address import Address
from ioflusher.nbd.client import negotiate, open_socket
from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.protocol.exports import Export
from ioflusher.nbd.protocol.wire import TransmissionFlag

START_TIMEOUT = 30.0  # seconds from NBD_DO_IT until the kernel shows the device as running
DETACH_TIMEOUT = 30.0  # seconds from NBD_DISCONNECT until NBD_DO_IT returns
_POLL = 0.01  # seconds


class AttachError(NbdError):
    """The kernel's client could not be set up or taken down."""


class Attachment:
    """A running /dev/nbdN set up by ioctl; this process must live for as long as the device is used.

    Attributes:
        device: the device's path.
        export: what the server said.
    """

    def __init__(self, device: str, export: Export, fd: int, sockets: Sequence[socket.socket]) -> None:
        self.device = device
        self.export = export
        self._fd = fd
        # The kernel has its own references. By ours, anybody who looks can find the server of the device.
        self._sockets = sockets
        self._result: OSError | None = None
        # Not Thread.join(): where a signal handler's exception interrupts it, the living thread is taken for
        # an ended one from then on (CPython 3.11, Thread._wait_for_tstate_lock).
        self._ended = threading.Event()
        thread = threading.Thread(target=self._do_it, name="nbd-do-it", daemon=True)
        # A signal that reaches the thread would end NBD_DO_IT and with it the device: it inherits this mask.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _do_it(self) -> None:
        try:
            fcntl.ioctl(self._fd, nbd.NBD_DO_IT)
        except OSError as error:
            self._result = error
        finally:
            self._ended.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the device is disconnected, by whomever; returns whether that happened in time.

        Raises:
            AttachError: it ended because of a failure (a lost connection, a request that timed out).
        """
        if not self._ended.wait(timeout):
            return False
        if self._result is not None:
            raise AttachError(
                f"{self.device!r} was taken down by the kernel: {self._result.strerror}",
                errno=self._result.errno,
            ) from self._result
        return True

    def detach(self) -> None:
        """Disconnect; data still in the page cache must have been written before. Harmless when done already.

        Raises:
            AttachError: the kernel did not let go in time.
        """
        if self._fd < 0:
            return
        if not self._ended.is_set():
            fcntl.ioctl(self._fd, nbd.NBD_DISCONNECT)
            if not self._ended.wait(DETACH_TIMEOUT):
                raise AttachError(
                    f"{self.device!r} did not disconnect within {DETACH_TIMEOUT:.0f} s",
                    errno=errno.EBUSY,
                    hint="a request may be stuck in the server; end the server",
                )
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        try:
            fcntl.ioctl(fd, nbd.NBD_CLEAR_SOCK)
        finally:
            os.close(fd)
            for sock in self._sockets:
                sock.close()

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


def attach(
    device: str,
    address: Address,
    *,
    block_size: int = 4096,
    timeout: int = 0,
    connections: int = 1,
) -> Attachment:
    """Connect the kernel's client to a server by ioctl; returns when the device is ready.

    Args:
        device: such as /dev/nbd0.
        block_size: bytes; the device's logical block size, a power of two from 512 to the page size.
        timeout: seconds that the kernel waits for an answer; 0: for ever.
        connections: how many to share the load over; more than one where the server allows it.

    Raises:
        AttachError: the device is missing, in use, or the kernel refuses.
        NbdError: the server cannot be reached, refuses, or does not fit the block size.
    """
    fd = open_device(device)
    try:
        check_free(device)
        export, sockets = connect_sockets(address, block_size, connections)
        try:
            limit_requests(device, export.block_size.maximum)
            configure(fd, device, export, sockets, block_size, timeout)
            attachment = Attachment(device, export, fd, sockets)
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
    except BaseException:
        os.close(fd)
        raise
    _await_start(attachment)
    return attachment


def detach(device: str) -> None:
    """Disconnect a device, however and by whomever it was set up, and wait until it is down.

    Raises:
        AttachError: it is missing, was not attached, or stays in use.
    """
    fd = open_device(device)
    try:
        if not is_running(device):
            raise AttachError(f"{device!r} is not attached to any server", errno=errno.ENOTCONN)
        fcntl.ioctl(fd, nbd.NBD_DISCONNECT)
        fcntl.ioctl(fd, nbd.NBD_CLEAR_SOCK)
    except OSError as error:
        raise AttachError(f"cannot disconnect {device!r}: {error.strerror}", errno=error.errno) from error
    finally:
        os.close(fd)
    await_end(device)


def await_end(device: str) -> None:
    """Wait until the kernel's client of this device has ended; AttachError when it does not."""
    deadline = time.monotonic() + DETACH_TIMEOUT
    while is_running(device):
        if time.monotonic() > deadline:
            raise AttachError(
                f"{device!r} did not disconnect within {DETACH_TIMEOUT:.0f} s",
                errno=errno.EBUSY,
                hint="something has it open still (a mount, swap), or a request is stuck in the server",
            )
        time.sleep(_POLL)


def open_device(device: str) -> int:
    """An open file descriptor of a /dev/nbdN; AttachError says what is missing."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        if os.major(os.fstat(fd).st_rdev) == nbd.NBD_MAJOR:
            return fd
        os.close(fd)
    except OSError as error:
        raise AttachError(
            f"cannot open {device!r}: {error.strerror}",
            errno=error.errno,
            hint=_OPEN_HINTS.get(error.errno or 0),
        ) from error
    raise AttachError(f"{device!r} is no device of the nbd driver; expected /dev/nbdN", errno=errno.ENODEV)


_OPEN_HINTS = {
    errno.ENOENT: "load the driver: modprobe nbd",
    errno.ENXIO: "load the driver: modprobe nbd",
    errno.EACCES: "it needs root",
}


def connect_sockets(
    address: Address, block_size: int, connections: int
) -> tuple[Export, list[socket.socket]]:
    """Sockets in transmission, ready for the kernel; raises as `attach` does."""
    if address.tls is not None:
        raise AttachError(
            f"{address.uri!r} wants TLS, which the kernel's client cannot speak",
            hint="serve --remote with that address on a Unix socket, and attach to this",
        )
    sockets: list[socket.socket] = []
    try:
        for _ in range(connections):
            sock = open_socket(address)
            sockets.append(sock)
            _, export = negotiate(sock, address)
            check_export(export, block_size, connections)
            sock.settimeout(None)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return export, sockets


def check_export(export: Export, block_size: int, connections: int) -> None:
    """Raise AttachError when the kernel could not use the export so."""
    smallest, largest = nbd.NBD_MIN_BLKSIZE, mmap.PAGESIZE
    if not smallest <= block_size <= largest or block_size & (block_size - 1):
        raise AttachError(f"a block size of {block_size}; expected a power of two, {smallest} to {largest}")
    if block_size < export.block_size.minimum:
        raise AttachError(
            f"a block size of {block_size}; the server takes multiples of {export.block_size.minimum}"
        )
    if export.size % block_size:
        raise AttachError(
            f"the export has {export.size} bytes, which is no multiple of the block size {block_size}",
            hint=f"a smaller block size, down to {smallest}, may fit",
        )
    if connections < 1 or (connections > 1 and not export.has(TransmissionFlag.CAN_MULTI_CONN)):
        raise AttachError(f"{connections} connections; the server allows one")


def configure(
    fd: int, device: str, export: Export, sockets: list[socket.socket], block_size: int, timeout: int
) -> None:
    """Tell the kernel everything it needs before NBD_DO_IT."""
    try:
        for sock in sockets:
            fcntl.ioctl(fd, nbd.NBD_SET_SOCK, sock.fileno())
        fcntl.ioctl(fd, nbd.NBD_SET_BLKSIZE, block_size)
        fcntl.ioctl(fd, nbd.NBD_SET_SIZE_BLOCKS, export.size // block_size)
        fcntl.ioctl(fd, nbd.NBD_SET_TIMEOUT, timeout)
        fcntl.ioctl(fd, nbd.NBD_SET_FLAGS, export.flags)
    except (OSError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) else errno.EFBIG
        hint = (
            f"another client uses it; try: ioflusher nbd detach {device}" if number == errno.EBUSY else None
        )
        raise AttachError(
            f"the kernel refuses to set up {device!r}: {error}", errno=number, hint=hint
        ) from error


def limit_requests(device: str, maximum: int) -> None:
    """Keep the kernel from sending payloads above `maximum` bytes, which the server would refuse.

    The driver knows nothing of NBD_INFO_BLOCK_SIZE; the queue's max_sectors_kb is what holds it back.

    Raises:
        AttachError: the limit is below a page, which no queue can keep to.
    """
    limit = _sysfs(device) / "queue" / "max_sectors_kb"
    try:
        if int(limit.read_text()) << 10 > maximum:
            limit.write_text(f"{maximum >> 10}\n")
    except OSError as error:
        raise AttachError(
            f"cannot hold the requests of {device!r} to the server's {maximum} bytes: {error.strerror}",
            errno=error.errno,
            hint="the server must take payloads of a page at least",
        ) from error


def check_free(device: str) -> None:
    """Raise AttachError when the device serves somebody already.

    The kernel looks at this too, but lets one thread add a socket to a device that it has running.
    """
    if is_running(device):
        raise AttachError(
            f"{device!r} is attached already",
            errno=errno.EBUSY,
            hint=f"take another device, or: ioflusher nbd detach {device}",
        )


def is_running(device: str) -> bool:
    """Whether the kernel's client of this device is at work (drivers/block/nbd.c, pid_show)."""
    return (_sysfs(device) / "pid").exists()


def has_size(device: str) -> bool:
    """Whether the device holds anything, so that it can be read."""
    return int((_sysfs(device) / "size").read_text()) > 0


def _sysfs(device: str) -> Path:
    return Path("/sys/block") / Path(device).name


def _await_start(attachment: Attachment) -> None:
    """NBD_DO_IT does not say when it has begun; sysfs does, and the size comes last (nbd_start_device)."""
    deadline = time.monotonic() + START_TIMEOUT
    empty = attachment.export.size == 0
    while not (is_running(attachment.device) and (empty or has_size(attachment.device))):
        if attachment.wait(_POLL) or time.monotonic() > deadline:
            attachment.detach()
            raise AttachError(f"{attachment.device!r} did not start within {START_TIMEOUT:.0f} s")
