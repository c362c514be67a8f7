"""Structured replies at a client: what is taken, where data lands, what ends the connection."""

import errno
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioflusher.nbd.backends import BlockState, Extent, MemoryBackend
from ioflusher.nbd.client import Client
from ioflusher.nbd.errors import RemoteProtocolError, RequestError
from ioflusher.nbd.protocol.chunks import MAX_CHUNK
from ioflusher.nbd.protocol.client_handshake import Wishes
from ioflusher.nbd.protocol.connection import NbdConnection, Pause
from ioflusher.nbd.protocol.extents import BASE_ALLOCATION
from ioflusher.nbd.protocol.messages import Chunk, ErrorText, Message, Reply, Request, StatusOf
from ioflusher.nbd.protocol.negotiated import Negotiated
from ioflusher.nbd.protocol.states import ConnectionState, NbdRole
from ioflusher.nbd.protocol.wire import Cmd, ReplyType
from ioflusher.nbd.server import Server

LENGTH, OFFSET = 1000, 1 << 40
DATA, HOLE, STATUS = ReplyType.OFFSET_DATA, ReplyType.OFFSET_HOLE, ReplyType.BLOCK_STATUS


def client(*requests: Request, into: memoryview | None = None) -> NbdConnection:
    """A client that has asked this."""
    end = NbdConnection(NbdRole.CLIENT)
    end.state = ConnectionState.TRANSMISSION
    end.negotiated = Negotiated(structured_replies=True)
    for request in requests:
        end.send(request, into=into if request.command == Cmd.READ else None)
    return end


def receive(end: NbdConnection, data: bytes, step: int = 1 << 20) -> list[Message]:
    """All messages in `data`, given in pieces of `step` bytes."""
    found: list[Message] = []
    rest = data
    while rest:
        rest = rest[end.receive_data(rest[:step]) :]
        event = end.next_event()
        if not isinstance(event, Pause):
            found.append(event)
    return found


READ = Request(Cmd.READ, 0, 1, OFFSET, LENGTH)
ASK = Request(Cmd.BLOCK_STATUS, 0, 2, OFFSET, LENGTH)


@pytest.mark.parametrize("step", [1, 3, 19, 1 << 20])
def test_pieces_in_any_order(step: int) -> None:
    """Data and holes land where they belong, between the chunks of another answer; errors are told."""
    room = memoryview(bytearray(b"\xee" * LENGTH))
    end = client(READ, ASK, replace(READ, cookie=3, command=Cmd.FLUSH), into=room)
    chunks = [
        Chunk(DATA, 1, False, OFFSET + 900, 100),
        Chunk(STATUS, 2, False, status=StatusOf(7, (Extent(500, 3), Extent(500)))),
        Chunk(HOLE, 1, False, OFFSET + 10, 890),
        Chunk(STATUS, 2, True, status=StatusOf(8, (Extent(1),))),
        Chunk(DATA, 1, True, OFFSET, 10),
        Chunk(ReplyType.ERROR, 3, True, error=ErrorText(errno.ENOSPC, "full")),
    ]
    data = b"".join(chunk.pack() + (b"d" * chunk.length if chunk.type == DATA else b"") for chunk in chunks)
    assert receive(end, data, step) == chunks
    assert bytes(room) == b"d" * 10 + bytes(890) + b"d" * 100


def test_other_answers_of_a_structured_server() -> None:
    """A request without payload may be answered simply, or by an empty chunk."""
    flush = Request(Cmd.FLUSH, 0, 5, 0, 0)
    assert receive(client(flush), Reply(0, 5).pack()) == [Reply(0, 5)]
    assert receive(client(flush), Chunk(ReplyType.NONE, 5, True).pack()) == [Chunk(ReplyType.NONE, 5, True)]
    partly = [
        Chunk(DATA, 1, False, OFFSET, 1),
        Chunk(ReplyType.ERROR_OFFSET, 1, True, error=ErrorText(5, "", OFFSET + 1)),
    ]
    assert receive(client(READ), partly[0].pack() + b"d" + partly[1].pack()) == partly


def test_flags_that_are_unknown_are_no_matter() -> None:
    """As the protocol wants ("Clients MUST ignore unrecognized flags"); DONE counts as ever."""
    data = head(DATA, 1, 8 + 900, flags=2) + struct.pack(">Q", OFFSET) + b"d" * 900
    data += head(HOLE, 1, 12, flags=0x8001) + struct.pack(">QI", OFFSET + 900, 100)
    assert [chunk.last for chunk in receive(client(READ), data) if isinstance(chunk, Chunk)] == [False, True]


@pytest.mark.parametrize("extended", [False, True])
def test_a_million_extents(extended: bool) -> None:
    """As many as a server should send at most: what does not fit in our memory is read past."""
    count = 1 << 20
    if extended:
        payload = struct.pack(">II", 7, count) + struct.pack(">QQ", 512, 3) * count
        data = struct.pack(">IHHQQQ", 0x6E8A278C, 1, 6, 2, OFFSET, len(payload)) + payload
    else:
        payload = struct.pack(">I", 7) + struct.pack(">II", 512, 3) * count
        data = head(STATUS, 2, len(payload)) + payload
    end = client(ASK)
    end.negotiated = Negotiated(True, extended)
    most = 0
    rest = memoryview(data)
    while isinstance(event := end.next_event(), Pause):
        most = max(most, len(end.wanted()))
        rest = rest[end.receive_data(rest) :]
    assert isinstance(event, Chunk)
    assert event.status is not None
    found = event.status.extents
    assert (len(found), found[-1], len(rest)) == (
        (MAX_CHUNK - 8) // (16 if extended else 8),
        Extent(512, 3),
        0,
    )
    assert most == MAX_CHUNK
    assert end._in_flight == {}


def head(kind: int, cookie: int, length: int, flags: int = 1) -> bytes:
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, length)


BROKEN = {
    "beyond the request": (Chunk(DATA, 1, True, OFFSET, LENGTH + 1).pack(), "expected at most 1008"),
    "before it": (Chunk(HOLE, 1, True, OFFSET - 1, 2).pack(), "2 bytes at"),
    "behind it": (Chunk(HOLE, 1, True, OFFSET + LENGTH, 1).pack(), "1 bytes at"),
    "no data in data": (head(DATA, 1, 8) + struct.pack(">Q", OFFSET), "0 bytes at"),
    "less than none": (head(DATA, 1, 3) + bytes(8), "-5 bytes at"),
    "a gap": (Chunk(HOLE, 1, True, OFFSET, LENGTH - 1).pack(), "ends after 999 of them"),
    "the same twice": (
        Chunk(HOLE, 1, False, OFFSET, 600).pack() + Chunk(HOLE, 1, True, OFFSET, 600).pack(),
        "overlap",
    ),
    "nothing of a READ": (Chunk(ReplyType.NONE, 1, True).pack(), "ends after 0"),
    "data for no READ": (Chunk(DATA, 2, True, OFFSET, 1).pack(), "type 1 answers a request of command 7"),
    "status for a READ": (head(STATUS, 1, 12) + bytes(12), "type 5 answers a request of command 0"),
    "an extent of nothing": (head(STATUS, 2, 12) + bytes(12), "type 5 whose 12 bytes"),
    "half an extent": (head(STATUS, 2, 8) + bytes(8), "type 5 whose 8 bytes"),
    "a status that is too long": (head(STATUS, 2, (16 << 20) + 9), "expected at most 16777224"),
    "an error that is too long": (head(ReplyType.ERROR, 2, MAX_CHUNK + 1), "expected at most 1048576"),
    "an unknown type": (head(99, 1, 0), "unknown type 99"),
    "an unfinished nothing": (head(ReplyType.NONE, 2, 0, flags=0), "an empty chunk"),
    "a hole of another form": (head(HOLE, 1, 8) + bytes(8), "type 2 whose 8 bytes"),
    "an error without its text": (head(ReplyType.ERROR, 1, 6) + struct.pack(">IH", 5, 1), "type 32769 whose"),
    "an error that is none": (head(ReplyType.ERROR, 1, 6) + bytes(6), "type 32769 whose"),
    "an error nowhere": (head(ReplyType.ERROR_OFFSET, 1, 6) + struct.pack(">IH", 5, 0), "type 32770 whose"),
    "an unknown cookie": (head(DATA, 9, 9), "cookie 0x9, which is not in flight"),
    "a simple answer to a READ": (Reply(0, 1).pack(), "must be structured"),
}


@pytest.mark.parametrize(("data", "complaint"), BROKEN.values(), ids=list(BROKEN))
def test_what_ends_the_connection(data: bytes, complaint: str) -> None:
    """A server that gets it wrong is not believed, and no number of its makes us take memory."""
    with pytest.raises(RemoteProtocolError, match=complaint):
        receive(client(READ, ASK), data + bytes(64))


def test_structured_only_when_agreed() -> None:
    """Without structured replies a chunk is no reply."""
    end = client(READ)
    end.negotiated = Negotiated()
    with pytest.raises(RemoteProtocolError, match="expected a reply"):
        receive(end, Chunk(HOLE, 1, True, OFFSET, LENGTH).pack())


@given(
    st.lists(
        st.builds(
            head,
            st.sampled_from([0, 1, 2, 5, 32769, 32770, 32800, 7]),
            st.integers(0, 3),
            st.integers(0, 40),
            st.integers(0, 1),
        )
        | st.binary(max_size=60)
    ).map(b"".join)
)
@settings(max_examples=300)
def test_fuzz_a_client(data: bytes) -> None:
    """Whatever comes: messages, or a complaint about the peer, and memory is never written beyond."""
    around = bytearray(b"\xee" * (LENGTH + 2))
    end = client(READ, ASK, into=memoryview(around)[1:-1])
    try:
        for message in receive(end, data):
            assert isinstance(message, Reply | Chunk)
    except RemoteProtocolError:
        pass
    assert around[0] == around[-1] == 0xEE


class HalfThere(MemoryBackend):
    """The second half is a hole, says it."""

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        half = self.size // 2
        yield Extent(half - offset)
        yield Extent(half, BlockState.HOLE | BlockState.ZERO)

    def trim(self, offset: int, length: int) -> None:
        raise OSError(errno.EIO, "worn \x1b out")

    can_trim = True


def test_both_ends_together() -> None:
    """Our client asks our server: long READs with holes, block status, an error with its words."""
    with HalfThere(1 << 20) as backend, Server(backend) as server:
        backend.write(0, memoryview(bytes(range(256)) * 2048))
        server.start()
        wishes = Wishes(structured_replies=True, contexts=(BASE_ALLOCATION,))
        with Client(server.listen_tcp(), wishes=wishes) as asker:
            found = memoryview(bytearray(b"\xee" * (1 << 20)))
            asker.read_into(0, found)
            assert found == bytes(range(256)) * 2048 + bytes(1 << 19)
            half = 1 << 19
            assert asker.block_status(100, (1 << 20) - 100) == {
                BASE_ALLOCATION: (Extent(half - 100), Extent(half, 3))
            }
            with pytest.raises(RequestError, match=r"TRIM .*EIO.*: worn \S+ out") as caught:
                asker.command(Cmd.TRIM, 0, 1)
            assert caught.value.errno == errno.EIO
            asker.read_into(0, found[:5])
