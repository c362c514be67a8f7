"""TLS: who is trusted with which credentials, and a socket that can begin to encrypt."""

from ioflusher.nbd.tls.settings import ClientTls, ServerTls, TlsError

__all__ = ["ClientTls", "ServerTls", "TlsError"]
