"""Many requests out of one receive: the same ones as a message at a time, however the stream is cut."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.nbd.errors import RemoteProtocolError
from ioflusher.nbd.protocol.connection import NEED_DATA, NbdConnection, Pause
from ioflusher.nbd.protocol.messages import Request
from ioflusher.nbd.protocol.request_stream import RequestStream, command_of, flags_of
from ioflusher.nbd.protocol.states import ConnectionState, NbdRole
from ioflusher.nbd.protocol.wire import Cmd

LONGEST = 300  # bytes of a payload that is taken
MEMORY = 128  # less than that, so that payloads do not fit


def one_at_a_time(stream: bytes) -> tuple[list[Request], bool]:
    """The requests of the slow parser, and whether the stream went wrong."""
    connection = NbdConnection(NbdRole.SERVER, max_payload=LONGEST)
    connection.state = ConnectionState.TRANSMISSION
    found: list[Request] = []
    data = memoryview(stream)
    try:
        while True:
            data = data[connection.receive_data(data) :]
            event = connection.next_event()
            if isinstance(event, Request):
                assert event.data is None or event.command == Cmd.WRITE
                found.append(copy(event, event.data))
                connection.state = ConnectionState.TRANSMISSION  # a DISC does not end this test
            elif isinstance(event, Pause) and not data:
                assert event is NEED_DATA
                return found, False
    except RemoteProtocolError:
        return found, True


def copy(request: Request, data: memoryview | bytes | None) -> Request:
    kept = None if data is None else memoryview(bytes(data))
    return Request(request.command, request.flags, request.cookie, request.offset, request.length, kept)


def many_at_a_time(stream: bytes, cuts: list[int]) -> tuple[list[Request], bool]:
    """The same of the fast one, whose receives bring as many bytes as `cuts` says, in turn."""
    memory = memoryview(bytearray(MEMORY))
    requests = RequestStream(memory)
    found: list[Request] = []
    rest, turn = memoryview(stream), 0

    def receive(room: memoryview) -> int:
        nonlocal rest, turn
        assert room
        count = min(len(room), len(rest), cuts[turn % len(cuts)])
        room[:count] = rest[:count]
        rest, turn = rest[count:], turn + 1
        return count

    def receive_all(room: memoryview) -> bool:
        while room and rest:
            room = room[receive(room) :]
        return not room

    try:
        for one in requests.requests(receive):
            if one is None:
                continue
            head, cookie, offset, length = one
            request = Request(command_of(head), flags_of(head), cookie, offset, length)
            if command_of(head) != Cmd.WRITE:
                found.append(request)
            elif length > LONGEST:
                missing = requests.skip(length)
                if not receive_all(memoryview(bytearray(missing))):
                    return found, False
                found.append(request)
            else:
                payload = requests.take(length)
                if payload is None:
                    payload = memoryview(bytearray(length))
                    if not receive_all(requests.split(payload)):
                        return found, False
                found.append(copy(request, payload))
    except RemoteProtocolError:
        return found, True
    return found, False


def packed(request: Request) -> bytes:
    payload = bytes(index % 251 for index in range(request.length)) if request.command == Cmd.WRITE else b""
    return request.pack() + payload


numbers = st.integers(0, 2**64 - 1)
any_request = st.builds(
    Request,
    st.sampled_from([*map(int, Cmd), 99]),
    st.sampled_from([0, 1, 0x8000]),
    numbers,
    numbers,
    st.integers(0, 400),
)
cuts = st.lists(st.integers(1, 200), min_size=1)
streams = st.lists(any_request.map(packed) | st.binary(max_size=40)).map(b"".join)


@given(streams, cuts)
def test_the_same_as_one_at_a_time(stream: bytes, cuts: list[int]) -> None:
    """Good requests, rubbish behind them, an end anywhere: both parsers find the same."""
    assert many_at_a_time(stream, cuts) == one_at_a_time(stream)


def test_whatever_the_cut() -> None:
    """Every piece size, for each kind of request in a row; payloads lie across memory's end."""
    commands = (Cmd.READ, Cmd.WRITE, Cmd.WRITE, Cmd.FLUSH, Cmd.WRITE, Cmd.READ)
    lengths = (9, 300, 301, 0, 5, 4)
    stream = b"".join(
        packed(Request(command, 0, 7, 8, length)) for command, length in zip(commands, lengths, strict=True)
    )
    expected = one_at_a_time(stream)
    assert [request.length for request in expected[0]] == [*lengths]
    for size in range(1, len(stream) + 1):
        assert many_at_a_time(stream, [size]) == expected


def receiving(*pieces: bytes) -> Callable[[memoryview], int]:
    """Brings one piece after the other, then the end."""
    coming = iter(pieces)

    def receive(room: memoryview) -> int:
        piece = next(coming, b"")
        room[: len(piece)] = piece
        return len(piece)

    return receive


def test_rubbish_says_what_was_expected() -> None:
    """What came before is handed out first."""
    stream = RequestStream(memoryview(bytearray(MEMORY)))
    requests = stream.requests(receiving(Request(Cmd.READ, 0, 1, 2, 3).pack() + bytes(28)))
    assert next(requests) is None
    request = next(requests)
    assert request is not None
    assert request[1:] == (1, 2, 3)
    with pytest.raises(RemoteProtocolError, match=r"expected a request \(0x25609513\), found 0x00000000"):
        next(requests)


def test_none_comes_before_each_wait() -> None:
    """So that what was asked is answered before the server waits for the client, which may wait for that."""
    read = Request(Cmd.READ, 0, 1, 2, 3).pack()
    stream = RequestStream(memoryview(bytearray(MEMORY)))
    received: list[int] = []
    bring = receiving(read * 2, read[:5], read[5:])

    def receive(room: memoryview) -> int:
        received.append(len(found))
        return bring(room)

    found: list[bool] = []
    for request in stream.requests(receive):
        found.append(request is not None)
    assert found == [False, True, True, False, False, True, False]
    assert received == [1, 4, 5, 7]


def test_a_long_payload_is_followed_by_a_header_alone() -> None:
    """So that the next long payload, too, is received where it is used."""
    stream = RequestStream(memoryview(bytearray(256 << 10)))
    rooms: list[int] = []
    bring = receiving(Request(Cmd.WRITE, 0, 1, 0, 1 << 20).pack())

    def receive(room: memoryview) -> int:
        rooms.append(len(room))
        return bring(room)

    for request in stream.requests(receive):
        if request is not None:
            assert stream.take(1 << 20) is None
            assert len(stream.split(memoryview(bytearray(1 << 20)))) == 1 << 20
    assert rooms == [256 << 10, 28]
