"""Bytes to and from a socket, all of them."""

import contextlib
import socket
from collections.abc import Sequence

MOST_VIEWS = 1024  # IOV_MAX of Linux (include/uapi/linux/uio.h, UIO_MAXIOV)


def receive_all(sock: socket.socket, room: memoryview) -> bool:
    """Fill `room`; False when the peer closed before."""
    while room:
        count = sock.recv_into(room, 0, socket.MSG_WAITALL)
        if not count:
            return False
        room = room[count:]
    return True


def drop(sock: socket.socket, missing: int, memory: memoryview) -> bool:
    """Receive bytes that nobody wants, by way of `memory`; False when the peer closed before."""
    while missing:
        piece = memory[: min(missing, len(memory))]
        if not receive_all(sock, piece):
            return False
        missing -= len(piece)
    return True


def send_all(sock: socket.socket, views: Sequence[bytes | memoryview], length: int) -> None:
    """Send pieces, `length` bytes together, in one system call where the socket takes them."""
    some = views[:MOST_VIEWS] if len(views) > MOST_VIEWS else views
    sent = sock.sendmsg(some)
    if sent < length:  # there are more, or a signal made it stop short
        _send_rest(sock, views, sent)


def _send_rest(sock: socket.socket, views: Sequence[bytes | memoryview], sent: int) -> None:
    """Send what is left of `views` when `sent` bytes are gone."""
    for view in views:
        if sent < len(view):
            sock.sendall(view[sent:])
        sent = max(sent - len(view), 0)


def hang_up(sock: socket.socket, how: int) -> None:
    """Shut a connection down, if it is not yet."""
    with contextlib.suppress(OSError):
        sock.shutdown(how)
