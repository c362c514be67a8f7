"""The client's part of the handshake, without I/O.

A plan is a generator that yields bytes to send and is sent the server's next message, or is thrown
ConnectionLost when there is none. Where the server grants TLS (`ConnectionState.TLS`), whoever moves the
bytes begins with it and says `NbdConnection.encrypted` before the plan goes on.
"""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from ioflusher.nbd.errors import ConnectionLost, NegotiationError, RemoteProtocolError
from ioflusher.nbd.protocol import exports, metadata
from ioflusher.nbd.protocol.connection import KNOWN_CLIENT_FLAGS, NbdConnection
from ioflusher.nbd.protocol.entered import EnteredExport
from ioflusher.nbd.protocol.exports import (
    BlockSize,
    CanonicalName,
    Description,
    Export,
    ExportFacts,
    ExportQuery,
    ListedExport,
    MalformedData,
)
from ioflusher.nbd.protocol.extents import MetaContext
from ioflusher.nbd.protocol.messages import ClientFlags, ExportReply, Greeting, Message, Option, OptionReply
from ioflusher.nbd.protocol.metadata import MetaQuery
from ioflusher.nbd.protocol.negotiated import Negotiated
from ioflusher.nbd.protocol.wire import REPLIES, HandshakeFlag, Info, Opt, Rep, is_error

T = TypeVar("T")
Plan: TypeAlias = Generator[bytes, Message, T]

MAX_PARTS = 10_000  # replies to one option, and
MAX_PARTS_DATA = 4 << 20  # bytes in them: more is no list that anybody has


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a client wants of a handshake.

    Attributes:
        tls: encrypt, or fail.
        structured_replies: answers in chunks, where the server knows them.
        contexts: the metadata contexts that BLOCK_STATUS shall report, where the server has them; needs
            structured replies.
        extended_headers: lengths of 64 bits, where the server knows them (experimental); with them come
            answers in chunks.
        all_contexts: in the place of `contexts` all that the server lists for the export.
    """

    tls: bool = False
    structured_replies: bool = False
    contexts: tuple[str, ...] = ()
    extended_headers: bool = False
    all_contexts: bool = False


NO_WISHES = Wishes()


def choose_export(connection: NbdConnection, name: str, wishes: Wishes = NO_WISHES) -> Plan[EnteredExport]:
    """Enter transmission with the export of this name: NBD_OPT_GO, or NBD_OPT_EXPORT_NAME at old servers.

    Raises (this and the other plans):
        NegotiationError: the server refused.
        RemoteProtocolError: the server broke the protocol.
    """
    dialogue = _Dialogue(connection)
    yield from dialogue.begin(wishes)
    contexts: tuple[MetaContext, ...] = ()
    if dialogue.fixed:
        if dialogue.structured_replies:
            wanted = (yield from dialogue.list_contexts(name)) if wishes.all_contexts else wishes.contexts
            if wanted:
                contexts = yield from dialogue.select_contexts(MetaQuery(name, wanted))
        export = yield from dialogue.describe(Opt.GO, ExportQuery(name, (Info.BLOCK_SIZE, Info.NAME)))
        if export is not None:
            return EnteredExport(export, dialogue.negotiated(contexts))
        if dialogue.extended_headers:
            raise RemoteProtocolError("the server grants extended headers and does not know NBD_OPT_GO")
    reply = yield from dialogue.say(Option(Opt.EXPORT_NAME, name.encode()))
    assert isinstance(reply, ExportReply)  # the state table lets nothing else through
    export = Export(name, reply.size, reply.flags)
    return EnteredExport(export, dialogue.negotiated(contexts))


def describe_export(connection: NbdConnection, name: str, wishes: Wishes = NO_WISHES) -> Plan[Export]:
    """Ask for all about an export (NBD_OPT_INFO, NBD_OPT_LIST_META_CONTEXT) and leave."""
    dialogue = _Dialogue(connection)
    yield from dialogue.begin(replace(wishes, structured_replies=True))
    export = (yield from dialogue.describe_whole(name)) if dialogue.fixed else None
    if export is None:
        raise NegotiationError("the server is too old to describe an export (it lacks NBD_OPT_INFO)")
    yield from dialogue.leave()
    return export


@dataclass(frozen=True, slots=True)
class ListEntry:
    """An export that a server lists; `export` is None where it does not describe it."""

    listed: ListedExport
    export: Export | None


def list_exports(connection: NbdConnection, wishes: Wishes = NO_WISHES) -> Plan[tuple[ListEntry, ...]]:
    """Ask for the names of all exports, and about each what `describe_export` asks."""
    dialogue = _Dialogue(connection)
    yield from dialogue.begin(replace(wishes, structured_replies=True))
    if not dialogue.fixed:
        raise NegotiationError("the server is too old to list its exports (it lacks NBD_OPT_LIST)")
    names = yield from dialogue.list_names()
    found = []
    for entry in names:
        try:
            export = yield from dialogue.describe_whole(entry.name)
        except NegotiationError:  # listed and then refused, or gone meanwhile: the list still has it
            export = None
        found.append(ListEntry(entry, export))
    yield from dialogue.leave()
    return tuple(found)


class _Dialogue:
    """The options that plans are made of; each method is a part of a plan."""

    def __init__(self, connection: NbdConnection) -> None:
        self._connection = connection
        self._hello = b""  # the client's flags, which go with the first option
        self.fixed = False  # the server takes options
        self.structured_replies = False
        self.extended_headers = False

    def negotiated(self, contexts: tuple[MetaContext, ...]) -> Negotiated:
        """What was agreed on."""
        return Negotiated(self.structured_replies, self.extended_headers, contexts)

    def begin(self, wishes: Wishes) -> Plan[None]:
        """Greet, and ask for what has to come first."""
        greeting = yield b""
        assert isinstance(greeting, Greeting)  # the state table lets nothing else through
        flags = greeting.flags & KNOWN_CLIENT_FLAGS
        self.fixed = bool(flags & HandshakeFlag.FIXED_NEWSTYLE)
        self._hello = self._connection.send(ClientFlags(flags))
        if wishes.tls:
            yield from self._start_tls()
        if wishes.extended_headers and self.fixed:
            _, last = yield from self._ask(Opt.EXTENDED_HEADERS)
            self.extended_headers = self.structured_replies = last.reply == Rep.ACK
        if wishes.structured_replies and self.fixed and not self.extended_headers:
            _, last = yield from self._ask(Opt.STRUCTURED_REPLY)
            self.structured_replies = last.reply == Rep.ACK

    def _start_tls(self) -> Plan[None]:
        if not self.fixed:
            raise NegotiationError("the server is too old for TLS (it lacks fixed newstyle negotiation)")
        _, last = yield from self._ask(Opt.STARTTLS)
        if is_error(last.reply):
            hint = "an address that begins with nbds asks for TLS; without the s it does not"
            raise NegotiationError(f"the server refused TLS: {_words(last)}", hint=hint)

    def say(self, option: Option) -> Plan[Message]:
        """Send an option; returns the first message that follows."""
        hello, self._hello = self._hello, b""
        return (yield hello + self._connection.send(option))

    def _ask(self, kind: Opt, data: bytes = b"") -> Plan[tuple[list[OptionReply], OptionReply]]:
        """The replies to an option: those after which more follow, and the last one."""
        reply = yield from self.say(Option(kind, data))
        parts: list[OptionReply] = []
        size = 0
        while True:
            assert isinstance(reply, OptionReply)  # the state table lets nothing else through
            if is_error(reply.reply) or reply.reply == Rep.ACK:
                return parts, reply
            size += len(reply.data)
            if len(parts) >= MAX_PARTS or size > MAX_PARTS_DATA:
                raise RemoteProtocolError(
                    f"more than {MAX_PARTS} replies or {MAX_PARTS_DATA} bytes to {kind.name}"
                )
            parts.append(reply)
            reply = yield b""

    def describe(self, kind: Opt, query: ExportQuery) -> Plan[Export | None]:
        """Ask NBD_OPT_GO or NBD_OPT_INFO; None when the server does not know the option."""
        parts, last = yield from self._ask(kind, query.pack())
        if last.reply == Rep.ERR_UNSUP:
            return None
        if is_error(last.reply):
            raise _refusal(last, query.name)
        facts: ExportFacts | None = None
        export = Export(query.name, 0, 0)
        for part in parts:
            if part.reply != Rep.INFO:
                continue
            with _servers_fault():
                piece = exports.parse_info(part.data)
            match piece:
                case ExportFacts():
                    facts = piece
                case BlockSize():
                    export = replace(export, block_size=piece)
                case CanonicalName(name=name):
                    export = replace(export, name=name)
                case Description(text=text):
                    export = replace(export, description=text)
        if facts is None:
            raise RemoteProtocolError(
                "the server accepted the export without saying its size (NBD_INFO_EXPORT)"
            )
        return replace(export, size=facts.size, flags=facts.flags)

    def describe_whole(self, name: str) -> Plan[Export | None]:
        """All that the server tells of an export; None when it does not know NBD_OPT_INFO."""
        infos = (Info.BLOCK_SIZE, Info.NAME, Info.DESCRIPTION)
        export = yield from self.describe(Opt.INFO, ExportQuery(name, infos))
        if export is None or not self.structured_replies:
            return export
        contexts = yield from self.list_contexts(name)
        return replace(export, contexts=contexts)

    def list_contexts(self, name: str) -> Plan[tuple[str, ...]]:
        """The metadata contexts that an export has; none where the server does not say."""
        parts, last = yield from self._ask(Opt.LIST_META_CONTEXT, MetaQuery(name).pack())
        found = _contexts(parts) if last.reply == Rep.ACK else ()
        return tuple(context.name for context in found)

    def list_names(self) -> Plan[list[ListedExport]]:
        parts, last = yield from self._ask(Opt.LIST)
        if is_error(last.reply):
            raise NegotiationError(
                f"the server does not list its exports: {_words(last)}", hint=_HINTS.get(last.reply)
            )
        with _servers_fault():
            return [ListedExport.parse(part.data) for part in parts if part.reply == Rep.SERVER]

    def select_contexts(self, query: MetaQuery) -> Plan[tuple[MetaContext, ...]]:
        """Those of the contexts that the server has; none where it refuses: the export works without."""
        parts, last = yield from self._ask(Opt.SET_META_CONTEXT, query.pack())
        found = _contexts(parts) if last.reply == Rep.ACK else ()
        return tuple(context for context in found if context.name in query.queries)

    def leave(self) -> Plan[None]:
        with contextlib.suppress(ConnectionLost):  # servers may close instead of answering this one
            yield from self.say(Option(Opt.ABORT))


@contextlib.contextmanager
def _servers_fault() -> Generator[None, None, None]:
    """What cannot be understood here was sent by the server."""
    try:
        yield
    except MalformedData as error:
        raise RemoteProtocolError(str(error)) from error


def _contexts(parts: list[OptionReply]) -> tuple[MetaContext, ...]:
    with _servers_fault():
        return tuple(metadata.parse_context(part.data) for part in parts if part.reply == Rep.META_CONTEXT)


_HINTS = {
    int(Rep.ERR_UNKNOWN): "name the export as the server does",
    int(Rep.ERR_TLS_REQD): "it wants TLS: begin the address with nbds instead of nbd",
}


def _words(reply: OptionReply) -> str:
    """The server's refusal; its own text has everything unprintable escaped."""
    known = reply.reply in REPLIES
    code = f"NBD_REP_{Rep(reply.reply).name}" if known else f"error {reply.reply:#x}"
    return f"{code} {reply.data.decode(errors='replace')!r}"


def _refusal(reply: OptionReply, name: str) -> NegotiationError:
    return NegotiationError(
        f"the server refused the export {name!r}: {_words(reply)}", hint=_HINTS.get(reply.reply)
    )
