"""The forwarding back end while its server is killed, restarted, cut off and slow."""

import errno
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.nbd.backends.volatile import VolatileBackend

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import Backend, BackendError, Extent, MemoryBackend, RemoteBackend
from ioflusher.nbd.backends.link import Link
from ioflusher.nbd.client import Client
from ioflusher.nbd.errors import ConnectionLost, NbdError, RequestError
from ioflusher.nbd.protocol.client_handshake import Wishes
from ioflusher.nbd.protocol.extents import BASE_ALLOCATION
from ioflusher.nbd.protocol.messages import OptionReply
from ioflusher.nbd.protocol.server_handshake import OptionAnswer, ServerHandshake
from ioflusher.nbd.protocol.wire import Opt, Rep
from ioflusher.nbd.server import Server

SIZE = 1 << 20
BLOCK = 4096


class Origin:
    """A server that can be killed, and started again at the same place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.durable = bytearray(SIZE)
        self.backend: Backend
        self.server: Server | None = None

    def start(self, backend: Backend | None = None, export: str = "disk") -> Address:
        self.backend = VolatileBackend(self.durable) if backend is None else backend
        self.server = Server(self.backend, export=export, max_payload=256 << 10)
        address = self.server.listen_unix(str(self.path))
        self.server.start()
        return address

    def kill(self) -> None:
        """End it, and with it what was not flushed."""
        assert self.server is not None
        self.server.close()
        self.server = None


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    there = Origin(tmp_path / "origin")
    yield there
    if there.server is not None:
        there.kill()


def in_thread(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def content(backend: Backend, offset: int, length: int) -> bytes:
    room = memoryview(bytearray(length))
    backend.read_into(offset, room)
    return bytes(room)


def check_refused(backend: RemoteBackend, words: str) -> None:
    """Requests fail, and once the server that came back has been looked at the error says why."""
    deadline = time.monotonic() + 20
    while True:
        with pytest.raises(ConnectionLost, match="is lost") as caught:
            backend.flush()
        if re.search(words, str(caught.value)):
            return
        assert time.monotonic() < deadline, caught.value
        time.sleep(0.02)


def test_what_a_killed_server_forgot_is_told_again(origin: Origin) -> None:
    """Acknowledged writes that were never flushed are there after the server was killed, in their order."""
    with RemoteBackend(origin.start()) as backend:
        backend.write(0, memoryview(b"a" * 3 * BLOCK))
        backend.write(BLOCK, memoryview(b"b" * BLOCK))
        backend.zero(2 * BLOCK, 10, may_trim=True)
        origin.kill()
        assert origin.durable == bytes(SIZE)
        origin.start()
        expected = b"a" * BLOCK + b"b" * BLOCK + bytes(10) + b"a" * (BLOCK - 10)
        assert content(backend, 0, 3 * BLOCK) == expected
        backend.flush()
        assert origin.durable[: 3 * BLOCK] == expected
        assert backend.losses == 1


def test_without_a_journal_they_are_lost(origin: Origin) -> None:
    """The same without one, which shows that the test before means something."""
    with RemoteBackend(origin.start(), journal=0) as backend:
        backend.write(0, memoryview(b"a" * BLOCK))
        origin.kill()
        origin.start()
        assert content(backend, 0, BLOCK) == bytes(BLOCK)


def test_what_was_flushed_is_not_told_again(origin: Origin) -> None:
    """A server is not told what it must know; another client may have changed it since."""
    with RemoteBackend(origin.start()) as backend:
        backend.write(0, memoryview(b"a" * BLOCK))
        backend.flush()
        backend.write(BLOCK, memoryview(b"b" * BLOCK))
        origin.kill()
        origin.durable[:BLOCK] = b"c" * BLOCK
        origin.start()
        assert content(backend, 0, 2 * BLOCK) == b"c" * BLOCK + b"b" * BLOCK


def test_requests_wait_for_a_server_that_is_gone(origin: Origin) -> None:
    """Reads, writes and flushes asked meanwhile are done when it is back; nobody hears an error."""
    with RemoteBackend(origin.start(), connections=2) as backend:
        backend.write(0, memoryview(b"old" * 100))
        origin.kill()
        found: list[bytes] = []
        threads = [
            in_thread(lambda: backend.write(BLOCK, memoryview(b"new" * 100))),
            in_thread(lambda: found.append(content(backend, 0, 300))),
            in_thread(backend.flush),
        ]
        time.sleep(0.1)
        assert all(thread.is_alive() for thread in threads)
        origin.start()
        for thread in threads:
            thread.join(10)
        assert found == [b"old" * 100]
        assert content(backend, BLOCK, 300) == b"new" * 100


def test_patience_ends(origin: Origin) -> None:
    """Afterwards requests fail with EIO, at once; a server that comes back later serves again."""
    with RemoteBackend(origin.start(), patience=0.1) as backend:
        backend.write(0, memoryview(b"kept"))
        origin.kill()
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="is lost") as caught:
                backend.write(0, memoryview(b"lost"))
            assert caught.value.errno == errno.EIO
        origin.start()
        deadline = time.monotonic() + 10
        while True:
            try:
                assert content(backend, 0, 4) == b"kept"  # acknowledged then, and so told again
                break
            except ConnectionLost:
                assert time.monotonic() < deadline
                time.sleep(0.02)


def test_a_full_journal_flushes(origin: Origin) -> None:
    """More than it holds can be written without a flush, by many at once; all of it outlives the server."""
    with RemoteBackend(origin.start(), journal=1 << 20, connections=4) as backend:
        image = os.urandom(SIZE)

        def write(first: int) -> None:
            for _ in range(4):  # four times over: 4 MiB through a journal of one
                for at in range(first, SIZE, 8 * BLOCK):
                    backend.write(at, memoryview(image[at : at + BLOCK]))

        threads = [in_thread(partial(write, number * BLOCK)) for number in range(8)]
        for thread in threads:
            thread.join()
        assert isinstance(origin.backend, VolatileBackend)
        assert origin.backend.flushes >= 3
        origin.kill()
        origin.start()
        assert content(backend, 0, SIZE) == image


def test_a_server_that_came_back_smaller_is_refused(origin: Origin) -> None:
    """Another export under the same name is not written to; the error says how it differs."""
    with RemoteBackend(origin.start(), patience=0) as backend:
        origin.kill()
        origin.start(MemoryBackend(SIZE // 2))
        check_refused(backend, "came back as another export: 'disk', 524288 bytes")


def test_another_export_of_the_same_size_is_refused(origin: Origin) -> None:
    """Who asks for no name is told which export that is: another one is told no changes of the first."""
    address = origin.start().with_export("")
    with RemoteBackend(address, patience=0) as backend:
        backend.write(0, memoryview(b"of the disk"))
        origin.kill()
        store = MemoryBackend(SIZE)
        origin.start(store, "tape")
        check_refused(backend, "came back as another export: 'tape', .* it was 'disk'")
        assert content(store, 0, 11) == bytes(11)


def test_who_takes_leave_does_not_come_back(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the server hangs up then is no loss: nothing that was not flushed is told a second time."""
    interrupt = Link.interrupt

    def hesitate(link: Link) -> None:
        time.sleep(0.2)  # the server has hung up by then, and a new connection would be there
        interrupt(link)

    with RemoteBackend(origin.start()) as backend:
        backend.zero(0, BLOCK, may_trim=False)
        monkeypatch.setattr(Link, "interrupt", hesitate)
    assert backend.losses == 0
    assert origin.server is not None
    assert origin.server.counters().zeroes == 1


def test_a_refusal_of_what_was_acknowledged_is_no_success(origin: Origin) -> None:
    """Where the server that came back does not take what must be told again, nothing is called done."""

    class Full(VolatileBackend):
        def write(self, offset: int, view: memoryview) -> None:
            raise OSError(errno.ENOSPC, "full")

    with RemoteBackend(origin.start(), patience=0) as backend:
        backend.write(0, memoryview(b"acknowledged"))
        origin.kill()
        origin.start(Full(origin.durable))
        check_refused(backend, "refuses what was acknowledged before: error 28 for WRITE")
        origin.kill()
        origin.start()
        deadline = time.monotonic() + 10
        while True:
            try:
                backend.flush()
                break
            except ConnectionLost:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        assert origin.durable[:12] == b"acknowledged"


def test_no_name_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is resolved once, and the next socket is there before the connection breaks."""
    with MemoryBackend(SIZE) as store:
        server = Server(store)
        address = server.listen_tcp("localhost")
        server.start()
        with RemoteBackend(Address(host="localhost", port=address.port)) as backend:

            def refuse(*_: object, **__: object) -> None:
                raise AssertionError("looked up, or made a socket")

            monkeypatch.setattr(socket, "getaddrinfo", refuse)
            monkeypatch.setattr(socket, "create_connection", refuse)
            monkeypatch.setattr("ioflusher.nbd.endpoint._open", refuse)
            monkeypatch.setattr(backend._link._endpoint, "replenish", lambda: None)
            for peer in list(server._peers):
                peer.hang_up(socket.SHUT_RDWR)
            deadline = time.monotonic() + 10
            while not backend.losses:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            backend.write(0, memoryview(b"x"))
            assert content(backend, 0, 1) == b"x"
        server.close()


def test_a_server_that_stops_answering(origin: Origin) -> None:
    """`answer_within` takes silence for loss; the request is done by the server that answers."""
    silent = threading.Event()

    class Sleepy(VolatileBackend):
        def read_into(self, offset: int, view: memoryview) -> None:
            silent.wait(10)
            super().read_into(offset, view)

        def interrupt(self) -> None:
            silent.set()

    with RemoteBackend(origin.start(Sleepy(origin.durable)), answer_within=0.1) as backend:
        thread = in_thread(lambda: backend.write(0, memoryview(b"x")))
        thread.join(10)
        found: list[bytes] = []
        reader = in_thread(lambda: found.append(content(backend, 0, 1)))
        time.sleep(0.3)
        assert backend.losses >= 1
        silent.set()
        reader.join(10)
        assert found == [b"x"]


def test_several_connections_only_where_promised(origin: Origin) -> None:
    """Without NBD_FLAG_CAN_MULTI_CONN there is one."""

    class Alone(MemoryBackend):
        can_multi_conn = False

    with RemoteBackend(origin.start(Alone(SIZE)), connections=4) as backend:
        assert backend._link.connections == 1
    origin.kill()
    with RemoteBackend(origin.start(), connections=4) as backend:
        assert backend._link.connections == 4


def test_errors_are_not_told_again(origin: Origin) -> None:
    """What the server refused reaches who asked, with its number, and is forgotten."""

    class Refusing(VolatileBackend):
        def write(self, offset: int, view: memoryview) -> None:
            if offset:
                raise OSError(errno.ENOSPC, "full")
            super().write(offset, view)

    with RemoteBackend(origin.start(Refusing(origin.durable))) as backend:
        with pytest.raises(RequestError, match="ENOSPC") as caught:
            backend.write(BLOCK, memoryview(b"x"))
        assert caught.value.errno == errno.ENOSPC
        backend.write(0, memoryview(b"y"))
        origin.kill()
        origin.start()
        assert content(backend, 0, 1) == b"y"
        assert content(backend, BLOCK, 1) == b"\0"


def test_many_at_once_over_many_losses(origin: Origin) -> None:
    """Eight writers and readers of their own blocks, the server killed again and again: all is as written."""
    with RemoteBackend(origin.start(), connections=3, depth=6) as backend:
        stop = threading.Event()
        wrong: list[str] = []

        def work(number: int) -> None:
            at, room, round_ = number * BLOCK, memoryview(bytearray(BLOCK)), 0
            while not stop.is_set():
                round_ += 1
                backend.write(at, memoryview(bytes([number, round_ % 256]) * (BLOCK // 2)))
                if round_ % 7 == 0:
                    backend.flush()
                backend.read_into(at, room)
                if room != bytes([number, round_ % 256]) * (BLOCK // 2):
                    wrong.append(f"block {number}, round {round_}: {bytes(room[:4]).hex()}")

        threads = [in_thread(partial(work, number)) for number in range(8)]
        for _ in range(10):
            time.sleep(0.03)
            origin.kill()
            origin.start()
            content(backend, 0, BLOCK)  # it is back
        stop.set()
        for thread in threads:
            thread.join(10)
        assert not wrong
        assert backend.losses == 10


class Spotted(MemoryBackend):
    """Says of each block of 4096 bytes whether its number is odd, in two ways; not of the first one."""

    contexts = ("test:odd",)
    asked = 0

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self.asked += 1
        for number in range(offset // BLOCK, -(-(offset + length) // BLOCK)):
            begin = max(number * BLOCK, offset)
            yield Extent((number + 1) * BLOCK - begin, 3 * (number % 2))

    def context_extents(self, context: str, offset: int, length: int) -> Iterator[Extent]:
        if offset == 0:
            raise OSError(errno.EIO, "nobody knows")
        yield from (Extent(extent.length, extent.flags // 3) for extent in self.extents(offset, length))


def test_block_status_is_passed_on(origin: Origin) -> None:
    """What the other server says of its contexts, and to our clients what they ask us; errors as well."""
    with RemoteBackend(origin.start(Spotted(SIZE))) as backend, Server(backend) as front:
        assert backend.contexts == ("test:odd",)
        front.start()
        wishes = Wishes(structured_replies=True, all_contexts=True)
        with Client(front.listen_tcp(), wishes=wishes) as client:
            first, second = Extent(BLOCK - 5, 0), Extent(BLOCK - 7, 3)
            assert client.block_status(5, 2 * BLOCK - 12) == {
                BASE_ALLOCATION: (first, second),
                "test:odd": (first, Extent(BLOCK - 7, 1)),
            }
            with pytest.raises(RequestError, match="EIO"):
                client.block_status(0, BLOCK)
            assert len(client.block_status(5, SIZE - 5)[BASE_ALLOCATION]) == SIZE // BLOCK


def test_block_status_waits_for_a_server_that_is_gone(origin: Origin) -> None:
    """As other requests do; and it comes after the changes that are told again."""
    with RemoteBackend(origin.start(MemoryBackend(SIZE))) as backend:
        assert [*backend.extents(0, SIZE)] == [Extent(SIZE, 3)]
        backend.write(BLOCK, memoryview(b"x"))
        origin.kill()
        found: list[Extent] = []
        thread = in_thread(lambda: found.extend(backend.extents(0, SIZE)))
        time.sleep(0.1)
        assert not found
        origin.start(MemoryBackend(SIZE))
        thread.join(10)
        assert found == [Extent(BLOCK, 3), Extent(BLOCK), Extent(SIZE - 2 * BLOCK, 3)]


def test_reads_do_not_ask_first_where_holes_are(origin: Origin) -> None:
    """A way to the server and back costs more than zeroes do; what the server leaves out is taken so."""
    spotted = Spotted(SIZE)
    with RemoteBackend(origin.start(spotted)) as backend, Server(backend) as front:
        backend.write(0, memoryview(b"a" * SIZE))
        front.start()
        with Client(front.listen_tcp(), wishes=Wishes(structured_replies=True)) as client:
            room = memoryview(bytearray(SIZE // 2))
            client.read_into(0, room)
            expected = (b"a" * BLOCK + bytes(BLOCK)) * (len(room) // BLOCK // 2)
            assert room == expected, "the holes that the other server tells of, as it tells of them"
        reads = len(room) // (256 << 10)
        assert spotted.asked == reads, "by the other server itself, once for each READ"


def test_a_server_of_simple_replies(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has no block status is asked for none: all is data."""
    monkeypatch.setattr(ServerHandshake, "_structure_replies", lambda *_: OptionAnswer((_UNKNOWN,)))
    with RemoteBackend(origin.start()) as backend:
        assert [*backend.extents(7, 9)] == [Extent(9)]
        backend.write(0, memoryview(b"abc"))
        assert content(backend, 0, 3) == b"abc"
        origin.kill()
        origin.start()
        assert content(backend, 0, 3) == b"abc"


_UNKNOWN = OptionReply(Opt.STRUCTURED_REPLY, Rep.ERR_UNSUP)


def test_a_server_that_comes_back_without_its_contexts(origin: Origin) -> None:
    """It is not the one that our clients were told of."""
    with RemoteBackend(origin.start(Spotted(SIZE)), patience=0) as backend:
        origin.kill()
        origin.start(MemoryBackend(SIZE))
        check_refused(backend, "came back as another export: .*contexts .*test:odd")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"connections": 0}, "0 connections"),
        ({"depth": 0}, "0 requests in flight"),
        ({"journal": 4096}, "expected 0 or at least"),
    ],
)
def test_impossible_settings(options: dict[str, int], complaint: str) -> None:
    """They are refused before anything is connected."""
    with pytest.raises(BackendError, match=complaint):
        RemoteBackend(Address(path="/nonexistent"), **options)  # type: ignore[arg-type]


def test_no_server_at_first() -> None:
    """A server that is not there when a back end is made is an error, not a wait."""
    with pytest.raises(NbdError, match="cannot connect") as caught:
        RemoteBackend(Address(path="/nonexistent"))
    assert caught.value.errno == errno.ENOENT
