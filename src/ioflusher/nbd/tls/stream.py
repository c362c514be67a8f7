"""A socket that begins to encrypt when both ends have agreed to, and is used as before.

Not `ssl.SSLSocket`: that knows neither gathering nor MSG_WAITALL, sends plainly after `shutdown`, and must
not be read and written by two threads at once.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

from ioflusher.nbd.tls.settings import TlsError

RECORD_ROOM = 32 << 10  # bytes received at once: a record of 16 KiB and what belongs to it
PIECE = 256 << 10  # bytes encrypted at once: what is sent is never in memory twice as a whole
_SHORTEST = 1e-6  # seconds; 0 would mean a socket that never waits


class TlsSocket(socket.socket):
    """A connected socket, plain until `begin` has returned.

    Of its methods `recv_into`, `send`, `sendall` and `sendmsg` encrypt; one thread may receive while others
    send. The file descriptor has encrypted bytes: neither the kernel nor another program can go on with it.
    """

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._state = threading.Lock()  # around every use of the three above; nothing waits inside
        self._order = threading.Lock()  # what is encrypted first is sent first
        self._room = memoryview(bytearray(0))

    @property
    def encrypted(self) -> bool:
        """Whether TLS has begun."""
        return self._tls is not None

    def begin(
        self, context: ssl.SSLContext, *, server: bool, hostname: str | None = None, seconds: float | None
    ) -> None:
        """Go through the TLS handshake.

        Args:
            context: credentials.
            server: whether this end is the server.
            hostname: the name that the server's certificate must have, where the context checks it.
            seconds: how long it may take; None: as long as it takes.

        Raises:
            TlsError: the peer is not trusted, does not trust us, or does not speak TLS.
            OSError: the connection failed, or it took too long.
        """
        self._room = memoryview(bytearray(RECORD_ROOM))
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=hostname)
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send_pending()
                if not self._receive_raw(deadline):
                    raise TlsError("the peer closed the connection during the TLS handshake") from None
            except ssl.SSLError as error:
                with contextlib.suppress(OSError):
                    self._send_pending()  # the alert, which tells the peer why
                raise TlsError(f"TLS failed: {_reason(error)}") from error
            except ssl.CertificateError as error:
                raise TlsError(f"TLS failed: {error}") from error
        self._send_pending()
        self._tls = tls

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        tls = self._tls
        if tls is None:
            return super().recv_into(buffer, nbytes, flags)
        view = memoryview(buffer).cast("B")
        view = view[:nbytes] if nbytes else view
        timeout = self.gettimeout()
        deadline = None if timeout is None else time.monotonic() + timeout
        filled = 0
        while filled < len(view):
            count = self._decrypt(tls, view[filled:])
            if count is None:  # nothing complete is here
                if filled and not flags & socket.MSG_WAITALL:
                    break
                if not self._receive_raw(deadline):
                    break
            elif count == 0:
                break
            else:
                filled += count
        return filled

    def send(self, data: Any, flags: int = 0) -> int:
        if self._tls is None:
            return super().send(data, flags)
        self.sendall(data)
        return len(memoryview(data).cast("B"))

    def sendall(self, data: Any, flags: int = 0) -> None:
        tls = self._tls
        if tls is None:
            super().sendall(data, flags)
            return
        view = memoryview(data).cast("B")
        for start in range(0, len(view), PIECE):
            with self._order:
                with self._state:
                    tls.write(view[start : start + PIECE])
                    pending = self._outgoing.read()
                super().sendall(pending)

    def sendmsg(self, buffers: Iterable[Any], *rest: Any) -> int:
        if self._tls is None:
            return super().sendmsg(buffers, *rest)
        data = b"".join(buffers)  # one record instead of one for each
        self.sendall(data)
        return len(data)

    def end(self) -> None:
        """Tell the peer that nothing follows (close_notify); the connection stays open."""
        tls = self._tls
        if tls is None:
            return
        with contextlib.suppress(OSError):  # it is gone, or has not answered, which nobody waits for
            with self._state, contextlib.suppress(ssl.SSLError):
                tls.unwrap()
            self._send_pending()

    def close(self) -> None:
        if self.fileno() >= 0:
            self.setblocking(False)  # a peer that reads nothing holds up nobody
            self.end()
        super().close()

    def recv(self, *_: Any) -> bytes:
        raise NotImplementedError("use recv_into")

    recvfrom = recvfrom_into = recvmsg = recvmsg_into = makefile = recv  # type: ignore[assignment]
    sendto = sendfile = dup = recv  # type: ignore[assignment]

    def _decrypt(self, tls: ssl.SSLObject, view: memoryview) -> int | None:
        """Bytes that are here already, decrypted; 0 when the peer says that nothing follows."""
        with self._state:
            count: int | None
            try:
                count = int(tls.read(len(view), view))  # with memory, it is the count
            except ssl.SSLWantReadError:
                count = None
            except ssl.SSLZeroReturnError:
                count = 0
            pending = self._outgoing.pending
        if pending:  # an answer to something of the protocol's own, such as a new key
            self._send_pending()
        return count

    def _receive_raw(self, deadline: float | None) -> int:
        """Take what has arrived; 0 when the peer has closed."""
        if deadline is None:
            count = super().recv_into(self._room)
        else:
            before = self.gettimeout()
            self.settimeout(max(deadline - time.monotonic(), _SHORTEST))
            try:
                count = super().recv_into(self._room)
            finally:
                self.settimeout(before)
        with self._state:
            self._incoming.write(self._room[:count])
        return count

    def _send_pending(self) -> None:
        with self._order:
            with self._state:
                pending = self._outgoing.read()
            if pending:
                super().sendall(pending)


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's reason in words, and for a certificate what is wrong with it."""
    verify = getattr(error, "verify_message", None)
    reason = (error.reason or str(error)).replace("_", " ").lower()
    return f"{reason}: {verify}" if verify else reason
