"""The handshake without I/O: the server's answers to options, and the client's plan."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias

from ioflusher.nbd.errors import ConnectionLost, NegotiationError, RemoteProtocolError
from ioflusher.nbd.protocol import exports
from ioflusher.nbd.protocol.connection import KNOWN_CLIENT_FLAGS, NbdConnection
from ioflusher.nbd.protocol.exports import BlockSize, Export, ExportQuery, MalformedData
from ioflusher.nbd.protocol.messages import ClientFlags, ExportReply, Greeting, Message, Option, OptionReply
from ioflusher.nbd.protocol.wire import REPLIES, HandshakeFlag, Info, Opt, Rep, is_error

SERVER_FLAGS = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES


# The server, which has one export.


@dataclass(frozen=True, slots=True)
class OptionAnswer:
    """A server's answer to an option; `hang_up`: the protocol leaves nothing but closing the connection."""

    messages: tuple[OptionReply | ExportReply, ...]
    hang_up: bool = False


def answer(option: Option, export: Export, *, zeroes: bool) -> OptionAnswer:
    """A server's answer to one option, given its one export, which the empty name means too.

    `zeroes`: whether the answer to NBD_OPT_EXPORT_NAME carries the 124 reserved bytes.
    """
    kind, data = option.option, option.data
    if kind == Opt.EXPORT_NAME:
        return _enter_by_name(data, export, zeroes)
    if kind not in (Opt.ABORT, Opt.LIST, Opt.INFO, Opt.GO):
        return _refuse(kind, Rep.ERR_UNSUP, "this server does not know the option")
    if data is None:
        return _refuse(kind, Rep.ERR_TOO_BIG, "more data than the option can need")
    if kind == Opt.ABORT:
        return OptionAnswer((OptionReply(kind, Rep.ACK),))
    if kind == Opt.LIST:
        if data:
            return _refuse(kind, Rep.ERR_INVALID, "NBD_OPT_LIST carries no data")
        return OptionAnswer(
            (OptionReply(kind, Rep.SERVER, exports.pack_server(export.name)), OptionReply(kind, Rep.ACK))
        )
    return _describe(kind, data, export)


def _enter_by_name(data: bytes | None, export: Export, zeroes: bool) -> OptionAnswer:
    """The answer to NBD_OPT_EXPORT_NAME, which knows no error reply."""
    try:
        known = data is not None and _serves(export, exports.parse_name(data))
    except MalformedData:
        known = False
    return (
        OptionAnswer((ExportReply(export.size, export.flags, zeroes),))
        if known
        else OptionAnswer((), hang_up=True)
    )


def _describe(kind: int, data: bytes, export: Export) -> OptionAnswer:
    """The answer to NBD_OPT_INFO and NBD_OPT_GO.

    The block sizes are sent unasked, as the protocol allows: who does not read them and sends a request
    that is not aligned gets EINVAL for it.
    """
    try:
        query = ExportQuery.parse(data)
    except MalformedData as error:
        return _refuse(kind, Rep.ERR_INVALID, str(error))
    if not _serves(export, query.name):
        return _refuse(kind, Rep.ERR_UNKNOWN, "no such export here")
    pieces = (exports.pack_export_info(export), exports.pack_block_size_info(export.block_size))
    return OptionAnswer(
        (*(OptionReply(kind, Rep.INFO, piece) for piece in pieces), OptionReply(kind, Rep.ACK))
    )


def _serves(export: Export, name: str) -> bool:
    return name in ("", export.name)


def _refuse(option: int, error: Rep, why: str) -> OptionAnswer:
    return OptionAnswer((OptionReply(option, error, why.encode()),))


# The client: plans that yield bytes to send and are sent the server's next message, or are thrown
# ConnectionLost when there is none.

Plan: TypeAlias = Generator[bytes, Message, Export]


def choose_export(connection: NbdConnection, name: str) -> Plan:
    """Enter transmission with the export of this name: NBD_OPT_GO, or NBD_OPT_EXPORT_NAME at old servers.

    Raises:
        NegotiationError: the server refused.
        RemoteProtocolError: the server broke the protocol.
    """
    fixed, hello = _greet(connection, (yield b""))
    if fixed:
        export = yield from _ask(connection, hello, Opt.GO, name)
        if export is not None:
            return export
        hello = b""
    reply = yield hello + connection.send(Option(Opt.EXPORT_NAME, name.encode()))
    assert isinstance(reply, ExportReply)  # the state table lets nothing else through
    return Export(name, reply.size, reply.flags)


def describe_export(connection: NbdConnection, name: str) -> Plan:
    """Ask for an export's description (NBD_OPT_INFO) and leave; raises as `choose_export` does."""
    fixed, hello = _greet(connection, (yield b""))
    export = (yield from _ask(connection, hello, Opt.INFO, name)) if fixed else None
    if export is None:
        raise NegotiationError("the server is too old to describe an export (it lacks NBD_OPT_INFO)")
    with contextlib.suppress(ConnectionLost):  # servers may close instead of answering this one
        yield connection.send(Option(Opt.ABORT))
    return export


def _greet(connection: NbdConnection, greeting: Message) -> tuple[bool, bytes]:
    """Whether the server takes options (fixed newstyle), and the client's flags, which go with the first."""
    assert isinstance(greeting, Greeting)  # the state table lets nothing else through
    flags = greeting.flags & KNOWN_CLIENT_FLAGS
    return bool(flags & HandshakeFlag.FIXED_NEWSTYLE), connection.send(ClientFlags(flags))


def _ask(
    connection: NbdConnection, hello: bytes, kind: Opt, name: str
) -> Generator[bytes, Message, Export | None]:
    """Ask NBD_OPT_GO or NBD_OPT_INFO; None when the server does not know the option."""
    query = ExportQuery(name, (Info.BLOCK_SIZE,))
    reply = yield hello + connection.send(Option(kind, query.pack()))
    found: tuple[int, int] | None = None
    block_size = BlockSize()
    while True:
        assert isinstance(reply, OptionReply)  # the state table lets nothing else through
        if reply.reply == Rep.ERR_UNSUP:
            return None
        if is_error(reply.reply):
            raise _refusal(reply, name)
        if reply.reply == Rep.ACK:
            break
        if reply.reply == Rep.INFO:
            try:
                piece = exports.parse_info(reply.data)
            except MalformedData as error:
                raise RemoteProtocolError(str(error)) from error
            if isinstance(piece, BlockSize):
                block_size = piece
            elif piece is not None:
                found = piece
        reply = yield b""
    if found is None:
        raise RemoteProtocolError("the server accepted the export without saying its size (NBD_INFO_EXPORT)")
    return Export(name, *found, block_size)


def _refusal(reply: OptionReply, name: str) -> NegotiationError:
    """The server's refusal in words; its own text has everything unprintable escaped."""
    known = reply.reply in REPLIES
    code = f"NBD_REP_{Rep(reply.reply).name}" if known else f"error {reply.reply:#x}"
    text = reply.data.decode(errors="replace")
    hint = "name the export as the server does" if reply.reply == Rep.ERR_UNKNOWN else None
    return NegotiationError(f"the server refused the export {name!r}: {code} {text!r}", hint=hint)
