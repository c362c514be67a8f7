"""One request: held against the export, done by the back end. No sockets here."""

import errno
from collections.abc import Callable
from dataclasses import dataclass

from ioflusher.errors import IoflusherError
from ioflusher.nbd.backends import Backend
from ioflusher.nbd.exports import BlockSize, Export
from ioflusher.nbd.messages import Request
from ioflusher.nbd.wire import Cmd, CmdFlag, TransmissionFlag, errno_to_wire

MINIMUM_PREFERRED = 4096  # bytes: a page, which is what page caches and swap speak in


def export_of(backend: Backend, name: str, max_payload: int) -> Export:
    """The export that a back end makes."""
    flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.CAN_MULTI_CONN
    if backend.can_flush:
        flags |= TransmissionFlag.SEND_FLUSH
    if not backend.can_write:
        flags |= TransmissionFlag.READ_ONLY
    else:
        if backend.can_flush:
            flags |= TransmissionFlag.SEND_FUA  # done as a write and a flush
        if backend.can_trim:
            flags |= TransmissionFlag.SEND_TRIM
        if backend.can_zero:
            flags |= TransmissionFlag.SEND_WRITE_ZEROES
    minimum = backend.minimum_block
    return Export(name, backend.size, flags, BlockSize(minimum, max(minimum, MINIMUM_PREFERRED), max_payload))


@dataclass(frozen=True, slots=True)
class Rule:
    """A command: NBD_FLAG_* that it needs, flags it may carry, whether it names a range or changes one."""

    needs: int = 0
    may: int = CmdFlag.FUA
    ranged: bool = True
    changes: bool = False


# NBD_CMD_FLAG_FUA: the document notes clients that set it on every command, so all accept it.
RULES: dict[int, Rule] = {
    Cmd.READ: Rule(),
    Cmd.WRITE: Rule(changes=True),
    Cmd.FLUSH: Rule(needs=TransmissionFlag.SEND_FLUSH, ranged=False),
    Cmd.TRIM: Rule(needs=TransmissionFlag.SEND_TRIM, changes=True),
    Cmd.WRITE_ZEROES: Rule(
        needs=TransmissionFlag.SEND_WRITE_ZEROES, may=CmdFlag.FUA | CmdFlag.NO_HOLE, changes=True
    ),
}


def check(request: Request, export: Export) -> int:
    """The errno with which a request must be refused, or 0."""
    rule = RULES.get(request.command)
    if rule is None:
        return errno.EINVAL
    if rule.changes and export.has(TransmissionFlag.READ_ONLY):
        return errno.EPERM
    if rule.needs & ~export.flags or request.flags & ~rule.may:
        return errno.EINVAL
    if request.flags & CmdFlag.FUA and not export.has(TransmissionFlag.SEND_FUA):
        return errno.EINVAL
    if not rule.ranged:
        return 0
    if request.offset + request.length > export.size:
        # "Request types": ENOSPC is for writes beyond the end.
        return errno.ENOSPC if request.command in (Cmd.WRITE, Cmd.WRITE_ZEROES) else errno.EINVAL
    if (request.offset | request.length) & (export.block_size.minimum - 1):
        return errno.EINVAL
    if request.command in (Cmd.READ, Cmd.WRITE) and request.length > export.block_size.maximum:
        return errno.EINVAL
    return 0


def execute(request: Request, export: Export, backend: Backend, room: memoryview) -> int:
    """Do a request; returns 0 or the protocol's error value.

    A READ's data is in the first `length` bytes of `room` afterwards.
    """
    error = check(request, export)
    if error:
        return error
    try:
        _DO[request.command](request, backend, room)
        if request.flags & CmdFlag.FUA and RULES[request.command].changes:
            backend.flush()
    except (OSError, IoflusherError) as failure:
        return errno_to_wire(failure.errno)
    return 0


def _read(request: Request, backend: Backend, room: memoryview) -> None:
    backend.read_into(request.offset, room[: request.length])


def _write(request: Request, backend: Backend, room: memoryview) -> None:
    assert request.data is not None  # only a payload above the limit is dropped, and `check` refused that
    backend.write(request.offset, request.data)


def _flush(request: Request, backend: Backend, room: memoryview) -> None:
    backend.flush()


def _trim(request: Request, backend: Backend, room: memoryview) -> None:
    backend.trim(request.offset, request.length)


def _zero(request: Request, backend: Backend, room: memoryview) -> None:
    backend.zero(request.offset, request.length, may_trim=not request.flags & CmdFlag.NO_HOLE)


_DO: dict[int, Callable[[Request, Backend, memoryview], None]] = {
    Cmd.READ: _read,
    Cmd.WRITE: _write,
    Cmd.FLUSH: _flush,
    Cmd.TRIM: _trim,
    Cmd.WRITE_ZEROES: _zero,
}
