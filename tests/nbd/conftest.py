"""What the tests of servers and clients share."""

from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file of SIZE bytes of 0xAA."""
    path = tmp_path / "image"
    path.write_bytes(b"\xaa" * SIZE)
    return path
