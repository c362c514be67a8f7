"""The hot path: a connection's requests done in turn by its own thread, for back ends that do not wait.

One receive brings as many requests as the client has sent, one `sendmsg` takes all their answers: under load
the system calls are shared by dozens of requests, and what remains of each is a microsecond of Python and the
copy. A READ is answered from the back end's own memory where it has some, else by way of the connection's; a
WRITE is stored from where it was received, or received where it is stored. All that is allocated are small
objects that die with their batch: after the first requests the process asks the kernel for no memory any
more.

Plain READs and WRITEs, which is what devices send, are checked and done in `_run`; all others by
`requests.answer`.
"""

import select
import socket
import threading
from collections.abc import Iterable, Sized
from dataclasses import replace
from itertools import chain
from typing import Final

from ioflusher.errors import IoflusherError
from ioflusher.nbd.backends.backend import has_own
from ioflusher.nbd.protocol import replies
from ioflusher.nbd.protocol.connection import aligned_memory
from ioflusher.nbd.protocol.extents import BlockState, Extent
from ioflusher.nbd.protocol.messages import Request
from ioflusher.nbd.protocol.request_stream import READ, WRITE, RequestStream, command_of, flags_of
from ioflusher.nbd.protocol.wire import Cmd
from ioflusher.nbd.server.counters import Tally
from ioflusher.nbd.server.requests import (
    HOLE_WORTH_A_CHUNK,
    Service,
    Views,
    answer,
    answer_around_holes,
    check,
    check_payload,
    failed,
    leaves_out_holes,
)
from ioflusher.nbd.server.transfer import drop, receive_all, send_all

RECEIVE: Final = 256 << 10  # bytes that one receive may bring
SEND_AT: Final = 256 << 10  # bytes of answers that are not gathered any further
# Bytes of a connection's memory that are there from the start: Linux sends requests of 1280 KiB at most, and
# the last one that is gathered may be so long.
PRESENT: Final = 2 << 20
# How often the server looks for the next request before it sleeps. Each look takes 0.5 us; going to sleep and
# being woken takes longer, for the client as well, whose next request is most often here within that time.
# With several connections another thread would use it better.
LOOKS: Final = 20
# Where it looks in vain, as it does while the client shares its processor, it lets receives pass before it
# looks again, each time twice as many, and so many at most.
MOST_SKIPPED: Final = 63
FEW: Final = 4  # requests of one receive; after more it sleeps at once, as others may want the processor
_READ = int(Cmd.READ)  # members of an enumeration are slower
_ZERO = int(BlockState.ZERO)


class InTurn:
    """One connection in transmission.

    Args:
        sock: connected and blocking.
        service: what is served.
        memory: for payloads that the back end has no memory for, page-aligned, at least the longest one.
        tally: where requests are counted.
        stopping: when set, no further request is begun that could take time.
        peers: the server's connections, this one among them.
    """

    def __init__(
        self,
        sock: socket.socket,
        service: Service,
        memory: memoryview,
        tally: Tally,
        stopping: threading.Event,
        peers: Sized = (),
    ) -> None:
        self._sock = sock
        self._service = service
        self._memory = memory
        self._tally = tally
        self._stopping = stopping
        self._peers = peers
        extended = service.negotiated.extended_headers
        self._stream = RequestStream(aligned_memory(RECEIVE), extended=extended)
        self._answers: Views = []  # not sent yet; the data of READs may lie in `memory`

    def run(self) -> None:
        """Answer requests until the client leaves or the server stops.

        Raises:
            RemoteProtocolError: the client sent something else; what it asked before is answered.
            OSError: the connection failed.
        """
        try:
            self._run()
        finally:
            self._send(sum(map(len, self._answers)))

    def _run(self) -> None:
        stream, tally, stopping = self._stream, self._tally, self._stopping.is_set
        sock, answers, append, memory = self._sock, self._answers, self._answers.append, self._memory
        backend, size = self._service.backend, self._service.export.size
        memory_at, read_into = backend.memory_at, backend.read_into
        memory_for, write = backend.memory_for, backend.write
        has_memory = has_own(backend, "memory_at")
        structured = self._service.negotiated.structured_replies
        done, whole_data, done_size = replies.done, replies.whole_data, replies.DONE_SIZE
        header_size = replies.WHOLE_DATA_SIZE if structured else done_size
        longest_read, longest_write, never_asked = self._plain_lengths()
        reads = bytes_read = writes = bytes_written = 0
        waiting = used = 0  # bytes of answers, and of `memory` that some of them lie in
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        look, seen, peers = poll.poll, 0, self._peers
        skip = vain = 0  # receives before which it does not look, since it looked in vain

        try:
            for request in stream.requests(sock.recv_into):
                if request is None:
                    tally.plain = (reads, bytes_read, writes, bytes_written)
                    if waiting:
                        send_all(sock, answers, waiting)
                        answers.clear()
                        waiting = used = 0
                    if stopping():
                        return
                    if reads + writes - seen <= FEW and len(peers) < 2:
                        if skip:
                            skip -= 1
                        else:
                            for _ in range(LOOKS):
                                if look(0):
                                    vain = 0
                                    break
                            else:
                                skip = vain = min(2 * vain + 1, MOST_SKIPPED)
                    seen = reads + writes
                    continue
                head, cookie, offset, length = request
                if head == READ and 0 < length <= longest_read and offset + length <= size:
                    if length > never_asked:
                        try:
                            extents = self._holes(offset, length)
                        except (OSError, IoflusherError) as error:
                            waiting += self._fail(cookie, offset, error)
                            continue
                        if extents is not None:
                            waiting = used = self._send(waiting)
                            self._read_around(Request(_READ, 0, cookie, offset, length), extents)
                            continue
                    data = memory_at(offset, length) if has_memory else None
                    if data is None:
                        if used + length > len(memory):
                            waiting = used = self._send(waiting)
                        data = memory[used : used + length]
                        try:
                            read_into(offset, data)
                        except (OSError, IoflusherError) as error:
                            waiting += self._fail(cookie, offset, error)
                            continue
                        used += length
                    append(whole_data(cookie, offset, length) if structured else done(cookie))
                    append(data)
                    reads += 1
                    bytes_read += length
                    waiting += header_size + length
                    if waiting >= SEND_AT:
                        waiting = used = self._send(waiting)
                elif head == WRITE and length <= longest_write and offset + length <= size:
                    stored = None
                    payload = stream.take(length)
                    if payload is None:  # the rest of it is still to come
                        waiting = used = self._send(waiting)
                        stored = memory_for(offset, length)
                        payload = memory[:length] if stored is None else stored
                        if not receive_all(sock, stream.split(payload)):
                            return
                    if stopping():
                        return
                    try:
                        if stored is None:
                            write(offset, payload)
                    except (OSError, IoflusherError) as error:
                        waiting += self._fail(cookie, offset, error)
                        continue
                    append(done(cookie))
                    waiting += done_size
                    writes += 1
                    bytes_written += length
                else:
                    waiting = used = self._send(waiting)
                    other = Request(command_of(head), flags_of(head), cookie, offset, length)
                    if not self._do_other(head, other):
                        return
                    size = self._service.export.size  # which a client may change
        finally:
            tally.plain = (reads, bytes_read, writes, bytes_written)

    def _plain_lengths(self) -> tuple[int, int, int]:
        """Up to which length a READ and a WRITE without flags are plain, and a READ wherever holes are."""
        service, block_size = self._service, self._service.export.block_size
        read = write = block_size.maximum if block_size.minimum == 1 else -1
        never_asked = read
        if service.negotiated.structured_replies and leaves_out_holes(service.backend):
            never_asked = HOLE_WORTH_A_CHUNK - 1
        return read, write if service.backend.can_write else -1, never_asked

    def _holes(self, offset: int, length: int) -> Iterable[Extent] | None:
        """What the back end knows of a range; None where all is data, which one chunk answers."""
        extents = iter(self._service.backend.extents(offset, length))
        first = next(extents, None)
        if first is None:
            return ()
        if first.length >= length and not first.flags & _ZERO:
            return None
        return chain((first,), extents)

    def _read_around(self, request: Request, extents: Iterable[Extent]) -> None:
        """Answer a READ without the holes among `extents`; nothing else is gathered."""
        error, views = answer_around_holes(request, self._service, self._memory, extents)
        self._answer(request, error, views)

    def _answer(self, request: Request, error: int, views: Views) -> None:
        self._answers += views
        self._tally.count(request.command, request.length, error)
        self._send(sum(map(len, views)))

    def _do_other(self, head: int, request: Request) -> bool:
        """Do a request that is no plain READ or WRITE; returns whether more can come."""
        if request.command == Cmd.DISC or self._stopping.is_set():
            return False
        if self._stream.has_payload(head):
            check_payload(request.length, self._service)
            if check(request, self._service):
                if not drop(self._sock, self._stream.skip(request.length), self._memory):
                    return False
            else:
                payload = self._memory[: request.length]
                if not receive_all(self._sock, self._stream.split(payload)):
                    return False
                request = replace(request, data=payload)
        error, views = answer(request, self._service, self._memory)
        self._answer(request, error, views)
        return True

    def _fail(self, cookie: int, offset: int, error: OSError | IoflusherError) -> int:
        """Answer a plain READ or WRITE that the back end failed to do; returns the answer's length."""
        number, reply = failed(cookie, offset, self._service, error)
        self._answers.append(reply)
        self._tally.count(_READ, 0, number)
        return len(reply)

    def _send(self, length: int) -> int:
        """Send what is gathered, `length` bytes; returns how many are left, which is 0."""
        if length:
            send_all(self._sock, self._answers, length)
            self._answers.clear()
        return 0
