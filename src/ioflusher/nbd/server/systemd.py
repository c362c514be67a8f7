"""What systemd gives a service and wants to hear: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3)."""

import contextlib
import os
import socket

from ioflusher.nbd.errors import NbdError

FIRST_FD = 3  # SD_LISTEN_FDS_START


def inherited_listeners() -> list[socket.socket]:
    """The listening sockets that this process was started with, if any; asked twice, none.

    Raises:
        NbdError: one of them is no listening stream socket.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    listeners = []
    for fd in range(FIRST_FD, FIRST_FD + int(count)):
        try:
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise NbdError(
                f"file descriptor {fd} of LISTEN_FDS: {error.strerror}", errno=error.errno
            ) from error
        if sock.type != socket.SOCK_STREAM or not listens:
            raise NbdError(
                f"file descriptor {fd} of LISTEN_FDS is no socket that listens",
                hint="ListenStream= in the socket unit, and Accept=no",
            )
        listeners.append(sock)
    return listeners


class Notifier:
    """Tells the service manager, if there is one, how things stand; what it does not hear is lost.

    Attributes:
        interval: seconds between two signs of life that it wants (WatchdogSec=), or None.
    """

    def __init__(self) -> None:
        path = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if path else None
        if self._socket is not None:
            self._socket.setblocking(False)  # a manager that is held up holds up nobody
        self.interval = _watchdog_interval()

    def tell(self, state: str) -> None:
        """Send "READY=1", "STOPPING=1", "WATCHDOG=1" or another assignment."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # there is nobody to tell it to
                self._socket.sendto(state.encode(), self._address)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


def _watchdog_interval() -> float | None:
    """Half of the time after which the manager would end us, as sd_watchdog_enabled(3) recommends."""
    microseconds, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
    if not microseconds.isdigit() or not int(microseconds) or pid not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 2e6
