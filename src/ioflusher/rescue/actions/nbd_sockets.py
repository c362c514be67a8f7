"""The sockets of an nbd device's client, borrowed from the process that holds them (pidfd_getfd)."""

import contextlib
import os
import socket

from ioflusher.kernel.syscalls import pidfd_getfd
from ioflusher.rescue.errors import RescueError


def borrow_sockets(pids: tuple[int, ...]) -> list[socket.socket]:
    """The connected stream sockets that these processes hold, as descriptors of our own.

    Raises:
        RescueError: none of the processes could be looked at, or none holds one.
    """
    found: list[socket.socket] = []
    trouble = "none of them holds a connected socket"
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            trouble = f"process {pid}: {error.strerror}"
            continue
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                        found += _connected(pidfd_getfd(pidfd, int(name)))
        except OSError as error:
            trouble = f"process {pid}: {error.strerror}"
        finally:
            os.close(pidfd)
    if not found:
        raise RescueError(
            f"the sockets of the device's client cannot be had: {trouble}",
            hint="it needs root; a device that was set up over netlink has no process with its socket",
        )
    return found


def _connected(file: int) -> list[socket.socket]:
    """The socket, if it is a stream with a peer; else it is closed."""
    sock = socket.socket(fileno=file)
    try:
        if sock.type == socket.SOCK_STREAM:
            sock.getpeername()
            return [sock]
    except OSError:
        pass
    sock.close()
    return []
