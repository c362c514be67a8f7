"""A small NBD client over a socket: one request at a time, nothing hidden, never a reconnect."""

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from ioflusher.nbd.address import Address
from ioflusher.nbd.errors import ConnectionLost, NbdError, RequestError, from_system
from ioflusher.nbd.protocol import client_handshake
from ioflusher.nbd.protocol.client_handshake import NO_WISHES, ListEntry, Plan, Wishes
from ioflusher.nbd.protocol.connection import NbdConnection, Pause
from ioflusher.nbd.protocol.exports import Export, check_name
from ioflusher.nbd.protocol.extents import Extent
from ioflusher.nbd.protocol.messages import Chunk, Message, Reply, Request, StatusOf
from ioflusher.nbd.protocol.metadata import StatusQuery
from ioflusher.nbd.protocol.states import ConnectionState, NbdRole
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag, TransmissionFlag, wire_to_errno
from ioflusher.support.text import printable

HANDSHAKE_TIMEOUT = 30.0  # seconds: a server that accepts and then sends nothing is an error, not a wait


T = TypeVar("T")

_SHORTEST = 1e-6  # seconds; a time-out of 0 would mean another thing: a socket that never waits


def open_socket(address: Address, timeout: float = HANDSHAKE_TIMEOUT) -> socket.socket:
    """A connected socket; `timeout` seconds hold for connecting and stay set on it.

    Raises:
        NbdError: nobody listens there, or there is no such place; `errno` says which.
    """
    try:
        if address.path is None:
            sock = encryptable(socket.create_connection((address.host, address.port), timeout), address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Keepalive finds a server that vanished without closing its connection.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return sock
        sock = encryptable(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), address)
        try:
            sock.settimeout(timeout)
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
        return sock
    except (OSError, UnicodeError) as error:
        hint = "start the server first, and compare this address with the one that it listens on"
        raise from_system(f"cannot connect to {address.uri!r}", error, hint=hint) from error


def encryptable(sock: socket.socket, address: Address) -> socket.socket:
    """The socket, or in its place one that `negotiate` can encrypt, where the address says so."""
    if address.tls is None:
        return sock
    from ioflusher.nbd.tls.stream import TlsSocket  # who does not encrypt does not load OpenSSL

    timeout = sock.gettimeout()
    encrypting = TlsSocket(sock.detach())
    encrypting.settimeout(timeout)
    return encrypting


def _begin_tls(sock: socket.socket, address: Address, deadline: float | None) -> None:
    """Encrypt from here on; raises TlsError."""
    from ioflusher.nbd.tls.contexts import client_context
    from ioflusher.nbd.tls.stream import TlsSocket

    assert isinstance(sock, TlsSocket)  # what `encryptable` returned
    assert address.tls is not None  # nobody else asked for it
    context = client_context(address.tls)
    name = address.tls.hostname or (address.host if address.path is None else None)
    if name is None:
        context.check_hostname = False  # a Unix socket has no name; the authority still counts
    seconds = None if deadline is None else max(deadline - time.monotonic(), _SHORTEST)
    sock.begin(context, server=False, hostname=name, seconds=seconds)


def send_all(sock: socket.socket, head: bytes, data: memoryview | None = None) -> None:
    """Send a header and the bulk data behind it, uncopied, in one system call where the socket takes it."""
    if not data:
        sock.sendall(head)
        return
    sent = sock.sendmsg([head, data])
    if sent < len(head):
        sock.sendall(head[sent:])
        sent = len(head)
    if sent < len(head) + len(data):
        sock.sendall(data[sent - len(head) :])


def next_message(
    sock: socket.socket, connection: NbdConnection, deadline: float | None = None
) -> Message | None:
    """The peer's next message, or None when it closed the connection between two.

    `deadline`, of time.monotonic(): bytes that trickle in do not put it off.

    Raises:
        RemoteProtocolError: the peer broke the protocol.
        OSError: the socket failed; TimeoutError: the deadline passed.
    """
    while True:
        event = connection.next_event()
        if not isinstance(event, Pause):
            return event
        if event is Pause.PEER_CLOSED:
            return None
        if deadline is not None:
            sock.settimeout(max(deadline - time.monotonic(), _SHORTEST))
        # MSG_WAITALL: one system call a header and one a payload, however the bytes trickle in.
        connection.received(sock.recv_into(connection.wanted(), 0, socket.MSG_WAITALL))


def negotiate(
    sock: socket.socket, address: Address, wishes: Wishes = NO_WISHES
) -> tuple[NbdConnection, Export]:
    """Go through the handshake on a connected socket into transmission with the address's export.

    Raises:
        MalformedData: the export's name is none that the protocol can carry.
        NegotiationError: the server refused.
        RemoteProtocolError: the server broke the protocol.
        TlsError: the server could not be trusted, or does not trust us.
        ConnectionLost: the server closed, or did not finish within the socket's time-out.
    """
    connection = NbdConnection(NbdRole.CLIENT)
    wishes = replace(wishes, tls=address.tls is not None)
    plan = client_handshake.choose_export(connection, check_name(address.export), wishes)
    entered = _converse(sock, address, connection, plan)
    connection.negotiated = entered.negotiated
    return connection, entered.export


def _converse(sock: socket.socket, address: Address, connection: NbdConnection, steps: Plan[T]) -> T:
    """Carry a plan out on a connected socket; raises as `negotiate` does."""
    timeout = sock.gettimeout()
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        outgoing = next(steps)
        while True:
            sock.sendall(outgoing)
            message = next_message(sock, connection, deadline)
            if connection.state is ConnectionState.TLS:
                _begin_tls(sock, address, deadline)
                connection.encrypted()
            outgoing = steps.throw(_closed(address)) if message is None else steps.send(message)
    except StopIteration as done:
        result: T = done.value
        return result
    except OSError as error:
        raise ConnectionLost(
            f"{address.uri!r} did not finish the handshake: {error}", errno=error.errno
        ) from error


def _closed(address: Address) -> ConnectionLost:
    return ConnectionLost(
        f"{address.uri!r} closed the connection during the handshake",
        errno=errno.ECONNRESET,
        hint="the server may not have an export of that name, or may demand TLS",
    )


def describe(address: Address, timeout: float = HANDSHAKE_TIMEOUT) -> Export:
    """What the server says of an export, without entering transmission; raises as `negotiate` does."""
    connection = NbdConnection(NbdRole.CLIENT)
    wishes = Wishes(tls=address.tls is not None)
    plan = client_handshake.describe_export(connection, check_name(address.export), wishes)
    with open_socket(address, timeout) as sock:
        return _converse(sock, address, connection, plan)


def list_exports(address: Address, timeout: float = HANDSHAKE_TIMEOUT) -> tuple[ListEntry, ...]:
    """All exports that the server names, whatever export the address has; raises as `negotiate` does."""
    connection = NbdConnection(NbdRole.CLIENT)
    with open_socket(address, timeout) as sock:
        wishes = Wishes(tls=address.tls is not None)
        return _converse(sock, address, connection, client_handshake.list_exports(connection, wishes))


class Client:
    """A connection in transmission; requests of several threads are done one after the other.

    Once the connection is lost, every request fails with ConnectionLost; it does not come back.

    Attributes:
        address: the server.
        export: what the server said of the export.
    """

    def __init__(
        self, address: Address, timeout: float = HANDSHAKE_TIMEOUT, wishes: Wishes = NO_WISHES
    ) -> None:
        """Connect and enter transmission; raises as `open_socket` and `negotiate` do."""
        self.address = address
        self._sock = open_socket(address, timeout)
        try:
            self._connection, self.export = negotiate(self._sock, address, wishes)
        except BaseException:
            self._sock.close()
            raise
        self._sock.settimeout(None)
        self._lock = threading.Lock()
        self._cookie = 0
        self._lost: str | None = None

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset` on."""
        self._request(Cmd.READ, offset, len(view), into=view)

    def write(self, offset: int, view: memoryview, flags: int = 0) -> None:
        """Store `view` at `offset`; `flags` are wire.CmdFlag bits."""
        self._request(Cmd.WRITE, offset, len(view), flags, data=view)

    def block_status(
        self, offset: int, length: int, flags: int = 0, contexts: Collection[str] | None = None
    ) -> dict[str, tuple[Extent, ...]]:
        """What the server says of a range, by the name of each context that was agreed on.

        The extents begin at `offset`; they may end before the range does. With `contexts` only these are
        wanted, and a server that knows how (NBD_FLAG_BLOCK_STATUS_PAYLOAD) looks up no others.
        """
        names = {
            context.number: context.name
            for context in self._connection.negotiated.contexts
            if contexts is None or context.name in contexts
        }
        if not names:
            return {}
        if contexts is not None and self.export.has(TransmissionFlag.BLOCK_STATUS_PAYLOAD):
            query = memoryview(StatusQuery(length, tuple(names)).pack())
            flags |= CmdFlag.PAYLOAD_LEN
            found = self._request(Cmd.BLOCK_STATUS, offset, len(query), flags, data=query)
        else:
            found = self._request(Cmd.BLOCK_STATUS, offset, length, flags)
        return {names[status.context]: status.extents for status in found if status.context in names}

    def resize(self, size: int) -> None:
        """Change the export's size (NBD_CMD_RESIZE, experimental), where it has NBD_FLAG_SEND_RESIZE.

        No request that lies between the old and the new end may be under way, on any connection.
        """
        self._request(Cmd.RESIZE, size, 0)
        self.export = replace(self.export, size=size)

    def command(self, command: Cmd, offset: int = 0, length: int = 0, flags: int = 0) -> None:
        """A request without bulk data: FLUSH, TRIM, WRITE_ZEROES, CACHE.

        Raises (this and the other requests):
            RequestError: the server answered with an error, which `errno` is.
            ConnectionLost: the server is gone.
            RemoteProtocolError: the server broke the protocol.
        """
        self._request(command, offset, length, flags)

    def _request(
        self,
        command: Cmd,
        offset: int,
        length: int,
        flags: int = 0,
        *,
        data: memoryview | None = None,
        into: memoryview | None = None,
    ) -> list[StatusOf]:
        with self._lock:
            if self._lost is not None:
                raise ConnectionLost(self._lost, errno=errno.EIO)
            self._cookie += 1
            request = Request(command, flags, self._cookie, offset, length)
            try:
                send_all(self._sock, self._connection.send(request, into=into), data)
                error, text, found = self._answer()
            except (OSError, NbdError) as failure:
                # Bytes of this conversation are missing or wrong: nothing after them can be trusted.
                raise self._lose(str(failure)) from failure
        if error:
            said = f": {printable(text)}" if text else ""
            raise RequestError(
                f"{self.address.uri!r} answered {command.name} at {offset}, {length} bytes, "
                f"with error {error} ({errno.errorcode.get(error, 'unknown')}){said}",
                errno=wire_to_errno(error),
            )
        return found

    def _answer(self) -> tuple[int, str, list[StatusOf]]:
        """The answer to the request in flight, all chunks of it: an error with its text, block status."""
        error, text, found, last = 0, "", [], False
        while not last:
            match next_message(self._sock, self._connection):
                case Reply() as reply:
                    return reply.error, "", []
                case Chunk() as chunk:
                    last = chunk.last
                    if chunk.status is not None:
                        found.append(chunk.status)
                    if chunk.error is not None:
                        error, text = chunk.error.error, chunk.error.text
                case _:
                    raise ConnectionLost("it closed the connection")
        return error, text, found

    def _lose(self, why: str) -> ConnectionLost:
        self._lost = f"the connection to {self.address.uri!r} is lost: {why}"
        return ConnectionLost(self._lost, errno=errno.EIO)

    def interrupt(self) -> None:
        """Make a request under way in another thread, and all later ones, fail at once."""
        with contextlib.suppress(OSError):  # the peer was quicker
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take leave (NBD_CMD_DISC) and close; harmless when done already."""
        with self._lock:
            if self._lost is None and self._connection.state is ConnectionState.TRANSMISSION:
                with contextlib.suppress(OSError):  # it is gone, which is what we wanted
                    self._sock.sendall(self._connection.send(Request(Cmd.DISC, 0, 0, 0, 0)))
            self._lost = self._lost or "closed by this side"
            self._sock.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
