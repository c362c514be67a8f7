"""The messages of the protocol: one frozen record a message, with its bytes.

`pack()` gives what goes over the wire, without the bulk data of a WRITE or of a READ's answer: that is
sent right behind it, uncopied. The other direction, bytes to messages, is `connection.NbdConnection`.
"""

from dataclasses import dataclass
from enum import Enum, auto

from ioflusher.nbd.protocol import replies, wire
from ioflusher.nbd.protocol.extents import Extent
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag, Opt, Rep, ReplyType


class MessageKind(Enum):
    """The kinds of message that the state table tells apart."""

    GREETING = auto()
    CLIENT_FLAGS = auto()
    OPTION = auto()
    EXPORT_NAME = auto()  # NBD_OPT_EXPORT_NAME, the one option with an answer of its own form
    PART_REPLY = auto()  # an option reply after which more follow
    LAST_REPLY = auto()
    GO_REPLY = auto()  # the NBD_REP_ACK that ends the handshake
    ABORT_REPLY = auto()
    TLS_REPLY = auto()  # the NBD_REP_ACK behind which everything is encrypted
    EXPORT_REPLY = auto()
    REQUEST = auto()
    DISCONNECT = auto()
    REPLY = auto()


@dataclass(frozen=True, slots=True)
class Greeting:
    """The server's first message; `flags` are wire.HandshakeFlag bits."""

    flags: int

    @property
    def kind(self) -> MessageKind:
        return MessageKind.GREETING

    def pack(self) -> bytes:
        return wire.GREETING.pack(wire.NBDMAGIC, wire.IHAVEOPT, self.flags)


@dataclass(frozen=True, slots=True)
class ClientFlags:
    """The client's answer to the greeting; `flags` are wire.HandshakeFlag bits."""

    flags: int

    @property
    def kind(self) -> MessageKind:
        return MessageKind.CLIENT_FLAGS

    def pack(self) -> bytes:
        return wire.CLIENT_FLAGS.pack(self.flags)


@dataclass(frozen=True, slots=True)
class Option:
    """What the client asks during the handshake: `option` is NBD_OPT_*, known to us or not.

    `data` is None when a peer sent more of it than an option can sensibly carry; it was read and dropped.
    """

    option: int
    data: bytes | None = b""

    @property
    def kind(self) -> MessageKind:
        return MessageKind.EXPORT_NAME if self.option == Opt.EXPORT_NAME else MessageKind.OPTION

    def pack(self) -> bytes:
        data = self.data or b""
        return wire.OPTION.pack(wire.IHAVEOPT, self.option, len(data)) + data


# Reply types after which more follow.
_PARTS = frozenset({Rep.SERVER, Rep.INFO, Rep.META_CONTEXT})


@dataclass(frozen=True, slots=True)
class OptionReply:
    """One answer to `option`; `reply` is NBD_REP_*, `data` what that type carries."""

    option: int
    reply: int
    data: bytes = b""

    @property
    def kind(self) -> MessageKind:
        if self.reply in _PARTS:
            return MessageKind.PART_REPLY
        if self.reply == Rep.ACK and self.option == Opt.GO:
            return MessageKind.GO_REPLY
        if self.reply == Rep.ACK and self.option == Opt.ABORT:
            return MessageKind.ABORT_REPLY
        if self.reply == Rep.ACK and self.option == Opt.STARTTLS:
            return MessageKind.TLS_REPLY
        return MessageKind.LAST_REPLY

    def pack(self) -> bytes:
        head = wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, self.option, self.reply, len(self.data))
        return head + self.data


@dataclass(frozen=True, slots=True)
class ExportReply:
    """The answer to NBD_OPT_EXPORT_NAME: size in bytes and NBD_FLAG_* bits.

    `zeroes`: whether the 124 reserved bytes follow, as they do unless both ends said NBD_FLAG_NO_ZEROES.
    """

    size: int
    flags: int
    zeroes: bool

    @property
    def kind(self) -> MessageKind:
        return MessageKind.EXPORT_REPLY

    def pack(self) -> bytes:
        return wire.EXPORT_REPLY.pack(self.size, self.flags) + bytes(wire.EXPORT_ZEROES * self.zeroes)


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the transmission phase: `command` is NBD_CMD_*, `flags` are NBD_CMD_FLAG_* bits.

    `cookie` is the client's own number and comes back in the reply. `offset` and `length` are bytes.
    `data`, of a received WRITE: a view into the connection's buffer, valid until more is received; None
    when the payload was above the limit and was dropped.
    """

    command: int
    flags: int
    cookie: int
    offset: int
    length: int
    data: memoryview | None = None

    @property
    def kind(self) -> MessageKind:
        return MessageKind.DISCONNECT if self.command == Cmd.DISC else MessageKind.REQUEST

    def pack(self, *, extended: bool = False) -> bytes:
        """Its header; with extended headers a WRITE says by itself that its length is that of a payload."""
        if extended:
            flags = self.flags | (CmdFlag.PAYLOAD_LEN if self.command == Cmd.WRITE else 0)
            magic, layout = wire.EXTENDED_REQUEST_MAGIC, wire.EXTENDED_REQUEST
        else:
            flags, magic, layout = self.flags, wire.REQUEST_MAGIC, wire.REQUEST
        return layout.pack(magic, flags, self.command, self.cookie, self.offset, self.length)


@dataclass(frozen=True, slots=True)
class Reply:
    """The simple reply to the request with this `cookie`; `error` 0 or one of wire.WIRE_ERRORS.

    `data`, of a received answer to READ: the memory that the request named, now filled.
    """

    error: int
    cookie: int
    data: memoryview | None = None

    @property
    def kind(self) -> MessageKind:
        return MessageKind.REPLY

    def pack(self) -> bytes:
        return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, self.error, self.cookie)


@dataclass(frozen=True, slots=True)
class StatusOf:
    """What a chunk says of one metadata context: the number that was agreed on for it, and extents."""

    context: int
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class ErrorText:
    """What a chunk says of an error: one of wire.WIRE_ERRORS, words for people, and where, if it says so."""

    error: int
    text: str = ""
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk of the structured reply to the request with this `cookie`; `type` is NBD_REPLY_TYPE_*.

    `offset` and `length` are of its data or zeroes, which, received, are in the memory that the READ named.
    No more chunks follow the `last` one.
    """

    type: int
    cookie: int
    last: bool
    offset: int = 0
    length: int = 0
    status: StatusOf | None = None
    error: ErrorText | None = None

    @property
    def kind(self) -> MessageKind:
        return MessageKind.REPLY

    def pack(self, *, at: int | None = None) -> bytes:
        """Its bytes but for the data of NBD_REPLY_TYPE_OFFSET_DATA; `at` as in `replies`."""
        if self.error is not None:
            error = self.error
            return replies.failure(self.cookie, error.error, error.text, error.offset, at=at)
        if self.status is not None:
            context, extents = self.status.context, self.status.extents
            return replies.block_status(self.cookie, context, extents, last=self.last, at=at)
        if self.type == ReplyType.OFFSET_DATA:
            return replies.data(self.cookie, self.offset, self.length, last=self.last, at=at)
        if self.type == ReplyType.OFFSET_HOLE:
            return replies.hole(self.cookie, self.offset, self.length, last=self.last, at=at)
        return replies.nothing(self.cookie, at)


Message = Greeting | ClientFlags | Option | OptionReply | ExportReply | Request | Reply | Chunk
