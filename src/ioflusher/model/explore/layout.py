"""A state as a row of 64-bit words: where each variable and each task's point lies in it.

Fields lie where numpy reaches them as an array of bytes (or 16, 32 or 64 bits) with one shift and one mask;
several small ones share a byte.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ioflusher.model.transitions import TransitionSystem

Words = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.signedinteger]

WORD = 64
LANES = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


@dataclass(frozen=True, slots=True)
class Field:
    """Where a number lies in a row, less its lowest value.

    Attributes:
        low: its lowest value.
        bits: how many it has.
        word: the word of the row.
        shift: its lowest bit in the word.
    """

    low: int
    bits: int
    word: int
    shift: int

    @property
    def lane(self) -> int:
        """The bits of the aligned number in which it lies."""
        return _lane(self.bits)

    def of(self, rows: Words, dtype: npt.DTypeLike) -> npt.NDArray[np.integer]:
        """The field of each row."""
        lane = self.lane
        per_word = WORD // lane
        place = self.shift // lane
        if sys.byteorder == "big":
            place = per_word - 1 - place
        found = rows.view(LANES[lane])[:, self.word * per_word + place]
        shift = self.shift % lane
        if shift:
            found = found >> shift
        if shift + self.bits < lane:
            found = found & ((1 << self.bits) - 1)
        found = found.astype(dtype)
        if self.low:
            found += self.low
        return found

    def of_one(self, row: Sequence[int]) -> int:
        """The field of one row."""
        return ((int(row[self.word]) >> self.shift) & ((1 << self.bits) - 1)) + self.low


@dataclass(frozen=True, slots=True)
class StateLayout:
    """The fields of a state.

    Attributes:
        variables: of each variable, by its name.
        points: of each task.
        words: the words of a row.
    """

    variables: dict[str, Field]
    points: tuple[Field, ...]
    words: int

    def pack(self, points: Sequence[int], values: Sequence[int]) -> tuple[int, ...]:
        """One state as a row."""
        row = [0] * self.words
        for field, number in (
            *zip(self.variables.values(), values, strict=True),
            *zip(self.points, points, strict=True),
        ):
            row[field.word] |= (number - field.low) << field.shift
        return tuple(row)

    def unpack(self, row: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The points and the values of one state."""
        return (
            tuple(field.of_one(row) for field in self.points),
            tuple(field.of_one(row) for field in self.variables.values()),
        )


def layout_of(system: TransitionSystem, points: Sequence[int]) -> StateLayout:
    """Where the numbers of a system's states lie; a task has so many points."""
    sizes = [(variable.high - variable.low).bit_length() for variable in system.variables]
    sizes += [(count - 1).bit_length() for count in points]
    lows = [variable.low for variable in system.variables] + [0] * len(points)
    places: dict[int, tuple[int, int]] = {}
    taken: list[int] = []  # the bits of each word that are taken
    for number in sorted(range(len(sizes)), key=lambda each: -sizes[each]):
        places[number] = _place(max(1, sizes[number]), taken)
    fields = [Field(lows[each], max(1, size), *places[each]) for each, size in enumerate(sizes)]
    names = [variable.name for variable in system.variables]
    return StateLayout(
        dict(zip(names, fields, strict=False)), tuple(fields[len(names) :]), max(1, len(taken))
    )


def _place(bits: int, taken: list[int]) -> tuple[int, int]:
    lane = _lane(bits)
    mask = (1 << bits) - 1
    word = 0
    while True:
        if word == len(taken):
            taken.append(0)
        for shift in range(WORD - bits + 1):
            if shift // lane == (shift + bits - 1) // lane and not taken[word] & (mask << shift):
                taken[word] |= mask << shift
                return word, shift
        word += 1


def _lane(bits: int) -> int:
    return next(lane for lane in LANES if bits <= lane)
