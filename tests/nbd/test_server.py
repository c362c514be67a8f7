"""The server and our own client, back to back over real sockets in one process."""

import os
from pathlib import Path

import pytest

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import Backend, FileBackend, MemoryBackend, RemoteBackend
from ioflusher.nbd.server import Server

SIZE = 1 << 20


def check_storage(address: Address, size: int = SIZE) -> None:
    """Whatever is written through the address is what is read back."""
    data = os.urandom(70_000)
    found = memoryview(bytearray(len(data)))
    with RemoteBackend(address) as client:
        assert client.size == size
        client.write(4096, memoryview(data))
        client.flush()
        client.read_into(4096, found)
        assert found == data
        client.zero(4096, 8192, may_trim=False)
        client.read_into(4096, found)
        assert bytes(found[:8192]) == bytes(8192)
        assert found[8192:] == data[8192:]


def file_backend(tmp_path: Path) -> Backend:
    path = tmp_path / "image"
    path.write_bytes(bytes(SIZE))
    return FileBackend(path)


@pytest.mark.parametrize("listen", ["unix", "tcp"])
@pytest.mark.parametrize("kind", ["memory", "file", "remote"])
def test_what_is_written_is_read_back(tmp_path: Path, kind: str, listen: str) -> None:
    """Every back end stores and returns data over both kinds of socket, and counts the requests."""
    path = str(tmp_path / "socket")
    origin = file_backend(tmp_path) if kind == "file" else MemoryBackend(SIZE)
    with origin, Server(origin) as first:
        address = first.listen_unix(path) if listen == "unix" else first.listen_tcp()
        first.start()
        if kind == "remote":
            with RemoteBackend(address) as middle, Server(middle) as second:
                address = second.listen_tcp()
                second.start()
                check_storage(address)
                assert second.counters() == first.counters()
        else:
            check_storage(address)
        assert first.counters().bytes_written == 70_000
        assert first.counters().reads == 2
    assert not os.path.exists(path)
