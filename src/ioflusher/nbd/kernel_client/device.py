"""A /dev/nbdN as its node and sysfs show it, whoever set it up."""

import errno
import os
import re
import time
from pathlib import Path

from ioflusher.kernel.nbd import NBD_MAJOR
from ioflusher.nbd.errors import NbdError

DETACH_TIMEOUT = 30.0  # seconds from NBD_DISCONNECT until the device is down
POLL = 0.01  # seconds
SYS_BLOCK = Path("/sys/block")


class AttachError(NbdError):
    """The kernel's client could not be set up or taken down."""


def device_index(device: str) -> int:
    """N of /dev/nbdN."""
    match = re.fullmatch(r"(?:/dev/)?nbd(\d+)", device)
    if match is None:
        raise AttachError(f"{device!r} is no device of the nbd driver; expected /dev/nbdN")
    return int(match[1])


def open_device(device: str) -> int:
    """An open file descriptor of a /dev/nbdN; AttachError says what is missing."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        if os.major(os.fstat(fd).st_rdev) == NBD_MAJOR:
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


def sysfs(device: str) -> Path:
    """The device's directory in sysfs."""
    return SYS_BLOCK / Path(device).name


def backend_identifier(device: str) -> str | None:
    """The back-end identifier that it was set up with, which a reconnect must give; None for none."""
    try:
        return (sysfs(device) / "backend").read_text().strip() or None
    except OSError:
        return None


def exists(device: str) -> bool:
    """Whether the driver has this device."""
    return sysfs(device).exists()


def is_running(device: str) -> bool:
    """Whether the kernel's client of this device is at work (drivers/block/nbd.c, pid_show)."""
    return (sysfs(device) / "pid").exists()


def has_size(device: str) -> bool:
    """Whether the device holds anything, so that it can be read."""
    return int((sysfs(device) / "size").read_text()) > 0


def check_free(device: str) -> None:
    """Raise AttachError when the device serves somebody already.

    The kernel looks at this too, but before 7.x lets one thread add a socket to a device that it has running.
    """
    if is_running(device):
        raise AttachError(
            f"{device!r} is attached already",
            errno=errno.EBUSY,
            hint=f"take another device, or: ioflusher nbd detach {device}",
        )


def check_running(device: str) -> None:
    """Raise AttachError when the device is not attached."""
    if not is_running(device):
        raise AttachError(f"{device!r} is not attached to any server", errno=errno.ENOTCONN)


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
        time.sleep(POLL)


def limit_requests(device: str, maximum: int) -> None:
    """Keep the kernel from sending payloads above `maximum` bytes, which the server would refuse.

    The driver knows nothing of NBD_INFO_BLOCK_SIZE; the queue's max_sectors_kb is what holds it back.

    Raises:
        AttachError: the limit is below a page, which no queue can keep to.
    """
    limit = sysfs(device) / "queue" / "max_sectors_kb"
    try:
        if int(limit.read_text()) << 10 > maximum:
            limit.write_text(f"{maximum >> 10}\n")
    except OSError as error:
        raise AttachError(
            f"cannot hold the requests of {device!r} to the server's {maximum} bytes: {error.strerror}",
            errno=error.errno,
            hint="the server must take payloads of a page at least",
        ) from error
