"""What only sock_diag(7) has of the sockets of this network namespace: peers, and bytes received."""

import socket
import time

from ioflusher.kernel.sock_diag import (
    NETLINK_SOCK_DIAG,
    parse_tcp_answer,
    parse_unix_answer,
    tcp_request,
    unix_request,
)
from ioflusher.kernel.sockets import UnixSocket

_DATAGRAM_BYTES = 1 << 16  # the kernel writes at most 32 KiB into one, net/netlink/af_netlink.c
_TRIES = 3


def unix_sockets(seconds: float) -> tuple[UnixSocket, ...]:
    """The Unix sockets that have a number.

    Where sockets came or went while the kernel wrote the list, it is asked for again, a few times.

    Raises:
        OSError: the kernel has no such interface, or does not answer within so many seconds.
        ValueError: it answers something else.
    """
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as diag:
        for sequence in range(1, _TRIES + 1):
            diag.send(unix_request(sequence))
            found: dict[int, UnixSocket] = {}
            interrupted = done = False
            while not done:
                diag.settimeout(max(end - time.monotonic(), 0.001))
                answer = parse_unix_answer(diag.recv(_DATAGRAM_BYTES))
                found |= {known.inode: known for known in answer.sockets}
                interrupted |= answer.interrupted
                done = answer.done
            if not interrupted:
                break
        return tuple(found.values())


def tcp_received(seconds: float) -> dict[int, int]:
    """The bytes that each connected TCP socket has received, by its number.

    Raises:
        OSError: the kernel cannot say, or does not within so many seconds.
        ValueError: it answers something else.
    """
    end = time.monotonic() + seconds
    received: dict[int, int] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as diag:
        for sequence, family in enumerate((socket.AF_INET, socket.AF_INET6), 1):
            diag.send(tcp_request(family, sequence))
            done = False
            while not done:
                diag.settimeout(max(end - time.monotonic(), 0.001))
                answer = parse_tcp_answer(diag.recv(_DATAGRAM_BYTES))
                received |= answer.received
                done = answer.done
    return received
