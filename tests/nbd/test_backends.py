"""Back ends on their own: files, block alignment, what cannot be opened."""

import errno
import os
from pathlib import Path

import pytest

from ioflusher.nbd.backends import BackendError, FileBackend, MemoryBackend
from ioflusher.nbd.protocol.connection import aligned_memory

SIZE = 1 << 20


def test_a_file_is_written_in_place(image: Path) -> None:
    """What the back end stores is in the file, where it was said to be."""
    with FileBackend(image) as backend:
        assert backend.size == SIZE
        backend.write(4096, memoryview(b"hello"))
        backend.flush()
    data = image.read_bytes()
    assert data[4090:4104] == b"\xaa" * 6 + b"hello" + b"\xaa" * 3
    assert len(data) == SIZE


@pytest.mark.parametrize(("direct", "pieces"), [(False, [64 << 10, 64 << 10, 8192]), (True, [136 << 10])])
def test_a_long_write_makes_no_long_folio(
    image: Path, monkeypatch: pytest.MonkeyPatch, direct: bool, pieces: list[int]
) -> None:
    """Through the page cache it goes in pieces, of which the kernel makes folios; past it as a whole."""
    asked: list[int] = []

    def note(fd: int, view: memoryview, offset: int) -> int:
        asked.append(len(view))
        return pwrite(fd, view, offset)

    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", note)
    data = aligned_memory(136 << 10)
    data[:] = os.urandom(len(data))
    with FileBackend(image, direct=direct) as backend:
        backend.write(4096, data)
    assert asked == pieces
    assert image.read_bytes()[4096 : 4096 + len(data)] == data


@pytest.mark.parametrize("may_trim", [True, False])
@pytest.mark.parametrize(("offset", "length"), [(0, SIZE), (4096, 8192), (1, 3), (5000, 200_000), (0, 0)])
def test_zeroes_in_a_file(image: Path, offset: int, length: int, may_trim: bool) -> None:
    """Exactly the range reads as zeroes afterwards, aligned or not, and the size stays."""
    with FileBackend(image) as backend:
        backend.zero(offset, length, may_trim=may_trim)
    data = image.read_bytes()
    assert data == b"\xaa" * offset + bytes(length) + b"\xaa" * (SIZE - offset - length)


@pytest.mark.parametrize("answer", [errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL])
def test_zeroes_where_the_kernel_cannot(image: Path, monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    """A file system without holes gets its zeroes written; a trim is passed over."""

    def refuse(*_: object) -> None:
        raise OSError(answer, os.strerror(answer))

    with FileBackend(image) as backend:
        monkeypatch.setattr("ioflusher.nbd.backends.file.fcntl.ioctl", refuse)
        backend.zero(5000, 200_000, may_trim=True)
        backend.trim(300_000, 100_000)
    data = image.read_bytes()
    assert data == b"\xaa" * 5000 + bytes(200_000) + b"\xaa" * (SIZE - 205_000)


def test_a_trim_gives_storage_back(image: Path) -> None:
    """The file keeps its size and occupies less."""
    before = image.stat().st_blocks
    with FileBackend(image) as backend:
        backend.trim(0, SIZE // 2)
    assert image.stat().st_blocks < before
    assert image.stat().st_size == SIZE


def test_a_file_that_shrank_is_an_error(image: Path) -> None:
    """Reading where the file no longer is gives EIO, not stale or short data."""
    with FileBackend(image) as backend:
        os.truncate(image, 4096)
        with pytest.raises(OSError, match="longer when it was opened") as caught:
            backend.read_into(4000, memoryview(bytearray(200)))
        assert caught.value.errno == errno.EIO


def test_direct_io(image: Path) -> None:
    """O_DIRECT works with the connection's page-aligned memory, and asks clients for aligned requests."""
    with FileBackend(image, direct=True) as backend:
        assert backend.minimum_block == 4096
        memory = aligned_memory(8192)
        memory[:] = os.urandom(8192)
        backend.write(4096, memory)
        backend.zero(16384, 4096, may_trim=False)
        found = aligned_memory(8192)
        backend.read_into(4096, found)
        assert found == memory


def test_direct_io_needs_an_even_size(tmp_path: Path) -> None:
    """A file whose tail O_DIRECT could not reach is refused with what to do."""
    path = tmp_path / "odd"
    path.write_bytes(bytes(5000))
    with pytest.raises(BackendError, match="5000 bytes") as caught:
        FileBackend(path, direct=True)
    assert caught.value.hint


def test_a_read_only_file(image: Path) -> None:
    """It says that it cannot be written, and the kernel holds it to that."""
    with FileBackend(image, readonly=True) as backend:
        assert not backend.can_write
        assert not backend.can_trim
        with pytest.raises(OSError, match="descriptor"):
            backend.write(0, memoryview(b"x"))


@pytest.mark.parametrize(
    ("name", "number"), [("missing", errno.ENOENT), (".", errno.EISDIR), ("image/below", errno.ENOTDIR)]
)
def test_what_cannot_be_opened(image: Path, name: str, number: int) -> None:
    """The error says which path and why."""
    with pytest.raises(BackendError, match="cannot open") as caught:
        FileBackend(image.parent / name)
    assert caught.value.errno == number


def test_what_is_no_storage() -> None:
    """A character device is no back end."""
    with pytest.raises(BackendError, match="neither a regular file nor a block device"):
        FileBackend("/dev/null")


def test_memory() -> None:
    """Memory begins as zeroes, keeps what it is given, and can be zeroed across its pieces."""
    with MemoryBackend(SIZE) as backend:
        room = memoryview(bytearray(SIZE))
        backend.write(1, memoryview(b"\xaa" * (SIZE - 1)))
        backend.zero(100, 200_000, may_trim=True)
        backend.read_into(0, room)
        assert bytes(room) == b"\0" + b"\xaa" * 99 + bytes(200_000) + b"\xaa" * (SIZE - 200_100)


@pytest.mark.parametrize("size", [0, -1, 1 << 70])
def test_impossible_memory(size: int) -> None:
    """A size that memory cannot have is a clear error."""
    with pytest.raises(BackendError, match=f"{size} bytes"):
        MemoryBackend(size)
