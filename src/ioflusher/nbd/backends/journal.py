"""Changes that a server acknowledged and has not yet been asked to make durable, in their order.

The protocol promises that an acknowledged write survives the server's end only once a FLUSH that was sent
after the acknowledgement has been answered, or when it carried FUA ("Ordering of messages and writes" in
the NBD project's doc/proto.md). Until then a server that is killed may have forgotten it, and a file system
above would never be told. Whoever forwards writes keeps them here and sends them again to a server that
came back. All memory is taken at the start; what does not fit waits for a flush.
"""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ioflusher.nbd.protocol.connection import aligned_memory


@dataclass(frozen=True, slots=True)
class Change:
    """A request that changes something, as the protocol has it; `data` is a write's."""

    command: int
    flags: int
    offset: int
    length: int
    data: memoryview | None


class JournalEntry:
    """One change: `command`, `flags`, `offset` and `length` as the protocol has them, and a write's data.

    Attributes:
        acknowledged: the server said that it was done.
        void: it was refused or given up, and whoever asked for it was told so.
    """

    __slots__ = ("acknowledged", "command", "data", "end", "flags", "length", "offset", "void")

    def __init__(self) -> None:
        self.command = self.flags = self.offset = self.length = 0
        self.data: memoryview | None = None
        self.end = 0  # where the ring's next entry may begin, counted from the ring's first byte ever
        self.acknowledged = self.void = False


class Journal:
    """A ring of changes.

    Args:
        capacity: bytes of data.
        entries: how many changes at once, those without data among them.

    Attributes:
        longest: bytes of the longest change that fits, whatever the ring holds.
    """

    def __init__(self, capacity: int, entries: int) -> None:
        self.longest = capacity // 2  # a ring's end that is too short for the next entry is left unused
        self._lock = threading.Lock()
        self._memory = aligned_memory(capacity)
        self._entries = [JournalEntry() for _ in range(entries)]
        # Entries and bytes are counted from the beginning of time: the first still needed, the next free.
        self._first = self._next = 0
        self._first_byte = self._next_byte = 0
        self._held = False

    def __len__(self) -> int:
        return self._next - self._first

    @property
    def half_full(self) -> bool:
        """Whether it is time to flush, before somebody has to wait for it."""
        held = self._next_byte - self._first_byte
        return 2 * held >= len(self._memory) or 2 * len(self) >= len(self._entries)

    def take(
        self, command: int, flags: int, offset: int, length: int, data: memoryview | None
    ) -> JournalEntry | None:
        """Note a change that is about to be sent; None when there is no room for it.

        Raises:
            ValueError: for data that is longer than `longest`.
        """
        needed = 0 if data is None else len(data)
        if needed > self.longest:
            raise ValueError(f"a change of {needed} bytes; a journal entry has at most {self.longest}")
        capacity = len(self._memory)
        with self._lock:
            if len(self) == len(self._entries):
                return None
            start = self._next_byte
            if start % capacity + needed > capacity:
                start += capacity - start % capacity
            if start + needed - self._first_byte > capacity:
                return None
            entry = self._entries[self._next % len(self._entries)]
            entry.command, entry.flags, entry.offset, entry.length = command, flags, offset, length
            entry.acknowledged = entry.void = False
            entry.data = None
            if data is not None:
                entry.data = self._memory[start % capacity : start % capacity + needed]
                entry.data[:] = data
            entry.end = self._next_byte = start + needed
            self._next += 1
            return entry

    def settled(self) -> int:
        """A mark behind the changes, from the first on, that the server has answered: what a flush covers."""
        with self._lock:
            mark = self._first
            while mark < self._next:
                entry = self._entries[mark % len(self._entries)]
                if not (entry.acknowledged or entry.void):
                    break
                mark += 1
            return mark

    def forget(self, mark: int) -> None:
        """Drop what lies before the mark: a flush that was sent after `settled` has been answered."""
        with self._lock:
            if mark > self._first and not self._held:
                self._first_byte = self._entries[(mark - 1) % len(self._entries)].end
                self._first = mark

    @contextmanager
    def held(self) -> Iterator[list[Change]]:
        """What the server said was done, to be told again in any order; meanwhile nothing is forgotten.

        Of changes that overlap, each byte has the last one alone. Telling all of them would for a moment put
        back an old state, which a second failure could make the lasting one, although it was flushed over.
        """
        with self._lock:
            self._held = True
            numbers = range(self._first, self._next)
        try:
            entries = [self._entries[number % len(self._entries)] for number in numbers]
            yield lasting([entry for entry in entries if entry.acknowledged and not entry.void])
        finally:
            with self._lock:
                self._held = False


def lasting(entries: list[JournalEntry]) -> list[Change]:
    """The parts of changes that no later one covers."""
    changes: list[Change] = []
    starts: list[int] = []  # of the ranges that later ones cover, apart from each other, and their ends
    ends: list[int] = []
    for entry in reversed(entries):
        start, end = entry.offset, entry.offset + entry.length
        first = bisect_left(ends, start)  # the first covered range that touches this one
        last = bisect_right(starts, end)
        position = start
        for number in range(first, last):
            if position < starts[number]:
                changes.append(_part(entry, position, min(starts[number], end)))
            position = max(position, ends[number])
        if position < end:
            changes.append(_part(entry, position, end))
        if first < last:
            start, end = min(start, starts[first]), max(end, ends[last - 1])
        starts[first:last], ends[first:last] = [start], [end]
    return changes


def _part(entry: JournalEntry, start: int, end: int) -> Change:
    data = None if entry.data is None else entry.data[start - entry.offset : end - entry.offset]
    return Change(entry.command, entry.flags, start, end - start, data)
