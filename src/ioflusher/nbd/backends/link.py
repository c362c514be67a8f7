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

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends.journal import Change, Journal, JournalEntry
from ioflusher.nbd.client import encryptable, negotiate, send_all
from ioflusher.nbd.endpoint import Endpoint
from ioflusher.nbd.errors import ConnectionLost, NbdError, RemoteProtocolError
from ioflusher.nbd.protocol import wire
from ioflusher.nbd.protocol.exports import Export
from ioflusher.nbd.protocol.wire import Cmd, TransmissionFlag

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 5.0  # seconds between two tries to connect, twice as long each time
REPLAY_WINDOW = 32  # changes that are sent again without waiting for each one's answer

_log = logging.getLogger(__name__)


class _InFlight:
    """One request's record: where its answer goes, and the lock on which its thread waits."""

    __slots__ = ("done", "entry", "error", "into", "lost")

    def __init__(self) -> None:
        self.done = threading.Lock()
        self.done.acquire()
        self.into: memoryview | None = None
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
        record.into = record.entry = None
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
        self.pending: dict[int, _InFlight] = {}
        self.header = memoryview(bytearray(wire.SIMPLE_REPLY.size))


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
        export: what the server said of the export at first.
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
            first, self.export = self._enter()
            if not self.export.has(TransmissionFlag.CAN_MULTI_CONN):
                connections = 1
            self.connections = connections
            self._lanes = [_Lane() for _ in range(connections)]
            self._idle = connections  # lanes whose thread has let go of its last socket
            self._stand([first, *self._enter_all(connections - 1)])
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
        entry: JournalEntry | None = None,
    ) -> int:
        """Have a request done, by however many servers it takes; returns the protocol's error value.

        `data` goes along, `into` is filled by a READ, `entry` is marked when the server says that it is done.

        Raises:
            ConnectionLost: no server within the patience, or this link was closed.
        """
        record = self._records.take()
        try:
            record.into, record.entry = into, entry
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
                    record.lost = False
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
        header, pending = lane.header, lane.pending
        unpack = wire.SIMPLE_REPLY.unpack
        while True:
            _fill(sock, header)
            magic, error, cookie = unpack(header)
            record = pending.get(cookie)
            if magic != wire.SIMPLE_REPLY_MAGIC or record is None:
                raise RemoteProtocolError(
                    f"{bytes(header).hex()} is no simple reply to a request that is in flight"
                )
            into = record.into
            if into is not None and not error:
                _fill(sock, into)
            elif record.entry is not None:
                # Here and not in its own thread: a change that was acknowledged is among those that are
                # told again, however soon after the answer the connection breaks.
                record.entry.acknowledged = not error
                record.entry.void = bool(error)
            record.error = error
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
        sockets = self._enter_all(self.connections)
        try:
            if self._journal is not None:
                with self._journal.held() as changes:
                    tell_again(sockets[0], changes, self._timeout)
        except (OSError, NbdError) as error:
            for sock in sockets:
                sock.close()
            if isinstance(error, NbdError):
                raise
            raise ConnectionLost(f"lost again while changes were told: {error}", errno=errno.EIO) from error
        self._stand(sockets)

    def _stand(self, sockets: list[socket.socket]) -> None:
        with self._changed:
            if self._closed:
                for sock in sockets:
                    sock.close()
                return
            self._era += 1
            for lane, sock in zip(self._lanes, sockets, strict=True):
                sock.settimeout(None)
                lane.era, lane.sock = self._era, sock  # in this order: who has an old era must not send
            self._idle = 0
            self._up = True
            self._changed.notify_all()

    def _enter_all(self, count: int) -> list[socket.socket]:
        sockets: list[socket.socket] = []
        try:
            while len(sockets) < count:
                sock, export = self._enter()
                sockets.append(sock)
                self._compare(export)
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        return sockets

    def _enter(self) -> tuple[socket.socket, Export]:
        sock = encryptable(self._endpoint.connect(self._timeout), self.address)
        try:
            _, export = negotiate(sock, self.address)
        except BaseException:
            sock.close()
            raise
        return sock, export

    def _compare(self, export: Export) -> None:
        """Refuse a server that came back as another one."""
        was = self.export
        missing = was.flags & ~export.flags & ~TransmissionFlag.CAN_MULTI_CONN
        if self.connections == 1 or export.has(TransmissionFlag.CAN_MULTI_CONN):
            limits = (was.block_size.minimum, was.block_size.maximum)
            fits = export.block_size.minimum <= limits[0] and export.block_size.maximum >= limits[1]
            if export.size == was.size and not missing and fits:
                return
        raise NbdError(
            f"{self.address.uri!r} came back as another export: {export.size} bytes, "
            f"flags {export.flags:#x}, {export.block_size}; it had {was.size} bytes, "
            f"flags {was.flags:#x}, {was.block_size}"
        )


def _fill(sock: socket.socket, view: memoryview) -> None:
    """Receive exactly that much; a signal may cut the call short."""
    while view:
        count = sock.recv_into(view, 0, socket.MSG_WAITALL)
        if not count:
            raise ConnectionLost("it closed the connection", errno=errno.EIO)
        view = view[count:]


def tell_again(sock: socket.socket, changes: list[Change], timeout: float) -> None:
    """Send changes of which no two overlap, several before their answers are there.

    Raises:
        NbdError: the server refused one, or broke the protocol.
        OSError: the connection broke, or `timeout` seconds went by without an answer.
    """
    sock.settimeout(timeout)
    header = memoryview(bytearray(wire.SIMPLE_REPLY.size))
    for start in range(0, len(changes), REPLAY_WINDOW):
        window = dict(enumerate(changes[start : start + REPLAY_WINDOW]))
        for cookie, change in window.items():
            head = wire.REQUEST.pack(
                wire.REQUEST_MAGIC, change.flags, change.command, cookie, change.offset, change.length
            )
            send_all(sock, head, change.data)
        while window:
            _fill(sock, header)
            magic, error, cookie = wire.SIMPLE_REPLY.unpack(header)
            answered = window.pop(cookie, None)
            if magic != wire.SIMPLE_REPLY_MAGIC or answered is None:
                raise RemoteProtocolError(f"{bytes(header).hex()} is no simple reply to a request in flight")
            if error:
                raise NbdError(
                    f"the server that came back refuses what was acknowledged before: error {error} for "
                    f"{Cmd(answered.command).name} at {answered.offset}, {answered.length} bytes",
                    errno=wire.wire_to_errno(error),
                )
