"""The server and our own client, back to back over real sockets in one process."""

import contextlib
import errno
import os
import signal
import socket
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import Backend, FileBackend, MemoryBackend, RemoteBackend
from ioflusher.nbd.client import Client, describe
from ioflusher.nbd.errors import (
    ConnectionLost,
    NbdError,
    NegotiationError,
    RequestError,
)
from ioflusher.nbd.protocol.exports import BlockSize
from ioflusher.nbd.protocol.messages import Request
from ioflusher.nbd.protocol.wire import Cmd, TransmissionFlag
from ioflusher.nbd.server import Server
from ioflusher.nbd.server import server as server_module

SIZE = 1 << 20
PROMPT = 1.0  # seconds within which a close must be through when nothing hangs


def check_storage(address: Address) -> None:
    """Whatever is written through the address is what is read back."""
    data = os.urandom(70_000)
    found = memoryview(bytearray(len(data)))
    with RemoteBackend(address) as client:
        assert client.size == SIZE
        client.write(4096, memoryview(data))
        client.flush()
        client.read_into(4096, found)
        assert found == data
        client.zero(4096, 8192, may_trim=False)
        client.read_into(4096, found)
        assert bytes(found[:8192]) == bytes(8192)
        assert found[8192:] == data[8192:]


def file_backend(tmp_path: Path) -> Backend:
    path = tmp_path / "image"
    path.write_bytes(bytes(SIZE))
    return FileBackend(path)


@pytest.mark.parametrize("listen", ["unix", "tcp"])
@pytest.mark.parametrize("kind", ["memory", "file", "remote"])
def test_what_is_written_is_read_back(tmp_path: Path, kind: str, listen: str) -> None:
    """Every back end stores and returns data over both kinds of socket, and counts the requests."""
    path = str(tmp_path / "socket")
    origin = file_backend(tmp_path) if kind == "file" else MemoryBackend(SIZE)
    with origin, Server(origin) as first:
        address = first.listen_unix(path) if listen == "unix" else first.listen_tcp()
        first.start()
        if kind == "remote":
            with RemoteBackend(address) as middle, Server(middle) as second:
                address = second.listen_tcp()
                second.start()
                check_storage(address)
                assert second.counters() == first.counters()
        else:
            check_storage(address)
        counters = first.counters()
        assert (counters.reads, counters.bytes_read) == (2, 140_000)
        assert (counters.writes, counters.bytes_written) == (1, 70_000)
        assert (counters.flushes, counters.zeroes, counters.errors) == (1, 1, 0)
    assert not os.path.exists(path)


def test_a_client_is_told_what_the_export_is(server: Server) -> None:
    """Name, size, flags and block sizes arrive as the server has them, also without entering transmission."""
    address = server.listen_tcp()
    assert address.export == "disk"
    assert describe(address) == server.export
    assert server.export.block_size == BlockSize(1, 4096, 64 << 10)
    with Client(address) as client:
        # who goes on at once with simple replies asks for less
        flags = server.export.flags & ~TransmissionFlag.SEND_DF
        assert client.export == replace(server.export, contexts=(), flags=flags)


def test_an_unknown_export(server: Server) -> None:
    """Asking for a name that is not there is refused in words."""
    with pytest.raises(NegotiationError, match="tape"):
        Client(server.listen_tcp().with_export("tape"))


def test_requests_above_the_limit_do_not_end_the_connection(server: Server) -> None:
    """A payload above the limit is refused with EINVAL; the next request on the connection works."""
    with Client(server.listen_tcp()) as client:
        for _ in range(2):
            with pytest.raises(RequestError, match="WRITE") as caught:
                client.write(0, memoryview(bytes((64 << 10) + 1)))
            assert caught.value.errno == errno.EINVAL
            client.write(0, memoryview(b"x" * (64 << 10)))
    assert server.counters().errors == 2


@pytest.mark.parametrize("limit", [0, 4095, 4097, 1 << 31])
def test_payload_limits_that_cannot_be(limit: int) -> None:
    """The limit is in whole pages and within reason."""
    with pytest.raises(NbdError, match="expected a multiple of 4096"), MemoryBackend(1) as backend:
        Server(backend, max_payload=limit)


def test_the_unix_socket_is_its_owners_and_is_removed(server: Server, tmp_path: Path) -> None:
    """Nobody else may connect to a block device, and nothing is left behind."""
    path = tmp_path / "socket"
    server.listen_unix(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server.close()
    assert not path.exists()


def test_a_socket_of_somebody_else_is_not_removed(server: Server, tmp_path: Path) -> None:
    """Close removes the socket that it made, not one that has taken its place."""
    path = tmp_path / "socket"
    server.listen_unix(str(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        server.close()
        assert path.exists()


def test_a_path_in_use_is_refused(server: Server, tmp_path: Path) -> None:
    """A second server on the same path is a clear error, and the first goes on."""
    path = str(tmp_path / "socket")
    address = server.listen_unix(path)
    with MemoryBackend(1) as backend, Server(backend) as second:
        with pytest.raises(NbdError, match="cannot listen") as caught:
            second.listen_unix(path)
        assert caught.value.errno == errno.EADDRINUSE
        assert caught.value.hint
    assert describe(address).size == SIZE


def test_a_port_in_use_is_refused(server: Server) -> None:
    """A second server on the same port is a clear error."""
    address = server.listen_tcp()
    with pytest.raises(NbdError, match="cannot listen") as caught:
        server.listen_tcp(address.host, address.port)
    assert caught.value.errno == errno.EADDRINUSE


def test_loopback_is_the_default(server: Server) -> None:
    """Without being told a host, the server listens where only this machine can reach it."""
    assert server.listen_tcp().host == "127.0.0.1"


def test_closing_is_prompt_and_leaves_no_thread(server: Server) -> None:
    """Close ends the threads of idle clients, of one within a handshake, and of one within a payload."""
    others = set(threading.enumerate())  # of servers that other tests keep
    address = server.listen_tcp()
    idle = Client(address)
    silent = socket.create_connection((address.host, address.port))
    halfway = Client(address)
    halfway._sock.sendall(Request(Cmd.WRITE, 0, 1, 0, 4096).pack() + bytes(100))
    for client in (idle, halfway):
        assert client.export.size == SIZE
    begin = time.monotonic()
    server.close()
    assert time.monotonic() - begin < PROMPT
    left = set(threading.enumerate()) - others
    assert not [thread for thread in left if thread.name.startswith("nbd-")]
    with pytest.raises(ConnectionLost):
        idle.read_into(0, memoryview(bytearray(1)))
    silent.close()
    idle.close()
    halfway.close()


class Slow(MemoryBackend):
    """A write waits until it is let go; `interrupt` lets it fail."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.entered, self.release, self.interrupted = (threading.Event() for _ in range(3))

    def write(self, offset: int, view: memoryview) -> None:
        self.entered.set()
        assert self.release.wait(20)
        if self.interrupted.is_set():
            raise OSError(errno.EIO, "interrupted")
        super().write(offset, view)

    def interrupt(self) -> None:
        self.interrupted.set()
        self.release.set()


def start_write(client: Client) -> tuple[threading.Thread, list[Exception | None]]:
    """A write in a thread of its own, and where its outcome will be."""
    outcome: list[Exception | None] = []

    def write() -> None:
        try:
            client.write(0, memoryview(b"x"))
            outcome.append(None)
        except NbdError as error:
            outcome.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    return thread, outcome


def test_a_request_under_way_gets_its_answer_at_close() -> None:
    """A client whose write is being done when the server closes hears that it was done."""
    backend = Slow()
    with Server(backend) as server:
        server.start()
        client = Client(server.listen_tcp())
        thread, outcome = start_write(client)
        assert backend.entered.wait(10)
        threading.Timer(0.2, backend.release.set).start()
        server.close()
    thread.join()
    assert outcome == [None]
    client.close()


def test_requests_that_wait_are_not_begun_at_close() -> None:
    """Of several requests sent at once, only the one under way is done when the server closes."""
    backend = Slow()
    with Server(backend) as server:
        server.start()
        client = Client(server.listen_tcp())
        client._sock.sendall(b"".join(Request(Cmd.WRITE, 0, n, 0, 1).pack() + b"x" for n in range(3)))
        assert backend.entered.wait(10)
        threading.Timer(0.2, backend.release.set).start()
        server.close()
        assert server.counters().writes == 1
        client.close()


def test_a_hanging_back_end_is_interrupted_at_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that takes longer than the grace is interrupted, and close returns."""
    monkeypatch.setattr(server_module, "CLOSE_GRACE", 0.3)
    backend = Slow()
    with Server(backend) as server:
        server.start()
        client = Client(server.listen_tcp())
        thread, outcome = start_write(client)
        assert backend.entered.wait(10)
        begin = time.monotonic()
        server.close()
        assert time.monotonic() - begin < 0.3 + PROMPT
    thread.join()
    assert isinstance(outcome[0], RequestError | ConnectionLost)
    assert backend.interrupted.is_set()
    client.close()


def test_no_more_connections_than_allowed() -> None:
    """The one too many is closed at once; when another leaves, there is room again."""
    with MemoryBackend(SIZE) as backend, Server(backend, max_connections=1) as server:
        address = server.listen_tcp()
        server.start()
        with Client(address), pytest.raises(ConnectionLost):
            Client(address)
        deadline = time.monotonic() + 10
        while server._peers:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with Client(address) as client:
            client.read_into(0, memoryview(bytearray(1)))
        assert server.counters().reads == 1


def test_a_handshake_takes_only_so_long() -> None:
    """A peer that is silent, or that trickles bytes, does not hold its thread for ever."""
    with MemoryBackend(SIZE) as backend, Server(backend, handshake_timeout=0.3) as server:
        server.start()
        check_deadline(server.listen_tcp())


def check_deadline(address: Address) -> None:
    """0.3 seconds."""
    with socket.create_connection((address.host, address.port), timeout=10) as silent:
        assert len(silent.recv(18)) == 18
        assert silent.recv(1) == b""
    trickling = socket.create_connection((address.host, address.port), timeout=10)
    begin = time.monotonic()
    with trickling, contextlib.suppress(ConnectionError):
        trickling.sendall(bytes.fromhex("0000000349484156454f50540000beefffffffff"))
        while time.monotonic() - begin < 5:
            trickling.sendall(b"x")
            time.sleep(0.05)
    assert time.monotonic() - begin < 0.3 + PROMPT


def test_rubbish_ends_one_connection_only(server: Server) -> None:
    """A peer that does not speak the protocol is cut off; the others do not notice."""
    address = server.listen_tcp()
    with Client(address) as client:
        peer = socket.create_connection((address.host, address.port), timeout=10)
        with peer, contextlib.suppress(ConnectionResetError):  # since the server leaves bytes unread
            peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while peer.recv(100):
                pass
        client.read_into(0, memoryview(bytearray(1)))


def test_threads_do_not_disturb_each_other(server: Server) -> None:
    """Several clients at once, each in its own part of the export, read what they wrote."""
    address = server.listen_tcp()
    failures: list[str] = []

    def work(number: int) -> None:
        offset = number * (SIZE // 4)
        found = memoryview(bytearray(5000))
        with Client(address) as client:
            for round_ in range(40):
                data = memoryview(bytes([16 * number + round_ % 16]) * 5000)
                client.write(offset, data)
                client.read_into(offset, found)
                if found != data:
                    failures.append(f"client {number}, round {round_}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert server.counters().writes == server.counters().reads == 160


@pytest.mark.parametrize("taker", ["another thread", "the main thread"])
def test_a_signal_ends_the_wait_for_clients_whoever_takes_it(taker: str) -> None:
    """Python runs the handler in the main thread, which a signal that another thread takes does not wake."""
    server = Server(MemoryBackend(4096))
    before = signal.signal(signal.SIGUSR2, lambda *_: server.stop())
    late = threading.Timer(20, server.stop)

    def send() -> None:
        time.sleep(0.2)
        target = threading.main_thread() if taker == "the main thread" else threading.current_thread()
        assert target.ident is not None
        signal.pthread_kill(target.ident, signal.SIGUSR2)

    sender = threading.Thread(target=send)
    try:
        late.start()
        sender.start()
        began = time.monotonic()
        server.serve_forever()
        assert time.monotonic() - began < 10
        assert signal.set_wakeup_fd(-1) == -1  # and what was there before is put back
    finally:
        late.cancel()
        sender.join()
        server.close()
        signal.signal(signal.SIGUSR2, before)
