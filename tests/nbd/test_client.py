"""Our client and the forwarding back end: errors in words and numbers, and nothing hidden."""

import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import MemoryBackend, RemoteBackend
from ioflusher.nbd.client import Client, send_all
from ioflusher.nbd.errors import ConnectionLost, NbdError, RemoteProtocolError, RequestError, from_system
from ioflusher.nbd.protocol.exports import MalformedData
from ioflusher.nbd.server import Server

SIZE = 1 << 20


def test_a_forwarding_back_end_cuts_to_the_other_servers_limit(server: Server) -> None:
    """What is longer than the other server takes goes there in pieces, and arrives whole."""
    data = memoryview(os.urandom(200_000))
    found = memoryview(bytearray(200_000))
    with RemoteBackend(server.listen_tcp()) as backend:
        backend.write(7, data)
        backend.read_into(7, found)
    assert found == data
    assert server.counters().writes == 4


def test_errors_come_through_a_forwarding_server(tmp_path: Path) -> None:
    """The errno of the last back end in the row reaches the first client."""

    class Full(MemoryBackend):
        def write(self, offset: int, view: memoryview) -> None:
            raise OSError(errno.ENOSPC, "full")

    with Full(SIZE) as origin, Server(origin) as first:
        first.start()
        with RemoteBackend(first.listen_unix(str(tmp_path / "a"))) as middle, Server(middle) as second:
            second.start()
            with Client(second.listen_unix(str(tmp_path / "b"))) as client:
                with pytest.raises(RequestError, match="ENOSPC") as caught:
                    client.write(0, memoryview(b"x"))
                assert caught.value.errno == errno.ENOSPC


def test_a_lost_server_stays_lost(server: Server) -> None:
    """When the connection breaks, requests fail with EIO, at once and for good, although the server lives."""
    address = server.listen_tcp()
    with RemoteBackend(address) as backend:
        room = memoryview(bytearray(16))
        backend.read_into(0, room)
        backend.interrupt()
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="is lost") as caught:
                backend.read_into(0, room)
            assert caught.value.errno == errno.EIO
    assert server.counters().reads == 1


@pytest.mark.parametrize("name", ["a\0b", "\udcff", "x" * 4097])
def test_names_that_cannot_be(server: Server, name: str) -> None:
    """An export name that the protocol cannot carry is refused on both ends, before anything is sent."""
    with pytest.raises(MalformedData, match="a name or text"):
        Client(server.listen_tcp().with_export(name))
    with pytest.raises(MalformedData, match="a name or text"), MemoryBackend(1) as backend:
        Server(backend, export=name)


def test_name_service_errors_are_no_errno() -> None:
    """A host without an address is told in words; the name service's own number is not taken for an errno."""
    error = from_system("cannot connect", socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    assert str(error) == "cannot connect: Name or service not known"
    assert error.errno is None


@pytest.mark.parametrize("host", ["x" * 64, "a..b"])
def test_hosts_that_cannot_be(server: Server, host: str) -> None:
    """Names that are no names are clear errors on both ends."""
    with pytest.raises(NbdError, match="cannot connect"):
        Client(Address(host=host))
    with pytest.raises(NbdError, match="cannot listen"):
        server.listen_tcp(host)


@pytest.mark.parametrize("piece", [1, 15, 16, 17, 20, 100])
def test_what_a_socket_does_not_take_at_once_is_sent_on(piece: int) -> None:
    """Header and data arrive whole and in order wherever the first send stops."""

    class Reluctant:
        def __init__(self) -> None:
            self.taken = b""

        def sendmsg(self, parts: list[bytes]) -> int:
            self.taken = b"".join(parts)[:piece]
            return len(self.taken)

        def sendall(self, data: bytes) -> None:
            self.taken += data

    sock = Reluctant()
    send_all(sock, b"0123456789abcdef", memoryview(b"payload"))  # type: ignore[arg-type]
    assert sock.taken == b"0123456789abcdefpayload"


def test_nobody_listens(tmp_path: Path) -> None:
    """A server that is not there is a clear error with what to do."""
    with pytest.raises(NbdError, match="cannot connect to") as caught:
        Client(Address(path=str(tmp_path / "nothing")))
    assert caught.value.errno == errno.ENOENT
    assert caught.value.hint


def test_something_else_listens() -> None:
    """A peer that speaks another protocol is told from a server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with listener.accept()[0] as peer:
                peer.sendall(b"220 mail.example.org ESMTP ready\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(RemoteProtocolError, match="not an NBD server"):
            Client(Address(host="127.0.0.1", port=listener.getsockname()[1]))
        thread.join()


def test_a_server_that_says_nothing() -> None:
    """A peer that accepts and is silent is an error after the time-out, not a wait."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(ConnectionLost, match="did not finish the handshake"),
    ):
        Client(Address(host="127.0.0.1", port=listener.getsockname()[1]), timeout=0.2)
