"""The FUSE daemon with one file, asked over a socket in place of /dev/fuse."""

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ioflusher.kernel import fuse
from ioflusher.kernel.fuse import Opcode
from ioflusher.lab.daemons.fuse_file import FILE_ID, FuseChannel, OneFile
from ioflusher.lab.daemons.store import FileStore

SIZE = 1 << 20
LARGEST = 64 << 10


class Kernel:
    """The kernel's side: asks one thing after another."""

    def __init__(self, path: Path) -> None:
        self.store = FileStore(str(path))
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.fd = theirs.detach()
        files = OneFile(self.store, b"image", largest=LARGEST, flags=fuse.ASYNC_READ | fuse.MAX_PAGES)
        self.channel = FuseChannel(self.fd, files, LARGEST)
        self.unique = 0

    def ask(self, opcode: int, body: bytes = b"", node: int = FILE_ID) -> tuple[int, bytes]:
        """Errno and body of the answer."""
        self.unique += 2
        length = 40 + len(body)
        self.socket.send(struct.pack("=IIQQIIIHH", length, opcode, self.unique, node, 0, 0, 0, 0, 0) + body)
        assert self.channel.serve_one()
        answer = self.socket.recv(1 << 20, socket.MSG_DONTWAIT)
        size, error, unique = struct.unpack_from("=IiQ", answer)
        assert (size, unique) == (len(answer), self.unique)
        return -error, answer[16:]

    def transfer(self, offset: int, size: int, data: bytes = b"") -> bytes:
        """The body of READ or WRITE."""
        return struct.pack("=QQIIQII", 0, offset, size, 0, 0, 0, 0) + data


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    """A kernel, and a file of 1 MiB."""
    (tmp_path / "image").write_bytes(bytes(SIZE))
    made = Kernel(tmp_path / "image")
    yield made
    made.socket.close()
    os.close(made.fd)


def test_it_agrees_with_the_kernel(kernel: Kernel) -> None:
    """A version that both know, of the flags those that the kernel offers, the longest write as asked for."""
    offer = struct.pack("=IIII", 7, 41, 131072, fuse.MAX_PAGES | fuse.WRITEBACK_CACHE) + bytes(48)
    error, answer = kernel.ask(Opcode.INIT, offer, node=0)
    assert (error, len(answer)) == (0, 64)
    major, minor, readahead, flags, background, _, largest = struct.unpack_from("=IIIIHHI", answer)
    assert (major, minor, readahead, largest) == (7, 31, 131072, LARGEST)
    assert flags == fuse.MAX_PAGES, "asynchronous reads were not offered, a write-back cache not wanted"
    assert background > 1, "several requests at once"
    assert struct.unpack_from("=H", answer, 28) == (LARGEST // 4096,)


def test_the_one_file_is_found(kernel: Kernel) -> None:
    """By its name at the top and nowhere else, with its size, as an ordinary file."""
    error, entry = kernel.ask(Opcode.LOOKUP, b"image\0", node=fuse.ROOT_ID)
    assert (error, len(entry)) == (0, 128)
    assert struct.unpack_from("=Q", entry) == (FILE_ID,)
    assert struct.unpack_from("=QQ", entry, 40) == (FILE_ID, SIZE)
    assert stat.S_ISREG(struct.unpack_from("=I", entry, 40 + 60)[0])
    assert kernel.ask(Opcode.LOOKUP, b"other\0", node=fuse.ROOT_ID)[0] == errno.ENOENT
    assert kernel.ask(Opcode.LOOKUP, b"image\0")[0] == errno.ENOENT
    _, attributes = kernel.ask(Opcode.GETATTR, bytes(16), node=fuse.ROOT_ID)
    assert len(attributes) == 104
    assert stat.S_ISDIR(struct.unpack_from("=I", attributes, 16 + 60)[0])


def test_the_directory_is_read_to_its_end(kernel: Kernel) -> None:
    """Three names; whoever comes again with the last offset finds no more."""
    _, entries = kernel.ask(Opcode.READDIR, kernel.transfer(0, 4096), node=fuse.ROOT_ID)
    names, at, following = [], 0, 0
    while at < len(entries):
        _, following, length, _ = struct.unpack_from("=QQII", entries, at)
        names.append(entries[at + 24 : at + 24 + length])
        at += -(-(24 + length) // 8) * 8
    assert names == [b".", b"..", b"image"]
    assert kernel.ask(Opcode.READDIR, kernel.transfer(following, 4096), node=fuse.ROOT_ID) == (0, b"")


@pytest.mark.parametrize("size", [1, 79, 4096, LARGEST])
def test_what_is_written_is_in_the_file_and_comes_back(kernel: Kernel, tmp_path: Path, size: int) -> None:
    """Whatever its length; a read that goes beyond the end is cut off there."""
    data = os.urandom(size)
    assert kernel.ask(Opcode.WRITE, kernel.transfer(12345, size, data)) == (0, struct.pack("=II", size, 0))
    assert (tmp_path / "image").read_bytes()[12345 : 12345 + size] == data
    assert kernel.ask(Opcode.READ, kernel.transfer(12345, size)) == (0, data)
    assert kernel.ask(Opcode.READ, kernel.transfer(SIZE - 10, 4096)) == (0, bytes(10))
    assert kernel.ask(Opcode.READ, kernel.transfer(SIZE + 10, 4096)) == (0, b"")
    assert kernel.ask(Opcode.FSYNC, bytes(16))[0] == 0


def test_the_file_does_not_grow(kernel: Kernel, tmp_path: Path) -> None:
    """It is a device's store: what lies behind its end is refused, and nothing of it written."""
    assert kernel.ask(Opcode.WRITE, kernel.transfer(SIZE - 1, 2, b"xx"))[0] == errno.EFBIG
    assert (tmp_path / "image").read_bytes() == bytes(SIZE)


def test_an_error_of_the_store_is_the_answer(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its errno, and the daemon goes on."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kernel.store, "write", full)
    assert kernel.ask(Opcode.WRITE, kernel.transfer(0, 1, b"x"))[0] == errno.ENOSPC
    assert kernel.ask(Opcode.READ, kernel.transfer(0, 1)) == (0, b"\0")


def test_what_it_cannot_do_is_refused(kernel: Kernel) -> None:
    """ENOSYS tells the kernel to do without: fallocate, and whatever is to come."""
    for opcode in (43, 4242):
        assert kernel.ask(opcode, bytes(32)) == (errno.ENOSYS, b"")
    for opcode in (Opcode.FLUSH, Opcode.RELEASE, Opcode.ACCESS):
        assert kernel.ask(opcode, bytes(24)) == (0, b"")
    for opcode in (Opcode.OPEN, Opcode.OPENDIR):
        assert kernel.ask(opcode, bytes(8)) == (0, bytes(16))


def test_a_forgotten_name_is_not_answered(kernel: Kernel) -> None:
    """The kernel takes no answer to FORGET, and would end the connection for one."""
    kernel.socket.send(struct.pack("=IIQQIIIHH", 48, Opcode.FORGET, 2, FILE_ID, 0, 0, 0, 0, 0) + bytes(8))
    assert kernel.channel.serve_one()
    with pytest.raises(BlockingIOError):
        kernel.socket.recv(4096, socket.MSG_DONTWAIT)


def test_it_ends_with_its_mount(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENODEV, and the thread returns; a request that was taken back is none."""
    for number, goes_on in ((errno.ENODEV, False), (errno.ENOENT, True), (errno.EINTR, True)):

        def fail(*_: object, number: int = number) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "readv", fail)
        assert kernel.channel.serve_one() is goes_on
