"""One request: checked against the export, done by the back end. No sockets here."""

import errno
from collections.abc import Callable
from dataclasses import dataclass

from ioflusher.errors import IoflusherError
from ioflusher.nbd.backends import Backend
from ioflusher.nbd.protocol.exports import BlockSize, Export
from ioflusher.nbd.protocol.messages import Request
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag, TransmissionFlag, errno_to_wire

MINIMUM_PREFERRED = 4096  # bytes: a page, the unit of page caches and swap


def export_of(backend: Backend, name: str, max_payload: int) -> Export:
    """The export that a back end makes."""
    flags = TransmissionFlag.HAS_FLAGS
    if backend.can_multi_conn:
        flags |= TransmissionFlag.CAN_MULTI_CONN
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
    return Export(
        name, backend.size, int(flags), BlockSize(minimum, max(minimum, MINIMUM_PREFERRED), max_payload)
    )


# Plain integers: arithmetic on enum members costs a microsecond each, and this is the hot path.
_READ_ONLY = int(TransmissionFlag.READ_ONLY)
_SEND_FUA = int(TransmissionFlag.SEND_FUA)
_FUA = int(CmdFlag.FUA)
_NO_HOLE = int(CmdFlag.NO_HOLE)


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
    Cmd.READ: CommandRule(moves_data=True),
    Cmd.WRITE: CommandRule(moves_data=True, changes=True, beyond_end=errno.ENOSPC),
    Cmd.FLUSH: CommandRule(needs=int(TransmissionFlag.SEND_FLUSH), ranged=False),
    Cmd.TRIM: CommandRule(needs=int(TransmissionFlag.SEND_TRIM), changes=True),
    Cmd.WRITE_ZEROES: CommandRule(
        needs=int(TransmissionFlag.SEND_WRITE_ZEROES),
        may=_FUA | _NO_HOLE,
        changes=True,
        beyond_end=errno.ENOSPC,
    ),
}


def check(request: Request, export: Export) -> int:
    """The errno with which a request must be refused, or 0."""
    rule = RULES.get(request.command)
    if rule is None:
        return errno.EINVAL
    flags = export.flags
    if rule.changes and flags & _READ_ONLY:
        return errno.EPERM
    if rule.needs & ~flags or request.flags & ~rule.may:
        return errno.EINVAL
    if request.flags & _FUA and not flags & _SEND_FUA:
        return errno.EINVAL
    if not rule.ranged:
        return 0
    if request.offset + request.length > export.size:
        return rule.beyond_end
    if (request.offset | request.length) & (export.block_size.minimum - 1):
        return errno.EINVAL
    if rule.moves_data and request.length > export.block_size.maximum:
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
        if request.flags & _FUA and RULES[request.command].changes:
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
    backend.zero(request.offset, request.length, may_trim=not request.flags & _NO_HOLE)


_DO: dict[int, Callable[[Request, Backend, memoryview], None]] = {
    Cmd.READ: _read,
    Cmd.WRITE: _write,
    Cmd.FLUSH: _flush,
    Cmd.TRIM: _trim,
    Cmd.WRITE_ZEROES: _zero,
}
