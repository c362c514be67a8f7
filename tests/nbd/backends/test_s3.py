"""The object store's back end against a real server (moto's), over plain HTTP."""

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import urllib3
from tests.nbd.backends.model import content, hold

from ioflusher.errors import IoflusherError
from ioflusher.nbd.backends import Backend, BackendError, BlockState, Extent, open_backend
from ioflusher.nbd.backends.s3 import S3Backend

pytestmark = pytest.mark.live

PIECE = 4096
SIZE = 10 * PIECE + 100

# moto's application in a process of its own, behind a server that keeps connections as people's stores do
STORE = """
import waitress
from moto.server import DomainDispatcherApplication, create_backend_app
application = DomainDispatcherApplication(create_backend_app)
server = waitress.create_server(application, host="127.0.0.1", port=0, threads=8)
print(server.effective_port, flush=True)
server.run()
"""


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The endpoint of an object store with one bucket."""
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "testing")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testing")
    command = [sys.executable, "-c", STORE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        endpoint = f"http://localhost:{int(process.stdout.readline())}"
        assert urllib3.request("PUT", f"{endpoint}/bucket").status == 200
        yield endpoint
        process.kill()


@pytest.fixture
def url(store: str) -> Callable[[], str]:
    """New prefixes of the bucket."""
    names = itertools.count()
    return lambda: f"{store}/bucket/{time.monotonic_ns()}-{next(names)}"


def test_against_the_model(url: Callable[[], str]) -> None:
    """As every other back end, closed and opened again too."""
    last: list[str] = []

    def make() -> tuple[Backend, bytes]:
        last[:] = [url()]
        return S3Backend(last[0], size=SIZE, piece=PIECE, connections=2), bytes(SIZE)

    def reopen(backend: Backend) -> Backend:
        backend.close()
        return S3Backend(last[0], connections=2)

    hold(make, examples=2, steps=10, reopen=reopen)


def test_pieces_are_objects(url: Callable[[], str]) -> None:
    """Only what was written is there; zeroes take it away; what is not there is a hole."""
    with S3Backend(url(), size=SIZE, piece=PIECE, connections=2) as backend:
        nothing = int(BlockState.HOLE | BlockState.ZERO)
        backend.write(PIECE + 5, memoryview(b"x"))
        assert list(backend.extents(0, 3 * PIECE)) == [
            Extent(PIECE, nothing),
            Extent(PIECE, 0),
            Extent(PIECE, nothing),
        ]
        assert backend._list() == ["000000000001"]
        backend.zero(PIECE, PIECE, may_trim=True)
        assert backend._list() == []


def test_nothing_is_looked_up_and_nobody_connects_again(
    url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once open, requests of all connections use what was made beforehand."""
    with S3Backend(url(), size=SIZE, piece=PIECE, connections=3) as backend:

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("looked up, or made a socket")

        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        monkeypatch.setattr(socket, "socket", refuse)
        for number in range(6):
            backend.write(number * PIECE + 1, memoryview(bytes([number + 1]) * 10))
        assert content(backend, 5 * PIECE, 3) == b"\0\6\6"


def test_a_store_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again, and then an error."""
    pauses: list[int] = []
    monkeypatch.setattr(S3Backend, "_pause", lambda self, attempt: pauses.append(attempt))
    with pytest.raises(BackendError, match="cannot connect"):
        S3Backend("http://127.0.0.1:1/bucket", size=SIZE, tries=3)
    assert pauses == [0, 1]


def test_another_size_is_refused(url: Callable[[], str]) -> None:
    """What lies below a prefix says how long it is."""
    place = url()
    S3Backend(place, size=SIZE, piece=PIECE, connections=1).close()
    with pytest.raises(BackendError, match=f"has {SIZE} bytes; 4096 were asked for"):
        S3Backend(place, size=4096, connections=1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("s3:ftp://host/bucket", "no address of a bucket"),
        ("s3:http://host", "no address of a bucket"),
        ("s3,piece=5000:http://host/bucket", "expected a power of two"),
        ("s3,tries=0:http://host/bucket", "0 tries"),
        ("s3:http://no-such-host.invalid/bucket", "cannot find"),
    ],
)
def test_what_cannot_be(text: str, complaint: str) -> None:
    """Refused before anything is asked."""
    with pytest.raises(IoflusherError, match=complaint):
        open_backend(text)


def test_without_a_size(url: Callable[[], str]) -> None:
    """An empty prefix needs one; a bucket that is not there is told."""
    with pytest.raises(BackendError, match="give the size"):
        S3Backend(url())
    with pytest.raises(BackendError, match="NoSuchBucket"):
        S3Backend(url().replace("/bucket/", "/nowhere/"), size=SIZE)
