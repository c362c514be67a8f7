"""The protocol without I/O: golden conversations both ways, what is refused, and fuzz.

The bytes are written down from the layouts in the NBD project's doc/proto.md.
"""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioflusher.nbd.errors import LocalProtocolError, RemoteProtocolError
from ioflusher.nbd.protocol.connection import MAX_OPTION_DATA, NEED_DATA, PEER_CLOSED, NbdConnection, Pause
from ioflusher.nbd.protocol.messages import (
    ClientFlags,
    ExportReply,
    Greeting,
    Message,
    Option,
    OptionReply,
    Reply,
    Request,
)
from ioflusher.nbd.protocol.states import SPEAKER, TRANSITIONS, ConnectionState, NbdRole
from ioflusher.nbd.protocol.wire import Cmd, HandshakeFlag, Opt, Rep

MAX_PAYLOAD = 64 << 10


@dataclass(frozen=True)
class Line:
    """One message of a golden conversation: who says it, its bytes, and the bulk data behind them."""

    speaker: NbdRole
    message: Message
    wire: bytes
    data: bytes = b""


def server(message: Message, *parts: str, data: bytes = b"") -> Line:
    return Line(NbdRole.SERVER, message, bytes.fromhex("".join(parts)), data)


def client(message: Message, *parts: str, data: bytes = b"") -> Line:
    return Line(NbdRole.CLIENT, message, bytes.fromhex("".join(parts)), data)


NBDMAGIC = "4e42444d41474943"
IHAVEOPT = "49484156454f5054"
REPLY_MAGIC = "0003e889045565a9"

GREET = [
    server(Greeting(3), NBDMAGIC, IHAVEOPT, "0003"),
    client(ClientFlags(3), "00000003"),
]
GO = [
    client(
        Option(7, b"\0\0\0\1a\0\1\0\3"), IHAVEOPT, "00000007", "00000009", "00000001", "61", "0001", "0003"
    ),
    server(
        OptionReply(7, 3, bytes.fromhex("00000000000000100000016d")),
        *(REPLY_MAGIC, "00000007", "00000003", "0000000c", "0000", "0000000000100000", "016d"),
    ),
    server(OptionReply(7, 1), REPLY_MAGIC, "00000007", "00000001", "00000000"),
]
CONVERSATIONS: dict[str, list[Line]] = {
    "go, then every request": [
        *GREET,
        *GO,
        client(
            Request(Cmd.WRITE, 1, 0x1122334455667788, 0x1000, 4),
            *("25609513", "0001", "0001", "1122334455667788", "0000000000001000", "00000004"),
            data=b"wxyz",
        ),
        server(Reply(0, 0x1122334455667788), "67446698", "00000000", "1122334455667788"),
        client(
            Request(Cmd.READ, 0, 2, 0x1000, 4),
            *("25609513", "0000", "0000", "0000000000000002", "0000000000001000", "00000004"),
        ),
        server(Reply(0, 2), "67446698", "00000000", "0000000000000002", data=b"wxyz"),
        client(
            Request(Cmd.READ, 0, 2, 0x1000, 4),
            *("25609513", "0000", "0000", "0000000000000002", "0000000000001000", "00000004"),
        ),
        server(Reply(5, 2), "67446698", "00000005", "0000000000000002"),
        client(
            Request(Cmd.FLUSH, 0, 3, 0, 0),
            *("25609513", "0000", "0003", "0000000000000003", "0000000000000000", "00000000"),
        ),
        client(
            Request(Cmd.TRIM, 0, 4, 0x2000, 0x1000),
            *("25609513", "0000", "0004", "0000000000000004", "0000000000002000", "00001000"),
        ),
        client(
            Request(Cmd.WRITE_ZEROES, 2, 5, 0x2000, 0x1000),
            *("25609513", "0002", "0006", "0000000000000005", "0000000000002000", "00001000"),
        ),
        server(Reply(0, 5), "67446698", "00000000", "0000000000000005"),
        client(
            Request(Cmd.DISC, 0, 0, 0, 0),
            *("25609513", "0000", "0002", "0000000000000000", "0000000000000000", "00000000"),
        ),
        server(Reply(0, 4), "67446698", "00000000", "0000000000000004"),
    ],
    "export name with zeroes": [
        server(Greeting(1), NBDMAGIC, IHAVEOPT, "0001"),
        client(ClientFlags(1), "00000001"),
        client(Option(Opt.EXPORT_NAME, b"disk"), IHAVEOPT, "00000001", "00000004", "6469736b"),
        server(ExportReply(1 << 20, 0x6D, True), "0000000000100000", "006d", "00" * 124),
    ],
    "export name without zeroes": [
        *GREET,
        client(Option(Opt.EXPORT_NAME, b""), IHAVEOPT, "00000001", "00000000"),
        server(ExportReply(1 << 20, 0x6D, False), "0000000000100000", "006d"),
    ],
    "an unknown option, list, abort": [
        *GREET,
        client(Option(0xBEEF, b"??"), IHAVEOPT, "0000beef", "00000002", "3f3f"),
        server(
            OptionReply(0xBEEF, Rep.ERR_UNSUP, b"no"), REPLY_MAGIC, "0000beef", "80000001", "00000002", "6e6f"
        ),
        client(Option(Opt.LIST), IHAVEOPT, "00000003", "00000000"),
        server(
            OptionReply(3, 2, b"\0\0\0\1a"), REPLY_MAGIC, "00000003", "00000002", "00000005", "00000001", "61"
        ),
        server(OptionReply(3, 1), REPLY_MAGIC, "00000003", "00000001", "00000000"),
        client(Option(Opt.ABORT), IHAVEOPT, "00000002", "00000000"),
        server(OptionReply(2, 1), REPLY_MAGIC, "00000002", "00000001", "00000000"),
    ],
}
each_conversation = pytest.mark.parametrize("lines", CONVERSATIONS.values(), ids=list(CONVERSATIONS))


def ends() -> dict[NbdRole, NbdConnection]:
    return {role: NbdConnection(role, max_payload=MAX_PAYLOAD) for role in NbdRole}


def feed(connection: NbdConnection, data: bytes, step: int) -> tuple[list[Message], int]:
    """Give `data` in pieces of at most `step` bytes; returns the messages and how many bytes were taken."""
    messages: list[Message] = []
    taken = 0
    while taken < len(data):
        count = connection.receive_data(data[taken : min(taken + step, len(data))])
        taken += count
        event = connection.next_event()
        if not isinstance(event, Pause):
            messages.append(event)
            break  # the next message may need an answer first
        assert count, "bytes were refused although the message is not complete"
    return messages, taken


def bare(message: Message) -> Message:
    """The message without the view of its bulk data."""
    return replace(message, data=None) if isinstance(message, Request | Reply) else message


@each_conversation
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("trailing", [b"", b"\xee" * 40])
def test_golden_conversations(lines: list[Line], step: int, trailing: bytes) -> None:
    """Each message becomes exactly its golden bytes, and these, however cut, become exactly the message."""
    both = ends()
    for line in lines:
        listener = both[NbdRole.CLIENT if line.speaker is NbdRole.SERVER else NbdRole.SERVER]
        assert both[line.speaker].send(line.message) == line.wire
        whole = line.wire + line.data
        messages, taken = feed(listener, whole + trailing, step)
        assert taken == len(whole), "bytes behind the message were taken, or bytes of it were not"
        assert [bare(message) for message in messages] == [bare(line.message)]
        if line.data:
            (message,) = messages
            assert isinstance(message, Request | Reply)
            assert bytes(message.data or b"") == line.data
    assert both[NbdRole.CLIENT].state is both[NbdRole.SERVER].state


@each_conversation
def test_a_peer_that_closes(lines: list[Line]) -> None:
    """A close between two messages is told as such; one in the middle of a message is the peer's fault."""
    for index, line in enumerate(lines):
        listener_role = NbdRole.CLIENT if line.speaker is NbdRole.SERVER else NbdRole.SERVER
        for count in {0, 1, len(line.wire + line.data) - 1}:
            both = ends()
            for earlier in lines[:index]:
                both[earlier.speaker].send(earlier.message)
                other = both[NbdRole.CLIENT if earlier.speaker is NbdRole.SERVER else NbdRole.SERVER]
                feed(other, earlier.wire + earlier.data, 1 << 20)
            both[line.speaker].send(line.message)
            listener = both[listener_role]
            feed(listener, (line.wire + line.data)[:count], 1 << 20)
            listener.received(0)
            if count:
                with pytest.raises(RemoteProtocolError, match="in the middle"):
                    listener.next_event()
            else:
                assert listener.next_event() is PEER_CLOSED


def test_the_tables_are_complete() -> None:
    """Every kind of message has its speaker and its place; every state but the last can be left or stays."""
    placed = {kind for row in TRANSITIONS.values() for kind in row}
    assert placed == set(SPEAKER)
    assert set(TRANSITIONS) == set(ConnectionState)
    assert {state for row in TRANSITIONS.values() for state in row.values()} == set(ConnectionState) - {
        ConnectionState.GREETING
    }


def transmitting() -> dict[NbdRole, NbdConnection]:
    """Both ends right after the handshake."""
    both = ends()
    for line in [*GREET, *GO]:
        both[line.speaker].send(line.message)
        feed(both[NbdRole.CLIENT if line.speaker is NbdRole.SERVER else NbdRole.SERVER], line.wire, 1 << 20)
    return both


def after_greeting() -> NbdConnection:
    """A server that waits for options."""
    end = NbdConnection(NbdRole.SERVER, max_payload=MAX_PAYLOAD)
    end.send(Greeting(3))
    feed(end, bytes.fromhex("00000003"), 4)
    return end


def asked(option: int) -> NbdConnection:
    """A client that waits for the answer to an option."""
    end = NbdConnection(NbdRole.CLIENT)
    feed(end, GREET[0].wire, 1 << 20)
    end.send(ClientFlags(3))
    end.send(Option(option))
    return end


@pytest.mark.parametrize(
    ("end", "data", "complaint"),
    [
        (lambda: NbdConnection(NbdRole.CLIENT), b"SSH-2.0-OpenSSH_9.2p1\r\n", "not an NBD server"),
        (
            lambda: NbdConnection(NbdRole.CLIENT),
            bytes.fromhex(NBDMAGIC + "0000420281861253" + "00" * 2),
            "expected IHAVEOPT",
        ),
        (after_greeting, b"GET / HTTP/1.1\r\n", "expected an option"),
        (lambda: asked(7), b"x" * 20, "expected an option reply"),
        (lambda: asked(7), bytes.fromhex(REPLY_MAGIC + "000000060000000100000000"), "option 6"),
        (lambda: asked(7), bytes.fromhex(REPLY_MAGIC + "000000070000000900000000"), "unknown type 9"),
        (lambda: asked(7), bytes.fromhex(REPLY_MAGIC + "000000070000000300ffffff"), "at most"),
        (lambda: transmitting()[NbdRole.SERVER], b"x" * 28, "expected a request"),
        (lambda: transmitting()[NbdRole.CLIENT], b"x" * 16, "expected a reply"),
        (
            lambda: transmitting()[NbdRole.CLIENT],
            bytes.fromhex("67446698000000000000000000000007"),
            "not in flight",
        ),
    ],
)
def test_a_peer_that_breaks_the_protocol(end: object, data: bytes, complaint: str) -> None:
    """Wrong bytes are the peer's error, named, and named again at every later question."""
    connection = end()  # type: ignore[operator]
    with pytest.raises(RemoteProtocolError, match=complaint):
        feed(connection, data, 1 << 20)
    with pytest.raises(RemoteProtocolError, match=complaint):
        connection.next_event()


@pytest.mark.parametrize("flags", [4, 0xFFFFFFFF])
def test_unknown_client_flags_end_the_connection(flags: int) -> None:
    """The document makes the server close when a client sets a flag that was not offered."""
    end = NbdConnection(NbdRole.SERVER, max_payload=MAX_PAYLOAD)
    end.send(Greeting(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES))
    with pytest.raises(RemoteProtocolError, match="client flags"):
        feed(end, flags.to_bytes(4, "big"), 4)


def test_flags_that_were_not_offered_are_refused() -> None:
    """NO_ZEROES from a client is an error where the server did not offer it."""
    end = NbdConnection(NbdRole.SERVER, max_payload=MAX_PAYLOAD)
    end.send(Greeting(1))
    with pytest.raises(RemoteProtocolError, match="offered 0x1"):
        feed(end, bytes.fromhex("00000003"), 4)


@pytest.mark.parametrize(
    ("end", "message", "complaint"),
    [
        (lambda: NbdConnection(NbdRole.CLIENT), Greeting(3), "a client may not say GREETING"),
        (lambda: NbdConnection(NbdRole.SERVER), Reply(0, 1), "a server may not say REPLY in state GREETING"),
        (
            lambda: transmitting()[NbdRole.SERVER],
            Request(Cmd.FLUSH, 0, 1, 0, 0),
            "a server may not say REQUEST",
        ),
        (
            lambda: transmitting()[NbdRole.CLIENT],
            Option(Opt.LIST),
            "may not say OPTION in state TRANSMISSION",
        ),
    ],
)
def test_we_do_not_break_the_protocol(end: object, message: Message, complaint: str) -> None:
    """What this end may not say now is the caller's error, and nothing is sent."""
    connection = end()  # type: ignore[operator]
    before = connection.state
    with pytest.raises(LocalProtocolError, match=complaint):
        connection.send(message)
    assert connection.state is before


def test_each_request_in_flight_has_its_own_cookie() -> None:
    """A cookie can be used anew only when its answer has come."""
    both = transmitting()
    wire = both[NbdRole.CLIENT].send(Request(Cmd.FLUSH, 0, 9, 0, 0))
    with pytest.raises(LocalProtocolError, match="0x9 is still in flight"):
        both[NbdRole.CLIENT].send(Request(Cmd.FLUSH, 0, 9, 0, 0))
    feed(both[NbdRole.SERVER], wire, 28)
    feed(both[NbdRole.CLIENT], both[NbdRole.SERVER].send(Reply(0, 9)), 16)
    assert both[NbdRole.CLIENT].send(Request(Cmd.FLUSH, 0, 9, 0, 0))


def test_a_reads_data_lands_where_the_caller_said() -> None:
    """The answer fills the caller's own memory, and its length must fit the request."""
    end = transmitting()[NbdRole.CLIENT]
    room = memoryview(bytearray(8))
    end.send(Request(Cmd.READ, 0, 1, 0, 8), into=room)
    feed(end, bytes.fromhex("67446698000000000000000000000001") + b"12345678", 5)
    assert bytes(room) == b"12345678"
    with pytest.raises(LocalProtocolError, match="a READ of 9 bytes into 8"):
        end.send(Request(Cmd.READ, 0, 2, 0, 9), into=room)


def test_it_is_this_ends_turn() -> None:
    """Asking for an event where the peer waits for us is the caller's error."""
    with pytest.raises(LocalProtocolError, match="this end is to speak"):
        NbdConnection(NbdRole.SERVER, max_payload=MAX_PAYLOAD).next_event()


def test_payloads_above_the_limit_are_dropped() -> None:
    """A WRITE above the limit is read past in pieces, and the next request is understood."""
    end = transmitting()[NbdRole.SERVER]
    length = 3 * MAX_PAYLOAD + 5
    head = Request(Cmd.WRITE, 0, 1, 0, length).pack()
    messages, taken = feed(end, head + bytes(length) + b"\xee", 1 << 20)
    while not messages:
        more, count = feed(end, (head + bytes(length) + b"\xee")[taken:], 1 << 20)
        messages, taken = more, taken + count
    assert taken == len(head) + length
    assert messages == [Request(Cmd.WRITE, 0, 1, 0, length, None)]
    assert len(end.payload) == MAX_PAYLOAD
    assert feed(end, Request(Cmd.FLUSH, 0, 2, 0, 0).pack(), 28)[0] == [Request(Cmd.FLUSH, 0, 2, 0, 0)]


def test_options_above_the_limit_are_dropped() -> None:
    """An option with absurdly much data is read past and shown without it."""
    end = after_greeting()
    data = Option(0xBEEF, bytes(MAX_OPTION_DATA + 1)).pack()
    assert feed(end, data + b"\xee", 1 << 20) == ([Option(0xBEEF, None)], len(data))


# Fuzz. Invariant: whatever bytes a peer sends, `next_event` gives messages or a pause, or raises
# RemoteProtocolError, and nothing else; and the memory that the connection asks to be filled never
# exceeds what it had from the start (a client's: what its caller named).


def swallow(end: NbdConnection, data: bytes, limit: int) -> None:
    while data:
        try:
            taken = end.receive_data(data)
            assert len(end.wanted()) <= limit
            event = end.next_event()
        except RemoteProtocolError:
            return
        data = data[taken:]
        if isinstance(event, Option) and end.state is ConnectionState.OPTION_REPLY:
            end.send(OptionReply(event.option, Rep.ERR_UNSUP))
        elif event is PEER_CLOSED or (
            event is not NEED_DATA and end.state in (ConnectionState.EXPORT_REPLY, ConnectionState.OPTION)
        ):
            return


PIECES = st.one_of(
    st.binary(max_size=64),
    st.sampled_from(
        [bytes.fromhex(part) for part in (NBDMAGIC, IHAVEOPT, REPLY_MAGIC, "25609513", "67446698")]
    ),
    st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "big")),
    st.integers(0, 12).map(lambda number: number.to_bytes(4, "big")),
)
STREAMS = st.lists(PIECES, max_size=30).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(STREAMS)
def test_fuzz_a_servers_handshake(data: bytes) -> None:
    """The invariant above, for a server that waits for options."""
    swallow(after_greeting(), data, MAX_PAYLOAD)


@settings(max_examples=150, deadline=None)
@given(STREAMS, st.booleans())
def test_fuzz_a_servers_transmission(data: bytes, begun: bool) -> None:
    """The invariant above, for a server in transmission."""
    prefix = bytes.fromhex("25609513") if begun else b""
    swallow(transmitting()[NbdRole.SERVER], prefix + data, MAX_PAYLOAD)


@settings(max_examples=150, deadline=None)
@given(STREAMS, st.sampled_from([Opt.GO, Opt.INFO, Opt.LIST, Opt.ABORT, Opt.EXPORT_NAME]), st.booleans())
def test_fuzz_a_clients_handshake(data: bytes, option: Opt, begun: bool) -> None:
    """The invariant above, for a client that waits for an option's answer."""
    prefix = bytes.fromhex(REPLY_MAGIC) + option.to_bytes(4, "big") if begun else b""
    swallow(asked(option), prefix + data, MAX_OPTION_DATA)


@settings(max_examples=150, deadline=None)
@given(STREAMS, st.booleans())
def test_fuzz_a_clients_transmission(data: bytes, begun: bool) -> None:
    """The invariant above, for a client with a READ in flight."""
    end = transmitting()[NbdRole.CLIENT]
    end.send(Request(Cmd.READ, 0, 1, 0, 512))
    swallow(end, (bytes.fromhex("67446698000000000000000000000001") if begun else b"") + data, 512)
