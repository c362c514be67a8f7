"""A connection's requests done several at once, for back ends that wait for a network or a disk.

The connection's thread receives; workers, one for each request that may be under way, do requests and send
each answer as soon as it is there. They and their memory exist before the first request, and they are the
connection's own: a client that does not take its answers, or stops within a payload, holds up itself alone.
When all are busy, nothing more is received. A RESIZE is done alone: the size that a request was checked
against stays until the request is done.
"""

import logging
import socket
import threading
from dataclasses import replace
from queue import SimpleQueue
from typing import Final

from ioflusher.nbd.protocol.connection import aligned_memory
from ioflusher.nbd.protocol.messages import Request
from ioflusher.nbd.protocol.request_stream import RequestHead, RequestStream, command_of, flags_of
from ioflusher.nbd.protocol.wire import Cmd
from ioflusher.nbd.server.counters import Tally
from ioflusher.nbd.server.requests import Service, answer, check, check_payload
from ioflusher.nbd.server.transfer import drop, hang_up, receive_all, send_all

RECEIVE: Final = 64 << 10  # bytes that one receive may bring
PRESENT: Final = 1 << 20  # bytes of a worker's memory that are there from the start; most requests need less

_log = logging.getLogger(__name__)


class AtOnce:
    """One connection in transmission.

    Args:
        sock: connected and blocking.
        service: what is served.
        tallies: where requests are counted; as many requests are done at once as there are.
        stopping: when set, no further request is begun.
        prefault: whether the workers' memory is touched beforehand.
    """

    def __init__(
        self,
        sock: socket.socket,
        service: Service,
        tallies: list[Tally],
        stopping: threading.Event,
        *,
        prefault: bool = True,
    ) -> None:
        self._sock = sock
        self._service = service
        self._stopping = stopping
        extended = service.negotiated.extended_headers
        self._stream = RequestStream(aligned_memory(RECEIVE), extended=extended)
        self._sending = threading.Lock()
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        present = PRESENT if prefault else 0
        self._workers = [_Worker(self, tally, present) for tally in tallies]

    def run(self) -> None:
        """Answer requests until the client leaves or the server stops; those under way are finished.

        Raises:
            RemoteProtocolError: the client sent something else.
            OSError: the connection failed.
        """
        stream = self._stream
        try:
            for worker in self._workers:
                worker.thread.start()
                self._idle.put(worker)
            for request in stream.requests(self._sock.recv_into):
                if request is None:
                    if self._stopping.is_set():
                        return
                elif not self._hand_on(request):
                    return
        finally:
            for worker in self._workers:
                if worker.thread.ident is not None:
                    worker.jobs.put(None)
            for worker in self._workers:
                if worker.thread.ident is not None:
                    worker.thread.join()
            # They know this object: their memory would stay until the garbage collector comes by.
            self._workers.clear()
            while not self._idle.empty():
                self._idle.get()

    def _hand_on(self, head: RequestHead) -> bool:
        """Give a request to the next idle worker; returns whether more can come."""
        word, cookie, offset, length = head
        request = Request(command_of(word), flags_of(word), cookie, offset, length)
        if request.command == Cmd.DISC:
            return False
        worker = self._idle.get()
        if self._stopping.is_set():
            return False
        if self._stream.has_payload(word):
            check_payload(length, self._service)
            if check(request, self._service):
                if not drop(self._sock, self._stream.skip(length), worker.memory):
                    return False
            else:
                payload = worker.memory[:length]
                if not receive_all(self._sock, self._stream.split(payload)):
                    return False
                request = replace(request, data=payload)
        if request.command == Cmd.RESIZE:
            self._do_alone(worker, request)
        else:
            worker.jobs.put(request)
        return True

    def _do_alone(self, worker: "_Worker", request: Request) -> None:
        """Do a request behind those that are under way and before all others.

        A WRITE that was checked against a larger size would make a file longer again.
        """
        others = [self._idle.get() for _ in self._workers[1:]]
        worker.do(request)
        for idle in (worker, *others):
            self._idle.put(idle)


class _Worker:
    """A thread that does one request after the other, and the memory for one."""

    def __init__(self, connection: AtOnce, tally: Tally, present: int) -> None:
        self.jobs: SimpleQueue[Request | None] = SimpleQueue()
        self.memory = aligned_memory(connection._service.export.block_size.maximum, present=present)
        self.thread = threading.Thread(target=self._run, name="nbd-worker", daemon=True)
        self._connection = connection
        self._tally = tally

    def do(self, request: Request) -> None:
        """Do a request and send its answer; where that fails, the connection ends."""
        connection = self._connection
        try:
            error, views = answer(request, connection._service, self.memory)
            self._tally.count(request.command, request.length, error)
            with connection._sending:
                send_all(connection._sock, views, sum(map(len, views)))
        except OSError:  # of the socket: the client is gone
            hang_up(connection._sock, socket.SHUT_RDWR)
        except Exception:
            _log.exception("a mistake in the back end; its connection ends")
            hang_up(connection._sock, socket.SHUT_RDWR)

    def _run(self) -> None:
        while (request := self.jobs.get()) is not None:
            self.do(request)
            self._connection._idle.put(self)
