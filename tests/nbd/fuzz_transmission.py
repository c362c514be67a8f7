"""Random transmission for both ends, in process, far more than the tests have time for.

`python -m tests.nbd.fuzz` runs it. An input is a conversation of a few requests or replies, in the form that
a random agreement gives them (simple, structured, extended), whole or damaged, in pieces of random length.

Invariants. A server answers each request of an undamaged conversation once, in a form that our strict client
takes; of a damaged one it answers some or says that the peer broke the protocol; it raises nothing else. A
client takes every undamaged answer as it was meant; of a damaged one it makes messages, or says that the
peer broke the protocol; it writes to no memory but the READ's and wants no more than it may.
"""

import errno
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import cast

from tests.nbd.fuzz_handshake import damage

from ioflusher.nbd.backends import Backend, BlockState, Extent
from ioflusher.nbd.backends.link import _Answers, _InFlight
from ioflusher.nbd.errors import ConnectionLost, RemoteProtocolError
from ioflusher.nbd.protocol import chunks, replies
from ioflusher.nbd.protocol.chunks import Awaited
from ioflusher.nbd.protocol.connection import NbdConnection, Pause
from ioflusher.nbd.protocol.exports import BlockSize, Export
from ioflusher.nbd.protocol.extents import BASE_ALLOCATION, MetaContext
from ioflusher.nbd.protocol.messages import Chunk, Reply, Request
from ioflusher.nbd.protocol.metadata import StatusQuery
from ioflusher.nbd.protocol.negotiated import Negotiated
from ioflusher.nbd.protocol.states import ConnectionState, NbdRole
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag, TransmissionFlag
from ioflusher.nbd.server.counters import Tally
from ioflusher.nbd.server.in_turn import InTurn
from ioflusher.nbd.server.requests import Service, Views, export_of

SIZE = 1 << 20
LONGEST = 16 << 10
HOLE = range(64 << 10, 512 << 10)
BAD = 768 << 10  # a sector that cannot be read
CONTEXTS = (MetaContext(7, BASE_ALLOCATION), MetaContext(9, "test:parity"))
AGREEMENTS = (
    Negotiated(),
    Negotiated(True),
    Negotiated(True, False, CONTEXTS),
    Negotiated(True, True, CONTEXTS[:1]),
    Negotiated(True, True),
)
ROOM = memoryview(bytearray(LONGEST))
STOPPING = threading.Event()  # never set
WILD = [0, 1, 512, 4096, LONGEST, LONGEST + 1, SIZE, SIZE + 1, (1 << 32) - 1]
OFFSETS = [0, 1, 511, HOLE.start - 1, BAD - 512, SIZE - 1, SIZE, (1 << 64) - 1]
COMMANDS = [*map(int, Cmd), int(Cmd.READ), int(Cmd.WRITE), 4, 99]
FLAGS = [0, 0, 0, *map(int, CmdFlag), 0xFFFF]


class Disk(Backend):
    """Bytes of one value with a hole and a bad sector; nothing that is written is kept."""

    can_write = can_flush = can_trim = can_zero = can_fast_zero = can_cache = can_resize = True
    size = SIZE
    contexts = ("test:parity",)

    def read_into(self, offset: int, view: memoryview) -> None:
        if offset <= BAD < offset + len(view):
            raise OSError(errno.EIO, "a bad sector")
        view[:] = bytes(len(view)) if offset in HOLE else b"\xaa" * len(view)

    def write(self, offset: int, view: memoryview) -> None:
        if offset <= BAD < offset + len(view):
            raise OSError(errno.ENOSPC, "full")

    def flush(self) -> None:
        pass

    def trim(self, offset: int, length: int) -> None:
        if length & 1:
            raise OSError(errno.EUCLEAN, "")

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        pass

    def fast_zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        raise OSError(errno.EOPNOTSUPP, "as slow as writing \udcff")

    def cache(self, offset: int, length: int) -> None:
        pass

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        if offset < HOLE.start:
            yield Extent(HOLE.start - offset)
        if offset < HOLE.stop:
            yield Extent(HOLE.stop - max(offset, HOLE.start), BlockState.HOLE | BlockState.ZERO)
        if offset != SIZE - 1:
            yield Extent(SIZE)

    def context_extents(self, context: str, offset: int, length: int) -> list[Extent]:
        return [Extent(1, offset & 1), Extent(length, (offset + 1) & 1)]


class OwnMemory(Disk):
    """The same, received into and sent from its own memory, as far as that reaches after a RESIZE."""

    memory = memoryview(bytearray(SIZE))

    def memory_at(self, offset: int, length: int) -> memoryview | None:
        return self.memory[offset : offset + length] if offset + length <= SIZE else None

    def memory_for(self, offset: int, length: int) -> memoryview | None:
        return self.memory_at(offset, length) if offset & 1 else None


class Coarse(Disk):
    """The same in blocks of 512 bytes, read-only for some and without most commands."""

    minimum_block = 512
    can_trim = can_fast_zero = can_cache = False


DISKS = (Disk(), OwnMemory(), Coarse())
SERVED = [(export_of(disk, "", LONGEST, resize=True), disk) for disk in DISKS]
SERVED.append(
    (
        Export(
            "", SIZE, int(TransmissionFlag.HAS_FLAGS | TransmissionFlag.READ_ONLY), BlockSize(1, 1, LONGEST)
        ),
        DISKS[0],
    )
)


NOTHING = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


class Pieces:
    """A socket's place: what a client sent comes in pieces, what the server answers is kept."""

    def __init__(self, data: bytes, piece: int) -> None:
        self.data = memoryview(data)
        self.piece = piece
        self.sent: list[bytes] = []

    def fileno(self) -> int:
        """Of something that can be read from at once."""
        return NOTHING

    def recv_into(self, view: memoryview, count: int = 0, flags: int = 0) -> int:
        most = len(view) if flags & socket.MSG_WAITALL else min(len(view), self.piece)
        part = self.data[:most]
        view[: len(part)] = part
        self.data = self.data[len(part) :]
        return len(part)

    def sendmsg(self, views: Views) -> int:
        self.sent += map(bytes, views)
        return sum(map(len, views))


def requests(dice: random.Random, agreed: Negotiated) -> list[tuple[Request, bytes]]:
    """What a client that is mad might ask, well-formed, each with a cookie of its own; and its payload."""
    asked = []
    for cookie in range(1, dice.choice((2, 2, 3, 4, 6))):
        command, flags = dice.choice(COMMANDS), dice.choice(FLAGS)
        length, offset = dice.choice(WILD), dice.choice(OFFSETS)
        if agreed.extended_headers:
            has_payload = command == Cmd.WRITE or bool(flags & CmdFlag.PAYLOAD_LEN)
            length = min(length, LONGEST) if has_payload else dice.choice((length, 1 << 40))
        else:
            has_payload = command == Cmd.WRITE
            length = min(length, LONGEST + 1) if has_payload else length
        if command == Cmd.DISC:
            continue
        payload = bytes(length) if has_payload else b""
        if has_payload and command == Cmd.BLOCK_STATUS:
            numbers = dice.choice(((7,), (7, 9), (9, 9), (), (8,)))
            payload = StatusQuery(dice.choice(WILD), numbers).pack()
            length = len(payload)
        asked.append((Request(command, flags, cookie, offset, length), payload))
    return asked


def fuzz_requests(dice: random.Random) -> None:
    """A client's requests for the server's hot path and all that lies behind it."""
    agreed = dice.choice(AGREEMENTS)
    export, disk = dice.choice(SERVED)
    asked = requests(dice, agreed)
    data = b"".join(request.pack(extended=agreed.extended_headers) + payload for request, payload in asked)
    damaged = dice.random() < 0.6
    if damaged:
        data = damage(dice, data)
    pieces = Pieces(data, dice.choice((1 << 20, 1 << 20, 17, 300)))
    service = Service(export, disk, agreed, lambda size: None)
    server = InTurn(cast(socket.socket, pieces), service, ROOM, Tally(), STOPPING)
    try:
        server.run()
    except RemoteProtocolError:
        if not damaged:
            raise
    if not damaged:
        _hold_against(b"".join(pieces.sent), [request for request, _ in asked], agreed)


def _hold_against(answers: bytes, asked: list[Request], agreed: Negotiated) -> None:
    """Each request has its answer, whole."""
    client = NbdConnection(NbdRole.CLIENT)
    client.state, client.negotiated = ConnectionState.TRANSMISSION, agreed
    ends = 0
    for request in asked:
        if request.command != Cmd.READ or request.length <= LONGEST:
            client.send(request)
        else:  # which must be refused, and then needs no memory
            client.send(Request(Cmd.FLUSH, 0, request.cookie, request.offset, 0))
    for message in _messages(client, answers):
        ends += isinstance(message, Reply) or (isinstance(message, Chunk) and message.last)
    assert ends == len(asked), f"{ends} answers to {len(asked)} requests"


def _messages(end: NbdConnection, data: bytes) -> Iterator[object]:
    """What an end makes of bytes; what it wants must be within what one message may have."""
    rest = memoryview(data)
    while True:
        event = end.next_event()
        if not isinstance(event, Pause):
            yield event
        elif not rest:
            return
        else:
            assert len(end.wanted()) <= chunks.MAX_CHUNK
            rest = rest[end.receive_data(rest) :]


READ = Request(Cmd.READ, 0, 1, 4096, 600)
STATUS = Request(Cmd.BLOCK_STATUS, 0, 2, 4096, 600)
TRIM = Request(Cmd.TRIM, 0, 3, 4096, 600)


def _answer(dice: random.Random, agreed: Negotiated, request: Request) -> bytes:
    """A server's answer to one of the three requests, as it should be."""
    at = request.offset if agreed.extended_headers else None
    cookie, offset, length = request.cookie, request.offset, request.length
    if dice.random() < 0.2:
        error = dice.choice((1, 5, 22, 28, 95, 999))
        if not agreed.structured_replies:
            return replies.simple(error, cookie)
        return replies.failure(cookie, error, "no \x1b \udcff", dice.choice((None, offset)), at=at)
    if request.command == Cmd.TRIM:
        return replies.nothing(cookie, at) if agreed.extended_headers else replies.done(cookie)
    if request.command == Cmd.BLOCK_STATUS:
        extents = [
            Extent(dice.choice((1, 512, length)), dice.randrange(4)) for _ in range(1 + dice.randrange(3))
        ]
        return b"".join(
            replies.block_status(cookie, context.number, extents, last=context is CONTEXTS[-1], at=at)
            for context in CONTEXTS
        )
    if not agreed.structured_replies:
        return replies.simple(0, cookie) + b"\xaa" * length
    cut = dice.choice((0, 1, 88, 599))
    parts = [(offset, cut), (offset + cut, length - cut)] if cut else [(offset, length)]
    dice.shuffle(parts)
    sent = b""
    for number, (start, size) in enumerate(parts, 1):
        last = number == len(parts)
        if dice.random() < 0.3:
            sent += replies.hole(cookie, start, size, last=last, at=at)
        else:
            sent += replies.data(cookie, start, size, last=last, at=at) + b"\xaa" * size
    return sent


def fuzz_replies(dice: random.Random) -> None:
    """A server's answers for our client."""
    agreed = dice.choice(AGREEMENTS)
    end = NbdConnection(NbdRole.CLIENT)
    end.state, end.negotiated = ConnectionState.TRANSMISSION, agreed
    around = memoryview(bytearray(b"\xee" * (READ.length + 2)))
    asked = [READ, STATUS, TRIM] if agreed.contexts else [READ, TRIM]
    dice.shuffle(asked)
    answers = []
    for request in asked:
        end.send(request, into=around[1:-1] if request is READ else None)
        answers.append(_answer(dice, agreed, request))
    data = b"".join(answers)
    damaged = dice.random() < 0.8
    if damaged:
        data = damage(dice, data)
    ends = 0
    try:
        for message in _messages(end, data):
            assert isinstance(message, Reply | Chunk)
            ends += isinstance(message, Reply) or message.last
    except RemoteProtocolError:
        if not damaged:
            raise
    assert around[0] == around[-1] == 0xEE
    assert damaged or ends == len(asked)


def fuzz_remote(dice: random.Random) -> None:
    """The same answers for the back end `remote`, which reads them in its own way: it must find as many."""
    agreed = dice.choice((*AGREEMENTS[:3], AGREEMENTS[2]))
    asked = [READ, STATUS, TRIM] if agreed.contexts else [READ, TRIM]
    dice.shuffle(asked)
    data = b"".join(_answer(dice, agreed, request) for request in asked)
    if dice.random() < 0.8:
        data = damage(dice, data)
    rooms = [memoryview(bytearray(b"\xee" * (READ.length + 2))) for _ in range(2)]
    client = NbdConnection(NbdRole.CLIENT)
    client.state, client.negotiated = ConnectionState.TRANSMISSION, agreed
    pending: dict[int, _InFlight] = {}
    for request in asked:
        into, other = (room[1:-1] if request is READ else None for room in rooms)
        client.send(request, into=into)
        pending[request.cookie] = record = _InFlight()
        record.into, record.status = other, {}
        record.awaited = Awaited(request, other) if agreed.structured_replies else None
    ends = 0
    with suppress(RemoteProtocolError):
        for message in _messages(client, data):
            ends += isinstance(message, Reply) or (isinstance(message, Chunk) and message.last)
    socket_ = cast(socket.socket, Pieces(data, dice.choice((1 << 20, 17))))
    with suppress(RemoteProtocolError, ConnectionLost):
        while pending:
            del pending[ANSWERS.receive(socket_, pending, agreed)]
    assert len(asked) - len(pending) == ends, f"{len(asked) - len(pending)} answers; our client found {ends}"
    assert rooms[1][0] == rooms[1][-1] == 0xEE


ANSWERS = _Answers()
TARGETS = {"requests": fuzz_requests, "replies": fuzz_replies, "remote": fuzz_remote}
