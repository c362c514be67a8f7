"""Where a server's bytes live: memory, a file or block device, another NBD server."""

from ioflusher.nbd.backends.backend import Backend, BackendError
from ioflusher.nbd.backends.file import FileBackend
from ioflusher.nbd.backends.memory import MemoryBackend
from ioflusher.nbd.backends.remote import RemoteBackend
from ioflusher.nbd.protocol.extents import BlockState, Extent

__all__ = ["Backend", "BackendError", "BlockState", "Extent", "FileBackend", "MemoryBackend", "RemoteBackend"]
