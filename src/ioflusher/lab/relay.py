"""A relay of TCP connections that can be slow, silent or cut, before a server of others."""

import contextlib
import socket
import threading
from collections.abc import Callable

from ioflusher.lab.gate import Gate

CONNECT_DEADLINE_S = 10.0
CHUNK = 1 << 16


class Relay:
    """Takes connections at a port of this machine's loopback, and makes one to `target` for each.

    Attributes:
        port: where it listens.
        gate: what goes to the target and comes from there passes it.
        refusing: whether new connections are closed at once.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self.gate = Gate()
        self.refusing = False
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hang_up(self) -> None:
        """Cut every connection that there is."""
        with self._lock:
            sockets = list(self._sockets)
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut every connection, take no more, and wait until all is over."""
        self.refusing = True
        self.gate.shut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._threads[0].join()
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, name="relay", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                near.close()
                continue
            try:
                far = socket.create_connection(self._target, CONNECT_DEADLINE_S)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {near, far}
            pair = _Pair(near, far, self)
            self._start(pair.pump, near, far)
            self._start(pair.pump, far, near)

    def forget(self, *sockets: socket.socket) -> None:
        """Close these, which nobody uses any more."""
        with self._lock:
            self._sockets -= set(sockets)
        for one in sockets:
            one.close()


class _Pair:
    """Both ends of a connection, closed when neither direction is in use."""

    def __init__(self, near: socket.socket, far: socket.socket, relay: Relay) -> None:
        self._ends = (near, far)
        self._relay = relay
        self._lock = threading.Lock()
        self._in_use = 2

    def pump(self, source: socket.socket, target: socket.socket) -> None:
        """Copy one direction until it ends; then the other one ends, too."""
        with contextlib.suppress(OSError):
            while (data := source.recv(CHUNK)) and self._relay.gate.passed():
                target.sendall(data)
        for one in self._ends:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._in_use -= 1
            last = not self._in_use
        if last:
            self._relay.forget(*self._ends)
