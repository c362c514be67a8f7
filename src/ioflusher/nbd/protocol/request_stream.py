"""Requests out of a stream of bytes, many at a time, without any I/O of its own: the server's
fast way.

`connection.NbdConnection` reads nothing past the message at hand, which costs two system calls a request.
Here one receive fills a fixed memory, and all requests that are complete come out of it:

    for request in stream.requests(sock.recv_into):
        if request is None:  # all that was received is done: now it waits for more
            ...
        else:
            head, cookie, offset, length = request

`head` is the request's magic, flags and command, one number, so that a plain READ is found with one
comparison. A WRITE comes as soon as its header is there. The caller takes its payload before it asks for the
next request: with `take` when all of it is there, else with `split`, which says what of the caller's own
memory is still to be filled. So a long payload lands where it is used, and its length is checked before
memory is.
"""

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final, TypeAlias

from ioflusher.nbd.errors import RemoteProtocolError
from ioflusher.nbd.protocol import wire
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag

# wire.REQUEST and wire.EXTENDED_REQUEST with the magic, the flags and the command as one number.
_REQUEST: Final = Struct(">QQQI")
_EXTENDED: Final = Struct(">QQQQ")
READ: Final = wire.REQUEST_MAGIC << 32 | Cmd.READ
WRITE: Final = wire.REQUEST_MAGIC << 32 | Cmd.WRITE

# From this length on, the payload that follows a payload is received by itself and not by way of our memory.
_LONG: Final = 64 << 10

_PAYLOAD_LEN: Final = int(CmdFlag.PAYLOAD_LEN) << 16
_WRITE: Final = int(Cmd.WRITE)

RequestHead: TypeAlias = tuple[int, int, int, int]  # head, cookie, offset, length


def command_of(head: int) -> int:
    """NBD_CMD_*."""
    return head & 0xFFFF


def flags_of(head: int) -> int:
    """NBD_CMD_FLAG_* bits."""
    return head >> 16 & 0xFFFF


class RequestStream:
    """The requests that a client sends.

    Args:
        memory: what bytes are received into; several headers must fit.
        extended: whether extended headers were agreed on. Then `READ` and `WRITE` are no heads, and what else
            has a payload says so.
    """

    def __init__(self, memory: memoryview, *, extended: bool = False) -> None:
        self._memory = memory
        self._layout = _EXTENDED if extended else _REQUEST
        self._magic = wire.EXTENDED_REQUEST_MAGIC if extended else wire.REQUEST_MAGIC
        self._plain = -1 if extended else READ  # the head that needs no further look
        # The bit of a head that says that a payload follows. A WRITE has one in any case: with extended
        # headers it must say so, and QEMU's client (10.0) does not.
        self._payload_len = _PAYLOAD_LEN if extended else 0
        self._start = 0  # of what was received and not yet handed out, when a payload is next
        self._end = 0
        self._payload_is_long = False

    def requests(self, receive: Callable[[memoryview], int]) -> Iterator[RequestHead | None]:
        """All requests, in order, until the client closes; None before each call of `receive`.

        Args:
            receive: fills memory with what has come, in part or as a whole, waits when nothing has, and
                returns how many bytes there are, 0 when the client has closed.

        Raises:
            RemoteProtocolError: the next bytes are no request. Those before it were handed out.
        """
        memory, room, end = self._memory, self._memory, 0
        unpack_from, size = self._layout.unpack_from, self._layout.size
        magic, payload_len, plain = self._magic, self._payload_len, self._plain
        while True:
            yield None
            received = receive(room)
            if not received:
                return
            end += received
            position, last = 0, end - size
            while position <= last:
                request = unpack_from(memory, position)
                position += size
                head = request[0]
                if head != plain:
                    if head >> 32 != magic:
                        raise RemoteProtocolError(
                            f"expected a request ({magic:#x}), found {head >> 32:#010x}"
                        )
                    if head & 0xFFFF == _WRITE or head & payload_len:
                        self._start, self._end = position, end
                        yield request
                        position = self._start
                        continue
                yield request
            rest = end - position
            if rest:
                memory[:rest] = memory[position:end]
                room = memory[rest:]
            else:
                room = memory
            end = rest
            if self._payload_is_long:
                self._payload_is_long = False
                room = memory[end:size]

    def has_payload(self, head: int) -> bool:
        """Whether so many bytes as a request's length says follow it, to be taken before the next one."""
        return head & 0xFFFF == _WRITE or bool(head & self._payload_len)

    def take(self, length: int) -> memoryview | None:
        """All of a payload, valid until `wanted()` is filled; None when it is not yet all there."""
        start, end = self._start, self._start + length
        if end > self._end:
            return None
        self._start = end
        return self._memory[start:end]

    def split(self, room: memoryview) -> memoryview:
        """Move what is there of a payload into `room`, which has its length; returns what is missing."""
        here = min(self._end - self._start, len(room))
        room[:here] = self._memory[self._start : self._start + here]
        self._start += here
        self._payload_is_long = len(room) >= _LONG
        return room[here:]

    def skip(self, length: int) -> int:
        """Drop what is there of a payload; returns how many bytes of it are missing."""
        here = min(self._end - self._start, length)
        self._start += here
        return length - here
