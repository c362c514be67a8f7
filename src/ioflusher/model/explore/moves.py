"""The programs of a system as an exploration follows them: moves, fewer than steps where that is sound.

A step is *local* where it touches (reads or writes) no variable that another task touches: it can be taken
now or later with the same outcome, and nobody can tell. Two reductions rest on that, both of which keep
every freeze (a state from which the system cannot get done) and the lengths of ways to deadlocks but for the
steps that were made one:

- `merged`: where a local unconditional step is all that can follow another step, both become one move. The
  point in between is no rest, so nothing could stop there.
- `alone`: of a state in which a task has exactly one step, and is at a point where all its steps are local,
  only that step is followed. What is left out is the same steps in another order. So that no task is put off
  for ever, steps on a circle of local steps are not taken alone; nor is a step away from a rest, which
  changes whether the system is done.

The third, `alike`, counts the states that differ only in which of several alike tasks is which as one; see
`expand.py`.
"""

import ast
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from ioflusher.model.explore.records import Reductions
from ioflusher.model.explore.terms import names, parsed, substituted
from ioflusher.model.run import ModelError
from ioflusher.model.transitions import Program, Step, TransitionSystem
from ioflusher.support.graphs import strong_components

Trees = tuple[tuple[str, ast.expr], ...]


@dataclass(frozen=True, slots=True)
class Move:
    """Steps of a task that are taken as one.

    Attributes:
        task: the number of the task.
        at, to: the points before and after.
        when: the condition, of the values before; None for none.
        changes: variables and their new values, all of the values before.
        passed: values that variables have in between, which must lie in their ranges as well.
        steps: the steps.
    """

    task: int
    at: int
    to: int
    when: ast.expr | None
    changes: Trees
    passed: Trees
    steps: tuple[Step, ...]

    @property
    def touches(self) -> frozenset[str]:
        """The variables that it reads or writes."""
        return frozenset(name for name, _ in self.changes).union(*(names(tree) for tree in self.trees))

    @property
    def trees(self) -> list[ast.expr]:
        """All its expressions."""
        return [tree for _, tree in self.changes + self.passed] + ([self.when] if self.when else [])


@dataclass(frozen=True, slots=True)
class Moves:
    """What tasks can do.

    Attributes:
        at: of each task and point, in the order of its steps.
        alone: the tasks and points at which a single possible move is followed alone.
        alike: groups of two or more alike tasks.
    """

    at: Mapping[tuple[int, int], tuple[Move, ...]]
    alone: frozenset[tuple[int, int]]
    alike: tuple[tuple[int, ...], ...]


def moves_of(system: TransitionSystem, reductions: Reductions) -> Moves:
    """The moves of a system.

    Raises:
        ModelError: tasks that are said to be alike are not, or a step names no variable of the system.
    """
    known = {variable.name for variable in system.variables}
    moves = [_moves(number, task) for number, task in enumerate(system.programs)]
    for task, found in zip(system.programs, moves, strict=True):
        for move in found:
            if missing := move.touches - known:
                raise ModelError(
                    f"{system.name}: {task.name}'s step {move.steps[0].label!r} names {min(missing)}, "
                    "which is no variable of the system"
                )
    touched = [frozenset[str]().union(*(move.touches for move in found)) for found in moves]
    local = [
        names_ - frozenset[str]().union(*(other for each, other in enumerate(touched) if each != number))
        for number, names_ in enumerate(touched)
    ]
    if reductions.merged:
        moves = [
            _merged(found, task, local[number])
            for number, (found, task) in enumerate(zip(moves, system.programs, strict=True))
        ]
    alone: set[tuple[int, int]] = set()
    if reductions.alone:
        for number, task in enumerate(system.programs):
            alone |= {(number, point) for point in _alone(moves[number], task, local[number])}
    at = {
        (number, point): tuple(there)
        for number, found in enumerate(moves)
        for point, there in _by_point(found).items()
    }
    return Moves(at, frozenset(alone), _alike(system) if reductions.alike else ())


def _moves(number: int, task: Program) -> list[Move]:
    found = []
    for step in task.steps:
        when = parsed(step.when) if step.when is not None else None
        if isinstance(when, ast.Constant):
            if not when.value:
                continue
            when = None
        changes = tuple((variable.name, parsed(changed)) for variable, changed in step.changes)
        found.append(Move(number, step.at, step.to, when, changes, (), (step,)))
    return found


def _by_point(moves: list[Move]) -> dict[int, list[Move]]:
    found: dict[int, list[Move]] = defaultdict(list)
    for move in moves:
        found[move.at].append(move)
    return found


def _merged(moves: list[Move], task: Program, local: frozenset[str]) -> list[Move]:
    follows = {
        point: there[0]
        for point, there in _by_point(moves).items()
        if len(there) == 1
        and there[0].to != point
        and there[0].when is None
        and there[0].touches <= local
        and point not in task.rests
    }
    found = []
    for move in moves:
        been = {move.at}
        while move.to in follows and move.to not in been:
            been.add(move.to)
            move = _one_after_other(move, follows[move.to])
        found.append(move)
    reached, waiting = {0}, [0]
    while waiting:
        point = waiting.pop()
        for move in found:
            if move.at == point and move.to not in reached:
                reached.add(move.to)
                waiting.append(move.to)
    return [move for move in found if move.at in reached]


def _one_after_other(one: Move, other: Move) -> Move:
    values = dict(one.changes)
    changes = values | {name: substituted(tree, values) for name, tree in other.changes}
    passed = one.passed + tuple((name, tree) for name, tree in one.changes if name in dict(other.changes))
    return Move(one.task, one.at, other.to, one.when, tuple(changes.items()), passed, one.steps + other.steps)


def _alone(moves: list[Move], task: Program, local: frozenset[str]) -> set[int]:
    points = {
        point: there
        for point, there in _by_point(moves).items()
        if all(move.touches <= local for move in there) and not (task.works and point in task.rests)
    }
    ways = {point: [move.to for move in there] for point, there in points.items()}
    component = {point: number for number, points_ in enumerate(strong_components(ways)) for point in points_}
    return {
        point
        for point, there in points.items()
        if all(component[move.at] != component[move.to] for move in there)
    }


def _alike(system: TransitionSystem) -> tuple[tuple[int, ...], ...]:
    groups: dict[str, list[int]] = defaultdict(list)
    for number, task in enumerate(system.programs):
        if task.alike:
            groups[task.alike].append(number)
    for name, group in groups.items():
        first = system.programs[group[0]]
        for number in group[1:]:
            task = system.programs[number]
            if _shape(task) != _shape(first):
                raise ModelError(
                    f"{system.name}: {task.name} ({task.pid}) is said to be {name!r} like {first.name} "
                    f"({first.pid}), but their programs differ"
                )
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _shape(task: Program) -> object:
    """A program as something that can be compared: expressions by their texts."""
    steps = [
        (step.at, step.to, step.when and step.when.text, [(var.name, new.text) for var, new in step.changes])
        for step in task.steps
    ]
    return steps, task.rests, task.works
