"""What server and client say during the handshake, back to back and without sockets."""

from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioflusher.nbd.errors import ConnectionLost, LocalProtocolError, NegotiationError, RemoteProtocolError
from ioflusher.nbd.protocol import client_handshake, exports
from ioflusher.nbd.protocol.client_handshake import ListEntry, Plan, Wishes
from ioflusher.nbd.protocol.connection import NbdConnection, Pause
from ioflusher.nbd.protocol.entered import EnteredExport
from ioflusher.nbd.protocol.exports import BlockSize, Export, ExportQuery, ListedExport
from ioflusher.nbd.protocol.extents import MetaContext
from ioflusher.nbd.protocol.messages import ExportReply, Greeting, Message, Option, OptionReply
from ioflusher.nbd.protocol.metadata import MetaQuery
from ioflusher.nbd.protocol.negotiated import Negotiated
from ioflusher.nbd.protocol.server_handshake import SERVER_FLAGS, OptionAnswer, ServerHandshake, TlsMode
from ioflusher.nbd.protocol.states import ConnectionState, NbdRole
from ioflusher.nbd.protocol.wire import Info, Opt, Rep, TransmissionFlag

T = TypeVar("T")

CONTEXTS = ("base:allocation", "x-ours:age")
DISK = Export("disk", 1 << 20, 0xED, BlockSize(512, 4096, 1 << 20), "the first disk", CONTEXTS)
TAPE = Export("tape", 1 << 30, 0x03)
OFFERED = {"disk": DISK, "tape": TAPE}
SECURE = Wishes(tls=True)
ALL = Wishes(structured_replies=True, contexts=CONTEXTS)


def conduct(tls: TlsMode = TlsMode.OFF, *, structured_replies: bool = True) -> ServerHandshake:
    return ServerHandshake(OFFERED, "disk", tls=tls, structured_replies=structured_replies)


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


class Peer:
    """A server's whole part."""

    def __init__(self, handshake: ServerHandshake) -> None:
        self.end = NbdConnection(NbdRole.SERVER, max_payload=4096)
        self.handshake = handshake
        self.entered: EnteredExport | None = None

    def serve(self, incoming: bytearray) -> bytes:
        """Answer what has arrived."""
        end = self.end
        outgoing = end.send(Greeting(SERVER_FLAGS)) if end.state is ConnectionState.GREETING else b""
        while end.state not in (ConnectionState.TRANSMISSION, ConnectionState.CLOSED):
            message = next_message(end, incoming)
            if message is None:
                break
            if isinstance(message, Option):
                reply = self.handshake.answer(
                    message, fixed_newstyle=end.fixed_newstyle, zeroes=not end.no_zeroes
                )
                outgoing += b"".join(end.send(part) for part in reply.messages)
                if end.state is ConnectionState.TLS:
                    end.encrypted()
                    self.handshake.encrypted()
                self.entered = reply.entered
                if reply.hang_up:
                    break
        return outgoing


def converse(plan: Plan[T], end: NbdConnection, handshake: ServerHandshake | None = None) -> tuple[T, Peer]:
    """Let a client's plan and a server talk; returns the plan's result, and the server."""
    peer = Peer(handshake or conduct())
    to_server, to_client = bytearray(), bytearray()
    try:
        to_server += next(plan)
        while True:
            to_client += peer.serve(to_server)
            message = next_message(end, to_client)
            if end.state is ConnectionState.TLS:
                end.encrypted()
            to_server += plan.throw(ConnectionLost("closed")) if message is None else plan.send(message)
    except StopIteration as done:
        assert peer.end.state is end.state
        result: T = done.value
        return result, peer


def client() -> NbdConnection:
    return NbdConnection(NbdRole.CLIENT)


@pytest.mark.parametrize("name", ["disk", ""])
def test_the_ends_agree_on_the_export(name: str) -> None:
    """NBD_OPT_GO brings both ends into transmission; the client knows name, size, flags and block sizes."""
    end = client()
    found, peer = converse(client_handshake.choose_export(end, name), end)
    assert end.state is ConnectionState.TRANSMISSION
    # NBD_FLAG_SEND_DF is for those who negotiated structured replies
    flags = DISK.flags & ~TransmissionFlag.SEND_DF
    assert found == EnteredExport(Export(DISK.name, DISK.size, flags, DISK.block_size), Negotiated())
    assert peer.entered == EnteredExport(DISK, Negotiated())


def test_another_export_by_its_name() -> None:
    """Several exports are told apart by name."""
    end = client()
    found, peer = converse(client_handshake.choose_export(end, "tape"), end)
    assert found.export.size == TAPE.size
    assert peer.entered == EnteredExport(TAPE, Negotiated())


def test_the_ends_agree_on_structured_replies_and_contexts() -> None:
    """What was asked and granted, with the server's numbers, and what it lacks left out."""
    end = client()
    wishes = Wishes(structured_replies=True, contexts=("x-ours:age", "qemu:allocation-depth"))
    found, peer = converse(client_handshake.choose_export(end, "disk", wishes), end)
    assert peer.entered is not None
    assert found.negotiated == peer.entered.negotiated
    assert found.negotiated == Negotiated(structured_replies=True, contexts=(MetaContext(2, "x-ours:age"),))
    assert found.export.has(TransmissionFlag.SEND_DF)


def test_a_server_without_structured_replies() -> None:
    """The wish is dropped, and the export is entered without them."""
    end = client()
    plan = client_handshake.choose_export(end, "disk", ALL)
    found, _ = converse(plan, end, conduct(structured_replies=False))
    assert found.negotiated == Negotiated()


def test_describing_leaves_politely() -> None:
    """NBD_OPT_INFO tells all without entering transmission, and ends with NBD_OPT_ABORT."""
    end = client()
    assert converse(client_handshake.describe_export(end, ""), end)[0] == DISK
    assert end.state is ConnectionState.CLOSED


def test_listing() -> None:
    """Every export with its description and what NBD_OPT_INFO says of it."""
    end = client()
    found, _ = converse(client_handshake.list_exports(end), end)
    assert found == (
        ListEntry(ListedExport("disk", "the first disk"), DISK),
        ListEntry(ListedExport("tape"), TAPE),
    )
    assert end.state is ConnectionState.CLOSED


@pytest.mark.parametrize("mode", [TlsMode.ON, TlsMode.REQUIRE])
@pytest.mark.parametrize(
    "plan", [client_handshake.choose_export, client_handshake.describe_export], ids=["choose", "describe"]
)
def test_encryption_comes_first(mode: TlsMode, plan: object) -> None:
    """A client that wants TLS says nothing else before, and then gets everything."""
    end = client()
    asked: list[int] = []

    class Watched(ServerHandshake):
        def answer(self, option: Option, **how: bool) -> OptionAnswer:
            asked.append(option.option)
            return super().answer(option, **how)

    steps = plan(end, "disk", Wishes(tls=True, structured_replies=True))  # type: ignore[operator]
    converse(steps, end, Watched(OFFERED, "disk", tls=mode))
    assert asked[:2] == [Opt.STARTTLS, Opt.STRUCTURED_REPLY]


def test_no_plain_conversation_where_tls_was_wanted() -> None:
    """A server that refuses TLS gets nothing more: who sits between could have refused."""
    end = client()
    with pytest.raises(NegotiationError, match=r"refused TLS: NBD_REP_ERR_POLICY") as caught:
        converse(client_handshake.choose_export(end, "disk", SECURE), end)
    assert "nbds" in (caught.value.hint or "")


def test_a_server_that_insists_on_tls() -> None:
    """A client that did not ask is told to; so is one that asks for the list."""
    for plan in (client_handshake.choose_export, client_handshake.describe_export):
        end = client()
        with pytest.raises(NegotiationError, match="NBD_REP_ERR_TLS_REQD") as caught:
            converse(plan(end, "disk"), end, conduct(TlsMode.REQUIRE))
        assert "nbds" in (caught.value.hint or "")
    end = client()
    with pytest.raises(NegotiationError, match="does not list its exports: NBD_REP_ERR_TLS_REQD"):
        converse(client_handshake.list_exports(end), end, conduct(TlsMode.REQUIRE))


def test_an_unknown_export_is_refused_in_words() -> None:
    """The server's refusal reaches the caller with its name and a hint."""
    end = client()
    with pytest.raises(NegotiationError, match=r"'drum'.*NBD_REP_ERR_UNKNOWN") as caught:
        converse(client_handshake.choose_export(end, "drum"), end)
    assert caught.value.hint


def receive(end: NbdConnection, data: bytes) -> Message:
    message = next_message(end, bytearray(data))
    assert message is not None
    return message


def test_an_old_server_gets_the_old_option() -> None:
    """After NBD_REP_ERR_UNSUP for NBD_OPT_GO the client asks NBD_OPT_EXPORT_NAME."""
    end = client()
    plan = client_handshake.choose_export(end, "disk")
    next(plan)
    plan.send(receive(end, Greeting(3).pack()))
    asked = plan.send(receive(end, OptionReply(Opt.GO, Rep.ERR_UNSUP).pack()))
    assert asked == Option(Opt.EXPORT_NAME, b"disk").pack()
    with pytest.raises(StopIteration) as done:
        plan.send(receive(end, ExportReply(4096, 1, zeroes=False).pack()))
    assert done.value.value == EnteredExport(Export("disk", 4096, 1), Negotiated())


def test_a_server_without_fixed_newstyle_is_asked_the_old_option_at_once() -> None:
    """Without NBD_FLAG_FIXED_NEWSTYLE no other option may be sent."""
    end = client()
    plan = client_handshake.choose_export(end, "disk", ALL)
    next(plan)
    asked = plan.send(receive(end, Greeting(0).pack()))
    assert asked == bytes(4) + Option(Opt.EXPORT_NAME, b"disk").pack()
    assert end.no_zeroes is False


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (lambda end: client_handshake.choose_export(end, "", SECURE), "too old for TLS"),
        (lambda end: client_handshake.describe_export(end, ""), "too old to describe"),
        (lambda end: client_handshake.list_exports(end), "too old to list"),
    ],
)
def test_what_needs_fixed_newstyle(plan: object, complaint: str) -> None:
    """A server without it cannot do these, and is not asked."""
    end = client()
    steps = plan(end)  # type: ignore[operator]
    next(steps)
    with pytest.raises(NegotiationError, match=complaint):
        steps.send(receive(end, Greeting(2).pack()))


def greeted(plan: Generator[bytes, Message, T], end: NbdConnection) -> Generator[bytes, Message, T]:
    """A plan that has been greeted and has asked its first option."""
    next(plan)
    plan.send(receive(end, Greeting(3).pack()))
    return plan


def test_an_acknowledgement_without_a_size_is_the_servers_fault() -> None:
    """NBD_REP_ACK for NBD_OPT_GO without NBD_INFO_EXPORT breaks the protocol."""
    end = client()
    plan = greeted(client_handshake.choose_export(end, ""), end)
    with pytest.raises(RemoteProtocolError, match="without saying its size"):
        plan.send(receive(end, OptionReply(Opt.GO, Rep.ACK).pack()))


def test_a_server_may_hang_up_instead_of_acknowledging_the_abort() -> None:
    """The description holds although the answer to NBD_OPT_ABORT never came."""
    end = client()
    plan = greeted(client_handshake.describe_export(end, "disk"), end)
    plan.send(receive(end, OptionReply(Opt.STRUCTURED_REPLY, Rep.ERR_UNSUP).pack()))
    about = exports.pack_export_info(DISK.size, DISK.flags)
    plan.send(receive(end, OptionReply(Opt.INFO, Rep.INFO, about).pack()))
    plan.send(receive(end, OptionReply(Opt.INFO, Rep.ACK).pack()))
    with pytest.raises(StopIteration) as done:
        plan.throw(ConnectionLost("closed"))
    assert done.value.value.size == DISK.size


def test_a_list_without_end() -> None:
    """A server that never comes to an end is cut off before its answers fill the memory."""
    end = client()
    plan = greeted(client_handshake.list_exports(end), end)
    plan.send(receive(end, OptionReply(Opt.STRUCTURED_REPLY, Rep.ERR_UNSUP).pack()))
    entry = OptionReply(Opt.LIST, Rep.SERVER, ListedExport("x" * 4000, "y" * 4000).pack()).pack()
    for _ in range(client_handshake.MAX_PARTS_DATA // 8004):
        plan.send(receive(end, entry))
    with pytest.raises(RemoteProtocolError, match="bytes to LIST"):
        plan.send(receive(end, entry))


def test_contexts_that_nobody_asked_for() -> None:
    """A server that selects more than was asked selects what was asked."""
    end = client()
    wishes = Wishes(structured_replies=True, contexts=("base:allocation",))
    plan = greeted(client_handshake.choose_export(end, "disk", wishes), end)
    plan.send(receive(end, OptionReply(Opt.STRUCTURED_REPLY, Rep.ACK).pack()))
    for name in (b"base:allocation", b"x:y"):
        reply = OptionReply(Opt.SET_META_CONTEXT, Rep.META_CONTEXT, b"\0\0\0\7" + name)
        plan.send(receive(end, reply.pack()))
    plan.send(receive(end, OptionReply(Opt.SET_META_CONTEXT, Rep.ACK).pack()))
    about = exports.pack_export_info(DISK.size, DISK.flags)
    plan.send(receive(end, OptionReply(Opt.GO, Rep.INFO, about).pack()))
    with pytest.raises(StopIteration) as done:
        plan.send(receive(end, OptionReply(Opt.GO, Rep.ACK).pack()))
    assert done.value.value.negotiated.contexts == (MetaContext(7, "base:allocation"),)


def replies(handshake: ServerHandshake, *options: Option) -> list[int]:
    """The reply types of a server's answer to the last of these options."""
    for option in options:
        answer = handshake.answer(option)
        assert not answer.hang_up
    return [message.reply for message in answer.messages if isinstance(message, OptionReply)]


STRUCTURED = Option(Opt.STRUCTURED_REPLY)


def contexts(kind: Opt, *queries: str, export: str = "disk") -> Option:
    return Option(kind, MetaQuery(export, queries).pack())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([Option(Opt.LIST)], [Rep.SERVER, Rep.SERVER, Rep.ACK]),
        ([Option(Opt.LIST, b"x")], [Rep.ERR_INVALID]),
        ([Option(Opt.ABORT)], [Rep.ACK]),
        ([Option(Opt.ABORT, b"bye")], [Rep.ACK]),
        ([Option(Opt.ABORT, None)], [Rep.ACK]),
        ([Option(Opt.GO, ExportQuery("disk").pack())], [Rep.INFO, Rep.INFO, Rep.ACK]),
        ([Option(Opt.INFO, ExportQuery("", (Info.NAME, 99)).pack())], [Rep.INFO] * 3 + [Rep.ACK]),
        ([Option(Opt.INFO, ExportQuery("", (1, 2, 3)).pack())], [Rep.INFO] * 4 + [Rep.ACK]),
        ([Option(Opt.INFO, ExportQuery("tape", (2,)).pack())], [Rep.INFO, Rep.INFO, Rep.ACK]),
        ([Option(Opt.INFO, ExportQuery("drum").pack())], [Rep.ERR_UNKNOWN]),
        ([Option(Opt.GO, b"\0")], [Rep.ERR_INVALID]),
        ([Option(Opt.GO, None)], [Rep.ERR_TOO_BIG]),
        ([STRUCTURED], [Rep.ACK]),
        ([STRUCTURED, STRUCTURED], [Rep.ACK]),
        ([Option(Opt.STRUCTURED_REPLY, b"x")], [Rep.ERR_INVALID]),
        ([contexts(Opt.LIST_META_CONTEXT)], [Rep.META_CONTEXT, Rep.META_CONTEXT, Rep.ACK]),
        ([contexts(Opt.LIST_META_CONTEXT, "base:")], [Rep.META_CONTEXT, Rep.ACK]),
        ([contexts(Opt.LIST_META_CONTEXT, "qemu:")], [Rep.ACK]),
        ([contexts(Opt.LIST_META_CONTEXT, export="drum")], [Rep.ERR_UNKNOWN]),
        ([contexts(Opt.SET_META_CONTEXT, *CONTEXTS)], [Rep.ERR_INVALID]),
        ([STRUCTURED, contexts(Opt.SET_META_CONTEXT, *CONTEXTS)], [Rep.META_CONTEXT] * 2 + [Rep.ACK]),
        ([STRUCTURED, contexts(Opt.SET_META_CONTEXT)], [Rep.ACK]),
        ([STRUCTURED, contexts(Opt.SET_META_CONTEXT, "base:")], [Rep.ACK]),
        ([STRUCTURED, contexts(Opt.SET_META_CONTEXT, export="drum")], [Rep.ERR_UNKNOWN]),
        ([STRUCTURED, Option(Opt.SET_META_CONTEXT, b"\0\0\0\1")], [Rep.ERR_INVALID]),
        ([Option(Opt.STARTTLS)], [Rep.ERR_POLICY]),
        ([Option(Opt.EXTENDED_HEADERS)], [Rep.ERR_UNSUP]),
        ([Option(0xBEEF, b"data")], [Rep.ERR_UNSUP]),
        ([Option(0xBEEF, None)], [Rep.ERR_UNSUP]),
    ],
)
def test_answers(options: list[Option], expected: list[Rep]) -> None:
    """Each option gets the replies that the document asks for."""
    assert replies(conduct(), *options) == expected


@pytest.mark.parametrize(
    ("option", "before", "after"),
    [
        (Option(Opt.STARTTLS), Rep.ACK, Rep.ERR_INVALID),
        (Option(Opt.STARTTLS, b"x"), Rep.ERR_INVALID, Rep.ERR_INVALID),
        (Option(Opt.STARTTLS, None), Rep.ERR_INVALID, Rep.ERR_INVALID),
        (Option(Opt.LIST), Rep.ERR_TLS_REQD, Rep.ACK),
        (Option(Opt.GO, ExportQuery("disk").pack()), Rep.ERR_TLS_REQD, Rep.ACK),
        (Option(Opt.INFO, ExportQuery("drum").pack()), Rep.ERR_TLS_REQD, Rep.ERR_UNKNOWN),
        (STRUCTURED, Rep.ERR_TLS_REQD, Rep.ACK),
        (contexts(Opt.LIST_META_CONTEXT), Rep.ERR_TLS_REQD, Rep.ACK),
        (Option(0xBEEF, None), Rep.ERR_TLS_REQD, Rep.ERR_UNSUP),
        (Option(Opt.ABORT), Rep.ACK, Rep.ACK),
    ],
)
def test_answers_where_tls_is_required(option: Option, before: Rep, after: Rep) -> None:
    """Before TLS every option but two is refused alike, unknown ones too, and NBD_OPT_GO does not enter."""
    handshake = conduct(TlsMode.REQUIRE)
    assert replies(handshake, option)[-1] == before
    assert handshake.answer(option).entered is None
    handshake.encrypted()
    assert replies(handshake, option)[-1] == after


def test_the_old_option_where_tls_is_required() -> None:
    """NBD_OPT_EXPORT_NAME cannot be refused: the server must close; encrypted, it enters."""
    handshake = conduct(TlsMode.REQUIRE)
    assert handshake.answer(Option(Opt.EXPORT_NAME, b"disk")) == OptionAnswer((), hang_up=True)
    handshake.encrypted()
    assert handshake.answer(Option(Opt.EXPORT_NAME, b"disk")).entered is not None


def test_a_client_without_fixed_newstyle_gets_no_tls() -> None:
    """The document wants both ends to have said it."""
    answer = conduct(TlsMode.ON).answer(Option(Opt.STARTTLS), fixed_newstyle=False)
    assert [part.reply for part in answer.messages if isinstance(part, OptionReply)] == [Rep.ERR_POLICY]


def enter(handshake: ServerHandshake, name: str = "disk") -> Negotiated:
    entered = handshake.answer(Option(Opt.GO, ExportQuery(name).pack())).entered
    assert entered is not None
    return entered.negotiated


def test_what_was_said_before_tls_is_forgotten() -> None:
    """Whoever sits between could have turned structured replies on (CVE-2021-3716 of nbdkit)."""
    handshake = conduct(TlsMode.ON)
    replies(handshake, STRUCTURED, contexts(Opt.SET_META_CONTEXT, *CONTEXTS), Option(Opt.STARTTLS))
    handshake.encrypted()
    assert enter(handshake) == Negotiated()
    assert replies(handshake, contexts(Opt.SET_META_CONTEXT, *CONTEXTS)) == [Rep.ERR_INVALID]


SELECT = contexts(Opt.SET_META_CONTEXT, "base:allocation")


@pytest.mark.parametrize(
    ("later", "name", "kept"),
    [
        ([], "disk", True),
        ([], "", False),  # the same export, but the document compares names
        ([], "tape", False),
        ([contexts(Opt.SET_META_CONTEXT)], "disk", False),
        ([contexts(Opt.SET_META_CONTEXT, export="drum")], "disk", False),
        ([Option(Opt.SET_META_CONTEXT, b"x")], "disk", False),
        ([Option(Opt.SET_META_CONTEXT, None)], "disk", False),
        ([contexts(Opt.LIST_META_CONTEXT, export="tape")], "disk", True),
    ],
)
def test_contexts_hold_for_the_export_they_were_selected_for(
    later: list[Option], name: str, kept: bool
) -> None:
    """The last selection counts, failed or not, and only for its own name."""
    handshake = conduct()
    replies(handshake, STRUCTURED, SELECT, *later)
    assert bool(enter(handshake, name).contexts) is kept


def test_a_server_that_is_about_to_end() -> None:
    """Options are refused as the document asks, but for the one with which clients leave."""
    handshake = conduct()
    handshake.closing = True
    assert replies(handshake, Option(Opt.GO, ExportQuery("disk").pack())) == [Rep.ERR_SHUTDOWN]
    assert replies(handshake, Option(0xBEEF)) == [Rep.ERR_SHUTDOWN]
    assert replies(handshake, Option(Opt.ABORT)) == [Rep.ACK]
    assert handshake.answer(Option(Opt.EXPORT_NAME, b"disk")).hang_up


def test_a_server_without_a_default_export() -> None:
    """The empty name is then as unknown as any other."""
    handshake = ServerHandshake(OFFERED, None)
    assert replies(handshake, Option(Opt.GO, ExportQuery("").pack())) == [Rep.ERR_UNKNOWN]


@pytest.mark.parametrize("name", [b"drum", b"\xff", None])
def test_an_unknown_name_in_the_old_option_ends_the_connection(name: bytes | None) -> None:
    """NBD_OPT_EXPORT_NAME has no error reply: the server must close."""
    answer = conduct().answer(Option(Opt.EXPORT_NAME, name), zeroes=True)
    assert answer == OptionAnswer((), hang_up=True)


def test_nobody_speaks_between_the_grant_and_tls() -> None:
    """Both ends refuse to receive or to send plainly behind the NBD_REP_ACK of NBD_OPT_STARTTLS."""
    server = NbdConnection(NbdRole.SERVER, max_payload=4096)
    end = client()
    receive(end, server.send(Greeting(3)))
    receive(server, bytes.fromhex("00000003"))
    plan = client_handshake.choose_export(end, "disk", SECURE)
    next(plan)
    receive(server, plan.send(Greeting(3))[4:])
    receive(end, server.send(OptionReply(Opt.STARTTLS, Rep.ACK)))
    for each in (server, end):
        assert each.state is ConnectionState.TLS
        with pytest.raises(LocalProtocolError, match="in state TLS"):
            each.next_event()
    with pytest.raises(LocalProtocolError, match="in state TLS"):
        end.send(Option(Opt.LIST))
    server.encrypted()
    with pytest.raises(LocalProtocolError, match="TLS cannot begin"):
        server.encrypted()


def state_of(end: NbdConnection) -> ConnectionState:
    """Its state as it is now; a type checker takes the last comparison for granted."""
    return end.state


OPTIONS = st.builds(
    Option,
    st.integers(0, 2**32 - 1) | st.sampled_from(Opt),
    st.none()
    | st.binary(max_size=64)
    | st.just(b"")
    | st.builds(
        lambda name, infos: ExportQuery(name, tuple(infos)).pack(),
        st.sampled_from(["", "disk", "tape", "drum"]),
        st.lists(st.integers(0, 5), max_size=4),
    )
    | st.builds(
        lambda name, queries: MetaQuery(name, tuple(queries)).pack(),
        st.sampled_from(["", "disk", "tape", "drum"]),
        st.lists(st.sampled_from([*CONTEXTS, "base:", "x"]), max_size=4),
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(OPTIONS, max_size=8), st.sampled_from(TlsMode))
def test_fuzz_answers(options: list[Option], tls: TlsMode) -> None:
    """Invariant: every option is answered with messages that the connection lets through, or by closing.

    Where TLS is required, nothing enters an export before it has begun.
    """
    end = NbdConnection(NbdRole.SERVER, max_payload=4096)
    end.send(Greeting(3))
    next_message(end, bytearray(bytes.fromhex("00000003")))
    handshake = conduct(tls)
    encrypted = False
    for option in options:
        if end.state is not ConnectionState.OPTION:
            break
        message = next_message(end, bytearray(option.pack()))
        assert isinstance(message, Option)
        answer = handshake.answer(message, zeroes=not end.no_zeroes)
        for part in answer.messages:
            end.send(part)
        state: ConnectionState = state_of(end)
        assert answer.hang_up or state in (
            ConnectionState.OPTION,
            ConnectionState.TLS,
            ConnectionState.TRANSMISSION,
            ConnectionState.CLOSED,
        )
        assert (answer.entered is not None) is (state is ConnectionState.TRANSMISSION)
        if state is ConnectionState.TRANSMISSION:
            assert encrypted or tls is not TlsMode.REQUIRE
        if answer.hang_up:
            break
        if state is ConnectionState.TLS:
            end.encrypted()
            handshake.encrypted()
            encrypted = True
