"""What a server has done, countable while it runs."""

from dataclasses import dataclass

from ioflusher.nbd.protocol.messages import Request
from ioflusher.nbd.protocol.wire import Cmd


@dataclass(frozen=True, slots=True)
class Counters:
    """Requests done since the server began, by kind; `errors` were answered with an error instead.

    `bytes_read` and `bytes_written` are payload of the requests counted in `reads` and `writes`.
    """

    reads: int = 0
    writes: int = 0
    flushes: int = 0
    trims: int = 0
    zeroes: int = 0
    errors: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(
            self.reads + other.reads,
            self.writes + other.writes,
            self.flushes + other.flushes,
            self.trims + other.trims,
            self.zeroes + other.zeroes,
            self.errors + other.errors,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
        )


class Tally:
    """The counts of one connection: written by its own thread alone, read by any."""

    def __init__(self) -> None:
        self._done: dict[int, int] = dict.fromkeys(Cmd, 0)
        self._bytes: dict[int, int] = {Cmd.READ: 0, Cmd.WRITE: 0}
        self._errors = 0

    def count(self, request: Request, error: int) -> None:
        """Note that a request was answered."""
        if error:
            self._errors += 1
            return
        self._done[request.command] += 1
        if request.command in self._bytes:
            self._bytes[request.command] += request.length

    def read(self) -> Counters:
        """The counts as they are now."""
        return Counters(
            reads=self._done[Cmd.READ],
            writes=self._done[Cmd.WRITE],
            flushes=self._done[Cmd.FLUSH],
            trims=self._done[Cmd.TRIM],
            zeroes=self._done[Cmd.WRITE_ZEROES],
            errors=self._errors,
            bytes_read=self._bytes[Cmd.READ],
            bytes_written=self._bytes[Cmd.WRITE],
        )
