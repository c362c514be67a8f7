"""The way to a freeze, step by step as the tasks take it, and what every task does at its end.

A search knows states as rows in which alike tasks are sorted and steps were made one. Here the way is gone
once more from the beginning, by single steps on plain numbers, each condition asked again: a second, slow and
simple evaluation of what numpy found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ioflusher.model.explore.doomed import Arrows, Numbers, sorted_arrows
from ioflusher.model.explore.expand import CHUNK, Expander
from ioflusher.model.explore.moves import Move
from ioflusher.model.explore.records import Freeze, FreezeKind, Standing, Stands, Stopped, Taken
from ioflusher.model.explore.search import StateGraph, StateSearch
from ioflusher.model.explore.visited import one_row
from ioflusher.model.transitions import SCALAR_NAMES, Expression, Step

Row = tuple[int, ...]

FEW, MANY = 20_000, 1_000_000  # states that are searched to see whether a state is doomed
AT_ONCE, TRIED_STEPS = 256, 300  # states that chance follows at once, and steps beyond a search's own depth


@dataclass(frozen=True, slots=True)
class _State:
    """A state as numbers."""

    points: tuple[int, ...]
    values: Mapping[str, int]


class Walk:
    """A way through a system, gone by single steps.

    Attributes:
        taken: the steps so far.
    """

    def __init__(self, expander: Expander) -> None:
        system = expander.system
        self._expander = expander
        self._state = _State(
            (0,) * len(system.programs), {variable.name: variable.initial for variable in system.variables}
        )
        self.taken: list[Taken] = []

    @property
    def row(self) -> Row:
        """The state as a search has it."""
        return self._row(self._state)

    @property
    def points(self) -> tuple[int, ...]:
        """Where each task stands."""
        return self._state.points

    def go(self, row: Row) -> int:
        """Go to the next state, by the first move that leads there; the number of its steps."""
        for task, point in enumerate(self._state.points):
            for move in self._expander.moves.at.get((task, point), ()):
                if (found := self._after(move)) and self._row(found[-1]) == row:
                    for step, state in zip(move.steps, found, strict=True):
                        self.taken.append(Taken(task, step, state.points, tuple(state.values.values())))
                    self._state = found[-1]
                    return len(move.steps)
        raise AssertionError(f"no step leads from {self._expander.described(self.row)} to {row}")

    def _row(self, state: _State) -> Row:
        points = list(state.points)
        for group in self._expander.moves.alike:
            for task, point in zip(group, sorted(points[task] for task in group), strict=True):
                points[task] = point
        return self._expander.layout.pack(points, tuple(state.values.values()))

    def _after(self, move: Move) -> list[_State]:
        """The states after each step of a move; none where a step cannot be taken."""
        found = []
        state = self._state
        for step in move.steps:
            if step.when is not None and not _value(step.when, state.values):
                return []
            new = {variable.name: _value(changed, state.values) for variable, changed in step.changes}
            points = (*state.points[: move.task], step.to, *state.points[move.task + 1 :])
            state = _State(points, {**state.values, **new})
            found.append(state)
        return found


_CODES: dict[str, object] = {}


def _value(expression: Expression, values: Mapping[str, int]) -> int:
    code = _CODES.get(expression.text)
    if code is None:
        code = _CODES[expression.text] = compile(expression.text, "<expression>", "eval")
    return int(eval(code, {"__builtins__": {}, **SCALAR_NAMES}, dict(values)))  # type: ignore[arg-type]


def deadlock(graph: StateGraph, expander: Expander, until_done: Callable[[int], StateSearch]) -> Freeze:
    """The freeze of a search that found states which nothing follows.

    Args:
        until_done: a search for a state in which the system is done, of so many states at most; to find out
            from where the freeze could no longer be avoided.
    """
    rows = _rows_to(graph, _least(graph, np.array(graph.stuck, dtype=np.uint32)))
    walk = Walk(expander)
    lengths = [walk.go(row) for row in rows[1:]]
    doomed_at = _doomed_at(graph, expander, rows, until_done)
    after = doomed_at and sum(lengths[: doomed_at - 1]) + 1
    standing = _standing(expander, walk.points, set())
    return Freeze(FreezeKind.DEADLOCK, tuple(walk.taken), after, (), standing, True)


def _doomed_at(
    graph: StateGraph, expander: Expander, rows: list[Row], until_done: Callable[[int], StateSearch]
) -> int | None:
    """The first state of a way into a deadlock that is doomed; None where that is too much to find out.

    Backwards: few states follow a doomed one, and many that is not doomed, most of which get done somehow.
    So what follows is searched as long as it is little; where it is more, getting done is tried by chance,
    and only what chance does not do is searched again, to the end.
    """
    search = until_done(FEW)
    for place in range(len(rows) - 1, -1, -1):
        found = search.run(rows[place])
        if found.stopped is Stopped.STATES and not found.reached_done:
            if _gets_done(expander, rows[place], 2 * len(graph.levels) + TRIED_STEPS):
                return place + 1
            search = until_done(max(MANY, 4 * graph.states))
            found = search.run(rows[place])
        if found.reached_done:
            return place + 1
        if found.stopped is not Stopped.COVERED:
            return None
    return 0


def _gets_done(expander: Expander, row: Row, steps: int) -> bool:
    """Whether chance leads from a state to one in which the system is done, many at a time."""
    chance = np.random.default_rng(0)
    rows = one_row(row)
    for _ in range(steps):
        found = expander.expand(rows)
        if found.done.any():
            return True
        if not len(found.rows):
            return False
        rows = found.rows
        if len(rows) > AT_ONCE:
            rows = rows.take(chance.choice(len(rows), AT_ONCE, replace=False), axis=0)
    return False


def livelock(
    graph: StateGraph, expander: Expander, doomed: Numbers, arrows: Arrows, *, covered: bool
) -> Freeze:
    """The freeze of a search in which states are doomed, by the shortest way."""
    level = next(found for bounds in graph.levels if len(found := _within(graph, doomed, bounds)))
    first = _least(graph, level)
    end, circle = _bottom(graph, arrows, first)
    walk = Walk(expander)
    to_first = [walk.go(row) for row in _rows_to(graph, first)[1:]]
    for number in _shortest(arrows, first, end)[1:]:
        walk.go(graph.row(number))
    way = tuple(walk.taken)
    points = walk.points
    if len(circle):
        beyond = arrows.beyond(np.array([end], dtype=np.uint32))
        following = _least(graph, beyond)
        for number in _shortest(arrows, following, end):
            walk.go(graph.row(number))
    moving: set[tuple[int, int]] = set()
    for start in range(0, len(circle), CHUNK):
        moving |= expander.moving(graph.rows(circle[start : start + CHUNK]))
    after = sum(to_first[:-1]) + 1 if to_first else 0
    return Freeze(
        FreezeKind.LIVELOCK if moving else FreezeKind.DEADLOCK,
        way,
        after,
        tuple(walk.taken[len(way) :]),
        _standing(expander, points, moving),
        covered,
    )


def _within(graph: StateGraph, numbers: Numbers, level: Sequence[tuple[int, int]]) -> Numbers:
    """Those of some states that are of a level."""
    places, shards = np.divmod(numbers, np.uint32(len(graph.shards)))
    inside = np.zeros(len(numbers), dtype=np.bool_)
    for shard, (start, end) in enumerate(level):
        inside |= (shards == shard) & (places >= start) & (places < end)
    return numbers[inside]


def _least(graph: StateGraph, numbers: Numbers) -> int:
    """Of some states the one whose row is the least, so that the same is found however it was searched."""
    return min((graph.row(int(number)), int(number)) for number in np.unique(numbers))[1]


def _rows_to(graph: StateGraph, number: int) -> list[Row]:
    """The states from the beginning to one."""
    place, shard = divmod(number, len(graph.shards))
    depth = next(
        depth for depth, level in enumerate(graph.levels) if level[shard][0] <= place < level[shard][1]
    )
    found = [graph.row(number)]
    while depth:
        depth -= 1
        sources = [np.zeros(0, dtype=np.uint32)]
        for block in graph.blocks[depth]:
            places = block.sources[block.targets == number].astype(np.uint32) + np.uint32(block.start)
            sources.append(places * np.uint32(len(graph.shards)) + np.uint32(block.shard))
        number = _least(graph, np.concatenate(sources))
        found.append(graph.row(number))
    return found[::-1]


def _shortest(arrows: Arrows, start: int, end: int) -> list[int]:
    """The numbers of the states on a shortest way between two."""
    before = {start: start}
    frontier = [start]
    while end not in before:
        following = []
        for number in frontier:
            for other in arrows.beyond(np.array([number], dtype=np.uint32)).tolist():
                if other not in before:
                    before[other] = number
                    following.append(other)
        frontier = following
    way = [end]
    while way[-1] != start:
        way.append(before[way[-1]])
    return way[::-1]


def _bottom(graph: StateGraph, arrows: Arrows, start: int) -> tuple[int, Numbers]:
    """A state that can be reached, and from which every state that follows leads back; and those states.

    No states where nothing follows it.
    """
    flags = np.zeros(graph.numbers, dtype=np.bool_)
    backwards = sorted_arrows(arrows.ends, arrows.keys)
    number = start
    while True:
        flags[:] = False
        here = np.array([number], dtype=np.uint32)
        if not len(arrows.beyond(here)):
            return number, here[:0]
        arrows.closure(here, flags)
        back = np.zeros_like(flags)
        backwards.closure(here, back)
        beyond = np.flatnonzero(flags & ~back)
        if not len(beyond):
            return number, np.flatnonzero(flags).astype(np.uint32)
        number = int(beyond[0])


def _standing(
    expander: Expander, points: Sequence[int], moving: set[tuple[int, int]]
) -> tuple[Standing, ...]:
    found = []
    for number, (task, point) in enumerate(zip(expander.system.programs, points, strict=True)):
        steps = [step for step in task.steps if step.at == point]
        group = expander.group_of.get(number, (number,))
        if (group[0], point) in moving:
            how = Stands.GOES_ROUND
        elif point in task.rests or not steps:
            how = Stands.RESTS
        else:
            how = Stands.WAITS
        waiting = [step for step in steps if step.waits_for] if how is not Stands.GOES_ROUND else []
        told: Step | None = next(iter(waiting or steps), None)
        found.append(
            Standing(
                number,
                point,
                how,
                tuple(dict.fromkeys(step.waits_for for step in waiting)),
                told.calls if told else (),
                bool(waiting) and all(step.interruptible for step in waiting),
            )
        )
    return tuple(found)
