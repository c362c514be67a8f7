"""Every back end of this machine held against a bytearray."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.nbd.backends.model import hold

from ioflusher.nbd.backends import (
    Backend,
    ConcatenatedBackend,
    FileBackend,
    MemoryBackend,
    OverlayBackend,
    PartBackend,
    RemoteBackend,
    SlowBackend,
)
from ioflusher.nbd.server import Server

PAGE = 4096
SIZE = 24 * PAGE

Make = Callable[[], tuple[Backend, bytes]]


@pytest.fixture
def path(tmp_path: Path) -> Callable[[], Path]:
    """Names of new files, each with random bytes, a hole and random bytes; at most one is kept."""
    names = itertools.count()
    last: list[Path] = []

    def make() -> Path:
        for old in last:
            old.unlink()
        last[:] = [tmp_path / str(next(names))]
        last[0].write_bytes(os.urandom(4 * PAGE))
        os.truncate(last[0], SIZE - 5 * PAGE)
        with last[0].open("ab") as file:
            file.write(os.urandom(5 * PAGE))
        return last[0]

    return make


@pytest.mark.parametrize("give_back", [False, True])
@pytest.mark.parametrize(("size", "examples"), [(SIZE, 20), (SIZE - 1000, 20), (1, 2)])
def test_memory(size: int, examples: int, give_back: bool) -> None:
    """Whole pages and not, memory given back and not."""
    hold(lambda: (MemoryBackend(size, give_back=give_back), bytes(size)), examples=examples)


@pytest.mark.parametrize("direct", [False, True])
def test_a_file(path: Callable[[], Path], direct: bool) -> None:
    """By way of the page cache and past it."""

    def make() -> tuple[Backend, bytes]:
        name = path()
        return FileBackend(name, direct=direct), name.read_bytes()

    hold(make, examples=10)


def test_a_concatenation(path: Callable[[], Path]) -> None:
    """Memory, a file and memory as one."""

    def make() -> tuple[Backend, bytes]:
        name = path()
        parts = (MemoryBackend(3 * PAGE), FileBackend(name), MemoryBackend(777, give_back=True))
        return ConcatenatedBackend(*parts), bytes(3 * PAGE) + name.read_bytes() + bytes(777)

    hold(make, examples=10)


def test_a_part(path: Callable[[], Path]) -> None:
    """The middle of a file; what lies around it stays."""
    names: list[tuple[Path, bytes]] = []

    def make() -> tuple[Backend, bytes]:
        for name, before in names:
            assert name.read_bytes()[:3000] == before[:3000]
            assert name.read_bytes()[9000:] == before[9000:]
        name = path()
        names[:] = [(name, name.read_bytes())]
        return PartBackend(FileBackend(name), 3000, 6000), name.read_bytes()[3000:9000]

    hold(make, examples=15)
    make()


@pytest.mark.parametrize("direct", [False, True])
def test_an_overlay(path: Callable[[], Path], tmp_path: Path, direct: bool) -> None:
    """Over a file, into a file that is closed and opened again; the base stays as it was."""
    base, layer = tmp_path / "base", tmp_path / "layer"

    def open_both() -> Backend:
        below = FileBackend(base, readonly=True, direct=direct)
        return OverlayBackend(below, layer, block=2 * PAGE, direct=direct)

    def make() -> tuple[Backend, bytes]:
        layer.unlink(missing_ok=True)
        base.write_bytes(path().read_bytes())
        return open_both(), base.read_bytes()

    def reopen(backend: Backend) -> Backend:
        backend.close()
        return open_both()

    hold(make, examples=8, reopen=reopen)


def test_an_overlay_in_memory() -> None:
    """The last block is a short one."""
    hold(
        lambda: (OverlayBackend(MemoryBackend(SIZE - 1000), block=2 * PAGE), bytes(SIZE - 1000)), examples=10
    )


def test_what_is_only_slower() -> None:
    """A filter that changes nothing but the time."""
    hold(lambda: (SlowBackend(MemoryBackend(SIZE), 0), bytes(SIZE)), examples=5)


def test_no_bytes_of_another_server_have_no_extents(tmp_path: Path) -> None:
    """Not even at its end, where a server would refuse the request."""
    with MemoryBackend(SIZE) as store, Server(store) as server:
        address = server.listen_unix(str(tmp_path / "socket"))
        server.start()
        with RemoteBackend(address) as remote:
            assert list(remote.extents(SIZE, 0)) == []


def test_another_server(tmp_path: Path) -> None:
    """Through the protocol and back, with payloads longer than the server takes."""
    with MemoryBackend(SIZE, give_back=True) as store, Server(store, max_payload=2 * PAGE) as server:
        address = server.listen_unix(str(tmp_path / "socket"))
        server.start()

        def make() -> tuple[Backend, bytes]:
            store.zero(0, SIZE, may_trim=True)
            return RemoteBackend(address, connections=2, journal=1 << 20), bytes(SIZE)

        hold(make, examples=8)
