"""A back end that is another NBD server, which may be killed and come back."""

import errno
import threading
from collections.abc import Iterable, Iterator

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends.backend import Backend, BackendError
from ioflusher.nbd.backends.journal import Journal, JournalEntry
from ioflusher.nbd.backends.link import Link, Status
from ioflusher.nbd.errors import NbdError, RequestError
from ioflusher.nbd.protocol.extents import BASE_ALLOCATION, Extent
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag, TransmissionFlag, wire_to_errno

SMALLEST_JOURNAL = 1 << 20  # bytes
_LONGEST, _STRETCH = (1 << 32) - 1, 1 << 31  # bytes of a request without payload; of a part of a longer one
BYTES_AN_ENTRY = 2048  # of the journal's data: half of what most writes have at least


class RemoteBackend(Backend):
    """Another NBD server: requests are forwarded, many at once, and a server that is gone is waited for.

    When the connection breaks, what was in flight is sent again to the server that comes back, behind all
    changes that the one before had acknowledged but was not yet asked to make durable: a killed server
    forgets those. They are kept in a journal of fixed size; when it fills, this side flushes. Reads and
    flushes wait meanwhile. Connecting again asks no name service and takes sockets made beforehand.

    What the other server says of its metadata contexts (block status) is passed on, as it says it.

    Only one client may write: changes that are told again would undo those of another. A server that lost a
    connection but lives might still do a request that it received on it; the protocol cannot prevent that.

    Args:
        address: of the other server.
        export: overrides the export that the address names.
        connections: how many; one where the server does not say NBD_FLAG_CAN_MULTI_CONN.
        depth: requests in flight at most.
        patience: seconds that requests wait for a server that is gone; then they fail with EIO until it is
            back. 0: they fail at once.
        journal: bytes for changes that are not durable yet. 0: none; then a server that is killed takes
            with it, unnoticed, what was not flushed.
        answer_within: seconds in which a server must answer a request, or it counts as gone; None: however
            long it takes.
        timeout: seconds that connecting and the handshake may take.

    Raises:
        NbdError: the server cannot be reached, refuses, or breaks the protocol.
    """

    waits = True
    quick_extents = False  # they cost a way to the server and back

    def __init__(
        self,
        address: Address,
        export: str = "",
        *,
        connections: int = 1,
        depth: int = 64,
        patience: float = 120.0,
        journal: int = 16 << 20,
        answer_within: float | None = None,
        timeout: float = 30.0,
    ) -> None:
        if connections < 1 or depth < 1:
            raise BackendError(
                f"{connections} connections, {depth} requests in flight; expected at least one"
            )
        if journal and journal < SMALLEST_JOURNAL:
            raise BackendError(f"a journal of {journal} bytes; expected 0 or at least {SMALLEST_JOURNAL}")
        self._journal = Journal(journal, journal // BYTES_AN_ENTRY) if journal else None
        self._link = Link(
            address.with_export(export) if export else address,
            connections=connections,
            depth=depth,
            patience=patience,
            timeout=timeout,
            answer_within=answer_within,
            journal=self._journal,
        )
        remote = self._link.export
        self.can_write = not remote.has(TransmissionFlag.READ_ONLY)
        self.can_flush = remote.has(TransmissionFlag.SEND_FLUSH)
        self.can_trim = self.can_write and remote.has(TransmissionFlag.SEND_TRIM)
        self.can_zero = self.can_write and remote.has(TransmissionFlag.SEND_WRITE_ZEROES)
        self.can_fast_zero = self.can_zero and remote.has(TransmissionFlag.SEND_FAST_ZERO)
        self.can_cache = remote.has(TransmissionFlag.SEND_CACHE)
        self.contexts = tuple(name for name in remote.contexts if name != BASE_ALLOCATION)
        self._can_fua = remote.has(TransmissionFlag.SEND_FUA)
        self.minimum_block = remote.block_size.minimum
        self.preferred_block = remote.block_size.preferred
        longest = remote.block_size.maximum
        if not self.can_flush or not self.can_write:
            # A server without FLUSH has no word for what is durable: nothing would ever leave the journal.
            self._journal = None
        if self._journal is not None:
            longest = min(longest, self._journal.longest)
        # Pieces that the other server takes, aligned as it wants them.
        self._piece = max(longest // self.minimum_block, 1) * self.minimum_block
        self._room = threading.Lock()  # held by the one who flushes because the journal is full
        self._filling = threading.Semaphore(0)
        self._closing = False
        self._flusher = threading.Thread(target=self._flush_early, name="nbd-remote-flush", daemon=True)
        self._flusher.start()

    @property
    def size(self) -> int:
        return self._link.export.size

    @property
    def losses(self) -> int:
        """How often the connection was lost so far."""
        return self._link.losses

    def read_into(self, offset: int, view: memoryview) -> None:
        for start in range(0, len(view), self._piece):
            into = view[start : start + self._piece]
            self._check(
                Cmd.READ, offset, self._link.request(Cmd.READ, 0, offset + start, len(into), into=into)
            )

    def write(self, offset: int, view: memoryview) -> None:
        for start in range(0, len(view), self._piece):
            piece = view[start : start + self._piece]
            self._change(Cmd.WRITE, 0, offset + start, len(piece), piece)

    def write_through(self, offset: int, view: memoryview) -> None:
        if not self._can_fua:
            super().write_through(offset, view)
            return
        for start in range(0, len(view), self._piece):
            piece = view[start : start + self._piece]
            self._change(Cmd.WRITE, int(CmdFlag.FUA), offset + start, len(piece), piece)

    def flush(self) -> None:
        mark = 0 if self._journal is None else self._journal.settled()
        self._check(Cmd.FLUSH, 0, self._link.request(Cmd.FLUSH, 0, 0, 0))
        if self._journal is not None:
            self._journal.forget(mark)

    def trim(self, offset: int, length: int) -> None:
        for start, stretch in _stretches(offset, length):
            self._change(Cmd.TRIM, 0, start, stretch)

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        for start, stretch in _stretches(offset, length):
            self._change(Cmd.WRITE_ZEROES, 0 if may_trim else int(CmdFlag.NO_HOLE), start, stretch)

    def fast_zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        flags = CmdFlag.FAST_ZERO if may_trim else CmdFlag.FAST_ZERO | CmdFlag.NO_HOLE
        for start, stretch in _stretches(offset, length):
            self._change(Cmd.WRITE_ZEROES, int(flags), start, stretch)

    def cache(self, offset: int, length: int) -> None:
        for start, stretch in _stretches(offset, length):
            self._check(Cmd.CACHE, start, self._link.request(Cmd.CACHE, 0, start, stretch))

    def extents(self, offset: int, length: int) -> Iterable[Extent]:
        return self.context_extents(BASE_ALLOCATION, offset, length)

    def context_extents(self, context: str, offset: int, length: int) -> Iterable[Extent]:
        if context not in self._link.export.contexts:
            return (Extent(length),)
        if not length:
            return ()  # no request may ask for nothing
        found: Status = {}
        length = length if length <= _LONGEST else _STRETCH
        self._check(
            Cmd.BLOCK_STATUS, offset, self._link.request(Cmd.BLOCK_STATUS, 0, offset, length, status=found)
        )
        return found.get(context, ())

    def _change(
        self, command: Cmd, flags: int, offset: int, length: int, data: memoryview | None = None
    ) -> None:
        """Have something changed that a server must be told again if it forgets it.

        Changes with FUA are among them: what came before them would undo them.
        """
        entry = None if self._journal is None else self._note(command, flags, offset, length, data)
        try:
            error = self._link.request(command, flags, offset, length, data=data, entry=entry)
        except BaseException:
            if entry is not None:
                entry.void = True
            raise
        self._check(command, offset, error)

    def _note(
        self, command: Cmd, flags: int, offset: int, length: int, data: memoryview | None
    ) -> JournalEntry:
        assert self._journal is not None
        # Told again, it is as durable as it was and need not be fast.
        lasting = flags & ~int(CmdFlag.FAST_ZERO | CmdFlag.FUA)
        entry = self._journal.take(command, lasting, offset, length, data)
        if entry is None:
            with self._room:
                while (entry := self._journal.take(command, lasting, offset, length, data)) is None:
                    self.flush()
        elif self._journal.half_full:
            self._filling.release()
        return entry

    def _flush_early(self) -> None:
        """Keep room in the journal, so that nobody has to wait for it."""
        while True:
            self._filling.acquire()
            if self._closing:
                return
            while self._filling.acquire(blocking=False):
                pass
            try:
                with self._room:
                    if self._journal is not None and self._journal.half_full:
                        self.flush()
            except NbdError:
                pass  # whoever needs the room will meet the same error

    def _check(self, command: Cmd, offset: int, error: int) -> None:
        if error:
            raise RequestError(
                f"{self._link.address.uri!r} answered {command.name} at {offset} with error {error} "
                f"({errno.errorcode.get(error, 'unknown')})",
                errno=wire_to_errno(error),
            )

    def interrupt(self) -> None:
        self._link.interrupt()

    def close(self) -> None:
        self._closing = True
        self._filling.release()
        self._flusher.join()
        self._link.close()


def _stretches(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """A range in parts that a request's length of 32 bits can say; almost always it is one."""
    while length > _LONGEST:
        yield offset, _STRETCH
        offset, length = offset + _STRETCH, length - _STRETCH
    yield offset, length
