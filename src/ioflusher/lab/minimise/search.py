"""The search for a smaller scenario that still shows the contrast: delta debugging. Pure.

Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (2002): first all parts are taken
away, then halves of them, quarters and so on, down to each by itself; the search goes on from whatever still
shows the contrast. Then sizes are halved, each as long as that goes well. `Search.steps` yields what to try
and is sent what came of it; whoever drives it may stop at any time and take `Search.best`.
"""

import itertools
from collections.abc import Generator
from dataclasses import dataclass, field

from ioflusher.lab.minimise.reductions import SIZES, Part, half_of, parts_of, reduced
from ioflusher.scenario.records import Scenario


@dataclass(frozen=True, slots=True)
class Try:
    """Something to try.

    Attributes:
        scenario: what to play.
        words: what is different from the best so far: "without pressure".
    """

    scenario: Scenario
    words: str


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a try.

    Attributes:
        shows: whether every run showed the contrast.
        words: what the halves did: "frozen without, finished with".
    """

    shows: bool
    words: str


@dataclass
class Search:
    """A search, and how far it has come.

    Attributes:
        base: the scenario to make smaller.
        removed: parts that are not needed.
        sizes: dotted key -> the smaller size that is enough.
        needed: key of a part -> what was seen without it.
        not_half: key of a size -> what was seen with half of it.
        done: whether the search has come to its end.
    """

    base: Scenario
    removed: list[Part] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    needed: dict[str, str] = field(default_factory=dict)
    not_half: dict[str, str] = field(default_factory=dict)
    done: bool = False

    @property
    def best(self) -> Scenario:
        """The smallest scenario so far that shows the contrast."""
        found = reduced(self.base, self.removed, self.sizes)
        assert found is not None, "it was tried"
        return found

    @property
    def kept(self) -> list[Part]:
        """Parts that have not been taken away."""
        return [part for part in parts_of(self.base) if part not in self.removed]

    def steps(self) -> Generator[Try, Tried, None]:
        """What to try, one after another; each is to be answered by what came of it."""
        yield from self._parts()
        for key in SIZES:
            while (half := half_of(self.best, key)) is not None:
                tried = yield from self._try([], {key: half}, f"with half of {key}")
                if not tried.shows:
                    self.not_half[key] = tried.words
                    break
        self.done = True

    def _parts(self) -> Generator[Try, Tried, None]:
        """Delta debugging over the parts: in the end, taking any single one away ends the contrast."""
        pieces = 1
        while kept := self.kept:
            pieces = min(pieces, len(kept))
            for piece in _split(kept, pieces):
                tried = yield from self._try(piece, {}, f"without {_names(piece)}")
                if tried.shows:
                    pieces = max(pieces - 1, 2)
                    break
                if len(piece) == 1:
                    self.needed[piece[0].key] = tried.words
            else:
                if pieces == len(kept):
                    return
                pieces *= 2

    def _try(self, parts: list[Part], sizes: dict[str, int], words: str) -> Generator[Try, Tried, Tried]:
        """Try to go on without these parts and with these sizes; go on from there where it shows."""
        scenario = reduced(self.base, [*self.removed, *parts], {**self.sizes, **sizes})
        if scenario is None:
            return Tried(False, "that is no scenario")
        tried = yield Try(scenario, words)
        if tried.shows:
            self.removed += parts
            self.sizes |= sizes
        return tried


def _split(parts: list[Part], pieces: int) -> list[list[Part]]:
    """The parts in so many pieces, whose lengths differ by one at most."""
    bounds = [round(len(parts) * number / pieces) for number in range(pieces + 1)]
    return [parts[low:high] for low, high in itertools.pairwise(bounds)]


def _names(parts: list[Part]) -> str:
    return ", ".join(part.key for part in parts)
