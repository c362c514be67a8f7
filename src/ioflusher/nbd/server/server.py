"""The NBD server: sockets and threads around the protocol and back ends.

A thread a connection. A connection's memory is allocated when it begins; a request costs nothing but a few
small objects. Threads inherit the IO_FLUSHER state of the thread that calls `serve_forever` or `start`, so
it is set before.
"""

import contextlib
import errno
import itertools
import logging
import mmap
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import Backend
from ioflusher.nbd.errors import NbdError, from_system
from ioflusher.nbd.protocol import wire
from ioflusher.nbd.protocol.connection import NbdConnection, aligned_memory
from ioflusher.nbd.protocol.entered import EnteredExport
from ioflusher.nbd.protocol.exports import Export, check_name
from ioflusher.nbd.protocol.extents import BASE_ALLOCATION
from ioflusher.nbd.protocol.server_handshake import TlsMode
from ioflusher.nbd.protocol.states import NbdRole
from ioflusher.nbd.server.at_once import AtOnce
from ioflusher.nbd.server.counters import Counters, Statistics, Tally
from ioflusher.nbd.server.in_turn import PRESENT, InTurn
from ioflusher.nbd.server.log import event
from ioflusher.nbd.server.reception import Reception
from ioflusher.nbd.server.requests import Service, export_of
from ioflusher.nbd.server.transfer import hang_up
from ioflusher.nbd.tls.settings import ClientTls, ServerTls
from ioflusher.support.signals import waking_signals

HANDSHAKE_TIMEOUT = 30.0  # seconds that a peer may take for the whole handshake
CLOSE_GRACE = 2.0  # seconds that requests under way get when the server closes
PAGE = mmap.PAGESIZE
LARGEST_PAYLOAD = 1 << 30  # bytes; the protocol's field has 32 bits, and each connection takes this memory
KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 6}  # seconds; tries
SOCKET_MODE = 0o600  # a block device is its owner's business

_log = logging.getLogger(__name__)
_statistics_log = logging.getLogger(f"{__name__}.statistics")  # which are logged because somebody asked


class Server:
    """Serves back ends, each under its name, until it is closed.

    Args:
        backend: the first that is served; further ones with `add_export`.
        export: its name; clients that ask for the empty name get it too.
        description: a sentence about it for people.
        max_payload: bytes of the longest READ or WRITE, whole pages; each connection has so much
            memory, most of it only when it is used, or when memory is locked.
        max_connections: how many at once. A further one takes the place of the oldest that has no export yet;
            where there is none it is closed at once.
        depth: requests of one connection that are done at once where the back end waits; each has a thread
            and memory for the longest payload.
        tls: credentials, and whether clients must encrypt; None: they cannot.
        handshake_timeout: seconds that a client may take until it has an export.
        idle_timeout: seconds after which a client that sends nothing is cut off; None: it may stay.
        extended_headers: whether clients may have lengths of 64 bits, which is experimental in the protocol.
        resize: whether they may change the size of an export (NBD_CMD_RESIZE), where its back end can; this
            is experimental as well.
        prefault: whether the memory of a connection is touched when it begins; else each page when a request
            needs it first.

    Raises:
        NbdError: a payload limit or a name that the protocol cannot express, or credentials that are none.

    Attributes:
        export: the first one: size, flags and block sizes as clients see them.
        refusing: whether new connections are closed at once.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        export: str = "",
        description: str = "",
        max_payload: int = wire.DEFAULT_MAX_PAYLOAD,
        max_connections: int = 16,
        depth: int = 16,
        tls: ServerTls | None = None,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        idle_timeout: float | None = None,
        extended_headers: bool = False,
        resize: bool = False,
        prefault: bool = True,
    ) -> None:
        if not (PAGE <= max_payload <= LARGEST_PAYLOAD) or max_payload % PAGE:
            raise NbdError(
                f"a payload limit of {max_payload}; expected a multiple of {PAGE}, at most {LARGEST_PAYLOAD}"
            )
        self._max_payload = max_payload
        self._handshake_timeout = handshake_timeout
        self._idle_timeout = idle_timeout
        self._extended_headers = extended_headers
        self._grants_resize = resize
        self._prefault = prefault
        self._tls_mode, self._tls_context = TlsMode.OFF, None
        if tls is not None:
            from ioflusher.nbd.tls.contexts import server_context  # who does not encrypt loads no OpenSSL

            self._tls_context = server_context(tls)
            self._tls_mode = TlsMode.REQUIRE if tls.required else TlsMode.ON
        self._exports: dict[str, Export] = {}
        self._backends: dict[str, Backend] = {}
        self.export = self.add_export(export, backend, description=description)
        self._max_connections = max_connections
        self._depth = depth
        self.refusing = False
        self._selector = selectors.DefaultSelector()
        self._listeners: list[socket.socket] = []
        self._socket_files: list[tuple[str, os.stat_result]] = []
        # Written to by `stop`, which a signal handler may call.
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._peers: dict[_Peer, None] = {}  # the oldest first
        self._past: dict[str, Counters] = {}  # of connections that are over, by export
        self._accepted = self._refused = 0
        self._statistics_asked = self._stop_when_alone = False
        self._numbers = itertools.count(1)
        self._accepter: threading.Thread | None = None

    def add_export(self, name: str, backend: Backend, *, description: str = "") -> Export:
        """Serve a further back end; new connections can ask for it from now on.

        Args:
            name: what clients ask for.
            backend: it stays the caller's, who closes it after the server.
            description: a sentence about it for people.

        Raises:
            NbdError: the name is taken, or name or description are none that the protocol can carry.
        """
        name, description = check_name(name), check_name(description)
        if name in self._exports:
            raise NbdError(f"two exports of the name {name!r}", hint="give each a name of its own")
        contexts = (BASE_ALLOCATION, *backend.contexts)
        export = replace(
            export_of(backend, name, self._max_payload, resize=self._grants_resize),
            description=description,
            contexts=contexts,
        )
        # a connection's thread that reads meanwhile sees one dictionary or the other, whole
        self._backends = {**self._backends, name: backend}
        self._exports = {**self._exports, name: export}
        return export

    def listen_unix(self, path: str) -> Address:
        """Listen on a Unix socket that only this user may connect to; it is removed at `close`.

        Raises:
            NbdError: the path exists already or cannot be made.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(path)
            # Nobody can connect before `listen`, so the mode is never seen wide open.
            os.chmod(path, SOCKET_MODE)
            self._socket_files.append((path, os.stat(path)))
            self._listen(listener)
        except OSError as error:
            listener.close()
            in_use = error.errno == errno.EADDRINUSE
            hint = "a server uses it, or left it behind: if none runs, remove it" if in_use else None
            raise from_system(f"cannot listen on {path!r}", error, hint=hint) from error
        return Address(path=os.path.abspath(path), export=self.export.name, tls=self._clients_tls())

    def listen_tcp(self, host: str = "127.0.0.1", port: int = 0) -> Address:
        """Listen on TCP, on the loopback unless another host is given; port 0: the system picks one.

        Without TLS there is neither encryption nor authentication.

        Raises:
            NbdError: the address is in use or not this machine's.
        """
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            listener = socket.create_server((host, port), family=family)
            self._listen(listener)
        except (OSError, UnicodeError) as error:
            raise from_system(f"cannot listen on {host!r} port {port}", error) from error
        bound = listener.getsockname()
        return Address(host=bound[0], port=bound[1], export=self.export.name, tls=self._clients_tls())

    def listen_on(self, listener: socket.socket) -> Address:
        """Use a socket that listens already, such as one of systemd's; at `close` its file stays."""
        self._listen(listener)
        bound = listener.getsockname()
        if listener.family == socket.AF_UNIX:
            return Address(path=os.fsdecode(bound), export=self.export.name, tls=self._clients_tls())
        return Address(host=bound[0], port=bound[1], export=self.export.name, tls=self._clients_tls())

    def serve_connected(self, sock: socket.socket) -> None:
        """Serve a client that is connected already, as inetd hands it over, and `stop` when it has left."""
        self._stop_when_alone = True
        self._greet(sock)

    def _listen(self, listener: socket.socket) -> None:
        listener.listen()
        listener.setblocking(False)
        self._listeners.append(listener)
        self._selector.register(listener, selectors.EVENT_READ)

    def serve_forever(
        self, *, sign_of_life: Callable[[], None] = lambda: None, interval: float | None = None
    ) -> None:
        """Accept connections until `stop` or `close`.

        Args:
            sign_of_life: called every `interval` seconds, between two connections.
            interval: None: never.
        """
        due = 0.0
        with waking_signals() as signalled:
            if signalled is not None:
                self._selector.register(signalled, selectors.EVENT_READ)
            while not self._stopping.is_set():
                if interval is not None and time.monotonic() >= due:
                    sign_of_life()
                    due = time.monotonic() + interval
                for key, _ in self._selector.select(interval):
                    if isinstance(key.fileobj, socket.socket):
                        self._accept(key.fileobj)
                    else:
                        os.read(key.fd, 64)  # whatever woke us is done below
                if self._statistics_asked:
                    self._statistics_asked = False
                    self._log_statistics()
            if signalled is not None:
                self._selector.unregister(signalled)

    def ask_statistics(self) -> None:
        """Have `serve_forever` log the statistics; signal handlers and other threads may call it."""
        self._statistics_asked = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def start(self) -> None:
        """`serve_forever` in a thread of its own."""
        self._accepter = threading.Thread(target=self.serve_forever, name="nbd-accept", daemon=True)
        self._accepter.start()

    def stop(self) -> None:
        """Make `serve_forever` return; signal handlers and other threads may call it."""
        self._stopping.set()
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def hang_up(self) -> None:
        """Cut every connection that there is; clients may come again."""
        with self._lock:
            peers = list(self._peers)
        for peer in peers:
            peer.hang_up(socket.SHUT_RDWR)

    def counters(self) -> Counters:
        """What was done so far, on connections past and present."""
        return sum(self.statistics().exports.values(), Counters())

    def statistics(self) -> Statistics:
        """What was done so far by export, and how many clients there are."""
        with self._lock:
            done = {name: self._past.get(name, Counters()) for name in self._exports}
            connections = dict.fromkeys(self._exports, 0)
            handshakes = 0
            for peer in self._peers:
                if peer.export is None:
                    handshakes += 1
                else:
                    done[peer.export] += peer.counters()
                    connections[peer.export] += 1
            return Statistics(done, connections, handshakes, self._accepted, self._refused)

    def _log_statistics(self) -> None:
        now = self.statistics()
        event(
            _statistics_log,
            logging.INFO,
            "statistics",
            **{"handshakes": now.handshakes, "accepted": now.accepted, "refused": now.refused},
        )
        for name, counters in now.exports.items():
            facts = {"export": name, "connections": now.connections[name], **asdict(counters)}
            event(_statistics_log, logging.INFO, "statistics of an export", **facts)

    def close(self) -> None:
        """End all threads and close all sockets: requests under way get a moment, then they are cut off.

        Not while another thread is in `serve_forever`: `stop` that first.
        """
        if self._wake < 0:
            return
        self.stop()
        if self._accepter is not None:
            self._accepter.join()
        for listener in self._listeners:
            listener.close()
        for path, mine in self._socket_files:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(path), mine):
                    os.unlink(path)
        with self._lock:
            peers = list(self._peers)
        for peer in peers:
            peer.hang_up(socket.SHUT_RD)  # nothing more is read, an answer can still go out
        if not _join(peers, CLOSE_GRACE):
            for backend in self._backends.values():
                backend.interrupt()
            for peer in peers:
                peer.hang_up(socket.SHUT_RDWR)
            _join(peers, CLOSE_GRACE)
        self._selector.close()
        wake, self._wake = self._wake, -1
        os.close(wake)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _clients_tls(self) -> ClientTls | None:
        """What an address says of TLS; the client's credentials are its own business."""
        return ClientTls() if self._tls_mode is TlsMode.REQUIRE else None

    def _reception(self) -> Reception:
        return Reception(
            exports=self._exports,
            default=self.export.name,
            context=self._tls_context,
            tls=self._tls_mode,
            seconds=self._handshake_timeout,
            closing=self._stopping.is_set,
            extended_headers=self._extended_headers,
        )

    def _number(self) -> int:
        """A number for a connection in the log."""
        return next(self._numbers)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            # It gave up before we came, or descriptors ran out: then trying at once would spin.
            self._stopping.wait(0.1)
            return
        self._greet(sock)

    def _greet(self, sock: socket.socket) -> None:
        """Give a client its thread, if there is room."""
        with self._lock:
            full = len(self._peers) >= self._max_connections
            # whoever connects and says nothing does not keep others out
            oldest = next((peer for peer in self._peers if peer.export is None), None) if full else None
            refused = self.refusing or (full and oldest is None)
            self._accepted += 1
            if not refused:
                peer = _Peer(sock, self)
                self._peers[peer] = None
                if oldest is not None:
                    del self._peers[oldest]
            else:
                self._refused += 1
        if oldest is not None:
            oldest.displaced = True
            oldest.hang_up(socket.SHUT_RDWR)
        if refused:
            sock.close()
            event(_log, logging.WARNING, "connection refused: too many", most=self._max_connections)
            return
        try:
            peer.thread.start()
        except RuntimeError:  # no more threads are to be had: this client must go, the others stay
            self._forget(peer)
            sock.close()

    def _resize(self, peer: "_Peer", name: str, size: int) -> None:
        """Change the size of an export for a client; who comes later sees it, who is there does not.

        Raises:
            OSError: others are there and would lose what they know of, or the back end cannot.
        """
        with self._lock:  # nobody enters meanwhile
            backend = self._backends[name]
            names = [each for each, served in self._backends.items() if served is backend]
            alone = not any(other.export in names for other in self._peers if other is not peer)
            if size < backend.size and not alone:
                raise OSError(errno.EPERM, "others use the export, which would be smaller")
            backend.resize(size)
            changed = {each: replace(self._exports[each], size=size) for each in names}
            self._exports = {**self._exports, **changed}
        event(_log, logging.INFO, "export resized", export=name, size=size)

    def _forget(self, peer: "_Peer") -> None:
        with self._lock:
            self._peers.pop(peer, None)
            if peer.export is not None:
                self._past[peer.export] = self._past.get(peer.export, Counters()) + peer.counters()
        if self._stop_when_alone:
            self.stop()


class _Peer:
    """One connection and its thread."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.tallies = [Tally()]
        self.thread = threading.Thread(target=self._run, name="nbd-connection", daemon=True)
        self.export: str | None = None  # none yet
        self.displaced = False  # a newcomer has its place
        self._sock = sock
        self._server = server

    def counters(self) -> Counters:
        return sum((tally.read() for tally in self.tallies), Counters())

    def hang_up(self, how: int) -> None:
        hang_up(self._sock, how)

    def _run(self) -> None:
        number, why = self._server._number(), "the client closed it"
        event(_log, logging.INFO, "connection accepted", number=number, client=_name_of(self._sock))
        try:
            with self._sock:
                if self._sock.family != socket.AF_UNIX:
                    _set_tcp(self._sock)
                connection = NbdConnection(NbdRole.SERVER, max_payload=0)  # for the handshake alone
                entered, sock = self._server._reception().receive(self._sock, connection, self._enter)
                with sock:
                    if entered is not None:
                        sock.settimeout(None)
                        self._limit_idleness()
                        event(_log, logging.INFO, "export entered", number=number, export=self.export)
                        backend = self._server._backends[entered.export.name]
                        resize = partial(self._server._resize, self, entered.export.name)
                        self._transmit(sock, Service(entered.export, backend, entered.negotiated, resize))
        except BlockingIOError:  # the socket's SO_RCVTIMEO
            why = f"it sent nothing for {self._server._idle_timeout:g} s"
        except (OSError, NbdError) as error:
            why = str(error)  # the peer went away or is no NBD client: the server goes on
        finally:
            self._server._forget(self)
            if self._server._stopping.is_set():
                why = "the server ends"
            elif self.displaced:
                why = "a newcomer has its place"
            done = asdict(self.counters())
            event(_log, logging.INFO, "connection ended", number=number, why=why, export=self.export, **done)

    def _enter(self, entered: EnteredExport) -> bool:
        """From here on nobody takes our place; False: somebody has, or the export is not what it was."""
        with self._server._lock:
            if self not in self._server._peers:
                return False
            if self._server._exports[entered.export.name].size != entered.export.size:
                return False  # it has another size since the client was told
            self.export = entered.export.name
            return True

    def _limit_idleness(self) -> None:
        """By the kernel's clock of the socket: no call more for a request."""
        seconds = self._server._idle_timeout
        if seconds is not None:
            timeval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)

    def _transmit(self, sock: socket.socket, service: Service) -> None:
        """Answer requests until the client leaves or the server closes."""
        stopping, prefault = self._server._stopping, self._server._prefault
        if service.backend.waits:
            self.tallies = [Tally() for _ in range(self._server._depth)]
            AtOnce(sock, service, self.tallies, stopping, prefault=prefault).run()
        else:
            present = PRESENT if prefault else 0
            memory = aligned_memory(service.export.block_size.maximum, present=present)
            InTurn(sock, service, memory, self.tallies[0], stopping, self._server._peers).run()


def _set_tcp(sock: socket.socket) -> None:
    """No delay of answers; and an idle client whose machine is gone is found out in two minutes.

    Not by TCP_USER_TIMEOUT, which would do it for a busy one too: it ends connections of clients that live
    and read nothing for so long.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _name_of(sock: socket.socket) -> str:
    """Who the client is, as far as the system knows: a TCP address, or the process behind a Unix socket."""
    try:
        if sock.family == socket.AF_UNIX:
            pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return f"pid {pid} uid {uid}"
        return "{}:{}".format(*sock.getpeername()[:2])
    except OSError:
        return "gone already"


def _join(peers: list[_Peer], seconds: float) -> bool:
    """Wait for the threads; returns whether all ended in time."""
    deadline = time.monotonic() + seconds
    for peer in peers:
        peer.thread.join(max(0.0, deadline - time.monotonic()))
    return not any(peer.thread.is_alive() for peer in peers)
