"""What the tests of servers and clients share."""

from collections.abc import Iterator

import pytest

from ioflusher.nbd.backends import MemoryBackend
from ioflusher.nbd.server import Server

SIZE = 1 << 20


@pytest.fixture
def server() -> Iterator[Server]:
    """A running server of memory, which takes payloads up to 64 KiB."""
    with MemoryBackend(SIZE) as backend, Server(backend, export="disk", max_payload=64 << 10) as running:
        running.start()
        yield running
