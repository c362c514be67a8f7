"""The set of states found, exact: every state is kept whole.

A table of open addressing over the rows: a hash says where a row is looked for first, and places after it are
looked at until it is found or one is free. Many rows are looked up at once. Several rows that claim one free
place write their number there; the one whose number stayed has it, the others look again.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ioflusher.model.explore.layout import Words

Ids = npt.NDArray[np.uint32]
FULLEST = 0.75  # a table with more taken places is doubled
GROWTH = 1.25  # of the room for rows: realloc() moves large ones without copying
FIRST_ROWS = 1 << 12

_MIX = tuple(
    np.uint64(each)
    for each in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
)
_HALF = np.uint64(32)


def hashes(rows: Words) -> Words:
    """A hash of each row (multiplications and shifts as in splitmix64)."""
    found = rows[:, 0] * _MIX[0]
    for word in range(1, rows.shape[1]):
        found ^= found >> _HALF
        found += rows[:, word]
        found *= _MIX[word % len(_MIX)]
    found ^= found >> np.uint64(29)
    found *= _MIX[3]
    found ^= found >> _HALF
    return found


class Visited:
    """States by number, in the order in which they were added.

    Attributes:
        rows: room for the states; the first `count` are taken.
        count: the number of states.
    """

    def __init__(self, words: int) -> None:
        self.rows: Words = np.empty((FIRST_ROWS, words), dtype=np.uint64)
        self.count = 0
        self._table: Ids = np.zeros(FIRST_ROWS * 2, dtype=np.uint32)  # a row's number and 1; 0 is free

    @property
    def bytes(self) -> int:
        """The memory held."""
        return self.rows.nbytes + self._table.nbytes

    def add(self, rows: Words, row_hashes: Words) -> Ids:
        """The number of each row; those that were not there are added."""
        self._reserve(len(rows))
        table, mask = self._table, np.uint64(len(self._table) - 1)
        numbers = np.empty(len(rows), dtype=np.uint32)
        slots = (row_hashes & mask).astype(np.intp)
        pending: npt.NDArray[np.intp] | None = None  # the rows not yet found, which is all of them
        while len(slots):
            there = table.take(slots)
            taken = there.nonzero()[0]
            free = (there == 0).nonzero()[0]
            if len(free):
                claims = (free + 1).astype(np.uint32)
                places = slots.take(free)
                table[places] = claims
                won = table.take(places) == claims
                lost = free[~won]
                free = free[won]
                new = np.arange(self.count, self.count + len(free), dtype=np.uint32)
                mine = free if pending is None else pending.take(free)
                self.rows[self.count : self.count + len(free)] = rows.take(mine, axis=0)
                self.count += len(free)
                numbers[mine] = new
                table[slots.take(free)] = new + np.uint32(1)
            else:
                lost = free
            there = there.take(taken) - np.uint32(1)
            mine = taken if pending is None else pending.take(taken)
            same = _equal(self.rows.take(there, axis=0), rows.take(mine, axis=0))
            found = same.nonzero()[0]
            numbers[mine.take(found)] = there.take(found)
            other = taken[~same]
            again = np.concatenate((other, lost))
            slots = slots.take(again)
            slots[: len(other)] += 1
            slots[: len(other)] &= np.intp(mask)
            pending = again if pending is None else pending.take(again)
        return numbers

    def _reserve(self, more: int) -> None:
        wanted = self.count + more
        if wanted > len(self.rows):
            size = max(wanted, int(len(self.rows) * GROWTH))
            self.rows.resize((size, self.rows.shape[1]), refcheck=False)
        size = len(self._table)
        while wanted > size * FULLEST:
            size *= 2
        if size > len(self._table):
            self._table = np.zeros(size, dtype=np.uint32)
            for start in range(0, self.count, 1 << 16):
                self._replace(start, min(self.count, start + (1 << 16)))

    def _replace(self, start: int, end: int) -> None:
        """Put rows that differ from one another into a new table."""
        mask = np.uint64(len(self._table) - 1)
        slots = (hashes(self.rows[start:end]) & mask).astype(np.intp)
        numbers = np.arange(start + 1, end + 1, dtype=np.uint32)
        while len(slots):
            free = self._table.take(slots) == 0
            self._table[slots[free]] = numbers[free]
            left = self._table.take(slots) != numbers
            slots, numbers = slots[left], numbers[left]
            slots += 1
            slots &= np.intp(mask)


def _equal(rows: Words, others: Words) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = rows[:, 0] == others[:, 0]
    for word in range(1, rows.shape[1]):
        same &= rows[:, word] == others[:, word]
    return same


def one_row(row: Sequence[int]) -> Words:
    """A state as an array of one."""
    return np.array([row], dtype=np.uint64)
