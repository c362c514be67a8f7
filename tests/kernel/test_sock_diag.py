"""Answers of sock_diag(7): as the kernel writes them, cut off, and foreign."""

import contextlib
import errno
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.kernel.netlink import NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR
from ioflusher.kernel.sock_diag import (
    NETLINK_SOCK_DIAG,
    SOCK_DIAG_BY_FAMILY,
    UnixDiagAnswer,
    parse_tcp_answer,
    parse_unix_answer,
    unix_request,
)
from ioflusher.kernel.sockets import UnixSocket


def attribute(kind: int, value: bytes) -> bytes:
    """A netlink attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(inode: int, state: int, *attributes: bytes, flags: int = 2) -> bytes:
    """One socket as the kernel writes it."""
    body = struct.pack("=BBBBIII", 1, 1, state, 0, inode, 5, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), SOCK_DIAG_BY_FAMILY, flags, 1, 99) + body


def last(error: int = 0, kind: int = NLMSG_DONE) -> bytes:
    """The message that ends an answer."""
    return struct.pack("=IHHIIi", 20, kind, 2, 1, 99, error)


NAME, PEER, SHUTDOWN = 0, 2, 6
ANSWER = (
    message(1500, 1, attribute(PEER, struct.pack("=I", 1501)), attribute(SHUTDOWN, b"\0"))
    + message(1501, 1, attribute(NAME, b"/run/a\xff \n.sock"), attribute(PEER, struct.pack("=I", 1500)))
    + message(1502, 10, attribute(NAME, b"\0abstract\0name"))
    + message(1503, 10, attribute(NAME, b"relative\0"))
    + message(0, 1, attribute(NAME, b"/not/accepted"))
)
SOCKETS = (
    UnixSocket(1500, b"", listening=False, peer=1501),
    UnixSocket(1501, b"/run/a\xff \n.sock", listening=False, peer=1500),
    UnixSocket(1502, b"@abstract@name", listening=True),
    UnixSocket(1503, b"relative", listening=True),
)


def test_an_answer() -> None:
    """Names of any bytes, abstract ones told from paths, peers, listeners; none without a number."""
    assert parse_unix_answer(ANSWER) == UnixDiagAnswer(SOCKETS, done=False, interrupted=False)
    assert parse_unix_answer(ANSWER + last()) == UnixDiagAnswer(SOCKETS, done=True, interrupted=False)
    assert parse_unix_answer(b"") == UnixDiagAnswer((), done=False, interrupted=False)


def test_an_interrupted_list_is_told() -> None:
    """The flag of any message counts."""
    assert parse_unix_answer(ANSWER + message(7, 1, flags=NLM_F_DUMP_INTR)).interrupted


def test_a_refusal_is_the_systems_error() -> None:
    """A kernel without the module says ENOENT."""
    with pytest.raises(OSError, match="No such file") as caught:
        parse_unix_answer(last(-errno.ENOENT, NLMSG_ERROR))
    assert caught.value.errno == errno.ENOENT


@given(cut=st.integers(1, len(ANSWER) - 1))
def test_a_cut_answer(cut: int) -> None:
    """It gives whole sockets, or is refused; never half of one."""
    try:
        found = parse_unix_answer(ANSWER[:cut]).sockets
    except ValueError:
        return
    assert found == SOCKETS[: len(found)]


@given(
    st.binary(max_size=200)
    | st.binary(max_size=60).map(lambda tail: ANSWER[:40] + tail)
    | st.integers(-(2**31), 2**31 - 1).map(last)
)
def test_foreign_bytes(data: bytes) -> None:
    """Whatever comes, an answer or one of the two errors."""
    with contextlib.suppress(ValueError, OSError):
        parse_unix_answer(data)


@pytest.mark.live
def test_the_kernel_of_this_machine() -> None:
    """It takes the request, and names both ends of a socket pair."""
    near, far = socket.socketpair()
    with near, far, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as diag:
        diag.settimeout(10)
        diag.send(unix_request(1))
        found: dict[int, int | None] = {}
        done = False
        while not done:
            answer = parse_unix_answer(diag.recv(1 << 16))
            found |= {known.inode: known.peer for known in answer.sockets}
            done = answer.done
        numbers = [os.fstat(end.fileno()).st_ino for end in (near, far)]
    assert [found[number] for number in numbers] == numbers[::-1]


def tcp_socket(inode: int, received: int | None) -> bytes:
    """A connected TCP socket as the kernel writes it; None: from before it counted."""
    info = bytes(128) + (b"" if received is None else struct.pack("=Q", received))
    body = struct.pack("=BBBB48sIIIII", 2, 1, 0, 0, bytes(48), 0, 0, 0, 0, inode) + attribute(2, info)
    return struct.pack("=IHHII", 16 + len(body), SOCK_DIAG_BY_FAMILY, 2, 1, 99) + body


def test_received_bytes() -> None:
    """By the socket's number; not of those without one, nor of kernels that do not count."""
    answer = tcp_socket(7, 201164) + tcp_socket(8, None) + tcp_socket(0, 5) + last()
    found = parse_tcp_answer(answer)
    assert (found.received, found.done) == ({7: 201164}, True)
    with pytest.raises(OSError, match="No such file"):
        parse_tcp_answer(last(-errno.ENOENT, NLMSG_ERROR))


@given(st.binary(max_size=200))
def test_any_bytes_about_tcp(data: bytes) -> None:
    """Numbers, or one of the two errors."""
    for tried in (data, tcp_socket(7, 1)[: len(data)] + data):
        with contextlib.suppress(ValueError, OSError):
            assert all(inode for inode in parse_tcp_answer(tried).received)


@pytest.mark.live
def test_this_kernel_counts() -> None:
    """What one end sent the other has received, of this machine's own sockets."""
    from ioflusher.machine.collect.sock_diag import tcp_received

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        accepted.sendall(b"x" * 12345)
        assert len(client.recv(12345, socket.MSG_WAITALL)) == 12345
        received = tcp_received(5.0)
        assert received[os.fstat(client.fileno()).st_ino] == 12345
        assert received[os.fstat(accepted.fileno()).st_ino] == 0
