"""The sockets of this network namespace as sock_diag(7) tells them, with the peers of Unix sockets."""

import socket
from collections.abc import Iterator
from typing import Any

from ioflusher.kernel.sockets import TcpSocket, UnixSocket, endpoint

# include/uapi/linux/unix_diag.h
_UDIAG_SHOW_NAME = 0x01
_UDIAG_SHOW_PEER = 0x04
_LISTEN = 10  # a Unix socket's state is TCP_LISTEN there, net/unix/af_unix.c


def unix_sockets() -> tuple[UnixSocket, ...]:
    """The Unix sockets that have a number.

    Raises:
        OSError, ImportError: where the kernel or pyroute2 cannot tell; callers set the deadline.
    """
    from pyroute2.netlink.diag import DiagSocket, MarshalDiag, unix_diag_msg

    class Message(unix_diag_msg):  # type: ignore[misc]  # pyroute2 has no types
        """Names as raw bytes: an abstract one keeps the NUL that tells it from a path."""

        nla_map = (
            ("UNIX_DIAG_NAME", "cdata"),
            ("UNIX_DIAG_VFS", "hex"),
            ("UNIX_DIAG_PEER", "uint32"),
        )

    class Marshal(MarshalDiag):  # type: ignore[misc]
        """Answers about Unix sockets are read by `Message`."""

        msg_map = {**MarshalDiag.msg_map, socket.AF_UNIX: Message}  # noqa: RUF012

    def read(message: Any) -> UnixSocket:
        name = message.get_attr("UNIX_DIAG_NAME") or b""
        # What the kernel's text shows: NULs of abstract names as @, none at a path's end.
        name = name.replace(b"\0", b"@") if name.startswith(b"\0") else name.rstrip(b"\0")
        return UnixSocket(
            inode=message["udiag_ino"],
            name=name,
            listening=message["udiag_state"] == _LISTEN,
            peer=message.get_attr("UNIX_DIAG_PEER") or None,
        )

    with DiagSocket() as diag:
        diag.set_marshal(Marshal())
        answers = diag.get_sock_stats(family=socket.AF_UNIX, show=_UDIAG_SHOW_NAME | _UDIAG_SHOW_PEER)
        return tuple(found for found in map(read, answers) if found.inode)


def tcp_sockets() -> tuple[TcpSocket, ...]:
    """The TCP sockets, IPv4 and IPv6.

    Raises:
        OSError, ImportError: where the kernel or pyroute2 cannot tell; callers set the deadline.
    """
    from pyroute2.netlink.diag import DiagSocket

    def read(answers: Any) -> Iterator[TcpSocket]:
        for answer in answers:
            yield TcpSocket(
                inode=answer["idiag_inode"],
                local=endpoint(answer["idiag_src"], answer["idiag_sport"]),
                remote=endpoint(answer["idiag_dst"], answer["idiag_dport"]),
                state=answer["idiag_state"],
            )

    with DiagSocket() as diag:
        families = (socket.AF_INET, socket.AF_INET6) if socket.has_ipv6 else (socket.AF_INET,)
        return tuple(found for family in families for found in read(diag.get_sock_stats(family=family)))
