"""Where a server is, looked up once: later connections ask no name service and make no socket."""

import contextlib
import os
import socket

from ioflusher.nbd.address import Address
from ioflusher.nbd.errors import from_system

UNANSWERED = 30_000  # ms: TCP_USER_TIMEOUT, for which data may stay unacknowledged before the peer is gone


class Endpoint:
    """A server's addresses, resolved when this is made, and sockets made before they are needed.

    A name look-up reads files, opens sockets and allocates; a daemon that has to find its server again while
    memory is short must have done all that.

    Args:
        address: of the server.
        spares: how many unconnected sockets are kept.

    Raises:
        NbdError: the name means nothing.
    """

    def __init__(self, address: Address, spares: int = 1) -> None:
        self.address = address
        self._spares_wanted = spares
        self._spares: list[socket.socket] = []
        self._places: list[tuple[socket.AddressFamily, tuple[object, ...] | str]]
        if address.path is not None:
            self._places = [(socket.AF_UNIX, os.path.abspath(address.path))]
        else:
            try:
                found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise from_system(f"cannot find {address.uri!r}", error) from error
            self._places = [(family, place) for family, _, _, _, place in found]
        self.replenish()

    def connect(self, timeout: float) -> socket.socket:
        """A connected socket that waits for ever; `timeout` seconds hold for connecting.

        Raises:
            NbdError: nobody listens there; `errno` says why.
        """
        failure = OSError("no address")
        for family, place in self._places:
            sock = self._take(family)
            try:
                sock.settimeout(timeout)
                sock.connect(place)
            except OSError as error:
                if isinstance(error, ConnectionRefusedError | FileNotFoundError):
                    self._spares.append(sock)  # Linux lets an unconnected socket try again
                else:
                    sock.close()
                failure = error
                continue
            self._places.sort(key=lambda each: each != (family, place))  # spares are made for the first
            return sock
        hint = "start the server first, and compare this address with the one that it listens on"
        raise from_system(f"cannot connect to {self.address.uri!r}", failure, hint=hint) from failure

    def replenish(self) -> None:
        """Make the sockets for the next connections; call it when all is well."""
        with contextlib.suppress(OSError):  # then they are made when they are needed
            while len(self._spares) < self._spares_wanted:
                self._spares.append(_open(self._places[0][0]))

    def _take(self, family: socket.AddressFamily) -> socket.socket:
        for number, spare in enumerate(self._spares):
            if spare.family == family:
                return self._spares.pop(number)
        try:
            return _open(family)
        except OSError as error:
            raise from_system("cannot make a socket", error) from error

    def close(self) -> None:
        """Close the spare sockets."""
        while self._spares:
            self._spares.pop().close()


def _open(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    if family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that vanished without closing: keepalive finds it when all is idle, the time-out when not.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, UNANSWERED // 1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED)
    return sock
