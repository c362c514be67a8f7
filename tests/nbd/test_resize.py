"""NBD_CMD_RESIZE, experimental and off by default: a client changes the size of what is served.

Source: doc/proto.md of the branch extension-resize.
"""

import errno
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import FileBackend, MemoryBackend
from ioflusher.nbd.client import Client, describe
from ioflusher.nbd.errors import RequestError
from ioflusher.nbd.protocol.client_handshake import Wishes
from ioflusher.nbd.protocol.messages import Reply, Request
from ioflusher.nbd.protocol.wire import Cmd, TransmissionFlag
from ioflusher.nbd.server import Server

SIZE = 1 << 20


@pytest.fixture(params=[False, True], ids=["in turn", "at once"])
def address(request: pytest.FixtureRequest, image: Path) -> Iterator[Address]:
    """Of a server that lets its clients resize the file, whose requests are done both ways."""
    with FileBackend(image) as disk:
        disk.waits = request.param
        with Server(disk, resize=True, extended_headers=True) as server:
            server.start()
            yield server.listen_tcp()


def content(client: Client, offset: int, length: int) -> bytes:
    room = memoryview(bytearray(length))
    client.read_into(offset, room)
    return bytes(room)


def refusal(client: Client, command: Cmd, offset: int) -> int | None:
    """The errno that a request of 512 bytes there is refused with."""
    try:
        if command == Cmd.READ:
            content(client, offset, 512)
        elif command == Cmd.WRITE:
            client.write(offset, memoryview(bytes(512)))
        else:
            client.command(command, offset, 512)
    except RequestError as error:
        return error.errno
    return None


@pytest.mark.parametrize("extended", [False, True])
def test_larger(address: Address, image: Path, extended: bool) -> None:
    """The new part reads as zeroes and can be written to, at once and by others; the old part stays."""
    with Client(address, wishes=Wishes(structured_replies=True, extended_headers=extended)) as client:
        assert client.export.has(TransmissionFlag.SEND_RESIZE)
        assert refusal(client, Cmd.READ, SIZE) == errno.EINVAL
        client.resize(2 * SIZE)
        assert client.export.size == image.stat().st_size == 2 * SIZE
        assert content(client, SIZE - 512, 1024) == b"\xaa" * 512 + bytes(512)
        client.write(2 * SIZE - 512, memoryview(b"x" * 512))
        assert refusal(client, Cmd.READ, 2 * SIZE) == errno.EINVAL
    assert describe(address).size == 2 * SIZE


def test_smaller(address: Address, image: Path) -> None:
    """What lies behind the new end and before the old one fails with ENOSPC; behind both, as ever."""
    with Client(address) as client:
        client.resize(SIZE // 2)
        assert image.stat().st_size == SIZE // 2
        for command in (Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES):
            assert refusal(client, command, SIZE // 2) == errno.ENOSPC
            assert refusal(client, command, SIZE - 512) == errno.ENOSPC
        assert refusal(client, Cmd.READ, SIZE) == refusal(client, Cmd.TRIM, SIZE) == errno.EINVAL
        assert content(client, SIZE // 2 - 512, 512) == b"\xaa" * 512
        assert image.stat().st_size == SIZE // 2, "nothing has made it longer again"
        client.resize(SIZE)
        assert content(client, SIZE // 2, 512) == bytes(512)


@pytest.mark.parametrize("size", [(1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_size_that_no_file_has(address: Address, image: Path, size: int) -> None:
    """It is refused, and the connection goes on."""
    with Client(address) as client:
        with pytest.raises(RequestError) as caught:
            client.resize(size)
        assert caught.value.errno in (errno.ENOSPC, errno.EINVAL)
        assert client.export.size == image.stat().st_size == SIZE
        assert content(client, 0, 512) == b"\xaa" * 512


def test_nothing_is_taken_from_others(address: Address) -> None:
    """With a second client it can grow, which that one does not see, and not shrink."""
    with Client(address) as client, Client(address) as other:
        with pytest.raises(RequestError, match="EPERM") as caught:
            client.resize(SIZE // 2)
        assert caught.value.errno == errno.EPERM
        client.resize(2 * SIZE)
        assert refusal(other, Cmd.READ, SIZE) == errno.EINVAL
        assert content(other, SIZE - 512, 512) == b"\xaa" * 512


def test_one_back_end_by_two_names(image: Path) -> None:
    """Who has it by the other name keeps it from shrinking, and comes later to the new size."""
    with FileBackend(image) as disk, Server(disk, export="a", resize=True) as server:
        server.add_export("b", disk)
        server.start()
        address = server.listen_tcp()
        with Client(address) as client:
            with Client(address.with_export("b")), pytest.raises(RequestError, match="EPERM"):
                client.resize(SIZE // 2)
            client.resize(2 * SIZE)
        assert describe(address.with_export("b")).size == 2 * SIZE


def test_off_by_default(image: Path) -> None:
    """Without the server's consent there is no flag and the request is refused; nor where there is no way."""
    with FileBackend(image) as disk, Server(disk) as server:
        server.start()
        with Client(server.listen_tcp()) as client:
            assert not client.export.has(TransmissionFlag.SEND_RESIZE)
            with pytest.raises(RequestError, match="EINVAL"):
                client.resize(2 * SIZE)
            assert client.export.size == image.stat().st_size == SIZE
    with MemoryBackend(SIZE) as store, Server(store, resize=True) as server:
        assert not server.export.has(TransmissionFlag.SEND_RESIZE)
    with FileBackend(image, readonly=True) as disk, Server(disk, resize=True) as server:
        assert not server.export.has(TransmissionFlag.SEND_RESIZE)


def test_a_size_that_is_not_aligned(image: Path) -> None:
    """It is refused as other requests that are not."""
    with FileBackend(image) as disk:
        disk.minimum_block = 512
        with Server(disk, resize=True) as server:
            server.start()
            with Client(server.listen_tcp()) as client, pytest.raises(RequestError, match="EINVAL"):
                client.resize(SIZE + 1)
    assert image.stat().st_size == SIZE


def test_a_newcomer_that_was_told_another_size(image: Path) -> None:
    """Who asked before the change and enters after it is turned away, and told right when it comes again."""
    with FileBackend(image) as disk, Server(disk, resize=True) as server:
        server.start()
        address = server.listen_tcp()
        stale = server._exports[""]
        with Client(address) as client:
            client.resize(SIZE // 2)
            assert server._exports[""].size == SIZE // 2
            assert stale.size == SIZE
        with Client(address) as client:
            assert client.export.size == SIZE // 2


def test_a_write_before_a_smaller_size(image: Path) -> None:
    """A RESIZE waits for a WRITE that is under way, which would make the file longer again behind it."""
    resized = threading.Event()

    class Slow(FileBackend):
        def write(self, offset: int, view: memoryview) -> None:
            resized.wait(0.5)
            super().write(offset, view)

        def resize(self, size: int) -> None:
            super().resize(size)
            resized.set()

    with Slow(image) as disk:
        disk.waits = True
        with Server(disk, resize=True) as server:
            server.start()
            with Client(server.listen_tcp()) as client:
                write = Request(Cmd.WRITE, 0, 1, SIZE - 512, 512).pack() + b"x" * 512
                client._sock.sendall(write + Request(Cmd.RESIZE, 0, 2, SIZE // 2, 0).pack())
                replies = client._sock.recv(32, socket.MSG_WAITALL)
    assert replies == Reply(0, 1).pack() + Reply(0, 2).pack()
    assert image.stat().st_size == SIZE // 2


def test_a_write_behind_a_larger_size(image: Path) -> None:
    """It is checked against the size that the RESIZE before it has made, however long that takes."""
    resizing, go_on = threading.Event(), threading.Event()

    class Slow(FileBackend):
        def resize(self, size: int) -> None:
            resizing.set()
            assert go_on.wait(20)
            super().resize(size)

    with Slow(image) as disk:
        disk.waits = True
        with Server(disk, resize=True) as server:
            server.start()
            with Client(server.listen_tcp()) as client:
                write = Request(Cmd.WRITE, 0, 2, SIZE, 512).pack() + b"x" * 512
                client._sock.sendall(Request(Cmd.RESIZE, 0, 1, 2 * SIZE, 0).pack() + write)
                assert resizing.wait(20)
                time.sleep(0.1)  # in which nothing may become of the WRITE
                go_on.set()
                replies = client._sock.recv(32, socket.MSG_WAITALL)
    assert replies == Reply(0, 1).pack() + Reply(0, 2).pack()
    assert image.read_bytes()[SIZE:] == b"x" * 512 + bytes(SIZE - 512)
