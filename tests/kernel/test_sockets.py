"""Texts of /proc/net: Unix, TCP and netlink sockets."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.kernel.sockets import (
    NETLINK_ISCSI,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    NetlinkSocket,
    TcpSocket,
    UnixSocket,
    endpoint,
    parse_netlink,
    parse_tcp,
    parse_unix,
)

UNIX = (
    b"Num       RefCount Protocol Flags    Type St Inode Path\n"
    b"000000006befeaca: 00000002 00000000 00010000 0001 01 101877 /run/a b\xff.sock\n"
    b"00000000d002c2d2: 00000003 00000000 00000000 0001 02     0 @abstract@name\n"
    b"00000000dae5b169: 00000003 00000000 00000000 0001 03  1500\n"
)
TCP_HEAD = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
)
REST = b"00000000:00000000 00:00000000 00000000     0        0 %d 1 00000000 100 0 0 10 0\n"
TCP = (
    TCP_HEAD
    + b"   0: 0100007F:2A39 00000000:0000 0A "
    + REST % 1504
    + b"   1: 0100007F:9C40 0100007F:2A39 01 "
    + REST % 1600
)
TCP6 = (
    TCP_HEAD
    + b"   0: 0000000000000000FFFF00000100007F:2A39 00000000000000000000000001000000:9C40 01 "
    + REST % 7
)


def test_unix() -> None:
    """Paths with spaces and any bytes; sockets without a number are left out."""
    assert parse_unix(UNIX) == (
        UnixSocket(101877, b"/run/a b\xff.sock", listening=True),
        UnixSocket(1500, b"", listening=False),
    )


def test_a_newline_in_a_path_hides_no_other_socket() -> None:
    """The kernel writes it as it is: the rest of the name is passed over, the lines after it count."""
    assert [found.inode for found in parse_unix(UNIX.replace(b"a b\xff", b"a\nb: c d e"))] == [101877, 1500]


def test_tcp() -> None:
    """Addresses of a little-endian machine; a mapped IPv4 address is the IPv4 address."""
    assert parse_tcp(TCP, "little") == (
        TcpSocket(1504, "127.0.0.1:10809", "0.0.0.0:0", TCP_LISTEN),
        TcpSocket(1600, "127.0.0.1:40000", "127.0.0.1:10809", TCP_ESTABLISHED),
    )
    assert parse_tcp(TCP6, "little") == (TcpSocket(7, "127.0.0.1:10809", "[::1]:40000", TCP_ESTABLISHED),)
    assert parse_tcp(TCP.replace(b"0100007F", b"7F000001"), "big")[0].local == "127.0.0.1:10809"


def test_netlink() -> None:
    """Protocol and number of each socket."""
    head = b"sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"
    text = (
        head
        + b"00000000a581b63c 8   812        00000000 0        0        0     2        0        4242    \n"
    )
    assert parse_netlink(text) == (NetlinkSocket(4242, NETLINK_ISCSI),)


@given(st.binary())
def test_other_text_is_refused(text: bytes) -> None:
    """Bytes that are not such a table raise ValueError, nothing else."""
    for parse in (parse_unix, parse_tcp, parse_netlink):
        with pytest.raises(ValueError, match="expected"):
            parse(b"!" + text)


@given(st.binary())
def test_rubbish_below_the_head(text: bytes) -> None:
    """A line of rubbish is refused, or, in the table of Unix sockets, passed over."""
    parse_unix(UNIX + text)
    for parse in (parse_tcp, parse_netlink):
        try:
            parse((b"sl\n" if parse is parse_tcp else b"sk\n") + text)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("address", "written"),
    [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1"), ("::ffff:10.0.0.7", "10.0.0.7:1"), ("::", "[::]:1")],
)
def test_endpoints(address: str, written: str) -> None:
    """IPv6 in brackets and compressed, mapped IPv4 as IPv4."""
    assert endpoint(address, 1) == written


@pytest.mark.live
def test_a_connection_of_this_process() -> None:
    """Both ends of a loopback connection are found, each with its number and the other's address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            accepted, _ = server.accept()
            with accepted:
                found = {s.inode: s for s in parse_tcp(Path("/proc/net/tcp").read_bytes())}
                near, far = (found[os.fstat(s.fileno()).st_ino] for s in (client, accepted))
    assert (near.local, near.remote) == (far.remote, far.local)
    assert far.local == f"127.0.0.1:{port}"
