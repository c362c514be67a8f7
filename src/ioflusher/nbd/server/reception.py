"""The server's side of the handshake on a socket: until the client has an export, or is gone."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ioflusher.nbd.client import next_message
from ioflusher.nbd.protocol.connection import NbdConnection
from ioflusher.nbd.protocol.entered import EnteredExport
from ioflusher.nbd.protocol.exports import Export
from ioflusher.nbd.protocol.messages import Greeting, Option
from ioflusher.nbd.protocol.server_handshake import SERVER_FLAGS, ServerHandshake, TlsMode
from ioflusher.nbd.protocol.states import ConnectionState

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True)
class Reception:
    """What a server offers to whoever connects.

    Attributes:
        exports: by name.
        default: the name of the one that the empty name means.
        context: credentials for TLS; None: there is none.
        tls: whether clients may or must encrypt.
        seconds: how long a client may take.
        closing: whether the server is about to end.
        extended_headers: whether clients may agree on them.
    """

    exports: Mapping[str, Export]
    default: str
    context: "ssl.SSLContext | None"
    tls: TlsMode
    seconds: float
    closing: Callable[[], bool]
    extended_headers: bool = False

    def receive(
        self, sock: socket.socket, connection: NbdConnection, may_enter: Callable[[EnteredExport], bool]
    ) -> tuple[EnteredExport | None, socket.socket]:
        """Lead a client through the handshake.

        Args:
            sock: its connection.
            connection: our end of it.
            may_enter: asked before the client is told that it has the export.

        Returns:
            What it entered, None when it left instead; and the socket to go on with, another one when it is
            encrypted. Both are to be closed.

        Raises:
            RemoteProtocolError: the client broke the protocol.
            TlsError: it could not be trusted, or does not trust us.
            OSError: the connection failed, or it took too long.
        """
        handshake = ServerHandshake(
            self.exports, self.default, tls=self.tls, extended_headers=self.extended_headers
        )
        deadline = time.monotonic() + self.seconds
        sock.settimeout(self.seconds)
        sock.sendall(connection.send(Greeting(SERVER_FLAGS)))
        while connection.state is not ConnectionState.CLOSED:
            message = next_message(sock, connection, deadline)
            if message is None:
                break
            if not isinstance(message, Option):
                continue  # the client's flags
            handshake.closing = self.closing()
            answer = handshake.answer(
                message, fixed_newstyle=connection.fixed_newstyle, zeroes=not connection.no_zeroes
            )
            if answer.entered is not None and not may_enter(answer.entered):
                break
            # in one piece: a client that waits for all of it sees it at once
            sock.sendall(b"".join(connection.send(reply) for reply in answer.messages))
            if answer.hang_up or answer.entered is not None:
                return answer.entered, sock
            if connection.state is ConnectionState.TLS:
                sock = self._encrypt(sock, deadline)
                connection.encrypted()
                handshake.encrypted()
        return None, sock

    def _encrypt(self, sock: socket.socket, deadline: float) -> socket.socket:
        from ioflusher.nbd.tls.stream import TlsSocket

        assert self.context is not None  # else TLS is never granted
        # Another descriptor of the same connection: whoever shuts the first one down ends both.
        encrypting = TlsSocket(os.dup(sock.fileno()))
        try:
            encrypting.begin(self.context, server=True, seconds=deadline - time.monotonic())
        except BaseException:
            encrypting.close()
            raise
        return encrypting
