"""The NBD server: sockets and threads around the protocol and a back end."""

from ioflusher.nbd.server.server import Server

__all__ = ["Server"]
