"""Sockets of a network namespace: the texts of /proc/net/unix, tcp, tcp6 and netlink.

Addresses are written as "127.0.0.1:10809" and "[::1]:10809"; an IPv4 address in an IPv6 socket
(::ffff:127.0.0.1) as the IPv4 address that it is, so that both ends of a connection agree.
"""

import ipaddress
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

# include/net/tcp_states.h
TCP_ESTABLISHED = 1
TCP_TIME_WAIT = 6
TCP_LISTEN = 10

# include/uapi/linux/net.h: what /proc/net/unix calls Flags
SO_ACCEPTCON = 0x10000

# include/uapi/linux/netlink.h
NETLINK_ISCSI = 8
NETLINK_SCSITRANSPORT = 18


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A Unix socket.

    Attributes:
        inode: its number.
        name: what it is bound to: a path, "@name" for an abstract name (NUL shown as @), b"" for none.
        listening: whether it waits for clients.
        peer: the inode number of the socket that it is connected to; None for none or unknown.
    """

    inode: int
    name: bytes
    listening: bool
    peer: int | None = None


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """A TCP socket; `state` is TCP_ESTABLISHED, TCP_LISTEN, ..."""

    inode: int
    local: str
    remote: str
    state: int


@dataclass(frozen=True, slots=True)
class NetlinkSocket:
    """A netlink socket; `protocol` is NETLINK_ISCSI, ..."""

    inode: int
    protocol: int


def parse_unix(text: bytes) -> tuple[UnixSocket, ...]:
    """The sockets in the text of /proc/net/unix that have a number (net/unix/af_unix.c, unix_seq_show).

    The text names no peers, and the kernel writes a newline in a path as it is: what follows it is passed
    over unless it looks like a socket. sock_diag(7) has neither flaw.

    Raises:
        ValueError: where the head line is missing.
    """
    sockets = []
    for line in _after_head(text, b"Num"):
        fields = line.split(None, 7)
        # Num RefCount Protocol Flags Type St Inode Path
        if len(fields) < 7 or not fields[0].endswith(b":"):
            continue
        try:
            flags, inode = int(fields[3], 16), int(fields[6])
        except ValueError:
            continue
        if inode:
            name = fields[7] if len(fields) == 8 else b""
            sockets.append(UnixSocket(inode, name, bool(flags & SO_ACCEPTCON)))
    return tuple(sockets)


def parse_tcp(text: bytes, byteorder: str = sys.byteorder) -> tuple[TcpSocket, ...]:
    """The sockets in the text of /proc/net/tcp or tcp6 (net/ipv4/tcp_ipv4.c, net/ipv6/tcp_ipv6.c).

    `byteorder` is that of the machine which wrote the text: it shows addresses as numbers of its own order.

    Raises:
        ValueError: where the head line is missing, or a line is not of that form.
    """
    sockets = []
    for line in _after_head(text, b"sl"):
        fields = line.split(None, 10)
        # sl local remote st tx:rx tr:when retrnsmt uid timeout inode
        if len(fields) < 10:
            raise ValueError(f"expected 'sl local remote st ... inode', found {line[:80]!r}")
        local, remote = _endpoint(fields[1], byteorder), _endpoint(fields[2], byteorder)
        sockets.append(TcpSocket(int(fields[9]), local, remote, int(fields[3], 16)))
    return tuple(sockets)


def parse_netlink(text: bytes) -> tuple[NetlinkSocket, ...]:
    """The sockets in the text of /proc/net/netlink (net/netlink/af_netlink.c, netlink_native_seq_show).

    Raises:
        ValueError: where the head line is missing, or a line is not of that form.
    """
    sockets = []
    for line in _after_head(text, b"sk"):
        fields = line.split()
        # sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
        if len(fields) < 10:
            raise ValueError(f"expected 'sk Eth Pid ... Inode', found {line[:80]!r}")
        sockets.append(NetlinkSocket(int(fields[9]), int(fields[1])))
    return tuple(sockets)


def endpoint(address: str, port: int) -> str:
    """An address and a port as this module writes them.

    Raises:
        ValueError: where the address is none.
    """
    known = ipaddress.ip_address(address)
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped is None:
            return f"[{known.compressed}]:{port}"
        known = known.ipv4_mapped
    return f"{known}:{port}"


def _after_head(text: bytes, head: bytes) -> Iterator[bytes]:
    lines = text.split(b"\n")
    if not lines[0].lstrip().startswith(head):
        raise ValueError(f"expected a head line that begins {head.decode()!r}, found {lines[0][:80]!r}")
    return (line for line in lines[1:] if line)


def _endpoint(field: bytes, byteorder: str) -> str:
    """ "0100007F:2A39" of a little-endian machine as "127.0.0.1:10809"."""
    address, _, port = field.partition(b":")
    return f"{_host(address, byteorder)}:{int(port, 16)}"


@lru_cache(maxsize=4096)
def _host(digits: bytes, byteorder: str) -> str:
    words = bytes.fromhex(digits.decode("ascii"))
    if len(words) not in (4, 16):
        raise ValueError(f"expected 8 or 32 hexadecimal digits, found {digits[:40]!r}")
    if byteorder == "little":
        words = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    return endpoint(str(ipaddress.ip_address(words)), 0).removesuffix(":0")
