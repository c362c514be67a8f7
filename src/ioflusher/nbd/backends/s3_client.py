"""An S3 client whose connections go to addresses that were looked up once (minio over urllib3)."""

import os
import queue
import socket
import ssl
from typing import Any
from urllib.parse import SplitResult

import urllib3
from minio import Minio
from minio.error import MinioException
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError

from ioflusher.nbd.errors import from_system


class _InTurn(queue.LifoQueue[Any]):
    """First in, first out: each connection gets its turn, and none is idle for so long that it is closed."""

    def _get(self) -> Any:
        return self.queue.pop(0)


def connect(
    parts: SplitResult, *, region: str, timeout: float, connections: int, authority: str | None
) -> tuple[Minio, urllib3.PoolManager, tuple[type[Exception], ...]]:
    """A client for the endpoint of a URL, its connections, and the errors that its requests may raise.

    Raises:
        NbdError: the name means nothing.
        OSError: the authority's file cannot be read.
    """
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise from_system(f"cannot find {host!r}", error) from error
    places = [(family, place) for family, _, _, _, place in found]

    def open_socket(connection: Any) -> socket.socket:
        """What urllib3's connections do for a socket, without asking for the name."""
        failure: OSError = OSError("no address")
        for family, place in places:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(timeout)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.connect(place)
                return sock
            except OSError as error:
                sock.close()
                failure = error
        raise NewConnectionError(connection, f"cannot connect: {failure}") from failure

    class Plain(HTTPConnection):
        _new_conn = open_socket

    class Encrypted(HTTPSConnection):
        _new_conn = open_socket

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain
        QueueCls = _InTurn

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted
        QueueCls = _InTurn

    # made once, and not for each connection
    trusted = {"ssl_context": ssl.create_default_context(cafile=authority)} if secure else {}
    pool = urllib3.PoolManager(
        maxsize=connections,
        block=True,
        retries=False,
        timeout=urllib3.Timeout(timeout),
        **trusted,  # type: ignore[arg-type]
    )
    pool.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}
    client = Minio(
        f"{host}:{port}" if parts.port else host,
        access_key=os.environ.get("AWS_ACCESS_KEY_ID"),
        secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY"),
        session_token=os.environ.get("AWS_SESSION_TOKEN"),
        secure=secure,
        region=region,
        http_client=pool,
    )
    return client, pool, (MinioException, HTTPError, OSError)
