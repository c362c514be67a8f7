"""Other people's NBD programs as judges: libnbd's and QEMU's clients of our server, our client of nbdkit.

They come from the Debian packages libnbd-bin, nbdkit and qemu-utils.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.needs import need

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import Backend, FileBackend, MemoryBackend, RemoteBackend
from ioflusher.nbd.client import Client, describe
from ioflusher.nbd.errors import RequestError
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag, TransmissionFlag
from ioflusher.nbd.server import Server

pytestmark = pytest.mark.live

SIZE = 8 << 20
DEADLINE = 60.0  # seconds for any one program


def run(name: str, *arguments: str) -> str:
    """Run a judge and return what it says; its complaint is the test's."""
    result = subprocess.run(
        [need(name), *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, f"{name} {' '.join(arguments)}:\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file with data, a hole, and data."""
    path = tmp_path / "image"
    path.write_bytes(os.urandom(SIZE // 4) + bytes(SIZE // 2) + os.urandom(SIZE // 4))
    return path


Make = Callable[[str], tuple[Server, Address]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Starts servers, by the kind of their back end, and ends them."""
    opened: list[Backend | Server] = []

    def start(kind: str) -> tuple[Server, Address]:
        backend: Backend
        if kind == "remote":
            backend = RemoteBackend(start("memory")[1])
        elif kind == "memory":
            backend = MemoryBackend(SIZE)
        else:
            path = tmp_path / f"store-{len(opened)}"
            path.write_bytes(bytes(SIZE))
            backend = FileBackend(path, direct=kind == "direct")
        server = Server(backend, export="disk", max_connections=8)
        opened.extend([backend, server])
        address = server.listen_unix(str(tmp_path / f"socket-{len(opened)}"))
        server.start()
        return server, address

    yield start
    for each in reversed(opened):
        each.close()


each_kind = pytest.mark.parametrize("kind", ["memory", "file", "direct", "remote"])


@each_kind
def test_nbdinfo_reads_the_export(make: Make, kind: str) -> None:
    """libnbd sees the same size, flags and block sizes that we say."""
    server, address = make(kind)
    found = json.loads(run("nbdinfo", "--json", "--no-content", address.uri))
    (export,) = found["exports"]
    assert found["protocol"] == "newstyle-fixed"
    assert export["export-name"] == "disk"
    assert export["export-size"] == SIZE
    assert (export["can_flush"], export["can_fua"], export["can_zero"]) == (True, True, True)
    assert export["can_multi_conn"] is True
    assert export["is_read_only"] is False
    assert export["can_trim"] is server.export.has(TransmissionFlag.SEND_TRIM)
    assert export["block_size_minimum"] == server.export.block_size.minimum
    assert export["block_size_maximum"] == server.export.block_size.maximum


def test_nbdinfo_lists_the_export(make: Make) -> None:
    """NBD_OPT_LIST names the one export."""
    _, address = make("memory")
    found = json.loads(run("nbdinfo", "--json", "--no-content", "--list", address.with_export("").uri))
    assert [export["export-name"] for export in found["exports"]] == ["disk"]


@each_kind
def test_nbdcopy_there_and_back(make: Make, kind: str, image: Path, tmp_path: Path) -> None:
    """libnbd copies an image in, over four connections, and the same bytes out."""
    _, address = make(kind)
    run("nbdcopy", "--flush", str(image), address.uri)
    copy = tmp_path / "copy"
    run("nbdcopy", address.uri, str(copy))
    assert copy.read_bytes() == image.read_bytes()


@each_kind
def test_qemu_img_there_and_back(make: Make, kind: str, image: Path) -> None:
    """QEMU converts an image in, which zeroes holes, and finds it identical."""
    server, address = make(kind)
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), address.uri)
    assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(image), address.uri)
    assert server.counters().errors == 0


def test_qemu_img_bench_keeps_many_requests_in_flight(make: Make) -> None:
    """64 requests in flight at once on one connection are all answered."""
    server, address = make("memory")
    run("qemu-img", "bench", "-w", "-c", "2000", "-d", "64", "-s", "4096", "-f", "raw", address.uri)
    assert server.counters().writes == 2000


@pytest.fixture
def nbdkit(tmp_path: Path) -> Iterator[Callable[..., Address]]:
    """Starts nbdkit with the given arguments and ends it."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, export: str = "") -> Address:
        path = tmp_path / f"nbdkit-{len(running)}"
        ready = path.with_suffix(".pid")  # written when clients may come
        own = ["--foreground", f"--unix={path}", f"--pidfile={ready}"]
        process = subprocess.Popen([need("nbdkit"), *own, *arguments])
        running.append(process)
        deadline = time.monotonic() + DEADLINE
        while not ready.exists():
            assert process.poll() is None, f"nbdkit {arguments} ended with {process.returncode}"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return Address(path=str(path), export=export)

    yield start
    for process in running:
        process.terminate()
        process.wait(DEADLINE)


def test_our_client_of_nbdkit(nbdkit: Callable[..., Address]) -> None:
    """Reads, writes, zeroes, trims and flushes go to a foreign server and come back right."""
    data = memoryview(os.urandom(100_000))
    found = memoryview(bytearray(100_000))
    with RemoteBackend(nbdkit("memory", str(SIZE))) as backend:
        assert (backend.size, backend.can_write, backend.can_flush) == (SIZE, True, True)
        assert (backend.can_trim, backend.can_zero) == (True, True)
        backend.write(1000, data)
        backend.read_into(1000, found)
        assert found == data
        backend.zero(1000, 50_000, may_trim=False)
        backend.trim(51_000, 50_000)
        backend.flush()
        backend.read_into(1000, found)
        assert bytes(found[:50_000]) == bytes(50_000)


def test_our_client_honours_block_sizes(nbdkit: Callable[..., Address]) -> None:
    """A foreign server that insists on block sizes is asked accordingly."""
    limits = ["minimum=512", "preferred=4096", "maximum=65536", "error-policy=error"]
    policy = [f"blocksize-{limit}" for limit in limits]
    address = nbdkit("--filter=blocksize-policy", "memory", str(SIZE), *policy)
    with RemoteBackend(address) as backend:
        assert backend.minimum_block == 512
        data = memoryview(os.urandom(300 * 512))
        found = memoryview(bytearray(len(data)))
        backend.write(512, data)
        backend.read_into(512, found)
        assert found == data


def test_errors_of_nbdkit_keep_their_number(nbdkit: Callable[..., Address]) -> None:
    """A foreign server's error arrives as the errno that it meant."""
    address = nbdkit("--filter=error", "memory", str(SIZE), "error-pwrite=ENOSPC", "error-pwrite-rate=100%")
    with Client(address) as client:
        with pytest.raises(RequestError, match="ENOSPC") as caught:
            client.write(0, memoryview(b"x"))
        assert caught.value.errno == 28
        client.read_into(0, memoryview(bytearray(512)))


def test_a_read_only_nbdkit(nbdkit: Callable[..., Address]) -> None:
    """A foreign server's read-only flag makes the forwarding back end read-only."""
    with RemoteBackend(nbdkit("--readonly", "memory", str(SIZE))) as backend:
        assert not backend.can_write
        assert not backend.can_zero


def test_an_old_nbdkit(nbdkit: Callable[..., Address]) -> None:
    """A server that knows NBD_OPT_EXPORT_NAME alone serves us nevertheless."""
    address = nbdkit("--mask-handshake=0", "memory", str(SIZE))
    with Client(address) as client:
        assert client.export.size == SIZE
        client.command(Cmd.WRITE_ZEROES, 0, 4096, CmdFlag.NO_HOLE)


def test_describing_nbdkit(nbdkit: Callable[..., Address]) -> None:
    """NBD_OPT_INFO is asked of a foreign server as it understands it."""
    assert describe(nbdkit("memory", str(SIZE))).size == SIZE


def test_a_foreign_server_behind_ours(nbdkit: Callable[..., Address], image: Path, tmp_path: Path) -> None:
    """libnbd copies through our forwarding server into nbdkit, and what nbdkit stored is the image."""
    store = tmp_path / "store"
    store.write_bytes(bytes(SIZE))
    with RemoteBackend(nbdkit("file", str(store))) as backend, Server(backend) as server:
        address = server.listen_tcp()
        server.start()
        run("nbdcopy", "--flush", str(image), address.uri)
    assert store.read_bytes() == image.read_bytes()
