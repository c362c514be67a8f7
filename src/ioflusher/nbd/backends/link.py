"""Connections to an NBD server that come back, with many requests in flight on each.

When one connection breaks, all are given up and made anew: the protocol does not tell a server that lost a
connection from one that was killed, and what CAN_MULTI_CONN promises (a FLUSH on one connection covers what
was answered on all) holds between connections to one server only. For the same reason no connection of a
new set carries a request before all of them stand: a request that is answered on one of them then proves
that the others lead to the same server or are dead.

Threads, sockets and requests' records exist beforehand; what is in flight is sent again by its own thread.
"""

import contextlib
import errno
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from struct import Struct
from typing import TypeAlias

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends.journal import Change, Journal, JournalEntry
from ioflusher.nbd.client import encryptable, negotiate, send_all
from ioflusher.nbd.endpoint import Endpoint
from ioflusher.nbd.errors import ConnectionLost, NbdError, RemoteProtocolError
from ioflusher.nbd.protocol import wire
from ioflusher.nbd.protocol.chunks import Awaited, check_head, parse_payload
from ioflusher.nbd.protocol.client_handshake import Wishes
from ioflusher.nbd.protocol.connection import aligned_memory
from ioflusher.nbd.protocol.entered import EnteredExport
from ioflusher.nbd.protocol.exports import Export
from ioflusher.nbd.protocol.extents import Extent
from ioflusher.nbd.protocol.messages import Request
from ioflusher.nbd.protocol.negotiated import Negotiated
from ioflusher.nbd.protocol.wire import Cmd, ReplyFlag, ReplyType, TransmissionFlag

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 5.0  # seconds between two tries to connect, twice as long each time
REPLAY_WINDOW = 32  # changes that are sent again without waiting for each one's answer

# Of a chunk's payload that is no data: 16,000 extents, or an error's longest text with all around it.
KEPT = 128 << 10
_CHUNK_REST = Struct(">IQ")  # the end of wire.STRUCTURED_REPLY, and wire.CHUNK_OFFSET where data follows
_IN_CHUNKS = frozenset({Cmd.READ, Cmd.BLOCK_STATUS})  # what must be answered so when that was agreed on
_WISHES = Wishes(structured_replies=True, all_contexts=True)
_Connected: TypeAlias = tuple[socket.socket, EnteredExport]

_log = logging.getLogger(__name__)


Status: TypeAlias = dict[str, tuple[Extent, ...]]  # what a server says of a range, by context


class _InFlight:
    """One request's record: where its answer goes, and the lock on which its thread waits."""

    __slots__ = ("awaited", "done", "entry", "error", "into", "lost", "status")

    def __init__(self) -> None:
        self.done = threading.Lock()
        self.done.acquire()
        self.into: memoryview | None = None
        self.awaited: Awaited | None = None  # when the answer may come in chunks
        self.status: Status | None = None
        self.entry: JournalEntry | None = None
        self.error = 0
        self.lost = False


class _Records:
    """A fixed number of records, given out in the order in which they are asked for.

    A semaphore would let a thread that just gave one back take it again before those that wait for it.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = [_InFlight() for _ in range(count)]
        self._waiting: deque[tuple[threading.Lock, list[_InFlight]]] = deque()

    def take(self) -> _InFlight:
        with self._lock:
            if self._free:
                return self._free.pop()
            given: list[_InFlight] = []
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append((turn, given))
        turn.acquire()
        return given.pop()

    def give_back(self, record: _InFlight) -> None:
        record.into = record.entry = record.awaited = record.status = None
        with self._lock:
            if not self._waiting:
                self._free.append(record)
                return
            turn, given = self._waiting.popleft()
        given.append(record)
        turn.release()


class _Lane:
    """One of the connections, which is another socket after each loss."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held while a request is sent
        self.sock: socket.socket | None = None  # None: broken
        self.era = 0  # of the socket
        self.agreed = Negotiated()
        self.pending: dict[int, _InFlight] = {}
        self.answers = _Answers()


class _Answers:
    """What a server sends on one connection, answer after answer, each to where it belongs.

    Its memory exists beforehand; block status that does not fit is left out, as the protocol allows.
    """

    def __init__(self) -> None:
        self._header = memoryview(bytearray(wire.SIMPLE_REPLY.size))
        self._rest = memoryview(bytearray(_CHUNK_REST.size))
        self._payload = aligned_memory(KEPT)

    def receive(self, sock: socket.socket, pending: Mapping[int, _InFlight], agreed: Negotiated) -> int:
        """Read on to the end of one request's answer; returns its cookie.

        Raises:
            RemoteProtocolError: what comes is no answer to a request that is pending.
            ConnectionLost, OSError: the connection ended.
        """
        while True:
            _fill(sock, self._header)
            reply: tuple[int, int, int] = wire.SIMPLE_REPLY.unpack(self._header)
            magic, error, cookie = reply
            record = pending.get(cookie)
            if record is not None and magic == wire.SIMPLE_REPLY_MAGIC:
                if record.awaited is not None and record.awaited.request.command in _IN_CHUNKS:
                    raise RemoteProtocolError("a simple reply to a request whose answer must be structured")
                record.error = error
                if record.into is not None and not error:
                    _fill(sock, record.into)
                return cookie
            if record is None or magic != wire.STRUCTURED_REPLY_MAGIC or record.awaited is None:
                raise RemoteProtocolError(
                    f"{bytes(self._header).hex()} is no reply to a request that is in flight"
                )
            if self._receive_chunk(sock, (error >> 16, error & 0xFFFF, cookie), record, agreed):
                return cookie

    def _receive_chunk(
        self, sock: socket.socket, begin: tuple[int, int, int], record: _InFlight, agreed: Negotiated
    ) -> bool:
        """The rest of a chunk whose flags, type and cookie are here; returns whether it is the last one."""
        awaited = record.awaited
        assert awaited is not None
        flags, kind, cookie = begin
        is_data = kind == ReplyType.OFFSET_DATA
        size = _CHUNK_REST.size if is_data else wire.LENGTH.size  # together, they cost one call
        _fill(sock, self._rest[:size])
        length, offset = _CHUNK_REST.unpack(self._rest)
        head = flags, kind, cookie, length
        check_head(head, awaited)
        if is_data:
            _fill(sock, awaited.place(offset, length - wire.CHUNK_OFFSET.size))
        else:
            payload = self._payload[: min(length, KEPT)]
            _fill(sock, payload)
            self._drop(sock, length - len(payload))
            chunk = parse_payload(head, bytes(payload), awaited)
            if chunk.error is not None:
                record.error = record.error or chunk.error.error
            if chunk.status is not None and record.status is not None:
                for context in agreed.contexts:
                    if context.number == chunk.status.context:
                        record.status[context.name] = chunk.status.extents
        last = bool(flags & ReplyFlag.DONE)
        if last:
            awaited.finish()
        return last

    def _drop(self, sock: socket.socket, length: int) -> None:
        while length:
            piece = self._payload[: min(length, KEPT)]
            _fill(sock, piece)
            length -= len(piece)


class Link:
    """An export of a server, reached again and again.

    Args:
        address: of the server and its export.
        connections: how many are wanted; one where the server does not say CAN_MULTI_CONN.
        depth: requests in flight at most, on all of them.
        patience: seconds for which requests wait for a server that is gone before they fail.
        timeout: seconds that connecting and the handshake may take.
        answer_within: seconds in which a request must be answered, or the connections are given up; None:
            as long as it takes.
        journal: the changes that a server which came back must be told before all else.

    Attributes:
        export: what the server said of the export at first, with the metadata contexts that it reports.
        connections: how many there are.
        losses: how often the connections were lost.

    Raises:
        NbdError: the server cannot be reached, refuses, or breaks the protocol.
    """

    def __init__(
        self,
        address: Address,
        *,
        connections: int = 1,
        depth: int = 64,
        patience: float = 120.0,
        timeout: float = 30.0,
        answer_within: float | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.address = address
        self.losses = 0
        self._patience = patience
        self._timeout = timeout
        self._answer_within = -1 if answer_within is None else answer_within
        self._journal = journal
        self._changed = threading.Condition()
        self._era = 0  # of the connections that stand
        self._up = False
        self._closed = False
        self._lost_at = 0.0
        self._why = "not connected"
        self._next_cookie = 0
        self._records = _Records(depth)
        self._endpoint = Endpoint(address, spares=connections)
        try:
            first, entered = self._enter()
            self.export = entered.export
            if not self.export.has(TransmissionFlag.CAN_MULTI_CONN):
                connections = 1
            self.connections = connections
            self._lanes = [_Lane() for _ in range(connections)]
            self._idle = connections  # lanes whose thread has let go of its last socket
            self._stand([(first, entered), *self._enter_all(connections - 1)])
            self._endpoint.replenish()
        except BaseException:
            self._endpoint.close()
            raise
        self._threads = [
            threading.Thread(target=self._keep, name="nbd-remote-keep", daemon=True),
            *(
                threading.Thread(target=self._listen, args=(lane,), name="nbd-remote", daemon=True)
                for lane in self._lanes
            ),
        ]
        for thread in self._threads:
            thread.start()

    def request(
        self,
        command: int,
        flags: int,
        offset: int,
        length: int,
        *,
        data: memoryview | None = None,
        into: memoryview | None = None,
        status: Status | None = None,
        entry: JournalEntry | None = None,
    ) -> int:
        """Have a request done, by however many servers it takes; returns the protocol's error value.

        `data` goes along, `into` is filled by a READ, `status` by a BLOCK_STATUS, `entry` is marked when the
        server says that it is done.

        Raises:
            ConnectionLost: no server within the patience, or this link was closed.
        """
        record = self._records.take()
        try:
            record.into, record.status, record.entry = into, status, entry
            while True:
                era = self._era if self._up else self._wait_until_up()
                self._next_cookie = number = (self._next_cookie + 1) & 0xFFFFFFFF
                cookie = number << 16 | era & 0xFFFF
                lane = self._lanes[number % self.connections]
                header = wire.REQUEST.pack(wire.REQUEST_MAGIC, flags, command, cookie, offset, length)
                with lane.lock:
                    sock = lane.sock
                    if sock is None or lane.era != era or cookie in lane.pending:
                        continue
                    record.lost, record.error = False, 0
                    if lane.agreed.structured_replies:
                        record.awaited = Awaited(Request(command, flags, cookie, offset, length), into)
                    lane.pending[cookie] = record
                    try:
                        send_all(sock, header, data)
                    except OSError as error:
                        self._lose(era, str(error))
                if not record.done.acquire(timeout=self._answer_within):
                    self._lose(era, f"no answer to a request within {self._answer_within:g} s")
                    record.done.acquire()
                if not record.lost:
                    return record.error
        finally:
            self._records.give_back(record)

    def interrupt(self) -> None:
        """Let requests under way in other threads, and all later ones, fail at once."""
        with self._changed:
            self._closed = True
            self._lose_here("closed by this side")
            self._changed.notify_all()

    def close(self) -> None:
        """Take leave and close; harmless when done already. No request is under way."""
        with self._changed:
            self._closed = True  # before the server hangs up, which is no loss then
        for lane in self._lanes:
            with lane.lock, contextlib.suppress(OSError):  # it is gone, which is what we wanted
                if lane.sock is not None and self._up:
                    lane.sock.sendall(wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, Cmd.DISC, 0, 0, 0))
        self.interrupt()
        for thread in self._threads:
            thread.join()
        self._endpoint.close()

    def _wait_until_up(self) -> int:
        with self._changed:
            while not self._up or self._closed:
                left = self._lost_at + self._patience - time.monotonic()
                if self._closed or left <= 0:
                    raise ConnectionLost(
                        f"the connection to {self.address.uri!r} is lost: {self._why}", errno=errno.EIO
                    )
                self._changed.wait(left if left < threading.TIMEOUT_MAX else None)
            return self._era

    # Losing.

    def _lose(self, era: int, why: str) -> None:
        """Give up the connections of this era; whoever notices first."""
        with self._changed:
            if self._up and era == self._era:
                self._lose_here(why)
                self._changed.notify_all()

    def _lose_here(self, why: str) -> None:
        if not self._up:
            return
        self._up = False
        self._why = why
        self._lost_at = time.monotonic()
        for lane in self._lanes:
            sock = lane.sock
            if sock is not None:
                with contextlib.suppress(OSError):  # not connected any more
                    sock.shutdown(socket.SHUT_RDWR)  # its thread wakes, and so does who is sending
        if not self._closed:
            self.losses += 1
            _log.warning("connection to %s lost: %s", self.address.uri, why)

    # Receiving: a thread a lane.

    def _listen(self, lane: _Lane) -> None:
        era = 0
        while True:
            with self._changed:
                while not self._closed and lane.era == era:
                    self._changed.wait()
                if self._closed and lane.era == era:
                    return
            era = lane.era
            sock = lane.sock
            assert sock is not None
            try:
                self._receive(sock, lane)
            except (OSError, NbdError) as error:
                self._lose(era, str(error))
            with lane.lock:
                lane.sock = None
                pending = list(lane.pending.values())
                lane.pending.clear()
            sock.close()
            # This thread writes into nobody's memory any more: they may ask elsewhere.
            for record in pending:
                record.lost = True
                record.done.release()
            with self._changed:
                self._idle += 1
                self._changed.notify_all()

    def _receive(self, sock: socket.socket, lane: _Lane) -> None:
        """Hand out answers until the connection ends, which is an error."""
        pending, receive, agreed = lane.pending, lane.answers.receive, lane.agreed
        while True:
            cookie = receive(sock, pending, agreed)
            record = pending[cookie]
            if record.entry is not None:
                # Here and not in its own thread: a change that was acknowledged is among those that are
                # told again, however soon after the answer the connection breaks.
                record.entry.acknowledged = not record.error
                record.entry.void = bool(record.error)
            del pending[cookie]
            record.done.release()

    # Coming back: one thread.

    def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            with self._changed:
                while not self._closed and (self._up or self._idle < self.connections):
                    self._changed.wait()
                if self._closed:
                    return
            try:
                self._come_back()
            except NbdError as error:
                _log.info("%s is not back: %s", self.address.uri, error)
                with self._changed:
                    if not self._closed:
                        self._why = str(error)
                        self._changed.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                _log.warning("connected to %s again", self.address.uri)
                pause = FIRST_PAUSE
                self._endpoint.replenish()

    def _come_back(self) -> None:
        connections = self._enter_all(self.connections)
        try:
            if self._journal is not None:
                with self._journal.held() as changes:
                    first, entered = connections[0]
                    tell_again(first, changes, self._timeout, entered.negotiated)
        except (OSError, NbdError) as error:
            for sock, _ in connections:
                sock.close()
            if isinstance(error, NbdError):
                raise
            raise ConnectionLost(f"lost again while changes were told: {error}", errno=errno.EIO) from error
        self._stand(connections)

    def _stand(self, connections: list[_Connected]) -> None:
        with self._changed:
            if self._closed:
                for sock, _ in connections:
                    sock.close()
                return
            self._era += 1
            for lane, (sock, entered) in zip(self._lanes, connections, strict=True):
                sock.settimeout(None)
                lane.agreed = entered.negotiated
                lane.era, lane.sock = self._era, sock  # in this order: who has an old era must not send
            self._idle = 0
            self._up = True
            self._changed.notify_all()

    def _enter_all(self, count: int) -> list[_Connected]:
        connections: list[_Connected] = []
        try:
            while len(connections) < count:
                sock, entered = self._enter()
                connections.append((sock, entered))
                self._compare(entered.export)
        except BaseException:
            for sock, _ in connections:
                sock.close()
            raise
        return connections

    def _enter(self) -> _Connected:
        sock = encryptable(self._endpoint.connect(self._timeout), self.address)
        try:
            connection, export = negotiate(sock, self.address, _WISHES)
        except BaseException:
            sock.close()
            raise
        contexts = tuple(context.name for context in connection.negotiated.contexts)
        return sock, EnteredExport(replace(export, contexts=contexts), connection.negotiated)

    def _compare(self, export: Export) -> None:
        """Refuse a server that came back as another one."""
        was = self.export
        missing = was.flags & ~export.flags & ~TransmissionFlag.CAN_MULTI_CONN
        if self.connections == 1 or export.has(TransmissionFlag.CAN_MULTI_CONN):
            limits = (was.block_size.minimum, was.block_size.maximum)
            fits = export.block_size.minimum <= limits[0] and export.block_size.maximum >= limits[1]
            same = (export.name, export.size) == (was.name, was.size)
            if same and not missing and fits and {*export.contexts} >= {*was.contexts}:
                return
        raise NbdError(
            f"{self.address.uri!r} came back as another export: {export.name!r}, {export.size} bytes, "
            f"flags {export.flags:#x}, {export.block_size}, contexts {export.contexts}; it was {was.name!r}, "
            f"{was.size} bytes, flags {was.flags:#x}, {was.block_size}, contexts {was.contexts}"
        )


def _fill(sock: socket.socket, view: memoryview) -> None:
    """Receive exactly that much; a signal may cut the call short."""
    while view:
        count = sock.recv_into(view, 0, socket.MSG_WAITALL)
        if not count:
            raise ConnectionLost("it closed the connection", errno=errno.EIO)
        view = view[count:]


def tell_again(sock: socket.socket, changes: list[Change], timeout: float, agreed: Negotiated) -> None:
    """Send changes of which no two overlap, several before their answers are there.

    Raises:
        NbdError: the server refused one, or broke the protocol.
        OSError: the connection broke, or `timeout` seconds went by without an answer.
    """
    sock.settimeout(timeout)
    answers, pending = _Answers(), dict[int, _InFlight]()
    for start in range(0, len(changes), REPLAY_WINDOW):
        window = changes[start : start + REPLAY_WINDOW]
        for cookie, change in enumerate(window):
            request = Request(change.command, change.flags, cookie, change.offset, change.length)
            pending[cookie] = record = _InFlight()
            if agreed.structured_replies:
                record.awaited = Awaited(request, None)
            send_all(sock, request.pack(), change.data)
        while pending:
            cookie = answers.receive(sock, pending, agreed)
            error, answered = pending.pop(cookie).error, window[cookie]
            if error:
                raise NbdError(
                    f"the server that came back refuses what was acknowledged before: error {error} for "
                    f"{Cmd(answered.command).name} at {answered.offset}, {answered.length} bytes",
                    errno=wire.wire_to_errno(error),
                )
