"""What server and client say during the handshake, back to back and without sockets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioflusher.nbd.errors import ConnectionLost, NegotiationError, RemoteProtocolError
from ioflusher.nbd.protocol import exports, handshake
from ioflusher.nbd.protocol.connection import NbdConnection, Pause
from ioflusher.nbd.protocol.exports import BlockSize, Export, ExportQuery
from ioflusher.nbd.protocol.handshake import Plan
from ioflusher.nbd.protocol.messages import ExportReply, Greeting, Message, Option, OptionReply
from ioflusher.nbd.protocol.states import ConnectionState, NbdRole
from ioflusher.nbd.protocol.wire import Info, Opt, Rep

EXPORT = Export("disk", 1 << 20, 0x6D, BlockSize(512, 4096, 1 << 20))


def next_message(end: NbdConnection, incoming: bytearray) -> Message | None:
    """The next message among the bytes that have arrived, or None."""
    while True:
        event = end.next_event()
        if not isinstance(event, Pause):
            return event
        taken = end.receive_data(bytes(incoming)) if event is Pause.NEED_DATA else 0
        if not taken:
            return None
        del incoming[:taken]


def serve(end: NbdConnection, incoming: bytearray, export: Export) -> bytes:
    """A server's whole part: answer what has arrived."""
    outgoing = end.send(Greeting(handshake.SERVER_FLAGS)) if end.state is ConnectionState.GREETING else b""
    while end.state is not ConnectionState.TRANSMISSION:
        message = next_message(end, incoming)
        if message is None:
            break
        if isinstance(message, Option):
            reply = handshake.answer(message, export, zeroes=not end.no_zeroes)
            outgoing += b"".join(end.send(part) for part in reply.messages)
            if reply.hang_up:
                break
    return outgoing


def converse(plan: Plan, end: NbdConnection, export: Export = EXPORT) -> Export:
    """Let a client's plan and a server talk; returns the plan's result."""
    other = NbdConnection(NbdRole.SERVER, max_payload=4096)
    to_server, to_client = bytearray(), bytearray()
    try:
        to_server += next(plan)
        while True:
            to_client += serve(other, to_server, export)
            message = next_message(end, to_client)
            to_server += plan.throw(ConnectionLost("closed")) if message is None else plan.send(message)
    except StopIteration as done:
        assert other.state is end.state
        result: Export = done.value
        return result


@pytest.mark.parametrize("name", ["disk", ""])
def test_the_ends_agree_on_the_export(name: str) -> None:
    """NBD_OPT_GO brings both ends into transmission; the client knows size, flags and block sizes."""
    end = NbdConnection(NbdRole.CLIENT)
    found = converse(handshake.choose_export(end, name), end)
    assert end.state is ConnectionState.TRANSMISSION
    assert found == Export(name, EXPORT.size, EXPORT.flags, EXPORT.block_size)


def test_describing_leaves_politely() -> None:
    """NBD_OPT_INFO tells the same without entering transmission, and ends with NBD_OPT_ABORT."""
    end = NbdConnection(NbdRole.CLIENT)
    assert converse(handshake.describe_export(end, "disk"), end) == EXPORT
    assert end.state is ConnectionState.CLOSED


def test_an_unknown_export_is_refused_in_words() -> None:
    """The server's refusal reaches the caller with its name and a hint."""
    end = NbdConnection(NbdRole.CLIENT)
    with pytest.raises(NegotiationError, match=r"'tape'.*NBD_REP_ERR_UNKNOWN") as caught:
        converse(handshake.choose_export(end, "tape"), end)
    assert caught.value.hint


def receive(end: NbdConnection, data: bytes) -> Message:
    message = next_message(end, bytearray(data))
    assert message is not None
    return message


def test_an_old_server_gets_the_old_option() -> None:
    """After NBD_REP_ERR_UNSUP for NBD_OPT_GO the client asks NBD_OPT_EXPORT_NAME."""
    end = NbdConnection(NbdRole.CLIENT)
    plan = handshake.choose_export(end, "disk")
    next(plan)
    plan.send(receive(end, Greeting(3).pack()))
    asked = plan.send(receive(end, OptionReply(Opt.GO, Rep.ERR_UNSUP).pack()))
    assert asked == Option(Opt.EXPORT_NAME, b"disk").pack()
    with pytest.raises(StopIteration) as done:
        plan.send(receive(end, ExportReply(4096, 1, zeroes=False).pack()))
    assert done.value.value == Export("disk", 4096, 1)


def test_a_server_without_fixed_newstyle_is_asked_the_old_option_at_once() -> None:
    """Without NBD_FLAG_FIXED_NEWSTYLE no other option may be sent."""
    end = NbdConnection(NbdRole.CLIENT)
    plan = handshake.choose_export(end, "disk")
    next(plan)
    asked = plan.send(receive(end, Greeting(0).pack()))
    assert asked == bytes(4) + Option(Opt.EXPORT_NAME, b"disk").pack()
    assert end.no_zeroes is False


def test_an_acknowledgement_without_a_size_is_the_servers_fault() -> None:
    """NBD_REP_ACK for NBD_OPT_GO without NBD_INFO_EXPORT breaks the protocol."""
    end = NbdConnection(NbdRole.CLIENT)
    plan = handshake.choose_export(end, "")
    next(plan)
    plan.send(receive(end, Greeting(3).pack()))
    with pytest.raises(RemoteProtocolError, match="without saying its size"):
        plan.send(receive(end, OptionReply(Opt.GO, Rep.ACK).pack()))


def test_a_server_may_hang_up_instead_of_acknowledging_the_abort() -> None:
    """The description holds although the answer to NBD_OPT_ABORT never came."""
    end = NbdConnection(NbdRole.CLIENT)
    plan = handshake.describe_export(end, "disk")
    next(plan)
    plan.send(receive(end, Greeting(3).pack()))
    plan.send(receive(end, OptionReply(Opt.INFO, Rep.INFO, exports.pack_export_info(EXPORT)).pack()))
    plan.send(receive(end, OptionReply(Opt.INFO, Rep.ACK).pack()))
    with pytest.raises(StopIteration) as done:
        plan.throw(ConnectionLost("closed"))
    assert done.value.value.size == EXPORT.size


def replies(option: Option) -> list[int]:
    """The reply types of a server's answer."""
    answer = handshake.answer(option, EXPORT, zeroes=False)
    assert not answer.hang_up
    return [message.reply for message in answer.messages if isinstance(message, OptionReply)]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (Option(Opt.LIST), [Rep.SERVER, Rep.ACK]),
        (Option(Opt.LIST, b"x"), [Rep.ERR_INVALID]),
        (Option(Opt.ABORT), [Rep.ACK]),
        (Option(Opt.GO, ExportQuery("disk").pack()), [Rep.INFO, Rep.INFO, Rep.ACK]),
        (Option(Opt.INFO, ExportQuery("disk", (Info.BLOCK_SIZE, 99)).pack()), [Rep.INFO, Rep.INFO, Rep.ACK]),
        (Option(Opt.INFO, ExportQuery("tape").pack()), [Rep.ERR_UNKNOWN]),
        (Option(Opt.GO, b"\0"), [Rep.ERR_INVALID]),
        (Option(Opt.GO, None), [Rep.ERR_TOO_BIG]),
        (Option(Opt.STRUCTURED_REPLY), [Rep.ERR_UNSUP]),
        (Option(Opt.STARTTLS), [Rep.ERR_UNSUP]),
        (Option(0xBEEF, b"data"), [Rep.ERR_UNSUP]),
        (Option(0xBEEF, None), [Rep.ERR_UNSUP]),
    ],
)
def test_answers(option: Option, expected: list[Rep]) -> None:
    """Each option gets the replies that the document asks for."""
    assert replies(option) == expected


@pytest.mark.parametrize("name", [b"tape", b"\xff", None])
def test_an_unknown_name_in_the_old_option_ends_the_connection(name: bytes | None) -> None:
    """NBD_OPT_EXPORT_NAME has no error reply: the server must close."""
    answer = handshake.answer(Option(Opt.EXPORT_NAME, name), EXPORT, zeroes=True)
    assert answer == handshake.OptionAnswer((), hang_up=True)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1) | st.sampled_from(Opt), st.none() | st.binary(max_size=64))
def test_fuzz_answers(option: int, data: bytes | None) -> None:
    """Invariant: every option is answered with messages that the connection lets through, or by closing."""
    end = NbdConnection(NbdRole.SERVER, max_payload=4096)
    end.send(Greeting(3))
    next_message(end, bytearray(bytes.fromhex("00000003")))
    message = next_message(end, bytearray(Option(option, data).pack()))
    assert isinstance(message, Option)
    answer = handshake.answer(message, EXPORT, zeroes=not end.no_zeroes)
    for part in answer.messages:
        end.send(part)
    assert answer.hang_up or end.state in (
        ConnectionState.OPTION,
        ConnectionState.TRANSMISSION,
        ConnectionState.CLOSED,
    )
