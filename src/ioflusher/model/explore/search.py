"""Breadth-first search over all states, many at a time, on several threads.

The states of a level are expanded in chunks, each by a thread; what follows is divided by its hash among
shards, each a set of its own that one thread adds to. A state's number says its shard: those of shard S of
N are S, S + N, S + 2N ... The transitions are kept with six bytes each, for the questions that can only be
answered when all is known.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ioflusher.model.explore.expand import CHUNK, Expanded, Expander
from ioflusher.model.explore.layout import Words
from ioflusher.model.explore.records import Bounds, Progress, Stopped
from ioflusher.model.explore.visited import Ids, Visited, hashes, one_row

SMALLEST_CHUNK = 1 << 13  # rows below which another thread is not worth it
FORTY = np.uint64(40)  # the highest bits of a hash choose the shard, the lowest the place in it


@dataclass(frozen=True, slots=True)
class Block:
    """The transitions out of some states of a shard that follow one another.

    Attributes:
        shard: the shard.
        start, end: the states' places in it.
        sources: of each transition, the place of its source, counted from `start`.
        targets: of each transition, the number of its target.
    """

    shard: int
    start: int
    end: int
    sources: npt.NDArray[np.uint16]
    targets: Ids


@dataclass(slots=True)
class StateGraph:
    """All that a search has found.

    Attributes:
        shards: the states.
        levels: of each level, the first place and the one after the last in each shard.
        blocks: the transitions of each level, as far as it was followed.
        stuck: the states that nothing follows and that are not done, of the first level that has any.
        stuck_depth: that level.
        deadlocks: how many such states were found at all.
        stopped: why the search ended.
        reached_done: whether a state in which the system is done was followed.
        transitions: how many were found.
        seconds: that it took.
        kept: bytes of transitions.
    """

    shards: list[Visited]
    levels: list[list[tuple[int, int]]] = field(default_factory=list)
    blocks: list[list[Block]] = field(default_factory=list)
    stuck: list[int] = field(default_factory=list)
    stuck_depth: int | None = None
    deadlocks: int = 0
    stopped: Stopped = Stopped.COVERED
    reached_done: bool = False
    transitions: int = 0
    seconds: float = 0.0
    kept: int = 0

    @property
    def states(self) -> int:
        """The number of states found."""
        return sum(shard.count for shard in self.shards)

    @property
    def bytes(self) -> int:
        """The memory held."""
        return sum(shard.bytes for shard in self.shards) + self.kept

    @property
    def numbers(self) -> int:
        """One more than the highest number of a state."""
        return max(shard.count for shard in self.shards) * len(self.shards)

    def number(self, shard: int, place: int) -> int:
        """The number of the state at a place in a shard."""
        return place * len(self.shards) + shard

    def row(self, number: int) -> tuple[int, ...]:
        """A state."""
        place, shard = divmod(number, len(self.shards))
        return tuple(int(word) for word in self.shards[shard].rows[place])

    def rows(self, numbers: npt.NDArray[np.integer]) -> Words:
        """Several states."""
        places, of = np.divmod(numbers, len(self.shards))
        found = np.empty((len(numbers), self.shards[0].rows.shape[1]), dtype=np.uint64)
        for shard, visited in enumerate(self.shards):
            here = np.flatnonzero(of == shard)
            found[here] = visited.rows.take(places.take(here), axis=0)
        return found


class StateSearch:
    """A search that may be watched and stopped by another thread.

    It ends where nothing follows a state in which the system is not done, unless the `whole` is wanted.
    One that goes on `until_done` asks only whether a state in which the system is done can be reached: it
    keeps no transitions, and may be started again from another state.
    """

    def __init__(
        self,
        expander: Expander,
        bounds: Bounds,
        threads: int,
        stop: threading.Event,
        *,
        until_done: bool = False,
        whole: bool = False,
    ) -> None:
        self._expander = expander
        self._bounds = bounds
        self._threads = threads
        self._until_done = until_done
        self._whole = whole
        self._stop = stop
        self._began = time.perf_counter()
        self._followed = 0
        self.graph = StateGraph([Visited(expander.layout.words) for _ in range(threads)])

    def progress(self) -> Progress:
        """How far it is."""
        graph = self.graph
        states, depth = graph.states, max(0, len(graph.levels) - 1)
        seconds = time.perf_counter() - self._began
        return Progress(states, depth, max(0, states - self._followed), seconds, graph.bytes)

    def run(self, start: Sequence[int]) -> StateGraph:
        """StateSearch from a state, until all is covered, nothing can follow a state, or a bound is reached.

        Raises:
            ModelError: a step leaves the range of a variable.
        """
        graph = self.graph
        self._began = time.perf_counter()
        first = one_row(start)
        before = [visited.count for visited in graph.shards]
        graph.shards[int(self._shard_of(hashes(first))[0])].add(first, hashes(first))
        with ThreadPoolExecutor(self._threads) as pool:
            self._pool = pool
            while True:
                after = [visited.count for visited in graph.shards]
                level = list(zip(before, after, strict=True))
                if before == after:
                    break
                graph.levels.append(level)
                graph.blocks.append([])
                if self._bounds.depth is not None and len(graph.levels) > self._bounds.depth:
                    graph.stopped = Stopped.DEPTH
                    break
                if not self._follow(level):
                    break
                before = after
        graph.seconds = time.perf_counter() - self._began
        return graph

    def _follow(self, level: list[tuple[int, int]]) -> bool:
        """Follow a level; whether to go on with the next."""
        graph, bounds = self.graph, self._bounds
        for chunks in self._rounds(level):
            if self._stop.is_set():
                graph.stopped = Stopped.INTERRUPTED
            elif graph.states >= bounds.states:
                graph.stopped = Stopped.STATES
            elif graph.bytes >= bounds.bytes:
                graph.stopped = Stopped.BYTES
            else:
                self._round(chunks)
                if self._until_done and graph.reached_done:
                    return False
                continue
            return False
        if graph.stuck and not self._whole:
            graph.stopped = Stopped.FREEZE
            return False
        return True

    def _rounds(self, level: list[tuple[int, int]]) -> Iterator[list[tuple[int, int, int]]]:
        """The chunks of a level, as many at once as there are threads."""
        size = sum(end - begin for begin, end in level)
        chunk = min(CHUNK, max(SMALLEST_CHUNK, -(-size // self._threads)))
        chunks = [
            (shard, start, min(end, start + chunk))
            for shard, (begin, end) in enumerate(level)
            for start in range(begin, end, chunk)
        ]
        for first in range(0, len(chunks), self._threads):
            yield chunks[first : first + self._threads]

    def _round(self, chunks: list[tuple[int, int, int]]) -> None:
        graph, shards = self.graph, range(len(self.graph.shards))
        depth = len(graph.levels) - 1
        # a round of few states is done in no time, and handing it to other threads takes some
        each = self._pool.map if len(chunks) > 1 else map
        expanded = list(each(self._expand, chunks))
        numbered = list(each(lambda shard: self._add(shard, [parts for _, parts in expanded]), shards))
        for place, ((shard, start, end), (found, parts)) in enumerate(zip(chunks, expanded, strict=True)):
            graph.transitions += len(found.sources)
            if not self._until_done:
                targets = np.empty(len(found.sources), dtype=np.uint32)
                for part, numbers in zip(parts, numbered, strict=True):
                    targets[part.which] = numbers[place]
                graph.blocks[-1].append(Block(shard, start, end, found.sources, targets))
                graph.kept += found.sources.nbytes + targets.nbytes
                graph.deadlocks += len(found.stuck)
                if graph.stuck_depth in (None, depth) and len(found.stuck):
                    graph.stuck_depth = depth
                    graph.stuck += [graph.number(shard, start + int(row)) for row in found.stuck]
            graph.reached_done = graph.reached_done or bool(found.done.any())
            self._followed += end - start

    def _expand(self, chunk: tuple[int, int, int]) -> "tuple[Expanded, list[_Part]]":
        shard, start, end = chunk
        found = self._expander.expand(self.graph.shards[shard].rows[start:end].copy())
        row_hashes = hashes(found.rows)
        if self._threads == 1:
            return found, [_Part(slice(None), found.rows, row_hashes)]
        shards = self._shard_of(row_hashes)
        parts = []
        for other in range(self._threads):
            which = np.flatnonzero(shards == other)
            parts.append(_Part(which, found.rows.take(which, axis=0), row_hashes.take(which)))
        return found, parts

    def _shard_of(self, row_hashes: Words) -> npt.NDArray[np.uint8]:
        return ((row_hashes >> FORTY) % np.uint64(self._threads)).astype(np.uint8)

    def _add(self, shard: int, parts: "list[list[_Part]]") -> list[Ids]:
        """Add what belongs to a shard, of each chunk of a round; the numbers."""
        visited, factor = self.graph.shards[shard], np.uint32(self._threads)
        return [visited.add(of[shard].rows, of[shard].hashes) * factor + np.uint32(shard) for of in parts]


@dataclass(frozen=True, slots=True)
class _Part:
    """What follows a chunk and belongs to one shard: which of what follows, the states and their hashes."""

    which: npt.NDArray[np.intp] | slice
    rows: Words
    hashes: Words
