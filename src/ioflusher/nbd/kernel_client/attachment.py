"""The kernel's NBD client: makes /dev/nbdN out of a connection that we negotiated, by ioctl.

Source: drivers/block/nbd.c. With ioctls a thread must stay inside NBD_DO_IT for as long as the device
lives; generic netlink (module `netlink`) needs nobody to stay.
"""

import errno
import fcntl
import os
import signal
import socket
import threading
import time

from ioflusher.kernel import nbd
from ioflusher.nbd.address import Address
from ioflusher.nbd.kernel_client.connections import check_export, close, connect_sockets
from ioflusher.nbd.kernel_client.device import (
    DETACH_TIMEOUT,
    POLL,
    AttachError,
    await_end,
    check_free,
    check_running,
    has_size,
    is_running,
    limit_requests,
    open_device,
)
from ioflusher.nbd.kernel_client.options import ClientOptions
from ioflusher.nbd.protocol.exports import Export
from ioflusher.nbd.protocol.wire import TransmissionFlag

DEFAULTS = ClientOptions()
START_TIMEOUT = 30.0  # seconds from NBD_DO_IT until the kernel shows the device as running


class Attachment:
    """A running /dev/nbdN set up by ioctl; this process must live for as long as the device is used.

    Attributes:
        device: the device's path.
        export: what the server said.
    """

    def __init__(self, device: str, export: Export, fd: int, sockets: list[socket.socket]) -> None:
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
            close(self._sockets)

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


def attach(device: str, address: Address, options: ClientOptions = DEFAULTS) -> Attachment:
    """Connect the kernel's client to a server by ioctl; returns when the device, /dev/nbdN, is ready.

    Raises:
        AttachError: the device is missing, in use, or the kernel refuses; or the options need netlink.
        NbdError: the server cannot be reached, refuses, or does not fit the options.
    """
    if options.need_netlink:
        raise AttachError("the ioctls of the kernel's client have no such option", hint="use netlink")
    fd = open_device(device)
    try:
        check_free(device)
        export, sockets = connect_sockets(address, options.connections)
        try:
            check_export(export, options.block_size)
            limit_requests(device, export.block_size.maximum)
            configure(fd, device, export, sockets, options)
            attachment = Attachment(device, export, fd, sockets)
        except BaseException:
            close(sockets)
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
        check_running(device)
        fcntl.ioctl(fd, nbd.NBD_DISCONNECT)
        fcntl.ioctl(fd, nbd.NBD_CLEAR_SOCK)
    except OSError as error:
        raise AttachError(f"cannot disconnect {device!r}: {error.strerror}", errno=error.errno) from error
    finally:
        os.close(fd)
    await_end(device)


def configure(
    fd: int, device: str, export: Export, sockets: list[socket.socket], options: ClientOptions
) -> None:
    """Tell the kernel everything it needs before NBD_DO_IT."""
    try:
        for sock in sockets:
            fcntl.ioctl(fd, nbd.NBD_SET_SOCK, sock.fileno())
        fcntl.ioctl(fd, nbd.NBD_SET_BLKSIZE, options.block_size)
        fcntl.ioctl(fd, nbd.NBD_SET_SIZE_BLOCKS, export.size // options.block_size)
        fcntl.ioctl(fd, nbd.NBD_SET_TIMEOUT, options.timeout)
        fcntl.ioctl(fd, nbd.NBD_SET_FLAGS, device_flags(export, options))
    except (OSError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) else errno.EFBIG
        hint = (
            f"another client uses it; try: ioflusher nbd detach {device}" if number == errno.EBUSY else None
        )
        raise AttachError(
            f"the kernel refuses to set up {device!r}: {error}", errno=number, hint=hint
        ) from error


def device_flags(export: Export, options: ClientOptions) -> int:
    """The transmission flags that the kernel is told."""
    return export.flags | (TransmissionFlag.READ_ONLY if options.read_only else 0)


def _await_start(attachment: Attachment) -> None:
    """NBD_DO_IT does not say when it has begun; sysfs does, and the size comes last (nbd_start_device)."""
    deadline = time.monotonic() + START_TIMEOUT
    empty = attachment.export.size == 0
    while not (is_running(attachment.device) and (empty or has_size(attachment.device))):
        if attachment.wait(POLL) or time.monotonic() > deadline:
            attachment.detach()
            raise AttachError(f"{attachment.device!r} did not start within {START_TIMEOUT:.0f} s")
