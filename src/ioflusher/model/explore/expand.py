"""All steps out of many states at once.

For each task and point, a Python function is generated that is given the states in which the task stands
there: it evaluates the moves' conditions and changes with numpy, on the smallest integers that hold every
number in them, and adds what changes to the packed rows. A field changes by adding the difference, shifted,
to its word: as old and new value fit the field, no neighbour changes.

Alike tasks' points are kept sorted in a state, so that states that differ in which is which are one row; of
alike tasks at the same point only the first is followed.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ioflusher.model.explore.layout import StateLayout, Words
from ioflusher.model.explore.moves import Move, Moves
from ioflusher.model.explore.terms import Range, array_text, names, range_of
from ioflusher.model.run import ModelError
from ioflusher.model.transitions import TransitionSystem

CHUNK = 1 << 15  # rows that are expanded at once: their columns stay in a core's cache
ROW = np.uint16  # numbers a row of a chunk

Rows = npt.NDArray[np.intp]
TYPES = (np.int8, np.int16, np.int32, np.int64)


@dataclass(frozen=True, slots=True)
class Expanded:
    """What follows a chunk of states.

    Attributes:
        rows: the states that follow.
        sources: of each, the row of the chunk that it follows.
        done: of each row of the chunk, whether the system is done there.
        stuck: the rows of the chunk that nothing follows.
    """

    rows: Words
    sources: npt.NDArray[np.uint16]
    done: npt.NDArray[np.bool_]
    stuck: Rows


class _Chunk:
    """The states that are expanded, with the columns that were asked for."""

    def __init__(self, expander: "Expander", rows: Words) -> None:
        self.expander = expander
        self.rows = rows
        self.found: list[tuple[Words, Rows]] = []
        self._columns: dict[str, Any] = {}
        self._points: dict[int, npt.NDArray[np.integer]] = {}

    def column(self, name: str) -> Any:
        """A variable of every row."""
        if name not in self._columns:
            field = self.expander.layout.variables[name]
            self._columns[name] = field.of(self.rows, self.expander.dtype)
        return self._columns[name]

    def points(self, task: int) -> npt.NDArray[np.integer]:
        """Where a task stands, of every row."""
        if task not in self._points:
            field = self.expander.layout.points[task]
            self._points[task] = field.of(self.rows, np.uint8 if field.bits <= 8 else np.uint16)
        return self._points[task]

    def follow(self, task: int, to: int, at: Rows) -> tuple[Words, Rows]:
        """Copies of rows in which the task went to a point, for other changes to be made in."""
        expander = self.expander
        rows = self.rows.take(at, axis=0)
        group = expander.group_of.get(task)
        if group is None:
            field = expander.layout.points[task]
            old = self.points(task).take(at[:1])  # the same in all of them
            rows[:, field.word] += _shifted(to - int(old[0]), field.shift)
        else:
            self._sort(rows, group, group.index(task), to, at)
        return rows, at

    def _sort(self, rows: Words, group: Sequence[int], moved: int, to: int, at: Rows) -> None:
        olds = [self.points(task).take(at) for task in group]
        news = list(olds)
        news[moved] = np.full_like(olds[moved], to)
        for low in (*range(moved - 1, -1, -1), *range(moved, len(group) - 1)):
            one, other = news[low], news[low + 1]
            news[low], news[low + 1] = np.minimum(one, other), np.maximum(one, other)
        for task, old, new in zip(group, olds, news, strict=True):
            if old is not new:
                field = self.expander.layout.points[task]
                rows[:, field.word] += _shift(new, old, field.shift)


def _shifted(difference: int, shift: int) -> np.uint64:
    return np.uint64((difference << shift) & 0xFFFF_FFFF_FFFF_FFFF)


def _shift(new: Any, old: Any, shift: int) -> Any:
    difference = np.subtract(new, old, dtype=np.int64)
    difference <<= shift
    return difference.view(np.uint64)


class Expander:
    """Expands the states of one system.

    Attributes:
        layout: where the numbers of a state lie.
        dtype: the type in which they are calculated.
        group_of: the alike tasks of a task that has any.
    """

    def __init__(self, system: TransitionSystem, layout: StateLayout, moves: Moves) -> None:
        self.system = system
        self.layout = layout
        self.moves = moves
        self.ranges = {variable.name: Range(variable.low, variable.high) for variable in system.variables}
        self.dtype = _dtype(moves, self.ranges)
        self.group_of = {task: group for group in moves.alike for task in group}
        self._functions: dict[tuple[int, int], Callable[[_Chunk, Rows], None]] = {}
        self._possible: dict[tuple[int, int], list[Callable[[_Chunk, Rows], Any]]] = {}
        for place, there in moves.at.items():
            self._functions[place] = self._function(there)
            if place in moves.alone:
                self._possible[place] = [self._condition(move) for move in there]
        self._resting: list[tuple[int, npt.NDArray[np.bool_]]] = []
        for number, task in enumerate(system.programs):
            if task.works:
                rests = np.zeros(1 << layout.points[number].bits, dtype=np.bool_)
                rests[list(task.rests)] = True
                self._resting.append((number, rests))

    def expand(self, rows: Words) -> Expanded:
        """What follows states, at most `CHUNK` of them.

        Raises:
            ModelError: a step leaves the range of a variable.
        """
        chunk = _Chunk(self, rows)
        with np.errstate(divide="raise"):
            try:
                claimed = self._alone(chunk)
                for task in range(len(self.system.programs)):
                    self._follow(chunk, task, claimed)
            except FloatingPointError:
                raise self._division(rows) from None
        if chunk.found:
            following = np.concatenate([found for found, _ in chunk.found])
            sources = np.concatenate([at for _, at in chunk.found]).astype(ROW)
        else:
            following, sources = rows[:0], np.zeros(0, dtype=ROW)
        done = self._done(chunk)
        moves = np.zeros(len(rows), dtype=np.bool_)
        moves[sources] = True
        return Expanded(following, sources, done, np.flatnonzero(~(moves | done)))

    def done(self, rows: Words) -> npt.NDArray[np.bool_]:
        """Of each state, whether the system is done there."""
        return self._done(_Chunk(self, rows))

    def moving(self, rows: Words) -> set[tuple[int, int]]:
        """The tasks and points of states at which a task can take a step, the first for alike tasks."""
        chunk = _Chunk(self, rows)
        found = set()
        for task in range(len(self.system.programs)):
            for point, at in self._standing(chunk, task, None):
                place = task, point
                before = len(chunk.found)
                if place in self._functions:
                    self._functions[place](chunk, at)
                if len(chunk.found) > before:
                    found.add((self.group_of.get(task, (task,))[0], point))
        return found

    def _done(self, chunk: _Chunk) -> npt.NDArray[np.bool_]:
        done = np.ones(len(chunk.rows), dtype=np.bool_)
        for task, rests in self._resting:
            done &= rests.take(chunk.points(task))
        return done

    def _follow(self, chunk: _Chunk, task: int, claimed: npt.NDArray[np.bool_] | None) -> None:
        for point, at in self._standing(chunk, task, claimed):
            function = self._functions.get((task, point))
            if function is not None:
                function(chunk, at)

    def _standing(
        self, chunk: _Chunk, task: int, claimed: npt.NDArray[np.bool_] | None
    ) -> list[tuple[int, Rows]]:
        """The points at which the task stands in some state, each with the rows, but for those claimed."""
        points = chunk.points(task)
        kept: Rows | None = None
        group = self.group_of.get(task)
        skipped = claimed
        if group is not None and task != group[0]:
            same = points == chunk.points(group[group.index(task) - 1])
            skipped = same if claimed is None else same | claimed
        if skipped is not None:
            kept = (~skipped).nonzero()[0]
            points = points.take(kept)
        if not len(points):
            return []
        counts = np.bincount(points)
        there = counts.nonzero()[0]
        if len(there) == 1:
            return [(int(there[0]), np.arange(len(points)) if kept is None else kept)]
        order = np.argsort(points, kind="stable")
        if kept is not None:
            order = kept.take(order)
        ends = counts.take(there).cumsum()
        return [
            (int(point), order[end - count : end])
            for point, end, count in zip(there, ends, counts.take(there), strict=True)
        ]

    def _alone(self, chunk: _Chunk) -> npt.NDArray[np.bool_] | None:
        """Follow single local moves; the rows that need nothing else."""
        if not self._possible:
            return None
        claimed = np.zeros(len(chunk.rows), dtype=np.bool_)
        for task in sorted({task for task, _ in self._possible}):
            for point, at in self._standing(chunk, task, claimed):
                conditions = self._possible.get((task, point))
                if conditions is None:
                    continue
                count = np.zeros(len(at), dtype=np.int8)
                for condition in conditions:
                    count += np.asarray(condition(chunk, at), dtype=np.bool_)
                only = at[count == 1]
                if len(only):
                    self._functions[task, point](chunk, only)
                    claimed[only] = True
        return claimed

    def _function(self, moves: Sequence[Move]) -> Callable[[_Chunk, Rows], None]:
        lines = ["def follow(chunk, at):"]
        conditions = frozenset[str]().union(*(names(move.when) for move in moves if move.when is not None))
        lines += [f"    a_{name} = chunk.column({name!r}).take(at)" for name in sorted(conditions)]
        for number, move in enumerate(moves):
            lines += self._move(number, move, conditions)
        return self._compiled(lines, moves)

    def _move(self, number: int, move: Move, gathered: frozenset[str]) -> list[str]:
        lines = []
        indent = "    "
        if move.when is None:
            lines.append(f"{indent}taken, there = None, at")
        else:
            lines.append(f"{indent}taken = {self._truth(move.when)}.nonzero()[0]")
            lines.append(f"{indent}if len(taken):")
            indent += "    "
            lines.append(f"{indent}if len(taken) == len(at): taken, there = None, at")
            lines.append(f"{indent}else: there = at.take(taken)")
        needed = frozenset[str]().union(*(names(tree) for _, tree in move.changes + move.passed))
        for name in sorted(needed | {name for name, _ in move.changes}):
            if name in gathered:
                lines.append(f"{indent}b_{name} = a_{name} if taken is None else a_{name}.take(taken)")
            else:
                lines.append(f"{indent}b_{name} = chunk.column({name!r}).take(there)")
        for name, tree in move.passed:
            lines += self._checked(indent, number, name, tree)
        for name, tree in move.changes:
            lines.append(f"{indent}n_{name} = {array_text(tree, self.ranges, 'b_')}")
            lines += self._checked(indent, number, name, tree, f"n_{name}")
        lines.append(f"{indent}rows, there = chunk.follow({move.task}, {move.to}, there)")
        for name, tree in move.changes:
            field = self.layout.variables[name]
            constant = _difference(name, tree)
            if constant is None:
                change = f"shift(n_{name}, b_{name}, {field.shift})"
            else:
                change = f"uint64({int(_shifted(constant, field.shift))})"
            lines.append(f"{indent}rows[:, {field.word}] += {change}")
        lines.append(f"{indent}chunk.found.append((rows, there))")
        return lines

    def _checked(
        self, indent: str, number: int, name: str, tree: ast.expr, text: str | None = None
    ) -> list[str]:
        """A line that finds the values that leave a variable's range; none where none can."""
        own, found = self.ranges[name], range_of(tree, self.ranges)
        text = text or array_text(tree, self.ranges, "b_")
        tests = [f"({text} < {own.low})"] if found.low < own.low else []
        tests += [f"({text} > {own.high})"] if found.high > own.high else []
        return [f"{indent}check({' | '.join(tests)}, {number}, {name!r}, chunk, there)"] if tests else []

    def _truth(self, tree: ast.expr, prefix: str = "a_") -> str:
        text = array_text(tree, self.ranges, prefix)
        return text if range_of(tree, self.ranges).truth else f"({text} != 0)"

    def _condition(self, move: Move) -> Callable[[_Chunk, Rows], Any]:
        if move.when is None:
            return lambda chunk, at: True
        lines = ["def follow(chunk, at):"]
        lines += [f"    a_{name} = chunk.column({name!r}).take(at)" for name in sorted(names(move.when))]
        lines.append(f"    return {self._truth(move.when)}")
        return self._compiled(lines, (move,))

    def _compiled(self, lines: list[str], moves: Sequence[Move]) -> Callable[[_Chunk, Rows], Any]:
        def check(left: Any, number: int, name: str, chunk: _Chunk, there: Rows) -> None:
            if np.asarray(left).any():
                first = there[np.flatnonzero(np.broadcast_to(left, len(there)))[0]]
                raise self._leaves(moves[number], name, chunk.rows[first])

        meaning: dict[str, Any] = {
            "as_number": lambda truth: np.asarray(truth, dtype=self.dtype),
            "check": check,
            "maximum": np.maximum,
            "minimum": np.minimum,
            "shift": _shift,
            "uint64": np.uint64,
            "where": np.where,
        }
        exec("\n".join(lines), meaning)
        return meaning["follow"]  # type: ignore[no-any-return]

    def _leaves(self, move: Move, name: str, row: Words) -> ModelError:
        variable = next(each for each in self.system.variables if each.name == name)
        labels = ", then ".join(repr(step.label) for step in move.steps)
        program = self.system.programs[move.task]
        return ModelError(
            f"{self.system.name}: {program.name}'s step {labels} takes {name} out of "
            f"{variable.low}..{variable.high}, from the state {self.described(row.tolist())}",
            hint="give the step a condition, or the variable the room that it needs",
        )

    def _division(self, rows: Words) -> ModelError:
        if len(rows) > 1:  # find the state
            for row in rows:
                self.expand(row.reshape(1, -1))
        return ModelError(
            f"{self.system.name}: a step divides by zero, from the state {self.described(rows[0].tolist())}"
        )

    def described(self, row: Sequence[int]) -> str:
        """A state in words."""
        points, values = self.layout.unpack(row)
        variables = (f"{name}={number}" for name, number in zip(self.layout.variables, values, strict=True))
        tasks = (f"{task.name}@{point}" for task, point in zip(self.system.programs, points, strict=True))
        return " ".join((*variables, *tasks))


def _dtype(moves: Moves, ranges: Mapping[str, Range]) -> type[np.signedinteger]:
    """The smallest type in which no number on the way to a result overflows."""
    met = list(ranges.values())
    for there in moves.at.values():
        for move in there:
            trees = [tree for _, tree in move.changes + move.passed] + ([move.when] if move.when else [])
            for tree in trees:
                range_of(tree, ranges, met)
    low, high = min((each.low for each in met), default=0), max((each.high for each in met), default=0)
    for dtype in TYPES:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    raise ModelError(f"numbers from {low} to {high} do not fit 64 bits")


def _difference(name: str, tree: ast.expr) -> int | None:
    """By how much a change moves the variable, where that is always the same."""
    match tree:
        case ast.BinOp(left=ast.Name(id=left), op=ast.Add(), right=ast.Constant(value=int(by))) if (
            left == name
        ):
            return by
        case ast.BinOp(left=ast.Name(id=left), op=ast.Sub(), right=ast.Constant(value=int(by))) if (
            left == name
        ):
            return -by
    return None
