"""Random bytes for both ends of the handshake, far more than the tests have time for.

`python -m tests.nbd.fuzz` runs it. Invariant: an end gives messages, says that the peer broke the protocol,
or wants more; it raises nothing else, never wants more memory than it had at its start, and comes to an end.
"""

import random
from collections.abc import Callable
from contextlib import suppress

from ioflusher.nbd.errors import ConnectionLost, NegotiationError, RemoteProtocolError
from ioflusher.nbd.protocol import client_handshake, wire
from ioflusher.nbd.protocol.client_handshake import Plan, Wishes
from ioflusher.nbd.protocol.connection import MAX_OPTION_DATA, NbdConnection, Pause
from ioflusher.nbd.protocol.exports import BlockSize, Export, ExportQuery, ListedExport
from ioflusher.nbd.protocol.messages import Greeting, Option, OptionReply
from ioflusher.nbd.protocol.metadata import MetaQuery
from ioflusher.nbd.protocol.server_handshake import SERVER_FLAGS, ServerHandshake, TlsMode
from ioflusher.nbd.protocol.states import ConnectionState, NbdRole
from ioflusher.nbd.protocol.wire import Opt, Rep

OFFERED = {
    "disk": Export("disk", 1 << 20, 0xED, BlockSize(), "a disk", ("base:allocation", "x:y")),
    "tape": Export("tape", 1 << 30, 3),
}
MOST_STEPS = 4000  # of one input; a longer one is an endless loop
ENDS = (ConnectionState.TRANSMISSION, ConnectionState.CLOSED)


def number(dice: random.Random, size: int) -> bytes:
    """A number of so many bytes at which code errs."""
    return dice.choice((0, 1, 7, 0xFF, 1 << 16, (1 << 8 * size) - 1)).to_bytes(8, "big")[-size:]


def damage(dice: random.Random, data: bytes) -> bytes:
    """The bytes, or the same with a few of them changed, cut out or put in."""
    for _ in range(dice.choice((0, 0, 1, 1, 2, 5))):
        at = dice.randrange(len(data) + 1)
        how = dice.randrange(3)
        if how == 0:
            data = data[:at] + dice.randbytes(dice.randrange(9)) + data[at:]
        elif how == 1:
            data = data[:at] + data[at + dice.randrange(9) :]
        else:
            data = data[:at] + number(dice, dice.choice([1, 2, 4])) + data[at + 4 :]
    return data


OPTIONS = (*map(int, Opt), 0xBEEF)
REPLIES = (*map(int, Rep), 1, 1, 2, 3, 4, 99)
MODES = tuple(TlsMode)
CONTEXTS = ("base:", "base:allocation", "x:y", "?")
PARTS = (
    b"",
    ListedExport("disk", "a disk").pack(),
    bytes.fromhex("0000000000000010000000ed"),
    bytes.fromhex("0003000002000000100002000000"),
    b"\0\0\0\1base:allocation",
)


def _option(dice: random.Random) -> bytes:
    name = dice.choice(("", "disk", "tape", "drum", "x" * 300))
    how = dice.randrange(5)
    if how == 0:
        data = b""
    elif how == 1:
        data = name.encode()
    elif how == 2:
        data = ExportQuery(name, tuple(dice.choices(range(6), k=dice.randrange(5)))).pack()
    elif how == 3:
        data = MetaQuery(name, tuple(dice.choices(CONTEXTS, k=2))).pack()
    else:
        data = dice.randbytes(dice.randrange(64))
    return Option(dice.choice(OPTIONS), damage(dice, data)).pack()


def _reply(dice: random.Random, option: int) -> bytes:
    how = dice.randrange(len(PARTS) + 1)
    data = PARTS[how] if how < len(PARTS) else dice.randbytes(dice.randrange(40))
    asked = option if dice.random() < 0.95 else dice.randrange(12)
    return OptionReply(asked, dice.choice(REPLIES), damage(dice, data)).pack()


def _feed(end: NbdConnection, data: bytes, on_message: Callable[[object], None]) -> None:
    """Give `data` to an end; what it wants must never be more than it had from the start."""
    for _ in range(MOST_STEPS):
        if end.state in ENDS:
            return
        event = end.next_event()
        if not isinstance(event, Pause):
            on_message(event)
        elif event is Pause.PEER_CLOSED or not data:
            return
        else:
            assert len(end.wanted()) <= MAX_OPTION_DATA
            data = data[end.receive_data(data) :]
    raise AssertionError("no end is in sight")


def fuzz_server(dice: random.Random) -> None:
    """Options of a client that is mad or malicious."""
    end = NbdConnection(NbdRole.SERVER, max_payload=4096)
    handshake = ServerHandshake(OFFERED, "disk", tls=dice.choice(MODES), extended_headers=dice.random() < 0.5)
    end.send(Greeting(SERVER_FLAGS))

    def answer(message: object) -> None:
        if not isinstance(message, Option):
            return
        given = handshake.answer(message, fixed_newstyle=end.fixed_newstyle, zeroes=not end.no_zeroes)
        for part in given.messages:
            end.send(part)
        if given.hang_up:
            raise ConnectionLost("as the protocol wants")
        assert (given.entered is not None) is (end.state is ConnectionState.TRANSMISSION)
        if end.state is ConnectionState.TLS:
            end.encrypted()
            handshake.encrypted()

    data = number(dice, 4) if dice.random() < 0.1 else b"\0\0\0\3"
    data += b"".join(_option(dice) for _ in range(dice.choice((0, 1, 2, 3, 4, 6, 11))))
    _feed(end, damage(dice, data) if dice.random() < 0.5 else data, answer)


def fuzz_client(dice: random.Random) -> None:
    """Answers of a server that is mad or malicious."""
    end = NbdConnection(NbdRole.CLIENT)
    wishes = Wishes(dice.random() < 0.3, dice.random() < 0.8, ("base:allocation", "x:y"), dice.random() < 0.3)
    plans: list[Plan[object]] = [
        client_handshake.choose_export(end, "disk", wishes),
        client_handshake.describe_export(end, "disk", wishes),
        client_handshake.list_exports(end, wishes),
    ]
    plan = dice.choice(plans)
    asked = next(plan)
    data = damage(dice, Greeting(dice.choice([0, 1, 3, 3, 3])).pack())
    for _ in range(dice.randrange(30)):
        if end.state is ConnectionState.TLS:
            end.encrypted()
        option = wire.OPTION.unpack_from(asked[-wire.OPTION.size :])[1] if len(asked) >= 16 else 0
        messages: list[object] = []
        _feed_client(end, data, messages)
        if end.state is ConnectionState.TLS:
            end.encrypted()
        for message in messages:
            asked = plan.send(message) or asked  # type: ignore[arg-type]
        option = end._option or option
        data = _reply(dice, option)


def _feed_client(end: NbdConnection, data: bytes, messages: list[object]) -> None:
    """One message of the server's at a time: the client's turn comes after it."""
    while not messages:
        event = end.next_event()
        if not isinstance(event, Pause):
            messages.append(event)
        elif event is Pause.PEER_CLOSED or not data:
            raise ConnectionLost("the input ends")
        else:
            assert len(end.wanted()) <= MAX_OPTION_DATA
            data = data[end.receive_data(data) :]


PEERS_FAULTS = (RemoteProtocolError, NegotiationError, ConnectionLost, StopIteration)


def fuzz_server_handshake(dice: random.Random) -> None:
    """`fuzz_server`; that the peer is at fault is no failure."""
    with suppress(*PEERS_FAULTS):
        fuzz_server(dice)


def fuzz_client_handshake(dice: random.Random) -> None:
    """`fuzz_client`; that the peer is at fault is no failure."""
    with suppress(*PEERS_FAULTS):
        fuzz_client(dice)


TARGETS = {"server's handshake": fuzz_server_handshake, "client's handshake": fuzz_client_handshake}
