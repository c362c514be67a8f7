"""One request: checked against the export, done by the back end, its answer put together. No sockets here."""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeAlias

from ioflusher.errors import IoflusherError
from ioflusher.nbd.backends import Backend
from ioflusher.nbd.backends.backend import has_own
from ioflusher.nbd.errors import RemoteProtocolError
from ioflusher.nbd.protocol import replies, wire
from ioflusher.nbd.protocol.exports import BlockSize, Export, MalformedData
from ioflusher.nbd.protocol.extents import BASE_ALLOCATION, BlockState, Extent, MetaContext, joined
from ioflusher.nbd.protocol.messages import Request
from ioflusher.nbd.protocol.metadata import StatusQuery
from ioflusher.nbd.protocol.negotiated import Negotiated
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag, TransmissionFlag, errno_to_wire

# What is sent, piece after piece.
Views: TypeAlias = list[bytes | memoryview]

MOST_EXTENTS = 4096  # in one answer; the client asks again behind the last one
HOLE_WORTH_A_CHUNK = 64 << 10  # bytes: shorter READs are answered in one chunk without asking where holes are


def export_of(backend: Backend, name: str, max_payload: int, *, resize: bool = False) -> Export:
    """The export that a back end makes; `resize`: clients may change its size, where the back end can."""
    flag = TransmissionFlag
    flags = int(flag.HAS_FLAGS | flag.SEND_DF)  # DF goes with structured replies, as the handshake sees to
    can = [
        (backend.can_multi_conn, flag.CAN_MULTI_CONN),
        (backend.can_flush, flag.SEND_FLUSH),
        (not backend.can_write, flag.READ_ONLY),
        (backend.can_write and backend.can_flush, flag.SEND_FUA),
        (backend.can_write and backend.can_trim, flag.SEND_TRIM),
        (backend.can_write and backend.can_zero, flag.SEND_WRITE_ZEROES),
        (backend.can_write and backend.can_zero and backend.can_fast_zero, flag.SEND_FAST_ZERO),
        (backend.can_cache, flag.SEND_CACHE),
        (resize and backend.can_write and backend.can_resize, flag.SEND_RESIZE),
    ]
    for is_so, its_flag in can:
        if is_so:
            flags |= its_flag
    minimum = backend.minimum_block
    return Export(
        name, backend.size, flags, BlockSize(minimum, max(minimum, backend.preferred_block), max_payload)
    )


_NOTHING = Negotiated()


def _no_resizing(size: int) -> None:
    raise OSError(errno.EPERM, "nobody may change the size here")


@dataclass(slots=True)
class Service:
    """What one connection is about.

    Attributes:
        export: as the client knows it; another one after it has changed the size (NBD_CMD_RESIZE).
        backend: who does the requests.
        negotiated: what was agreed on.
        resize: changes the size of what is served, or raises OSError.
        largest: the largest size that the export has had on this connection.
    """

    export: Export
    backend: Backend
    negotiated: Negotiated = _NOTHING
    resize: Callable[[int], None] = _no_resizing
    largest: int = 0


# Plain integers: arithmetic on enum members costs a microsecond each.
_READ_ONLY = int(TransmissionFlag.READ_ONLY)
_FUA = int(CmdFlag.FUA)
_NO_HOLE = int(CmdFlag.NO_HOLE)
_DF = int(CmdFlag.DF)
_REQ_ONE = int(CmdFlag.REQ_ONE)
_FAST_ZERO = int(CmdFlag.FAST_ZERO)
_PAYLOAD_LEN = int(CmdFlag.PAYLOAD_LEN)  # with extended headers alone

# NBD_CMD_FLAG_* that need an NBD_FLAG_*.
_FLAG_NEEDS = {_FUA: int(TransmissionFlag.SEND_FUA), _FAST_ZERO: int(TransmissionFlag.SEND_FAST_ZERO)}


@dataclass(frozen=True, slots=True)
class CommandRule:
    """What a command needs.

    Attributes:
        needs: NBD_FLAG_* bits that the export must have.
        may: NBD_CMD_FLAG_* bits that the request may carry. All may carry FUA: the protocol notes clients
            that set it on every command.
        ranged: whether offset and length mean anything.
        changes: whether it changes what is stored.
        moves_data: whether the length is that of a payload.
        beyond_end: the errno for a range beyond the end.
    """

    needs: int = 0
    may: int = _FUA
    ranged: bool = True
    changes: bool = False
    moves_data: bool = False
    beyond_end: int = errno.EINVAL


RULES: dict[int, CommandRule] = {
    Cmd.READ: CommandRule(may=_FUA | _DF, moves_data=True),
    Cmd.WRITE: CommandRule(may=_FUA | _PAYLOAD_LEN, moves_data=True, changes=True, beyond_end=errno.ENOSPC),
    Cmd.FLUSH: CommandRule(needs=int(TransmissionFlag.SEND_FLUSH), ranged=False),
    Cmd.TRIM: CommandRule(needs=int(TransmissionFlag.SEND_TRIM), changes=True),
    Cmd.CACHE: CommandRule(needs=int(TransmissionFlag.SEND_CACHE)),
    Cmd.WRITE_ZEROES: CommandRule(
        needs=int(TransmissionFlag.SEND_WRITE_ZEROES),
        may=_FUA | _NO_HOLE | _FAST_ZERO,
        changes=True,
        beyond_end=errno.ENOSPC,
    ),
    Cmd.BLOCK_STATUS: CommandRule(may=_FUA | _REQ_ONE | _PAYLOAD_LEN),
    Cmd.RESIZE: CommandRule(needs=int(TransmissionFlag.SEND_RESIZE), ranged=False, changes=True),
}


def check(request: Request, service: Service) -> int:
    """The errno with which a request must be refused, or 0."""
    rule = RULES.get(request.command)
    if rule is None:
        return errno.EINVAL
    export, negotiated = service.export, service.negotiated
    flags = export.flags
    if rule.changes and flags & _READ_ONLY:
        return errno.EPERM
    if rule.needs & ~flags or request.flags & ~rule.may:
        return errno.EINVAL
    if any(request.flags & flag and not flags & needed for flag, needed in _FLAG_NEEDS.items()):
        return errno.EINVAL
    if request.flags & _PAYLOAD_LEN and not negotiated.extended_headers:
        return errno.EINVAL
    if request.flags & _DF and not negotiated.structured_replies:
        return errno.EINVAL
    if request.command == Cmd.BLOCK_STATUS:
        if not (negotiated.contexts and request.length):
            return errno.EINVAL
        if request.flags & _PAYLOAD_LEN:  # which says what it is about; one that is longer cannot be right
            longest = wire.STATUS_LENGTH.size + len(negotiated.contexts) * wire.CONTEXT_NUMBER.size
            return errno.EINVAL if request.length > longest else 0
    if request.command == Cmd.RESIZE and request.offset & (export.block_size.minimum - 1):
        return errno.EINVAL
    if not rule.ranged:
        return 0
    if (end := request.offset + request.length) > export.size:
        return errno.ENOSPC if end <= service.largest else rule.beyond_end
    if (request.offset | request.length) & (export.block_size.minimum - 1):
        return errno.EINVAL
    if rule.moves_data and request.length > export.block_size.maximum:
        return errno.EINVAL
    return 0


def answer(request: Request, service: Service, room: memoryview) -> tuple[int, Views]:
    """Do a request; returns 0 or the protocol's error value, and what to send.

    `room` takes a READ's data, `request.length` bytes at least.
    """
    error = check(request, service)
    if error:
        why = "the export takes no such request"
        return error, [_error(request.cookie, request.offset, service, error, why)]
    return _outcome(request, service, partial(_DO[request.command], request, service, room))


def answer_around_holes(
    request: Request, service: Service, room: memoryview, extents: Iterable[Extent]
) -> tuple[int, Views]:
    """As `answer`, for a READ in chunks that nothing refuses, of whose range the back end said this."""
    return _outcome(request, service, partial(_around_holes, request, service, room, extents))


def _outcome(request: Request, service: Service, do: Callable[[], Views]) -> tuple[int, Views]:
    try:
        return 0, do()
    except _ReadInPart as part:
        error = errno_to_wire(part.failure.errno)
        what_failed = replies.failure(
            request.cookie, error, _words(part.failure), part.offset, at=_at(request.offset, service)
        )
        return error, [*part.views, what_failed]
    except (OSError, IoflusherError) as failure:
        error, reply = failed(request.cookie, request.offset, service, failure)
        return error, [reply]


def leaves_out_holes(backend: Backend) -> bool:
    """Whether a long READ is worth the question where the holes are."""
    return backend.quick_extents and has_own(backend, "extents")


def failed(
    cookie: int, offset: int, service: Service, failure: OSError | IoflusherError
) -> tuple[int, bytes]:
    """The protocol's error value for a back end's failure, and the answer that says so."""
    error = errno_to_wire(failure.errno)
    return error, _error(cookie, offset, service, error, _words(failure))


def check_payload(length: int, service: Service) -> None:
    """Raise RemoteProtocolError where extended headers announce a payload that nobody should wait for."""
    most = service.export.block_size.maximum
    if service.negotiated.extended_headers and length > most:
        raise RemoteProtocolError(f"a payload of {length} bytes; at most {most} were allowed")


def _at(offset: int, service: Service) -> int | None:
    """What `replies` wants to know of a request's offset."""
    return offset if service.negotiated.extended_headers else None


def _done(request: Request, service: Service) -> bytes:
    """The answer to a request that was done and has no data."""
    if service.negotiated.extended_headers:
        return replies.nothing(request.cookie, request.offset)
    return replies.done(request.cookie)


def _words(failure: OSError | IoflusherError) -> str:
    return failure.strerror or str(failure) if isinstance(failure, OSError) else str(failure)


def _error(cookie: int, offset: int, service: Service, error: int, why: str) -> bytes:
    if service.negotiated.structured_replies:
        return replies.failure(cookie, error, why, at=_at(offset, service))
    return replies.simple(error, cookie)


class _ReadInPart(Exception):
    """A READ in chunks that failed at `offset`, behind what `views` has."""

    def __init__(self, views: Views, offset: int, failure: OSError | IoflusherError) -> None:
        self.views, self.offset, self.failure = views, offset, failure


def _data(backend: Backend, offset: int, room: memoryview) -> memoryview:
    """What is stored: the back end's own memory where it has some, else `room`, now filled."""
    data = backend.memory_at(offset, len(room))
    if data is None:
        backend.read_into(offset, room)
        return room
    return data


def _read(request: Request, service: Service, room: memoryview) -> Views:
    offset, length, cookie = request.offset, request.length, request.cookie
    backend, room = service.backend, room[:length]
    if not service.negotiated.structured_replies:
        return [replies.done(cookie), _data(backend, offset, room)]
    at = _at(offset, service)
    if not length:  # a chunk with data or a hole has some
        return [replies.nothing(cookie, at)]
    if length < HOLE_WORTH_A_CHUNK or request.flags & _DF or not leaves_out_holes(backend):
        if at is None:
            head = replies.whole_data(cookie, offset, length)
        else:
            head = replies.data(cookie, offset, length, last=True, at=at)
        return [head, _data(backend, offset, room)]
    return _around_holes(request, service, room, backend.extents(offset, length))


def _around_holes(request: Request, service: Service, room: memoryview, extents: Iterable[Extent]) -> Views:
    """The answer in a chunk for each piece, without the zeroes of those that the back end knows."""
    views: Views = []
    backend, at = service.backend, _at(request.offset, service)
    offset, end = request.offset, request.offset + request.length
    zeroes = (Extent(extent.length, extent.flags & BlockState.ZERO) for extent in extents)
    pieces = [*islice(joined(zeroes, request.length), MOST_EXTENTS)]
    rest = request.length - sum(piece.length for piece in pieces)
    if rest:  # of which the back end said nothing
        pieces.append(Extent(rest))
    for piece in pieces:
        last = offset + piece.length == end
        if piece.flags:
            views.append(replies.hole(request.cookie, offset, piece.length, last=last, at=at))
        else:
            begin = offset - request.offset
            part = room[begin : begin + piece.length]
            try:
                part = _data(backend, offset, part)
            except (OSError, IoflusherError) as failure:
                raise _ReadInPart(views, offset, failure) from failure
            views += (replies.data(request.cookie, offset, piece.length, last=last, at=at), part)
        offset += piece.length
    return views


def _write(request: Request, service: Service, room: memoryview) -> Views:
    assert request.data is not None  # only a payload above the limit is dropped, and `check` refused that
    if request.flags & _FUA:
        service.backend.write_through(request.offset, request.data)
    else:
        service.backend.write(request.offset, request.data)
    return [_done(request, service)]


def _flush(request: Request, service: Service, room: memoryview) -> Views:
    service.backend.flush()
    return [_done(request, service)]


def _trim(request: Request, service: Service, room: memoryview) -> Views:
    service.backend.trim(request.offset, request.length)
    if request.flags & _FUA:
        service.backend.flush()
    return [_done(request, service)]


def _zero(request: Request, service: Service, room: memoryview) -> Views:
    backend = service.backend
    zero = backend.fast_zero if request.flags & _FAST_ZERO else backend.zero
    zero(request.offset, request.length, may_trim=not request.flags & _NO_HOLE)
    if request.flags & _FUA:
        backend.flush()
    return [_done(request, service)]


def _cache(request: Request, service: Service, room: memoryview) -> Views:
    service.backend.cache(request.offset, request.length)
    return [_done(request, service)]


def _resize(request: Request, service: Service, room: memoryview) -> Views:
    """NBD_CMD_RESIZE: the request's offset is the new size."""
    was, size = service.export.size, request.offset
    service.resize(size)
    service.largest = max(service.largest, was, size)
    service.export = replace(service.export, size=size)
    return [_done(request, service)]


def _block_status(request: Request, service: Service, room: memoryview) -> Views:
    backend, contexts = service.backend, service.negotiated.contexts
    if request.data is not None:
        request, contexts = _narrowed(request, request.data, service)
    most = 1 if request.flags & _REQ_ONE else MOST_EXTENTS
    views: Views = []
    for context in contexts:
        found: Iterable[Extent]
        if context.name == BASE_ALLOCATION:
            found = backend.extents(request.offset, request.length)
        else:
            found = backend.context_extents(context.name, request.offset, request.length)
        extents = [*islice(joined(found, request.length), most)]
        if not extents:
            raise OSError(errno.EIO, f"the back end knows nothing of {context.name} there")
        last = context is contexts[-1]
        at = _at(request.offset, service)
        views.append(replies.block_status(request.cookie, context.number, extents, last=last, at=at))
    return views


def _narrowed(
    request: Request, payload: memoryview, service: Service
) -> tuple[Request, tuple[MetaContext, ...]]:
    """A BLOCK_STATUS that names contexts in its payload as one that does not, and those contexts."""
    try:
        query = StatusQuery.parse(payload)
    except MalformedData as error:
        raise OSError(errno.EINVAL, str(error)) from error
    known = {context.number: context for context in service.negotiated.contexts}
    if not known.keys() >= set(query.contexts):
        raise OSError(errno.EINVAL, "metadata contexts that were not agreed on")
    plain = replace(request, flags=request.flags & ~_PAYLOAD_LEN, length=query.length, data=None)
    refused = check(plain, service)
    if refused:
        raise OSError(refused, "the export takes no such request")
    return plain, tuple(known[number] for number in query.contexts)


_DO: dict[int, Callable[[Request, Service, memoryview], Views]] = {
    Cmd.READ: _read,
    Cmd.WRITE: _write,
    Cmd.FLUSH: _flush,
    Cmd.TRIM: _trim,
    Cmd.CACHE: _cache,
    Cmd.WRITE_ZEROES: _zero,
    Cmd.BLOCK_STATUS: _block_status,
    Cmd.RESIZE: _resize,
}
