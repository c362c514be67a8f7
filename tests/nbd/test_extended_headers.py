"""Extended headers: lengths of 64 bits and answers of one form, at both ends.

Source: doc/proto.md of the branch extension-ext-header; experimental there, off by default here.
"""

import errno
import socket
import struct
from collections.abc import Iterable, Iterator

import pytest
from tests.nbd.test_transmission import LONGEST, SIZE, Sparse, both_ways, receive, transmission

from ioflusher.nbd.backends import RemoteBackend
from ioflusher.nbd.client import Client
from ioflusher.nbd.errors import RemoteProtocolError
from ioflusher.nbd.protocol.client_handshake import Wishes
from ioflusher.nbd.protocol.connection import NbdConnection
from ioflusher.nbd.protocol.exports import BlockSize, Export, ExportQuery
from ioflusher.nbd.protocol.extents import BASE_ALLOCATION, Extent, MetaContext
from ioflusher.nbd.protocol.messages import Option, OptionReply, Request
from ioflusher.nbd.protocol.metadata import MetaQuery
from ioflusher.nbd.protocol.negotiated import Negotiated
from ioflusher.nbd.protocol.server_handshake import ServerHandshake
from ioflusher.nbd.protocol.states import ConnectionState, NbdRole
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag, Opt, Rep, ReplyType, TransmissionFlag
from ioflusher.nbd.server import Server

EXTENDED = Negotiated(True, True, (MetaContext(7, BASE_ALLOCATION),))
LAST = 1  # NBD_REPLY_FLAG_DONE
ASK, STRUCTURED = Option(Opt.EXTENDED_HEADERS), Option(Opt.STRUCTURED_REPLY)
LONG = 7 << 30  # bytes: more than 32 bits


def chunk(sock: socket.socket) -> tuple[int, int, int, int, bytes]:
    """Flags, type, cookie, offset and payload of the next chunk."""
    magic, flags, kind, cookie, offset, length = struct.unpack(">IHHQQQ", receive(sock, 32))
    assert magic == 0x6E8A278C
    return flags, kind, cookie, offset, receive(sock, length)


def asked(command: Cmd, offset: int, length: int, flags: int = 0, cookie: int = 9) -> bytes:
    return Request(command, flags, cookie, offset, length).pack(extended=True)


def test_a_request_byte_by_byte() -> None:
    """A WRITE says that its length is a payload's; other lengths have 64 bits."""
    assert asked(Cmd.WRITE, 3, 5, int(CmdFlag.FUA)).hex(" ", 4) == (
        "21e41c71 00210001 00000000 00000009 00000000 00000003 00000000 00000005"
    )
    assert asked(Cmd.TRIM, 1, LONG).hex(" ", 4) == (
        "21e41c71 00000004 00000000 00000009 00000000 00000001 00000001 c0000000"
    )


@both_ways
def test_every_answer_is_a_chunk_that_says_the_requests_offset(waits: bool) -> None:
    """READ with and without holes, WRITE, FLUSH, and lengths that 32 bits cannot say."""
    backend = Sparse(waits=waits)
    with transmission(backend, EXTENDED) as sock:
        sock.sendall(asked(Cmd.READ, 5, 4))
        data = struct.pack(">Q", 5) + b"\5" * 4
        assert chunk(sock) == (LAST, ReplyType.OFFSET_DATA, 9, 5, data)
        start = Sparse.hole.start - 4
        sock.sendall(asked(Cmd.READ, start, len(Sparse.hole) + 4))
        assert chunk(sock)[:4] == (0, ReplyType.OFFSET_DATA, 9, start)
        hole = struct.pack(">QI", Sparse.hole.start, len(Sparse.hole))
        assert chunk(sock) == (LAST, ReplyType.OFFSET_HOLE, 9, start, hole)
        done = (LAST, ReplyType.NONE, 9)
        sock.sendall(asked(Cmd.WRITE, 3, 5) + b"12345")
        assert chunk(sock) == (*done, 3, b"")
        sock.sendall(asked(Cmd.FLUSH, 0, 0))
        assert chunk(sock) == (*done, 0, b"")
        for command in (Cmd.TRIM, Cmd.WRITE_ZEROES, Cmd.CACHE):
            sock.sendall(asked(command, 1, LONG))
            assert chunk(sock) == (*done, 1, b"")
    changed = [entry[:3] for entry in backend.log]
    assert changed == [
        ("write", 3, 5),
        ("flush",),
        ("trim", 1, LONG),
        ("zero", 1, LONG),
        ("cache", 1, LONG),
    ]


@both_ways
def test_block_status_in_one_piece(waits: bool) -> None:
    """NBD_REPLY_TYPE_BLOCK_STATUS_EXT with its count, an extent longer than 32 bits; a short one as well."""
    start = Sparse.hole.stop
    with transmission(Sparse(waits=waits), EXTENDED) as sock:
        for length in (SIZE - start, 5):
            sock.sendall(asked(Cmd.BLOCK_STATUS, start, length))
            payload = struct.pack(">IIQQ", 7, 1, length, 0)
            assert chunk(sock) == (LAST, ReplyType.BLOCK_STATUS_EXT, 9, start, payload)


@both_ways
def test_refused_and_the_connection_goes_on(waits: bool) -> None:
    """A payload that the command has none of is taken and dropped."""
    backend = Sparse(waits=waits)
    payload_len = int(CmdFlag.PAYLOAD_LEN)
    with transmission(backend, EXTENDED) as sock:
        for request in (
            asked(Cmd.TRIM, 3, 12, payload_len) + bytes(12),
            asked(Cmd.READ, 3, LONG),
        ):
            sock.sendall(request)
            flags, kind, cookie, offset, payload = chunk(sock)
            assert (flags, kind, cookie, offset) == (LAST, ReplyType.ERROR, 9, 3)
            assert struct.unpack_from(">I", payload) == (errno.EINVAL,)
        sock.sendall(asked(Cmd.READ, 5, 1))
        assert chunk(sock)[4][8:] == b"\5"
    assert backend.log == []


@both_ways
def test_a_write_that_does_not_say_so_has_a_payload(waits: bool) -> None:
    """The protocol wants NBD_CMD_FLAG_PAYLOAD_LEN there; QEMU's client (10.0) sends the data without."""
    backend = Sparse(waits=waits)
    with transmission(backend, EXTENDED) as sock:
        sock.sendall(struct.pack(">IHHQQQ", 0x21E41C71, 0, Cmd.WRITE, 9, 3, 5) + b"12345")
        assert chunk(sock) == (LAST, ReplyType.NONE, 9, 3, b"")
        sock.sendall(asked(Cmd.READ, 5, 1))
        assert chunk(sock)[4][8:] == b"\5"
    assert backend.log == [("write", 3, 5)]


BOTH = Negotiated(True, True, (MetaContext(7, BASE_ALLOCATION), MetaContext(9, "test:parity")))


def narrow(length: int, *contexts: int, offset: int = 4) -> bytes:
    """A BLOCK_STATUS that wants these contexts alone."""
    payload = struct.pack(f">Q{len(contexts)}I", length, *contexts)
    return asked(Cmd.BLOCK_STATUS, offset, len(payload), int(CmdFlag.PAYLOAD_LEN)) + payload


@both_ways
def test_block_status_of_chosen_contexts(waits: bool) -> None:
    """A payload names the contexts that are wanted, and a length of 64 bits; the others are not looked up."""
    with transmission(Sparse(waits=waits), BOTH) as sock:
        sock.sendall(narrow(LONG, 9))
        parity = struct.pack(">IIQQQQ", 9, 2, 1, 0, LONG - 1, 1)
        assert chunk(sock) == (LAST, ReplyType.BLOCK_STATUS_EXT, 9, 4, parity)
        sock.sendall(narrow(5, 9, 7))
        assert chunk(sock)[4][:4] == struct.pack(">I", 9)
        allocated = struct.pack(">IIQQ", 7, 1, 5, 0)
        assert chunk(sock) == (LAST, ReplyType.BLOCK_STATUS_EXT, 9, 4, allocated)
        one = struct.pack(">QI", LONG, 9)
        flags = int(CmdFlag.PAYLOAD_LEN | CmdFlag.REQ_ONE)
        sock.sendall(asked(Cmd.BLOCK_STATUS, 4, len(one), flags) + one)
        assert chunk(sock)[4] == struct.pack(">IIQQ", 9, 1, 1, 0)


@both_ways
@pytest.mark.parametrize(
    "request_",
    [
        narrow(5, 8),
        narrow(5, 7, 7),
        narrow(5),
        narrow(0, 7),
        narrow(SIZE, 7),
        narrow(5, 7, 9, 7),
        asked(Cmd.BLOCK_STATUS, 4, 13, int(CmdFlag.PAYLOAD_LEN)) + bytes(13),
        asked(Cmd.BLOCK_STATUS, 4, 3, int(CmdFlag.PAYLOAD_LEN)) + bytes(3),
    ],
    ids=[
        "unknown",
        "twice",
        "none",
        "of nothing",
        "beyond the end",
        "too many",
        "half a number",
        "half a length",
    ],
)
def test_a_choice_that_cannot_be(waits: bool, request_: bytes) -> None:
    """The payload is consumed, EINVAL is the answer, and the connection goes on."""
    with transmission(Sparse(waits=waits), BOTH) as sock:
        sock.sendall(request_)
        flags, kind, _, _, payload = chunk(sock)
        assert (flags, kind, *struct.unpack_from(">I", payload)) == (LAST, ReplyType.ERROR, errno.EINVAL)
        sock.sendall(narrow(5, 7))
        assert chunk(sock)[:2] == (LAST, ReplyType.BLOCK_STATUS_EXT)


@pytest.mark.parametrize("extended", [False, True])
def test_our_client_chooses_contexts(extended: bool) -> None:
    """Where the server knows how, it is asked about these alone; else the others are left out here."""

    class Asked(Sparse):
        def extents(self, offset: int, length: int) -> Iterable[Extent]:
            self.log.append(("extents",))
            return super().extents(offset, length)

    backend = Asked(waits=False)
    wishes = Wishes(structured_replies=True, extended_headers=True, all_contexts=True)
    with Server(backend, extended_headers=extended) as server:
        server.start()
        with Client(server.listen_tcp(), wishes=wishes) as client:
            assert client.export.has(TransmissionFlag.BLOCK_STATUS_PAYLOAD) is extended
            assert client.block_status(0, 5, contexts=["test:parity"]) == {
                "test:parity": (Extent(1, 0), Extent(4, 1))
            }
            assert (backend.log == []) is extended
            assert client.block_status(0, 5, contexts=["other:context"]) == {}
            assert client.block_status(0, 5).keys() == {BASE_ALLOCATION, "test:parity"}


def test_the_flag_is_for_those_who_can_use_it() -> None:
    """NBD_FLAG_BLOCK_STATUS_PAYLOAD needs extended headers, and contexts that were selected."""

    def flags(*options: Option) -> int:
        offered = {"": Export("", SIZE, 1, BlockSize(), contexts=(BASE_ALLOCATION,))}
        handshake = ServerHandshake(offered, "", extended_headers=True)
        (*_, answer) = [handshake.answer(option) for option in options]
        assert answer.entered is not None
        (info, *_) = answer.messages
        assert isinstance(info, OptionReply)
        found: int = struct.unpack(">HQH", info.data)[2]
        return found

    select = Option(Opt.SET_META_CONTEXT, MetaQuery("", (BASE_ALLOCATION,)).pack())
    go = Option(Opt.GO, ExportQuery("").pack())
    flag = TransmissionFlag.BLOCK_STATUS_PAYLOAD
    assert flags(ASK, select, go) & flag
    assert not flags(ASK, go) & flag
    assert not flags(STRUCTURED, select, go) & flag


@both_ways
@pytest.mark.parametrize(
    "request_",
    [
        asked(Cmd.WRITE, 0, LONGEST + 1),
        asked(Cmd.TRIM, 0, 1 << 40, int(CmdFlag.PAYLOAD_LEN)),
        Request(Cmd.READ, 0, 1, 0, 1).pack() + bytes(4),
    ],
    ids=["long write", "long payload", "compact"],
)
def test_what_ends_the_connection(waits: bool, request_: bytes) -> None:
    """A payload above the limit, which nobody waits for, and a request in the other form."""
    with transmission(Sparse(waits=waits), EXTENDED) as sock:
        sock.sendall(request_)
        assert sock.recv(1) == b""


def test_without_the_agreement_nothing_has_that_flag() -> None:
    """NBD_CMD_FLAG_PAYLOAD_LEN in a compact request is refused."""
    with transmission(Sparse(waits=False), Negotiated()) as sock:
        sock.sendall(Request(Cmd.WRITE, int(CmdFlag.PAYLOAD_LEN), 1, 0, 2).pack() + b"ab")
        assert struct.unpack(">IIQ", receive(sock, 16))[1] == errno.EINVAL


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([ASK], Rep.ACK),
        ([STRUCTURED, ASK], Rep.ACK),
        ([ASK, ASK], Rep.ERR_INVALID),
        ([ASK, STRUCTURED], Rep.ERR_EXT_HEADER_REQD),
        ([Option(Opt.EXTENDED_HEADERS, b"x")], Rep.ERR_INVALID),
    ],
)
def test_agreeing_on_them(options: list[Option], expected: Rep) -> None:
    """They take the place of structured replies, and cannot be exchanged for these again."""
    handshake = ServerHandshake({"": Export("", SIZE, 1, BlockSize())}, "", extended_headers=True)
    (*_, answer) = [handshake.answer(option) for option in options]
    (reply,) = answer.messages
    assert isinstance(reply, OptionReply)
    assert reply.reply == expected


def test_the_oldest_way_in_is_closed_then() -> None:
    """NBD_OPT_EXPORT_NAME is not for clients with extended headers; whoever begins TLS asks again."""
    handshake = ServerHandshake({"": Export("", SIZE, 1, BlockSize())}, "", extended_headers=True)
    handshake.answer(ASK)
    assert handshake.answer(Option(Opt.EXPORT_NAME, b"")).hang_up
    handshake.encrypted()
    entered = handshake.answer(Option(Opt.EXPORT_NAME, b"")).entered
    assert entered is not None
    assert not entered.negotiated.extended_headers


@pytest.fixture(params=[True, False])
def asker(request: pytest.FixtureRequest) -> Iterator[tuple[Client, Sparse]]:
    """Our client, which wants them, at our server, which grants them or not; and what is served."""
    backend = Sparse(waits=False)
    wishes = Wishes(structured_replies=True, extended_headers=True, contexts=(BASE_ALLOCATION,))
    with Server(backend, extended_headers=request.param) as server:
        server.start()
        with Client(server.listen_tcp(), wishes=wishes) as client:
            assert client._connection.negotiated.extended_headers is request.param
            yield client, backend


def test_both_ends_together(asker: tuple[Client, Sparse]) -> None:
    """The same work, whatever was agreed on; with them also a range of 7 GiB as one request."""
    client, backend = asker
    found = memoryview(bytearray(len(Sparse.hole) + 2))
    client.read_into(Sparse.hole.start - 1, found)
    assert bytes(found) == b"\xff" + bytes(len(Sparse.hole) + 1)
    client.write(77, memoryview(b"hello"))
    client.command(Cmd.FLUSH)
    status = client.block_status(Sparse.hole.start, len(Sparse.hole) + 5)
    assert status == {BASE_ALLOCATION: (Extent(len(Sparse.hole), 3), Extent(5))}
    if client._connection.negotiated.extended_headers:
        client.command(Cmd.WRITE_ZEROES, 1, LONG)
        assert backend.log[-1][:3] == ("zero", 1, LONG)
        assert client.block_status(1 << 20, LONG) == {BASE_ALLOCATION: (Extent(LONG),)}
    assert backend.log[:2] == [("write", 77, 5), ("flush",)]


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (struct.pack(">IHHQQQ", 0x6E8A278C, 1, 0, 9, 8, 0), "says offset 8; the request said 7"),
        (struct.pack(">IHHQQQ", 0x6E8A278C, 1, 0, 8, 7, 0), "not in flight"),
        (struct.pack(">IIQ", 0x67446698, 0, 9) + bytes(16), "expected a reply"),
        (struct.pack(">IHHQQQ", 0x6E8A278C, 1, 5, 9, 7, 12) + bytes(12), "unknown type 5"),
        (struct.pack(">IHHQQQ", 0x6E8A278C, 1, 6, 9, 7, 1 << 40), "expected at most"),
        (struct.pack(">IHHQQQIIQQ", 0x6E8A278C, 1, 6, 9, 7, 24, 7, 2, 1, 0), "do not have its form"),
        (struct.pack(">IHHQQQIIQQ", 0x6E8A278C, 1, 6, 9, 7, 24, 7, 1, 0, 0), "do not have its form"),
    ],
)
def test_what_a_client_does_not_take(reply: bytes, complaint: str) -> None:
    """A foreign offset or cookie, the other forms, a count that is wrong, an extent of nothing."""
    end = NbdConnection(NbdRole.CLIENT)
    end.state, end.negotiated = ConnectionState.TRANSMISSION, EXTENDED
    end.send(Request(Cmd.BLOCK_STATUS, 0, 9, 7, LONG))

    def receive_all() -> None:
        rest = reply
        while rest:
            rest = rest[end.receive_data(rest) :]
            end.next_event()

    with pytest.raises(RemoteProtocolError, match=complaint):
        receive_all()


def test_a_server_without_them_is_asked_in_parts() -> None:
    """Behind our server lies one that knows 32 bits alone."""
    backend = Sparse(waits=False)
    with Server(backend) as server:
        server.start()
        with RemoteBackend(server.listen_tcp()) as remote:
            remote.trim(4096, LONG)
            remote.zero(4096, LONG, may_trim=True)
            remote.cache(4096, LONG)
    for kind in ("trim", "zero", "cache"):
        parts = [entry[1:3] for entry in backend.log if entry[0] == kind]
        assert parts == [(4096, 2 << 30), (4096 + (2 << 30), 2 << 30), (4096 + (4 << 30), 3 << 30)]
