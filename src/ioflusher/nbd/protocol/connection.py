"""One end of an NBD connection without any I/O: bytes in, events out; messages in, bytes out.

The caller moves the bytes: it asks `next_event()`, fills `wanted()` when that says NEED_DATA (with
`recv_into`, say), reports how much with `received()`, and sends what `send()` returns. Nothing is read past
the message at hand, so that the socket can be handed to the kernel after the handshake, and a payload
lands where it will be used, uncopied.
"""

import mmap
from collections.abc import Callable, Generator
from enum import Enum, auto
from typing import Final, TypeAlias

from ioflusher.nbd.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from ioflusher.nbd.protocol import chunks, wire
from ioflusher.nbd.protocol.chunks import Awaited, ChunkHead
from ioflusher.nbd.protocol.messages import (
    Chunk,
    ClientFlags,
    ExportReply,
    Greeting,
    Message,
    Option,
    OptionReply,
    Reply,
    Request,
)
from ioflusher.nbd.protocol.negotiated import Negotiated
from ioflusher.nbd.protocol.states import SPEAKER, TRANSITIONS, ConnectionState, NbdRole
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag, HandshakeFlag

# The longest option data that is kept: an export's name, its description, and room.
MAX_OPTION_DATA = 16 << 10

# A plain integer: the complement of an IntFlag leaves out the bits that have no name.
KNOWN_CLIENT_FLAGS = int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)


class Pause(Enum):
    """What `next_event` says when there is no message."""

    NEED_DATA = auto()  # fill `wanted()`
    PEER_CLOSED = auto()  # nothing more comes: the peer closed between two messages, or said so


NEED_DATA: Final = Pause.NEED_DATA
PEER_CLOSED: Final = Pause.PEER_CLOSED

# Yields memory that it wants filled, returns the message.
Parser: TypeAlias = Generator[memoryview, None, Message]


def aligned_memory(size: int, *, present: int | None = None) -> memoryview:
    """Page-aligned memory of `size` bytes, present from the start: no page fault waits in the hot path.

    With `present` only that many bytes are, as long as the process does not lock its memory.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (mmap.MAP_POPULATE if present is None else 0)
    memory = memoryview(mmap.mmap(-1, size, flags=flags))
    for page in range(0, min(present or 0, size), mmap.PAGESIZE):
        memory[page] = 0
    return memory


class NbdConnection:
    """One end of an NBD connection.

    Args:
        role: which end this is.
        max_payload: bytes; the longest WRITE that a server takes. Memory for it is allocated here, once.
            A client needs none: it reads into the memory that its caller names.

    Attributes:
        state: what the connection waits for.
        negotiated: what options turned on; whoever leads the handshake puts it here.
        payload: page-aligned memory of at least `max_payload` bytes at a server. The data of a WRITE
            arrives here; a server may use it for its answer to a READ too.
    """

    def __init__(self, role: NbdRole, *, max_payload: int = wire.DEFAULT_MAX_PAYLOAD) -> None:
        self.role = role
        self.state = ConnectionState.GREETING
        self.max_payload = max_payload
        self.no_zeroes = False  # agreed by both ends
        self.fixed_newstyle = False  # the client takes replies to options
        self.negotiated = Negotiated()
        self.payload = aligned_memory(max(max_payload if role is NbdRole.SERVER else 0, MAX_OPTION_DATA))
        self._header = memoryview(bytearray(wire.EXTENDED_REQUEST.size))  # the longest of the headers
        self._wanted = self._header[:0]
        self._parser: Parser | None = None
        self._midway = False  # some bytes of the message at hand are here
        self._eof = False
        self._failure: RemoteProtocolError | None = None
        self._greeting_flags = 0
        self._option: int | None = None  # what the client asked last
        self._in_flight: dict[int, Awaited] = {}  # a client's requests by cookie

    def wanted(self) -> memoryview:
        """The memory to be filled next; empty when an event waits or this end is to speak."""
        return self._wanted

    def received(self, count: int) -> None:
        """Say that the first `count` bytes of `wanted()` were filled; 0 means that the peer closed."""
        if count:
            self._midway = True
            self._wanted = self._wanted[count:]
        else:
            self._eof = True

    def receive_data(self, data: bytes | memoryview) -> int:
        """Take as much of `data` as belongs to the message at hand; returns how many bytes that were.

        For callers who have the bytes already. Ask `next_event`, then call again with the rest.
        """
        if self._parser is None:
            self._start()
        count = min(len(data), len(self._wanted))
        if count:
            self._wanted[:count] = data[:count]
            self.received(count)
        return count

    def next_event(self) -> Message | Pause:
        """The next message from the peer, NEED_DATA, or PEER_CLOSED.

        Raises:
            RemoteProtocolError: the peer broke the protocol, now or before; the connection is over.
            LocalProtocolError: it is this end's turn to speak.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._next()
        except RemoteProtocolError as error:
            self._failure = error
            raise

    def send(self, message: Message, *, into: memoryview | None = None) -> bytes:
        """The bytes of `message`; the state moves on. Bulk data is not included: send it right behind.

        Args:
            message: what this end says.
            into: with a READ request, the memory of `length` bytes for the answer's data.

        Raises:
            LocalProtocolError: this end may not say that now.
        """
        self._advance(message, self.role, LocalProtocolError)
        if isinstance(message, Request) and message.command != Cmd.DISC:  # which has no answer
            self._remember(message, into)
        if isinstance(message, Request):
            return message.pack(extended=self.negotiated.extended_headers)
        return message.pack()

    def encrypted(self) -> None:
        """Go on with options after NBD_OPT_STARTTLS was granted: the caller encrypts from now on.

        Raises:
            LocalProtocolError: it was not granted, or the connection is encrypted already.
        """
        if self.state is not ConnectionState.TLS:
            raise LocalProtocolError(f"TLS cannot begin in state {self.state.name}")
        self.state = ConnectionState.OPTION

    def _remember(self, request: Request, into: memoryview | None) -> None:
        """Note a request in flight, and where its answer's data goes."""
        if request.cookie in self._in_flight:
            raise LocalProtocolError(
                f"cookie {request.cookie:#x} is still in flight; each request needs its own"
            )
        if request.command == Cmd.READ:
            into = memoryview(bytearray(request.length)) if into is None else into
            if len(into) != request.length:
                raise LocalProtocolError(f"a READ of {request.length} bytes into {len(into)} bytes of memory")
        self._in_flight[request.cookie] = Awaited(request, into)

    def _start(self) -> None:
        """Begin with the next message, if one may come now."""
        make = _PARSERS.get((self.role, self.state))
        if make is not None:
            self._parser = make(self)
            self._midway = False
            self._wanted = next(self._parser)

    def _next(self) -> Message | Pause:
        if self._parser is None:
            self._start()
        if self._parser is None:
            if self.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
                return PEER_CLOSED
            raise LocalProtocolError(
                f"nothing can be received in state {self.state.name}: this end is to speak"
            )
        while not self._wanted:
            try:
                self._wanted = next(self._parser)
            except StopIteration as done:
                self._parser = None
                message: Message = done.value
                self._advance(message, _PEER[self.role], RemoteProtocolError)
                return message
        if not self._eof:
            return NEED_DATA
        if self._midway:
            raise RemoteProtocolError(
                f"the peer closed in the middle of a message, in state {self.state.name}"
            )
        return PEER_CLOSED

    def _advance(self, message: Message, speaker: NbdRole, error: type[ProtocolError]) -> None:
        """Hold a message, sent or received, against the tables, and take over what it agrees."""
        kind = message.kind
        following = TRANSITIONS[self.state].get(kind)
        if following is None or SPEAKER[kind] is not speaker:
            raise error(f"a {speaker.name.lower()} may not say {kind.name} in state {self.state.name}")
        match message:
            case Greeting(flags=flags):
                self._greeting_flags = int(flags)  # not a HandshakeFlag: see KNOWN_CLIENT_FLAGS
            case ClientFlags(flags=flags):
                if flags & ~(KNOWN_CLIENT_FLAGS & self._greeting_flags):
                    raise error(f"client flags {flags:#x}; the server offered {self._greeting_flags:#x}")
                self.no_zeroes = bool(flags & HandshakeFlag.NO_ZEROES)
                self.fixed_newstyle = bool(flags & HandshakeFlag.FIXED_NEWSTYLE)
            case Option(option=option):
                self._option = option
            case OptionReply(option=option) if option != self._option:
                raise error(f"an answer to option {option}; the option asked was {self._option}")
            case ExportReply(zeroes=zeroes) if zeroes is self.no_zeroes:
                raise error(f"an export reply with zeroes={zeroes}; agreed was {not self.no_zeroes}")
            case _:
                pass
        self.state = following

    # The parsers: each reads one message.

    def _read_greeting(self) -> Parser:
        head = self._header[: wire.GREETING.size]
        yield head
        magic, second, flags = wire.GREETING.unpack(head)
        if magic != wire.NBDMAGIC:
            raise RemoteProtocolError(f"not an NBD server: expected NBDMAGIC, found {magic:#018x}")
        if second != wire.IHAVEOPT:
            raise RemoteProtocolError(f"expected IHAVEOPT (newstyle handshake), found {second:#018x}")
        return Greeting(flags)

    def _read_client_flags(self) -> Parser:
        head = self._header[: wire.CLIENT_FLAGS.size]
        yield head
        return ClientFlags(*wire.CLIENT_FLAGS.unpack(head))

    def _read_option(self) -> Parser:
        head = self._header[: wire.OPTION.size]
        yield head
        magic, option, length = wire.OPTION.unpack(head)
        if magic != wire.IHAVEOPT:
            raise RemoteProtocolError(f"expected an option (IHAVEOPT), found {magic:#018x}")
        if length > MAX_OPTION_DATA:
            yield from self._drop(length)
            return Option(option, None)
        data = self.payload[:length]
        yield data
        return Option(option, bytes(data))

    def _read_option_reply(self) -> Parser:
        head = self._header[: wire.OPTION_REPLY.size]
        yield head
        magic, option, reply, length = wire.OPTION_REPLY.unpack(head)
        if magic != wire.OPTION_REPLY_MAGIC:
            raise RemoteProtocolError(f"expected an option reply, found {magic:#018x}")
        if not wire.is_error(reply) and reply not in wire.REPLIES:
            raise RemoteProtocolError(f"an option reply of the unknown type {reply}; it is no error either")
        if length > MAX_OPTION_DATA:
            raise RemoteProtocolError(
                f"an option reply of {length} bytes; expected at most {MAX_OPTION_DATA}"
            )
        data = self.payload[:length]
        yield data
        return OptionReply(option, reply, bytes(data))

    def _read_export_reply(self) -> Parser:
        head = self._header[: wire.EXPORT_REPLY.size]
        yield head
        size, flags = wire.EXPORT_REPLY.unpack(head)
        if not self.no_zeroes:
            yield from self._drop(wire.EXPORT_ZEROES)
        return ExportReply(size, flags, zeroes=not self.no_zeroes)

    def _read_request(self) -> Parser:
        extended = self.negotiated.extended_headers
        layout, expected = (
            (wire.EXTENDED_REQUEST, wire.EXTENDED_REQUEST_MAGIC)
            if extended
            else (wire.REQUEST, wire.REQUEST_MAGIC)
        )
        head = self._header[: layout.size]
        yield head
        magic, flags, command, cookie, offset, length = layout.unpack(head)
        if magic != expected:
            raise RemoteProtocolError(f"expected a request ({expected:#x}), found {magic:#010x}")
        data = None
        if command == Cmd.WRITE or (extended and flags & CmdFlag.PAYLOAD_LEN):
            if length > self.max_payload:
                yield from self._drop(length)
            else:
                data = self.payload[:length]
                yield data
        return Request(command, flags, cookie, offset, length, data)

    def _read_reply(self) -> Parser:
        if self.negotiated.extended_headers:
            return (yield from self._read_extended_chunk())
        head = self._header[: wire.SIMPLE_REPLY.size]
        yield head
        magic, error, cookie = wire.SIMPLE_REPLY.unpack(head)
        structured = self.negotiated.structured_replies
        if magic == wire.STRUCTURED_REPLY_MAGIC and structured:
            return (yield from self._read_chunk())
        if magic != wire.SIMPLE_REPLY_MAGIC:
            raise RemoteProtocolError(f"expected a reply ({wire.SIMPLE_REPLY_MAGIC:#x}), found {magic:#010x}")
        awaited = self._awaited(cookie)
        if structured and awaited.request.command in (Cmd.READ, Cmd.BLOCK_STATUS):
            raise RemoteProtocolError("a simple reply to a request whose answer must be structured")
        del self._in_flight[cookie]
        data = awaited.into
        if error or data is None:
            return Reply(error, cookie)
        yield data
        return Reply(error, cookie, data)

    def _read_chunk(self) -> Parser:
        """A chunk of a structured reply, whose header begins like a simple one that is here already."""
        head = self._header[: wire.STRUCTURED_REPLY.size]
        yield head[wire.SIMPLE_REPLY.size :]
        _, flags, kind, cookie, length = wire.STRUCTURED_REPLY.unpack(head)
        return (yield from self._read_payload((flags, kind, cookie, length)))

    def _read_extended_chunk(self) -> Parser:
        """A chunk of an answer with extended headers; there are no other answers."""
        head = self._header[: wire.EXTENDED_REPLY.size]
        yield head
        magic, flags, kind, cookie, offset, length = wire.EXTENDED_REPLY.unpack(head)
        if magic != wire.EXTENDED_REPLY_MAGIC:
            raise RemoteProtocolError(
                f"expected a reply ({wire.EXTENDED_REPLY_MAGIC:#x}), found {magic:#010x}"
            )
        asked = self._awaited(cookie).request.offset
        if offset != asked:
            raise RemoteProtocolError(f"a reply that says offset {offset}; the request said {asked}")
        return (yield from self._read_payload((flags, kind, cookie, length)))

    def _read_payload(self, fields: ChunkHead) -> Parser:
        """What follows a chunk's header."""
        flags, kind, cookie, length = fields
        awaited = self._awaited(cookie)
        chunks.check_head(fields, awaited, extended=self.negotiated.extended_headers)
        if kind == wire.ReplyType.OFFSET_DATA:
            where = self._header[: wire.CHUNK_OFFSET.size]
            yield where
            (offset,) = wire.CHUNK_OFFSET.unpack(where)
            size = length - wire.CHUNK_OFFSET.size
            yield awaited.place(offset, size)
            chunk = Chunk(kind, cookie, bool(flags & wire.ReplyFlag.DONE), offset, size)
        else:
            payload = memoryview(bytearray(min(length, chunks.MAX_CHUNK)))
            yield payload
            yield from self._drop(length - len(payload))
            chunk = chunks.parse_payload(fields, bytes(payload), awaited)
        if chunk.last:
            del self._in_flight[cookie]
            awaited.finish()
        return chunk

    def _awaited(self, cookie: int) -> Awaited:
        awaited = self._in_flight.get(cookie)
        if awaited is None:
            raise RemoteProtocolError(f"a reply with cookie {cookie:#x}, which is not in flight")
        return awaited

    def _drop(self, length: int) -> Generator[memoryview, None, None]:
        """Read bytes that nobody wants, in pieces, so that no peer's number makes us allocate."""
        while length:
            piece = self.payload[: min(length, len(self.payload))]
            yield piece
            length -= len(piece)


_PEER = {NbdRole.CLIENT: NbdRole.SERVER, NbdRole.SERVER: NbdRole.CLIENT}

# Who reads what, when. What is missing here is this end's turn to speak.
_PARSERS: dict[tuple[NbdRole, ConnectionState], Callable[[NbdConnection], Parser]] = {
    (NbdRole.CLIENT, ConnectionState.GREETING): NbdConnection._read_greeting,
    (NbdRole.SERVER, ConnectionState.CLIENT_FLAGS): NbdConnection._read_client_flags,
    (NbdRole.SERVER, ConnectionState.OPTION): NbdConnection._read_option,
    (NbdRole.CLIENT, ConnectionState.OPTION_REPLY): NbdConnection._read_option_reply,
    (NbdRole.CLIENT, ConnectionState.EXPORT_REPLY): NbdConnection._read_export_reply,
    (NbdRole.SERVER, ConnectionState.TRANSMISSION): NbdConnection._read_request,
    (NbdRole.CLIENT, ConnectionState.TRANSMISSION): NbdConnection._read_reply,
    (NbdRole.CLIENT, ConnectionState.CLOSING): NbdConnection._read_reply,
}
