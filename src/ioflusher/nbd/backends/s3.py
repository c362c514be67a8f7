"""A back end in an object store that speaks S3: an object for each piece of the device.

The least that a network back end has to do so that a device that is short of memory does not wait for itself:

- the endpoint's name is looked up once, when it is opened; every connection goes to those addresses;
- connections, with their TLS sessions, are made beforehand, one for each request that can be in flight, and
  used now and then so that the server does not close them; a certificate authority is read once;
- credentials are those of the start: nobody asks another service for fresh ones;
- buffers for whole pieces are taken at the start, and every kind of request is made once, so that what a
  client library loads, compiles or allocates when it is first needed is there.

What stays is said in docs/nbd.md: the client library allocates for each request, and connecting again where
the server closes nevertheless does, too.
"""

import contextlib
import errno
import io
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import urlsplit

from ioflusher.nbd.backends.backend import Backend, BackendError
from ioflusher.nbd.protocol.connection import aligned_memory
from ioflusher.nbd.protocol.extents import BlockState, Extent

KEEP_ALIVE = 5.0  # seconds; servers close connections that were idle, the quickest after 15 s or so
_NOTHING = int(BlockState.HOLE | BlockState.ZERO)

T = TypeVar("T")


class S3Backend(Backend):
    """Objects of a bucket: `prefix` followed by a piece's number in hexadecimal digits. None is zeroes.

    A write of a part of a piece gets the whole, changes it and puts it back; an answered PUT is durable, so a
    flush has nothing to do. One process may serve a prefix. Credentials come from the environment, as
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.

    Args:
        url: https://HOST[:PORT]/BUCKET[/PREFIX], or http:// for a network that you trust.
        size: of the device; where the prefix has been served before it must be the same, or None.
        piece: bytes of an object, a power of two; fixed when the prefix is served first.
        connections: requests in flight at most.
        region: of the bucket; asking for it would be a request of its own.
        timeout: seconds that a request may take, each of the tries.
        tries: how often a request is made before it fails.
        authority: a file with the certificates that the server's must lead to; None: the system's.

    Raises:
        BackendError: the extra `s3` is missing, the address is none, or the store refuses.
    """

    can_write = can_flush = can_trim = can_zero = True
    waits = True

    def __init__(
        self,
        url: str,
        *,
        size: int | None = None,
        piece: int = 1 << 20,
        connections: int = 8,
        region: str = "us-east-1",
        timeout: float = 30.0,
        tries: int = 5,
        authority: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        bucket, _, prefix = parts.path.strip("/").partition("/")
        if parts.scheme not in ("http", "https") or not parts.hostname or not bucket:
            raise BackendError(
                f"{url!r} is no address of a bucket; expected https://HOST[:PORT]/BUCKET[/PREFIX]"
            )
        if piece < 4096 or piece & (piece - 1):
            raise BackendError(f"pieces of {piece} bytes; expected a power of two, 4096 or more")
        if connections < 1 or tries < 1:
            raise BackendError(f"{connections} connections, {tries} tries; expected one or more")
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._url, self._tries = url, tries
        try:
            from ioflusher.nbd.backends.s3_client import connect
        except ImportError as error:
            raise BackendError(
                f"no S3 client here: {error}", hint="install ioflusher[s3], which brings minio"
            ) from error
        self._client, self._pool, self._errors = connect(
            parts, region=region, timeout=timeout, connections=connections, authority=authority
        )
        self._free: deque[memoryview] = deque()
        self._turns = threading.Semaphore(connections)
        self._open(size, piece)
        for _ in range(connections):
            self._free.append(aligned_memory(self._piece))
        self._locks = [threading.Lock() for _ in range(64)]  # a piece's: reading, changing, putting it back
        self._present = bytearray(-(-self._size // self._piece))
        for name in self._ask(self._list):
            self._present[int(name, 16)] = 1
        self.preferred_block = self._piece
        self._closing = threading.Event()
        self._warm_up(connections)
        self._keeper = threading.Thread(target=self._keep_alive, name="s3-keep-alive", daemon=True)
        self._keeper.start()

    def _open(self, size: int | None, piece: int) -> None:
        """Read what the prefix is, or say it."""
        label = self._ask(lambda: self._get_whole("label"))
        if label is not None:
            kind, _, rest = label.partition(b" ")
            if kind != b"ioflusher-disk":
                raise BackendError(f"{self._url!r} has something else below that prefix")
            self._size, self._piece = (int(number) for number in rest.split())
            if size not in (None, self._size):
                raise BackendError(f"{self._url!r} has {self._size} bytes; {size} were asked for")
            return
        if size is None or size <= 0:
            raise BackendError(f"{self._url!r} is empty; give the size that it is to have")
        self._size, self._piece = size, piece
        text = f"ioflusher-disk {size} {piece}".encode()
        name = f"{self._prefix}label"
        self._ask(lambda: self._client.put_object(self._bucket, name, io.BytesIO(text), len(text)))

    def _warm_up(self, connections: int) -> None:
        """Make every kind of request once, and every connection."""
        name = f"{self._prefix}warm-up"
        self._ask(lambda: self._client.put_object(self._bucket, name, io.BytesIO(b"x"), 1))
        self._ask(lambda: self._get_whole("warm-up"))
        self._ask(lambda: self._client.remove_object(self._bucket, name))
        self._touch_all(connections)

    def _touch_all(self, connections: int) -> None:
        """Use all connections at once, so that each is made or kept."""
        together = threading.Barrier(connections)

        def touch() -> None:
            with contextlib.suppress(*self._errors), self._turns:
                together.wait()
                self._get_whole("label")

        threads = [threading.Thread(target=touch, daemon=True) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _keep_alive(self) -> None:
        """Use a connection now and then; the pool hands out the one that was idle longest."""
        while not self._closing.wait(KEEP_ALIVE):
            try:
                for _ in range(len(self._free)):
                    with self._turns:
                        self._get_whole("label")
            except self._errors:  # the next request will meet it, and say so
                continue

    @property
    def size(self) -> int:
        return self._size

    def _name(self, number: int) -> str:
        return f"{self._prefix}{number:012x}"

    def _list(self) -> list[str]:
        found = self._client.list_objects(self._bucket, prefix=self._prefix, recursive=True)
        names = (str(each.object_name).removeprefix(self._prefix) for each in found)
        return [name for name in names if len(name) == 12 and name.strip("0123456789abcdef") == ""]

    def _ask(self, action: Callable[[], T]) -> T:
        """Make a request, again where the store or the network failed."""
        for attempt in range(self._tries):
            try:
                with self._turns:
                    return action()
            except self._errors as error:
                status = getattr(getattr(error, "response", None), "status", 500)
                if attempt + 1 == self._tries or (400 <= status < 500 and status not in (408, 429)):
                    raise BackendError(f"{self._url!r}: {error}", errno=errno.EIO) from error
                self._pause(attempt)
        raise AssertionError  # the last try returned or raised

    def _pause(self, attempt: int) -> None:
        threading.Event().wait(min(0.05 * 2**attempt, 2.0))

    def _get_whole(self, name: str) -> bytes | None:
        from minio.error import S3Error

        try:
            response = self._client.get_object(self._bucket, f"{self._prefix}{name}")
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            raise
        try:
            return bytes(response.read())
        finally:
            response.release_conn()

    def _get(self, number: int, inside: int, view: memoryview) -> None:
        """Fill a view with a part of a piece that is there."""

        def get() -> None:
            response = self._client.get_object(self._bucket, self._name(number), inside, len(view))
            try:
                filled = 0
                while filled < len(view):
                    count = response.readinto(view[filled:])
                    if not count:
                        raise OSError(errno.EIO, f"{self._name(number)} ends early")
                    filled += count
                response.drain_conn()  # to the end of the answer: the connection stays
            except BaseException:
                response.close()
                raise
            finally:
                response.release_conn()

        self._ask(get)

    def _put(self, number: int, content: memoryview) -> None:
        name = self._name(number)
        self._ask(lambda: self._client.put_object(self._bucket, name, io.BytesIO(content), len(content)))
        self._present[number] = 1

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """The pieces that a range meets: number, offset in it, length there."""
        while length > 0:
            number, inside = divmod(offset, self._piece)
            here = min(self._piece - inside, length)
            yield number, inside, here
            offset, length = offset + here, length - here

    def read_into(self, offset: int, view: memoryview) -> None:
        for number, inside, length in self._pieces(offset, len(view)):
            if self._present[number]:
                with self._locks[number % len(self._locks)]:
                    if self._present[number]:
                        self._get(number, inside, view[:length])
                    else:
                        view[:length] = bytes(length)
            else:
                view[:length] = bytes(length)
            view = view[length:]

    def write(self, offset: int, view: memoryview) -> None:
        for number, inside, length in self._pieces(offset, len(view)):
            self._change(number, inside, view[:length], length)
            view = view[length:]

    def write_through(self, offset: int, view: memoryview) -> None:
        self.write(offset, view)

    def flush(self) -> None:
        """Nothing to do: a write returns when the store has said that it has it."""

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        for number, inside, here in self._pieces(offset, length):
            self._change(number, inside, None, here)

    def trim(self, offset: int, length: int) -> None:
        for number, inside, here in self._pieces(offset, length):
            if here == self._length(number) and not inside:
                self._change(number, 0, None, here)

    def _length(self, number: int) -> int:
        return min(self._piece, self._size - number * self._piece)

    def _change(self, number: int, inside: int, data: memoryview | None, length: int) -> None:
        """Put `data` (None: zeroes) into a piece."""
        whole = self._length(number)
        with self._locks[number % len(self._locks)]:
            there = self._present[number]
            if data is None and not there:
                return
            if data is None and length == whole:
                self._ask(lambda: self._client.remove_object(self._bucket, self._name(number)))
                self._present[number] = 0
                return
            if data is not None and length == whole:
                self._put(number, data)
                return
            buffer = self._take_buffer()
            try:
                content = buffer[:whole]
                if there:
                    self._get(number, 0, content)
                else:
                    content[:] = bytes(whole)
                content[inside : inside + length] = bytes(length) if data is None else data
                self._put(number, content)
            finally:
                self._free.append(buffer)

    def _take_buffer(self) -> memoryview:
        try:
            return self._free.popleft()
        except IndexError:  # more threads than connections: they wait for those soon enough
            return aligned_memory(self._piece)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for number, _, here in self._pieces(offset, length):
            yield Extent(here, 0 if self._present[number] else _NOTHING)

    def close(self) -> None:
        self._closing.set()
        self._keeper.join()
        self._pool.clear()
