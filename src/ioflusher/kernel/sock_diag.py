"""Messages of sock_diag(7) about Unix and TCP sockets: the requests, and what the kernel answers.

include/uapi/linux/{netlink,sock_diag,unix_diag,inet_diag,tcp}.h, net/unix/diag.c, net/ipv4/inet_diag.c. All
numbers are in the machine's order.
"""

import struct
from dataclasses import dataclass

from ioflusher.kernel.netlink import (
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    attributes,
    message,
    messages,
)
from ioflusher.kernel.sockets import TCP_ESTABLISHED, TCP_LISTEN, UnixSocket

AF_UNIX = 1
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20

UDIAG_SHOW_NAME = 0x01
UDIAG_SHOW_PEER = 0x04
UNIX_DIAG_NAME = 0
UNIX_DIAG_PEER = 2

ALL_STATES = 0xFFFFFFFF

IPPROTO_TCP = 6
INET_DIAG_INFO = 2  # struct tcp_info

_REQUEST = struct.Struct("=BBHIIIII")  # struct unix_diag_req
_MESSAGE = struct.Struct("=BBBBIII")  # struct unix_diag_msg: family, type, state, pad, ino, cookie[2]
_NUMBER = struct.Struct("=I")
_LONG = struct.Struct("=Q")
_SOCKET_ID_BYTES = 48  # struct inet_diag_sockid: ports, addresses, interface, cookie
_INET_REQUEST = struct.Struct(f"=BBBxI{_SOCKET_ID_BYTES}s")  # struct inet_diag_req_v2
# struct inet_diag_msg: family, state, timer, retrans, id, expires, rqueue, wqueue, uid, inode
_INET_MESSAGE = struct.Struct(f"=BBBB{_SOCKET_ID_BYTES}sIIIII")
_RECEIVED_AT = 128  # struct tcp_info: tcpi_bytes_received, since 4.1 (bdd1f9edacb5)


@dataclass(frozen=True, slots=True)
class UnixDiagAnswer:
    """What one datagram of the kernel holds.

    Attributes:
        sockets: those in it that have a number.
        done: whether it is the last one.
        interrupted: whether sockets came or went meanwhile, so that some may be missing or doubled.
    """

    sockets: tuple[UnixSocket, ...]
    done: bool
    interrupted: bool


@dataclass(frozen=True, slots=True)
class ReceivedAnswer:
    """What one datagram of the kernel says of TCP sockets.

    Attributes:
        received: bytes of payload that arrived, by the socket's number.
        done: whether it is the last datagram.
    """

    received: dict[int, int]
    done: bool


def unix_request(sequence: int) -> bytes:
    """The datagram that asks for all Unix sockets of the network namespace, with names and peers."""
    show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER
    body = _REQUEST.pack(AF_UNIX, 0, 0, ALL_STATES, 0, show, 0xFFFFFFFF, 0xFFFFFFFF)
    return message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, sequence, body)


def parse_unix_answer(data: bytes) -> UnixDiagAnswer:
    """The sockets in one datagram of the kernel's answer.

    Raises:
        OSError: the kernel refused: ENOENT where it was built without CONFIG_UNIX_DIAG.
        ValueError: where the datagram is cut off or of another kind.
    """
    sockets: list[UnixSocket] = []
    done = interrupted = False
    for kind, at, end, flags in messages(data, SOCK_DIAG_BY_FAMILY):
        interrupted |= bool(flags & NLM_F_DUMP_INTR)
        if kind != SOCK_DIAG_BY_FAMILY:
            done = True
            continue
        found = _socket(data, at, end)
        if found.inode:
            sockets.append(found)
    return UnixDiagAnswer(tuple(sockets), done, interrupted)


def _socket(data: bytes, at: int, end: int) -> UnixSocket:
    """The socket in the message between two places of the datagram."""
    if end - at < _MESSAGE.size:
        raise ValueError(f"expected a socket of {_MESSAGE.size} bytes, found {end - at}")
    _, _, state, _, inode, _, _ = _MESSAGE.unpack_from(data, at)
    name, peer = b"", 0
    for kind, begin, stop in attributes(data, at + _MESSAGE.size, end):
        if kind == UNIX_DIAG_NAME:
            name = data[begin:stop]
        elif kind == UNIX_DIAG_PEER and stop - begin >= _NUMBER.size:
            peer = _NUMBER.unpack_from(data, begin)[0]
    # as the kernel's text has it: the NULs of an abstract name as @, none at the end of a path
    name = name.replace(b"\0", b"@") if name.startswith(b"\0") else name.rstrip(b"\0")
    return UnixSocket(inode, name, state == TCP_LISTEN, peer or None)


def tcp_request(family: int, sequence: int) -> bytes:
    """The datagram that asks for the connected TCP sockets of the network namespace with their counters.

    `family`: AF_INET or AF_INET6.
    """
    extensions = 1 << (INET_DIAG_INFO - 1)
    body = _INET_REQUEST.pack(family, IPPROTO_TCP, extensions, 1 << TCP_ESTABLISHED, bytes(_SOCKET_ID_BYTES))
    return message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, sequence, body)


def parse_tcp_answer(data: bytes) -> ReceivedAnswer:
    """The bytes that each socket in one datagram of the kernel's answer has received.

    Raises:
        OSError: the kernel refused: ENOENT where it was built without CONFIG_INET_DIAG.
        ValueError: where the datagram is cut off or of another kind.
    """
    received: dict[int, int] = {}
    done = False
    for kind, at, end, _ in messages(data, SOCK_DIAG_BY_FAMILY):
        if kind != SOCK_DIAG_BY_FAMILY:
            done = True
            continue
        if end - at < _INET_MESSAGE.size:
            raise ValueError(f"expected a socket of {_INET_MESSAGE.size} bytes, found {end - at}")
        inode = _INET_MESSAGE.unpack_from(data, at)[-1]
        for attribute, begin, stop in attributes(data, at + _INET_MESSAGE.size, end):
            # a kernel older than 4.1 has no such counter: its structure is shorter
            if attribute == INET_DIAG_INFO and stop - begin >= _RECEIVED_AT + _LONG.size and inode:
                received[inode] = _LONG.unpack_from(data, begin + _RECEIVED_AT)[0]
    return ReceivedAnswer(received, done)
