"""Requests held against an export and done by a back end, without sockets."""

import errno
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ioflusher.errors import IoflusherError
from ioflusher.nbd.backends import Backend, Extent, MemoryBackend
from ioflusher.nbd.errors import RemoteProtocolError
from ioflusher.nbd.protocol.exports import BlockSize, Export
from ioflusher.nbd.protocol.extents import BASE_ALLOCATION, MetaContext
from ioflusher.nbd.protocol.messages import Reply, Request
from ioflusher.nbd.protocol.metadata import StatusQuery
from ioflusher.nbd.protocol.negotiated import Negotiated
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag, TransmissionFlag, errno_to_wire, wire_to_errno
from ioflusher.nbd.server import requests
from ioflusher.nbd.server.requests import Service, check, export_of

SIZE = 64 << 10
MAX_PAYLOAD = 8 << 10


class ReadOnly(Backend):
    """The least that a back end must define."""

    size = SIZE

    def read_into(self, offset: int, view: memoryview) -> None:
        view[:] = bytes((offset + index) % 256 for index in range(len(view)))


class Recording(MemoryBackend):
    """Notes what it is asked."""

    can_trim = True

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.log: list[tuple[object, ...]] = []

    def write(self, offset: int, view: memoryview) -> None:
        self.log.append(("write", offset, bytes(view)))

    def flush(self) -> None:
        self.log.append(("flush",))

    def trim(self, offset: int, length: int) -> None:
        self.log.append(("trim", offset, length))

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self.log.append(("zero", offset, length, may_trim))


class Sectors(Recording):
    """Wants its requests aligned."""

    minimum_block = 512


class Pages(Recording):
    """Wants them aligned to more than a page."""

    minimum_block = 64 << 10


def service(backend: Backend) -> Service:
    return Service(export_of(backend, "", MAX_PAYLOAD), backend)


def execute(request: Request, backend: Backend, room: memoryview) -> int:
    """The error with which a request is answered; the answer itself must say the same."""
    error, views = requests.answer(request, service(backend), room)
    assert views[0] == Reply(error, request.cookie).pack()
    assert views[1:] == ([room[: request.length]] if request.command == Cmd.READ and not error else [])
    return error


def ask(command: int, offset: int, length: int, flags: int = 0) -> Request:
    data = memoryview(bytes(length)) if command == Cmd.WRITE and length <= MAX_PAYLOAD else None
    return Request(command, flags, 1, offset, length, data)


REFUSED = [
    (Recording, ask(Cmd.READ, SIZE - 1, 2), errno.EINVAL),
    (Recording, ask(Cmd.READ, 2**64 - 1, 2**32 - 1), errno.EINVAL),
    (Recording, ask(Cmd.WRITE, SIZE, 1), errno.ENOSPC),
    (Recording, ask(Cmd.WRITE_ZEROES, SIZE - 1, 2), errno.ENOSPC),
    (Recording, ask(Cmd.TRIM, SIZE - 1, 2), errno.EINVAL),
    (Recording, ask(Cmd.READ, 0, MAX_PAYLOAD + 1), errno.EINVAL),
    (Recording, ask(Cmd.WRITE, 0, MAX_PAYLOAD + 1), errno.EINVAL),
    (Recording, ask(Cmd.READ, 0, 1, CmdFlag.DF), errno.EINVAL),
    (Recording, ask(Cmd.WRITE, 0, 1, CmdFlag.NO_HOLE), errno.EINVAL),
    (Recording, ask(Cmd.READ, 0, 1, 0x8000), errno.EINVAL),
    (Recording, ask(Cmd.CACHE, 0, 1), errno.EINVAL),
    (Recording, ask(Cmd.BLOCK_STATUS, 0, 1), errno.EINVAL),
    (Recording, ask(0xBEEF, 0, 1), errno.EINVAL),
    (ReadOnly, ask(Cmd.WRITE, 0, 1), errno.EPERM),
    (ReadOnly, ask(Cmd.TRIM, 0, 1), errno.EPERM),
    (ReadOnly, ask(Cmd.WRITE_ZEROES, 0, 1), errno.EPERM),
    (ReadOnly, ask(Cmd.FLUSH, 0, 0), errno.EINVAL),
    (ReadOnly, ask(Cmd.READ, 0, 1, CmdFlag.FUA), errno.EINVAL),
    (MemoryBackend, ask(Cmd.TRIM, 0, 1), errno.EINVAL),
    (Sectors, ask(Cmd.READ, 256, 512), errno.EINVAL),
    (Sectors, ask(Cmd.READ, 256, 256), errno.EINVAL),
    (Sectors, ask(Cmd.READ, 1, 512), errno.EINVAL),
    (Sectors, ask(Cmd.WRITE, 512, 100), errno.EINVAL),
]


@pytest.mark.parametrize(("kind", "request_", "expected"), REFUSED)
def test_refused(kind: type[Backend], request_: Request, expected: int) -> None:
    """Out of range, above the limit, not aligned, not writable, unknown: an errno, and nothing is done."""
    backend = MemoryBackend(SIZE) if kind is MemoryBackend else kind()
    assert execute(request_, backend, memoryview(bytearray(MAX_PAYLOAD))) == expected
    assert not getattr(backend, "log", [])


def test_a_read_fills_the_room() -> None:
    """A READ up to the very end works and touches no more of the room than it needs."""
    room = memoryview(bytearray(b"\xee" * 8))
    backend = ReadOnly()
    assert execute(ask(Cmd.READ, SIZE - 4, 4), backend, room) == 0
    assert bytes(room) == b"\xfc\xfd\xfe\xff" + b"\xee" * 4


@pytest.mark.parametrize(
    ("request_", "log"),
    [
        (ask(Cmd.WRITE, 4, 2), [("write", 4, bytes(2))]),
        (ask(Cmd.WRITE, 4, 2, CmdFlag.FUA), [("write", 4, bytes(2)), ("flush",)]),
        (ask(Cmd.FLUSH, 0, 0), [("flush",)]),
        (ask(Cmd.FLUSH, 0, 0, CmdFlag.FUA), [("flush",)]),
        (ask(Cmd.FLUSH, 2 * SIZE + 1, 7), [("flush",)]),  # no range to be wrong
        (ask(Cmd.READ, SIZE - MAX_PAYLOAD, MAX_PAYLOAD), []),
        (ask(Cmd.READ, 0, 4, CmdFlag.FUA), []),
        (ask(Cmd.TRIM, 0, SIZE), [("trim", 0, SIZE)]),
        (ask(Cmd.WRITE_ZEROES, 0, SIZE), [("zero", 0, SIZE, True)]),
        (ask(Cmd.WRITE_ZEROES, 0, 8, CmdFlag.NO_HOLE | CmdFlag.FUA), [("zero", 0, 8, False), ("flush",)]),
    ],
)
def test_done(request_: Request, log: list[tuple[object, ...]]) -> None:
    """Each command reaches the back end once; FUA is a flush after a change, and nothing after a READ."""
    backend = Recording()
    assert execute(request_, backend, memoryview(bytearray(MAX_PAYLOAD))) == 0
    assert backend.log == log


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
        (OSError(errno.EDQUOT, "quota"), errno.ENOSPC),
        (OSError(errno.EROFS, "read-only"), errno.EPERM),
        (OSError(errno.ENXIO, "gone"), errno.EIO),
        (OSError("no number"), errno.EIO),
        (IoflusherError("lost", errno=errno.ESHUTDOWN), errno.ESHUTDOWN),
        (IoflusherError("unknown"), errno.EIO),
    ],
)
def test_a_back_ends_failure_reaches_the_client(failure: Exception, expected: int) -> None:
    """What a back end raises becomes the protocol's nearest error value."""

    class Failing(ReadOnly):
        def read_into(self, offset: int, view: memoryview) -> None:
            raise failure

    backend = Failing()
    room = memoryview(bytearray(8))
    assert execute(ask(Cmd.READ, 0, 8), backend, room) == expected


def test_a_programming_error_is_not_hidden() -> None:
    """Anything but OSError and IoflusherError is a bug of the back end and is not turned into an answer."""

    class Buggy(ReadOnly):
        def read_into(self, offset: int, view: memoryview) -> None:
            raise KeyError("bug")

    backend = Buggy()
    with pytest.raises(KeyError):
        execute(ask(Cmd.READ, 0, 8), backend, memoryview(bytearray(8)))


@pytest.mark.parametrize(("offset", "length"), [(0, 512), (512, 512), (SIZE - 1024, 1024)])
def test_whole_sectors_are_taken(offset: int, length: int) -> None:
    """What is aligned to the back end's smallest block is done."""
    assert check(ask(Cmd.READ, offset, length), service(Sectors())) == 0


def test_a_read_needs_nothing_of_the_export() -> None:
    """Not even that the server speaks of its flags."""
    bare = Service(Export("", SIZE, 0, BlockSize(1, 4096, MAX_PAYLOAD)), Recording())
    assert check(ask(Cmd.READ, 0, 1), bare) == 0
    assert check(ask(Cmd.WRITE, 0, 1), bare) == 0


@pytest.mark.parametrize(("backend", "minimum"), [(Recording, 1), (Sectors, 512), (Pages, 64 << 10)])
def test_block_sizes_of_an_export(backend: type[Recording], minimum: int) -> None:
    """The back end's smallest, a page or that, and the server's limit."""
    assert export_of(backend(), "", MAX_PAYLOAD).block_size == BlockSize(
        minimum, max(minimum, 4096), MAX_PAYLOAD
    )


def test_what_an_export_promises() -> None:
    """The flags tell what the back end can do, and FUA goes with flush."""
    flag = TransmissionFlag
    always = flag.HAS_FLAGS | flag.SEND_DF | flag.CAN_MULTI_CONN
    assert export_of(ReadOnly(), "", MAX_PAYLOAD).flags == always | flag.READ_ONLY
    memory = always | flag.SEND_FLUSH | flag.SEND_FUA | flag.SEND_WRITE_ZEROES | flag.SEND_FAST_ZERO
    assert export_of(MemoryBackend(1), "", MAX_PAYLOAD).flags == memory
    assert export_of(Recording(), "", MAX_PAYLOAD).flags == memory | flag.SEND_TRIM


@pytest.mark.parametrize(
    ("can", "promised"),
    [
        ({"can_flush"}, "SEND_FLUSH"),
        ({"can_zero", "can_fast_zero", "can_trim", "can_resize"}, ""),
        ({"can_write"}, "-READ_ONLY"),
        ({"can_write", "can_fast_zero"}, "-READ_ONLY"),
        ({"can_write", "can_zero"}, "-READ_ONLY SEND_WRITE_ZEROES"),
        ({"can_write", "can_zero", "can_fast_zero"}, "-READ_ONLY SEND_WRITE_ZEROES SEND_FAST_ZERO"),
        ({"can_write", "can_flush"}, "-READ_ONLY SEND_FLUSH SEND_FUA"),
        ({"can_write", "can_trim"}, "-READ_ONLY SEND_TRIM"),
        ({"can_write", "can_resize"}, "-READ_ONLY"),
    ],
)
def test_nothing_is_promised_alone(can: set[str], promised: str) -> None:
    """What changes an export needs one that can be written; FUA a flush; fast zeroing zeroing. No resizing
    that was not asked for."""
    backend = ReadOnly()
    for ability in can:
        setattr(backend, ability, True)
    flag = TransmissionFlag
    expected = flag.HAS_FLAGS | flag.SEND_DF | flag.CAN_MULTI_CONN | flag.READ_ONLY
    for name in promised.split():
        expected ^= flag[name.removeprefix("-")]
    assert export_of(backend, "", MAX_PAYLOAD).flags == expected


@pytest.mark.parametrize("command", [Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES])
def test_a_read_only_export_of_what_can_be_written(command: Cmd) -> None:
    """The export counts, whatever its back end could do."""
    backend = Recording()
    served = service(backend)
    served.export = replace(served.export, flags=served.export.flags | TransmissionFlag.READ_ONLY)
    assert requests.answer(ask(command, 0, 1), served, memoryview(bytearray(1)))[0] == errno.EPERM
    assert backend.log == []


def test_who_is_asked_for_holes() -> None:
    """A back end that says where they are, and says it quickly."""

    class Slow(Recording):
        quick_extents = False

    assert requests.leaves_out_holes(Recording())
    assert not requests.leaves_out_holes(ReadOnly())
    assert not requests.leaves_out_holes(Slow())


def test_an_announced_payload_is_waited_for_up_to_the_limit() -> None:
    """With extended headers a longer one ends the connection; without them nothing announces any."""
    served = service(Recording())
    requests.check_payload(MAX_PAYLOAD + 1, served)
    served.negotiated = Negotiated(True, True)
    requests.check_payload(MAX_PAYLOAD, served)
    with pytest.raises(RemoteProtocolError, match="8193 bytes; at most 8192"):
        requests.check_payload(MAX_PAYLOAD + 1, served)


def test_so_many_extents_in_one_answer() -> None:
    """The client asks again behind the last one."""

    class Dotted(Recording):
        def extents(self, offset: int, length: int) -> Iterator[Extent]:
            return (Extent(1, number & 1) for number in range(length))

    backend = Dotted()
    served = Service(export_of(backend, "", MAX_PAYLOAD), backend, BOTH)
    views = requests.answer(narrow(SIZE, 3), served, memoryview(b""))[1]
    assert [len(view) for view in views] == [40 + 4096 * 16]


def test_a_dropped_payload_is_refused_whatever_else_holds() -> None:
    """A WRITE whose payload was dropped never reaches the back end as if it had data."""
    backend = Recording()
    too_long = Request(Cmd.WRITE, 0, 1, 0, MAX_PAYLOAD + 1, None)
    assert check(too_long, service(backend)) == errno.EINVAL


def resizable(backend: Backend, log: list[int]) -> Service:
    """A service whose client may resize the export; what it asks for is noted."""
    backend.can_resize = True
    return Service(export_of(backend, "", MAX_PAYLOAD, resize=True), backend, resize=log.append)


def test_resizing() -> None:
    """The new size is the request's offset; between a new end and an older one ENOSPC is the answer."""
    sizes: list[int] = []
    served = resizable(Recording(), sizes)
    room = memoryview(bytearray(MAX_PAYLOAD))
    beyond = ask(Cmd.READ, SIZE, 1)
    assert check(beyond, served) == errno.EINVAL
    for size in (2 * SIZE, SIZE // 2):
        assert requests.answer(ask(Cmd.RESIZE, size, 0), served, room) == (0, [Reply(0, 1).pack()])
        assert served.export.size == size
        inside = ask(Cmd.TRIM, size - 1, 1)
        assert check(inside, served) == 0
    assert sizes == [2 * SIZE, SIZE // 2]
    for command in (Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES):
        assert check(ask(command, SIZE // 2, 1), served) == errno.ENOSPC
        assert check(ask(command, 2 * SIZE - 1, 1), served) == errno.ENOSPC
    assert check(ask(Cmd.READ, 2 * SIZE - 1, 2), served) == errno.EINVAL


def test_the_old_end_is_remembered_from_the_first_change_on() -> None:
    """Also where the export was never larger than at first."""
    served = resizable(Recording(), [])
    requests.answer(ask(Cmd.RESIZE, 8, 0), served, memoryview(b""))
    assert check(ask(Cmd.READ, SIZE - 1, 1), served) == errno.ENOSPC
    assert check(ask(Cmd.READ, SIZE, 1), served) == errno.EINVAL


def test_a_resize_that_fails_changes_nothing() -> None:
    """What the server or the back end says is the answer, and the export stays as it was."""
    backend = Recording()
    backend.can_resize = True
    served = Service(export_of(backend, "", MAX_PAYLOAD, resize=True), backend)
    room = memoryview(b"")
    assert requests.answer(ask(Cmd.RESIZE, 8, 0), served, room)[0] == errno.EPERM
    assert (served.export.size, served.largest) == (SIZE, 0)


@pytest.mark.parametrize(
    ("kind", "resize", "expected"),
    [(Recording, False, errno.EINVAL), (ReadOnly, True, errno.EPERM), (Sectors, True, errno.EINVAL)],
)
def test_who_may_not_resize(kind: type[Backend], resize: bool, expected: int) -> None:
    """Clients of a server that does not grant it, of an export that is read-only; and no odd size."""
    backend = kind()
    backend.can_resize = True
    served = Service(export_of(backend, "", MAX_PAYLOAD, resize=resize), backend)
    assert check(ask(Cmd.RESIZE, 100, 0), served) == expected


BOTH = Negotiated(True, True, (MetaContext(3, BASE_ALLOCATION), MetaContext(5, "test:odd")))


def narrow(length: int, *contexts: int, offset: int = 0) -> Request:
    """A BLOCK_STATUS whose payload names contexts."""
    data = StatusQuery(length, contexts).pack()
    return Request(Cmd.BLOCK_STATUS, CmdFlag.PAYLOAD_LEN, 1, offset, len(data), memoryview(data))


class Odd(ReadOnly):
    contexts = ("test:odd",)

    def context_extents(self, context: str, offset: int, length: int) -> list[Extent]:
        return [Extent(length, offset & 1)]


def chosen(request: Request) -> tuple[int, list[int]]:
    """The error, and the contexts whose status is the answer."""
    backend = Odd()
    served = Service(export_of(backend, "", MAX_PAYLOAD), backend, BOTH)
    error, views = requests.answer(request, served, memoryview(b""))
    return error, [] if error else [view[35] for view in views]


def test_contexts_by_choice() -> None:
    """Those that the payload names, in its order; its own length is held against the export."""
    assert chosen(narrow(SIZE, 3)) == (0, [3])
    assert chosen(narrow(SIZE, 5, 3)) == (0, [5, 3])
    assert chosen(narrow(1, 5, offset=SIZE - 1)) == (0, [5])
    for wrong in (
        narrow(SIZE + 1, 3),
        narrow(0, 3),
        narrow(1, 4),
        narrow(1, 3, 3),
        narrow(1),
        narrow(1, 3, offset=SIZE),
        narrow(1, 3, 5, 3),
    ):
        assert chosen(wrong) == (errno.EINVAL, [])


def test_a_payload_that_no_choice_needs_is_not_taken() -> None:
    """As many contexts as were agreed on may be named, not one more: that is refused beforehand."""
    served = Service(export_of(Odd(), "", MAX_PAYLOAD), Odd(), BOTH)
    assert check(narrow(1, 3, 5), served) == 0
    assert check(narrow(1, 3, 5, 7), served) == errno.EINVAL


def test_error_values_both_ways() -> None:
    """The protocol's error values are Linux's numbers; others become their nearest, unknown ones EINVAL."""
    for number in (1, 5, 12, 22, 28, 75, 95, 108):
        assert errno_to_wire(number) == number
        assert wire_to_errno(number) == number
    assert errno_to_wire(None) == errno.EIO
    assert wire_to_errno(9999) == errno.EINVAL
