"""Where a server's bytes live: memory, a file or block device, another NBD server, or several of these."""

from ioflusher.nbd.backends.backend import Backend, BackendError
from ioflusher.nbd.backends.concatenation import ConcatenatedBackend
from ioflusher.nbd.backends.file import FileBackend
from ioflusher.nbd.backends.filter import Filter
from ioflusher.nbd.backends.memory import MemoryBackend
from ioflusher.nbd.backends.overlay import OverlayBackend
from ioflusher.nbd.backends.part import PartBackend
from ioflusher.nbd.backends.remote import RemoteBackend
from ioflusher.nbd.backends.specification import open_backend
from ioflusher.nbd.backends.trouble import FailingBackend, SlowBackend
from ioflusher.nbd.protocol.extents import BlockState, Extent

__all__ = [
    "Backend",
    "BackendError",
    "BlockState",
    "ConcatenatedBackend",
    "Extent",
    "FailingBackend",
    "FileBackend",
    "Filter",
    "MemoryBackend",
    "OverlayBackend",
    "PartBackend",
    "RemoteBackend",
    "SlowBackend",
    "open_backend",
]
