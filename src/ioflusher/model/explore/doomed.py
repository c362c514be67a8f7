"""Which states are doomed: from which no continuation gets the system done.

The states from which it can get done are found backwards: those in which it is done, and all sources of
transitions into them. Most transitions lead to the next level, so going over them from the last level to
the first finds most in one round. What is left then is usually little, and is searched by its transitions
sorted by target. A state that was found but not followed counts as one that may get done, so what is called
doomed is.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ioflusher.model.explore.expand import CHUNK, Expander
from ioflusher.model.explore.search import StateGraph

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.uint32]

WORTH = 0.05  # another round over all transitions while it finds so large a share of what is left


@dataclass(frozen=True, slots=True)
class Arrows:
    """Transitions sorted by the state that they lead from (or, backwards, to).

    Attributes:
        keys: that state of each.
        ends: the other state of each.
    """

    keys: Numbers
    ends: Numbers

    def beyond(self, states: Numbers) -> Numbers:
        """The other ends of all transitions of some states."""
        first = np.searchsorted(self.keys, states, "left")
        counts = np.searchsorted(self.keys, states, "right") - first
        within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        found: Numbers = self.ends.take(np.repeat(first, counts) + within)
        return found

    def closure(self, start: Numbers, into: Flags) -> None:
        """Set the flag of every state that can be reached."""
        into[start] = True
        while len(start):
            found = self.beyond(start)
            start = np.unique(found[~into.take(found)])
            into[start] = True


def sorted_arrows(keys: Numbers, ends: Numbers) -> Arrows:
    """Transitions in the order of their keys."""
    order = np.argsort(keys, kind="stable")
    return Arrows(keys.take(order), ends.take(order))


def doomed_states(graph: StateGraph, expander: Expander) -> tuple[Numbers, Arrows]:
    """The numbers of the doomed states, ascending, and the transitions between them, by their sources."""
    shards = len(graph.shards)
    saved = np.ones(graph.numbers, dtype=np.bool_)  # states that were not followed may get done
    blocks = [block for level in graph.blocks for block in level]
    for block in blocks:
        rows = graph.shards[block.shard].rows
        for start in range(block.start, block.end, CHUNK):
            end = min(block.end, start + CHUNK)
            saved[start * shards + block.shard : end * shards : shards] = expander.done(rows[start:end])
    while True:
        found = 0
        for block in reversed(blocks):
            mine = saved[block.start * shards + block.shard : block.end * shards : shards]
            before = int(np.count_nonzero(mine))
            mine[block.sources[saved.take(block.targets)]] = True
            found += int(np.count_nonzero(mine)) - before
        left = len(saved) - int(np.count_nonzero(saved))
        if found <= WORTH * left:
            break
    sources, targets = _unsaved(graph, saved)
    backwards = sorted_arrows(targets, sources)
    backwards.closure(np.unique(targets[saved.take(targets)]), saved)
    inside = ~saved.take(sources)
    doomed = np.flatnonzero(~saved).astype(np.uint32)
    return doomed, sorted_arrows(sources[inside], targets[inside])


def _unsaved(graph: StateGraph, saved: Flags) -> tuple[Numbers, Numbers]:
    """The transitions from states that are not known to get done."""
    shards = len(graph.shards)
    sources, targets = [np.zeros(0, dtype=np.uint32)], [np.zeros(0, dtype=np.uint32)]
    for level in graph.blocks:
        for block in level:
            places = block.sources.astype(np.uint32) + np.uint32(block.start)
            numbers = places * np.uint32(shards) + np.uint32(block.shard)
            kept = np.flatnonzero(~saved.take(numbers))
            sources.append(numbers.take(kept))
            targets.append(block.targets.take(kept))
    return np.concatenate(sources), np.concatenate(targets)
