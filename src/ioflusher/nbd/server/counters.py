"""What a server has done, countable while it runs."""

from dataclasses import dataclass, fields

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
    caches: int = 0
    zeroes: int = 0
    statuses: int = 0
    errors: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Statistics:
    """A server at one moment.

    Attributes:
        exports: what was done since the server began, by the export's name.
        connections: how many there are now, by the export's name.
        handshakes: clients that have no export yet.
        accepted: connections since the server began.
        refused: those that were closed at once, because there were too many.
    """

    exports: dict[str, Counters]
    connections: dict[str, int]
    handshakes: int
    accepted: int
    refused: int


class Tally:
    """The counts of one thread of a connection: written by that thread alone, read by any.

    Attributes:
        plain: of READs and WRITEs without flags, which are counted where they are done: READs, bytes read,
            WRITEs, bytes written. Replaced as a whole.
    """

    def __init__(self) -> None:
        self.plain = (0, 0, 0, 0)
        self._done: dict[int, int] = dict.fromkeys(map(int, Cmd), 0)
        self._bytes: dict[int, int] = dict.fromkeys(map(int, Cmd), 0)
        self._errors = 0

    def count(self, command: int, length: int, error: int) -> None:
        """Note that a request of `length` bytes was answered."""
        if error:
            self._errors += 1
        else:
            self._done[command] += 1
            self._bytes[command] += length

    def read(self) -> Counters:
        """The counts as they are now."""
        reads, bytes_read, writes, bytes_written = self.plain
        return Counters(
            reads=reads + self._done[Cmd.READ],
            writes=writes + self._done[Cmd.WRITE],
            flushes=self._done[Cmd.FLUSH],
            trims=self._done[Cmd.TRIM],
            caches=self._done[Cmd.CACHE],
            zeroes=self._done[Cmd.WRITE_ZEROES],
            statuses=self._done[Cmd.BLOCK_STATUS],
            errors=self._errors,
            bytes_read=bytes_read + self._bytes[Cmd.READ],
            bytes_written=bytes_written + self._bytes[Cmd.WRITE],
        )
