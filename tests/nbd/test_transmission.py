"""Requests and their answers on the wire, both ways of doing them, byte for byte over a real socket."""

import contextlib
import errno
import gc
import select
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from ioflusher.nbd.backends import Backend, BlockState, Extent, MemoryBackend
from ioflusher.nbd.errors import RemoteProtocolError
from ioflusher.nbd.protocol.extents import BASE_ALLOCATION, MetaContext
from ioflusher.nbd.protocol.messages import Request
from ioflusher.nbd.protocol.negotiated import Negotiated
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag, ReplyType
from ioflusher.nbd.server.at_once import AtOnce
from ioflusher.nbd.server.counters import Counters, Tally
from ioflusher.nbd.server.in_turn import FEW, LOOKS, InTurn
from ioflusher.nbd.server.requests import Service, export_of

SIZE = 8 << 30  # more than 32 bits
LONGEST = 1 << 20
SIMPLE = Negotiated()
STRUCTURED = Negotiated(
    structured_replies=True, contexts=(MetaContext(7, BASE_ALLOCATION), MetaContext(9, "test:parity"))
)
HOLE = BlockState.HOLE | BlockState.ZERO
LAST = 1  # NBD_REPLY_FLAG_DONE


class Sparse(Backend):
    """Reads as the low byte of each offset, but for a hole in the middle."""

    can_write = can_flush = can_trim = can_zero = can_fast_zero = can_cache = True
    size = SIZE
    contexts = ("test:parity",)
    hole = range(256 << 10, 512 << 10)

    def __init__(self, *, waits: bool) -> None:
        self.waits = waits
        self.log: list[tuple[object, ...]] = []
        self.asked_for_holes = 0
        self.broken_from = SIZE

    def read_into(self, offset: int, view: memoryview) -> None:
        if offset + len(view) > self.broken_from:
            raise OSError(errno.EIO, "a bad sector")
        view[:] = bytes(view.nbytes) if offset in self.hole else bytes([offset & 0xFF]) * len(view)

    def write(self, offset: int, view: memoryview) -> None:
        self.log.append(("write", offset, len(view)))

    def flush(self) -> None:
        self.log.append(("flush",))

    def trim(self, offset: int, length: int) -> None:
        self.log.append(("trim", offset, length))

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self.log.append(("zero", offset, length, may_trim))

    def fast_zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        if length < 4096:
            raise OSError(errno.EOPNOTSUPP, "as slow as writing")
        self.log.append(("fast_zero", offset, length, may_trim))

    def cache(self, offset: int, length: int) -> None:
        self.log.append(("cache", offset, length))

    def extents(self, offset: int, length: int) -> Iterable[Extent]:
        self.asked_for_holes += 1
        if offset < self.hole.start:
            yield Extent(self.hole.start - offset)
        if offset < self.hole.stop:
            yield Extent(self.hole.stop - max(offset, self.hole.start), HOLE)
        yield Extent(SIZE)

    def context_extents(self, context: str, offset: int, length: int) -> Iterable[Extent]:
        assert context == "test:parity"
        return [Extent(1, offset & 1), Extent(length, (offset + 1) & 1)]


@contextmanager
def transmission(
    backend: Backend, negotiated: Negotiated, tallies: list[Tally] | None = None
) -> Iterator[socket.socket]:
    """A client's end of a connection on which the backend is served."""
    mine, theirs = socket.socketpair()
    service = Service(export_of(backend, "", LONGEST), backend, negotiated)
    tallies = tallies or [Tally() for _ in range(8)]
    stopping = threading.Event()
    one: AtOnce | InTurn
    if backend.waits:
        one = AtOnce(theirs, service, tallies, stopping)
    else:
        one = InTurn(theirs, service, memoryview(bytearray(LONGEST)), tallies[0], stopping)

    def run() -> None:
        with theirs, contextlib.suppress(OSError, RemoteProtocolError):
            one.run()

    thread = threading.Thread(target=run)
    thread.start()
    mine.settimeout(20)
    with mine:
        yield mine
    thread.join(20)
    assert not thread.is_alive()


def receive(sock: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = sock.recv(length - len(data))
        assert more, "the server closed"
        data += more
    return data


def chunk(sock: socket.socket) -> tuple[int, int, int, bytes]:
    """Flags, type, cookie and payload of the next chunk."""
    magic, flags, kind, cookie, length = struct.unpack(">IHHQI", receive(sock, 20))
    assert magic == 0x668E33EF
    return flags, kind, cookie, receive(sock, length)


def simple(sock: socket.socket) -> tuple[int, int]:
    """Error and cookie of the next simple reply."""
    magic, error, cookie = struct.unpack(">IIQ", receive(sock, 16))
    assert magic == 0x67446698
    return error, cookie


def extents_of(payload: bytes) -> tuple[int, list[tuple[int, int]]]:
    """The context, and lengths with flags."""
    (context,) = struct.unpack_from(">I", payload)
    return context, [*struct.iter_unpack(">II", payload[4:])]


both_ways = pytest.mark.parametrize("waits", [False, True], ids=["in turn", "at once"])


@both_ways
def test_a_read_in_one_chunk(waits: bool) -> None:
    """Without structured replies a header and the data; with them the same bytes behind their offset."""
    request = Request(Cmd.READ, 0, 11, 5 << 30 | 3, 4).pack()
    with transmission(Sparse(waits=waits), SIMPLE) as sock:
        sock.sendall(request)
        assert simple(sock) == (0, 11)
        assert receive(sock, 4) == b"\3" * 4
    with transmission(Sparse(waits=waits), STRUCTURED) as sock:
        sock.sendall(request)
        assert chunk(sock) == (LAST, ReplyType.OFFSET_DATA, 11, struct.pack(">Q", 5 << 30 | 3) + b"\3" * 4)


@both_ways
@pytest.mark.parametrize("flags", [0, CmdFlag.FUA])
def test_a_read_of_nothing(waits: bool, flags: int) -> None:
    """A chunk with data has some: the answer is one without."""
    with transmission(Sparse(waits=waits), STRUCTURED) as sock:
        sock.sendall(Request(Cmd.READ, flags, 11, 5, 0).pack())
        assert chunk(sock) == (LAST, ReplyType.NONE, 11, b"")


@both_ways
def test_a_long_read_has_its_holes_as_holes(waits: bool) -> None:
    """Data, hole, data in chunks, for one question to the back end; with DF one chunk that has the zeroes."""
    start, length = Sparse.hole.start - 4, len(Sparse.hole) + 8
    backend = Sparse(waits=waits)
    with transmission(backend, STRUCTURED) as sock:
        sock.sendall(Request(Cmd.READ, 0, 1, start, length).pack())
        data = struct.pack(">Q", start) + b"\xfc" * 4
        assert chunk(sock) == (0, ReplyType.OFFSET_DATA, 1, data)
        hole = struct.pack(">QI", Sparse.hole.start, len(Sparse.hole))
        assert chunk(sock) == (0, ReplyType.OFFSET_HOLE, 1, hole)
        data = struct.pack(">Q", Sparse.hole.stop) + b"\0" * 4
        assert chunk(sock) == (LAST, ReplyType.OFFSET_DATA, 1, data)
        sock.sendall(Request(Cmd.READ, CmdFlag.DF, 2, start, length).pack())
        flags, kind, _, payload = chunk(sock)
        assert (flags, kind, len(payload)) == (LAST, ReplyType.OFFSET_DATA, 8 + length)
    assert backend.asked_for_holes == 1


@both_ways
def test_a_read_must_be_long_to_be_cut(waits: bool) -> None:
    """From 64 KiB on holes are left out."""
    start = Sparse.hole.start - 4
    backend = Sparse(waits=waits)
    with transmission(backend, STRUCTURED) as sock:
        sock.sendall(Request(Cmd.READ, 0, 1, start, (64 << 10) - 1).pack())
        assert chunk(sock)[:2] == (LAST, ReplyType.OFFSET_DATA)
        assert backend.asked_for_holes == 0
        sock.sendall(Request(Cmd.READ, 0, 2, start, 64 << 10).pack())
        assert chunk(sock)[:2] == (0, ReplyType.OFFSET_DATA)
        assert chunk(sock)[:2] == (LAST, ReplyType.OFFSET_HOLE)


@both_ways
def test_a_long_read_beside_a_hole_is_one_chunk(waits: bool) -> None:
    """The hole begins where the READ ends, and ends where the next one begins."""
    length = 128 << 10
    with transmission(Sparse(waits=waits), STRUCTURED) as sock:
        for offset in (Sparse.hole.start - length, Sparse.hole.stop):
            sock.sendall(Request(Cmd.READ, 0, 1, offset, length).pack())
            flags, kind, _, payload = chunk(sock)
            assert (flags, kind) == (LAST, ReplyType.OFFSET_DATA)
            assert payload == struct.pack(">Q", offset) + bytes(length)


@both_ways
def test_holes_that_cannot_be_found_are_an_error(waits: bool) -> None:
    """The back end does not know what it has: the READ fails, and the connection goes on."""

    class Lost(Sparse):
        def extents(self, offset: int, length: int) -> Iterable[Extent]:
            raise OSError(errno.EIO, "no map")

    with transmission(Lost(waits=waits), STRUCTURED) as sock:
        sock.sendall(Request(Cmd.READ, 0, 1, 0, 128 << 10).pack())
        _, kind, _, payload = chunk(sock)
        assert kind == ReplyType.ERROR
        assert payload == struct.pack(">IH", errno.EIO, 6) + b"no map"
        sock.sendall(Request(Cmd.READ, 0, 2, 0, 1).pack())
        assert chunk(sock) == (LAST, ReplyType.OFFSET_DATA, 2, bytes(9))


@both_ways
def test_an_error_says_where(waits: bool) -> None:
    """A READ that fails in the middle has its good part, then the error with its offset."""
    backend = Sparse(waits=waits)
    backend.broken_from = Sparse.hole.stop + 1
    with transmission(backend, STRUCTURED) as sock:
        sock.sendall(Request(Cmd.READ, 0, 1, Sparse.hole.start, len(Sparse.hole) + 2).pack())
        assert chunk(sock)[1] == ReplyType.OFFSET_HOLE
        flags, kind, _, payload = chunk(sock)
        assert (flags, kind) == (LAST, ReplyType.ERROR_OFFSET)
        error, length = struct.unpack_from(">IH", payload)
        assert error == errno.EIO
        assert b"a bad sector" in payload[6 : 6 + length]
        assert payload[6 + length :] == struct.pack(">Q", Sparse.hole.stop)
        # in one chunk there is no good part
        sock.sendall(Request(Cmd.READ, 0, 2, Sparse.hole.stop, 2).pack())
        assert chunk(sock)[1] == ReplyType.ERROR
    with transmission(backend, SIMPLE) as sock:
        sock.sendall(Request(Cmd.READ, 0, 1, Sparse.hole.stop, 2).pack())
        assert simple(sock) == (errno.EIO, 1)


@both_ways
def test_block_status(waits: bool) -> None:
    """Every context has its chunk; REQ_ONE wants one extent; what reaches behind the request is cut."""
    with transmission(Sparse(waits=waits), STRUCTURED) as sock:
        sock.sendall(Request(Cmd.BLOCK_STATUS, 0, 1, 0, 1 << 20).pack())
        flags, kind, _, payload = chunk(sock)
        assert (flags, kind) == (0, ReplyType.BLOCK_STATUS)
        expected = [(256 << 10, 0), (256 << 10, HOLE), (512 << 10, 0)]
        assert extents_of(payload) == (7, expected)
        flags, kind, _, payload = chunk(sock)
        assert (flags, kind) == (LAST, ReplyType.BLOCK_STATUS)
        assert extents_of(payload) == (9, [(1, 0), ((1 << 20) - 1, 1)])
        sock.sendall(Request(Cmd.BLOCK_STATUS, CmdFlag.REQ_ONE, 2, 0, 1 << 20).pack())
        assert extents_of(chunk(sock)[3]) == (7, [(256 << 10, 0)])
        assert extents_of(chunk(sock)[3]) == (9, [(1, 0)])


@both_ways
def test_block_status_of_four_gigabytes(waits: bool) -> None:
    """The longest request there is: lengths neither overflow nor wrap (CVE-2025-47711, libnbd issue)."""
    length = (4 << 30) - 1
    with transmission(Sparse(waits=waits), STRUCTURED) as sock:
        for offset in (1 << 30, (4 << 30) + 1):
            sock.sendall(Request(Cmd.BLOCK_STATUS, 0, 1, offset, length).pack())
            assert extents_of(chunk(sock)[3]) == (7, [(length, 0)])
            assert extents_of(chunk(sock)[3])[1] == [(1, offset & 1), (length - 1, 1 - (offset & 1))]
        sock.sendall(Request(Cmd.BLOCK_STATUS, 0, 2, SIZE - 1, 1).pack())
        assert extents_of(chunk(sock)[3]) == (7, [(1, 0)])


@both_ways
@pytest.mark.parametrize("command", [Cmd.TRIM, Cmd.CACHE, Cmd.WRITE_ZEROES])
def test_long_ranges_are_done_as_a_whole(waits: bool, command: Cmd) -> None:
    """No request without payload is cut or refused for its length (others cut zeroes at 64 MiB)."""
    backend = Sparse(waits=waits)
    with transmission(backend, STRUCTURED) as sock:
        sock.sendall(Request(command, 0, 1, 1, (4 << 30) - 1).pack())
        assert simple(sock) == (0, 1)
    assert [entry[1:3] for entry in backend.log] == [(1, (4 << 30) - 1)]


@both_ways
def test_flags_reach_the_back_end(waits: bool) -> None:
    """FUA, NO_HOLE and FAST_ZERO, and what a back end says of a zeroing that would not be fast."""
    backend = Sparse(waits=waits)
    flag = CmdFlag
    with transmission(backend, SIMPLE) as sock:
        for flags, length, error in (
            (flag.FAST_ZERO, 4096, 0),
            (flag.FAST_ZERO | flag.NO_HOLE | flag.FUA, 4096, 0),
            (flag.FAST_ZERO, 1, errno.EOPNOTSUPP),
        ):
            sock.sendall(Request(Cmd.WRITE_ZEROES, int(flags), 1, 0, length).pack())
            assert simple(sock) == (error, 1)
        sock.sendall(Request(Cmd.WRITE, flag.FUA, 2, 0, 3).pack() + b"abc")
        assert simple(sock) == (0, 2)
    assert backend.log == [
        ("fast_zero", 0, 4096, True),
        ("fast_zero", 0, 4096, False),
        ("flush",),
        ("write", 0, 3),
        ("flush",),
    ]


@both_ways
def test_what_was_not_negotiated_is_refused(waits: bool) -> None:
    """DF and BLOCK_STATUS need structured replies; a BLOCK_STATUS of nothing is refused in any case."""
    with transmission(Sparse(waits=waits), SIMPLE) as sock:
        for command, flags in ((Cmd.READ, CmdFlag.DF), (Cmd.BLOCK_STATUS, 0)):
            sock.sendall(Request(command, int(flags), 1, 0, 1).pack())
            assert simple(sock) == (errno.EINVAL, 1)
    with transmission(Sparse(waits=waits), STRUCTURED) as sock:
        sock.sendall(Request(Cmd.BLOCK_STATUS, 0, 1, 0, 0).pack())
        flags, kind, _, payload = chunk(sock)
        assert (flags, kind, payload[:4]) == (LAST, ReplyType.ERROR, struct.pack(">I", errno.EINVAL))


@both_ways
def test_a_refused_payload_is_read_past(waits: bool) -> None:
    """What follows a WRITE that is too long, or beyond the end, is a request and no payload."""
    backend, tallies = Sparse(waits=waits), [Tally()]
    with transmission(backend, SIMPLE, tallies) as sock:
        sock.sendall(Request(Cmd.WRITE, 0, 1, 0, LONGEST + 1).pack() + b"w" * (LONGEST + 1))
        assert simple(sock) == (errno.EINVAL, 1)
        sock.sendall(
            Request(Cmd.WRITE, 0, 2, SIZE - 1, 2).pack() + b"ww" + Request(Cmd.FLUSH, 0, 3, 0, 0).pack()
        )
        assert [simple(sock), simple(sock)] == [(errno.ENOSPC, 2), (0, 3)]
    assert backend.log == [("flush",)]
    assert tallies[0].read() == Counters(flushes=1, errors=2)


@pytest.mark.parametrize("cut", [1, 27, 28, 29, 4000, 70_000])
def test_writes_in_pieces_are_stored_whole(cut: int) -> None:
    """A payload that comes late lands in the back end's memory; every byte is where it belongs."""
    with MemoryBackend(1 << 20) as backend:
        data = bytes(index * 7 % 251 for index in range(200_000))
        stream = b"".join(
            Request(Cmd.WRITE, 0, at, at, 50_000).pack() + data[at : at + 50_000]
            for at in range(0, 200_000, 50_000)
        )
        with transmission(backend, SIMPLE) as sock:
            for start in range(0, len(stream), cut if cut > 100 else 50_000):
                sock.sendall(stream[start : start + cut])
                if cut < 100:
                    time.sleep(0.01)
                    sock.sendall(stream[start + cut : start + 50_000])
            assert [simple(sock) for _ in range(4)] == [(0, at) for at in range(0, 200_000, 50_000)]
            sock.sendall(Request(Cmd.READ, 0, 9, 0, 200_000).pack())
            assert simple(sock) == (0, 9)
            assert receive(sock, 200_000) == data


def test_many_requests_before_the_first_answer() -> None:
    """More answers than one call can send, and more data than is gathered, arrive whole and in order."""
    with MemoryBackend(1 << 20) as backend:
        backend.write(0, memoryview(bytes(range(256)) * 4096))
        with transmission(backend, SIMPLE) as sock:
            wanted = [(number, number * 100, number % 700) for number in range(3000)]
            requests = b"".join(Request(Cmd.READ, 0, *fields).pack() for fields in wanted)
            sender = threading.Thread(target=sock.sendall, args=(requests,))
            sender.start()
            for cookie, offset, length in wanted:
                assert simple(sock) == (0, cookie)
                assert receive(sock, length) == (bytes(range(256)) * 4)[offset % 256 :][:length]
            sender.join()


def test_requests_that_wait_are_answered_as_they_are_done() -> None:
    """A slow READ does not hold up the ones behind it; DISC waits for it, and its answer comes."""

    class Uneven(Sparse):
        release = threading.Event()

        def read_into(self, offset: int, view: memoryview) -> None:
            if offset == 0:
                assert self.release.wait(20)
            super().read_into(offset, view)

    backend = Uneven(waits=True)
    with transmission(backend, SIMPLE) as sock:
        sock.sendall(b"".join(Request(Cmd.READ, 0, cookie, cookie, 1).pack() for cookie in range(5)))
        found = set()
        for _ in range(4):
            found.add(simple(sock)[1])
            receive(sock, 1)
        assert found == {1, 2, 3, 4}
        sock.sendall(Request(Cmd.DISC, 0, 0, 0, 0).pack())
        backend.release.set()
        assert simple(sock) == (0, 0)


def test_no_more_is_received_than_can_be_done() -> None:
    """With all workers busy the rest stays in the socket: a client cannot make the server take memory."""
    entered = threading.Semaphore(0)
    release = threading.Event()

    class Stuck(Sparse):
        def flush(self) -> None:
            entered.release()
            assert release.wait(20)

    with transmission(Stuck(waits=True), SIMPLE, [Tally() for _ in range(3)]) as sock:
        sock.sendall(b"".join(Request(Cmd.FLUSH, 0, number, 0, 0).pack() for number in range(9)))
        for _ in range(3):
            assert entered.acquire(timeout=20)
        assert not entered.acquire(timeout=0.1)
        release.set()
        assert {simple(sock)[1] for _ in range(9)} == {*range(9)}


def test_the_memory_of_a_connection_goes_with_it() -> None:
    """Of 16 payloads, at once: a garbage collector may not come by for hours."""
    gc.collect()
    gc.disable()
    try:
        mine, theirs = socket.socketpair()
        backend = Sparse(waits=True)
        service = Service(export_of(backend, "", LONGEST), backend, SIMPLE)
        one = AtOnce(theirs, service, [Tally(), Tally()], threading.Event())
        memory = [weakref.ref(worker) for worker in one._workers]
        with mine, theirs:
            mine.sendall(Request(Cmd.READ, 0, 1, 0, 4).pack())
            mine.shutdown(socket.SHUT_WR)
            one.run()
        del one
        assert [worker() for worker in memory] == [None, None]
    finally:
        gc.enable()


def test_a_mistake_of_a_back_end_ends_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever programmed it finds the traceback; the client is not left waiting."""

    class Buggy(Sparse):
        def flush(self) -> None:
            raise KeyError("bug")

    with transmission(Buggy(waits=True), SIMPLE) as sock:
        sock.sendall(Request(Cmd.FLUSH, 0, 1, 0, 0).pack())
        assert sock.recv(16) == b""
    assert "KeyError: 'bug'" in caplog.text


class Looks:
    """Takes the place of poll(2); `answers` are what it finds, nothing when they are used up."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.answers: list[bool] = []

    def register(self, sock: socket.socket, events: int) -> None:
        assert events == select.POLLIN

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        self.asked.append(timeout)
        return [(0, select.POLLIN)] if self.answers and self.answers.pop(0) else []


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    its = Looks()
    monkeypatch.setattr("ioflusher.nbd.server.in_turn.select.poll", lambda: its)
    return its


@pytest.mark.parametrize(
    ("connections", "in_one_receive", "times"), [(1, 1, 2), (1, FEW, 2), (1, FEW + 1, 1), (2, 1, 0)]
)
def test_who_looks_before_sleeping(looks: Looks, connections: int, in_one_receive: int, times: int) -> None:
    """A connection that is alone, at first and after a receive of few requests; until it finds something."""
    looks.answers = ([False] * (LOOKS - 1) + [True]) * 2
    backend = Sparse(waits=False)
    service = Service(export_of(backend, "", LONGEST), backend, SIMPLE)
    mine, theirs = socket.socketpair()
    with mine, theirs:
        mine.sendall(Request(Cmd.READ, 0, 1, 0, 4).pack() * in_one_receive)
        mine.shutdown(socket.SHUT_WR)
        peers = range(connections)
        InTurn(theirs, service, memoryview(bytearray(LONGEST)), Tally(), threading.Event(), peers).run()
        assert len(receive(mine, in_one_receive * 20)) == in_one_receive * 20
    assert looks.asked == [0] * times * LOOKS, "each look returns at once"


def test_who_looks_in_vain_looks_seldom(looks: Looks) -> None:
    """Before the 1st, 3rd, 7th and 15th receive; once it has found something, before the next one again."""

    def ask(requests: int, looked: int) -> None:
        """So many requests, one after the other; then it has looked so often, maybe a moment later."""
        for _ in range(requests):
            sock.sendall(Request(Cmd.READ, 0, 1, 0, 4).pack())
            receive(sock, 20)
        deadline = time.monotonic() + 20
        while len(looks.asked) < looked and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(looks.asked) == looked

    with transmission(Sparse(waits=False), SIMPLE) as sock:
        ask(0, LOOKS)
        ask(13, 3 * LOOKS)
        looks.answers = [True, True]
        ask(2, 3 * LOOKS + 2)
