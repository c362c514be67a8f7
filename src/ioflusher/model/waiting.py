"""Who waits for whom: for a task that cannot go on, the tasks one of which has to go on first.

A task waits because conditions do not hold. What would bring one of them nearer is a step of some program
that changes a variable in the direction that is needed; that program's task is one that has to go on first.
So the edges come from the rules of the model themselves, and nobody has to write down who completes what.

Four things make the answer exact:

- a variable with unit "task" names the holder of a lock: that task alone can let go of it;
- a step that would take a variable out of its range at this moment (a request to be completed, and none is
  there) cannot come next: first somebody has to bring that variable up, and so on;
- a task that rests goes on when it is given work: those who can give it stand in its place;
- what prepares a step must not lead away: more dirty memory is no way to less of it.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from types import CodeType

from ioflusher.model.transitions import SCALAR_NAMES, Expression, Program, Step, TransitionSystem, Variable
from ioflusher.support.graphs import way_back

Values = Mapping[str, int]
# by how far a condition is from holding, 0 where it holds
_Distance = Callable[[Values], int]


def who_is_first(
    system: TransitionSystem, at: Sequence[int], values: Values, waiting: Sequence[int]
) -> dict[int, dict[int, str]]:
    """For each task that waits, the tasks of which one has to go on before it can; all by their places.

    Args:
        system: what is played.
        at: the point of each task.
        values: of all variables.
        waiting: the tasks that wait.

    Returns:
        For each of those that wait, in order, who is first, each with the label of the step that would do it;
        nobody where nobody can bring about what a task waits for.
    """
    deeds = _Deeds(system, at, values, frozenset(waiting))
    return {task: dict(sorted(deeds.first(task).items())) for task in waiting}


def wait_cycle(behind: Mapping[int, Sequence[int]], prefer: Sequence[int] = ()) -> tuple[int, ...]:
    """The shortest circle of tasks each of which waits for the next one, the last for the first.

    Args:
        behind: for each task that waits, those of which one has to go on first.
        prefer: tasks through which it should lead, in this order, where one does.

    Returns:
        The tasks; empty where there is no circle.
    """
    ways = {task: dict.fromkeys(others, 1) for task, others in behind.items()}
    circles = (way_back(ways, start) for start in (*prefer, *behind))
    return next(filter(None, circles), ())


@dataclass(slots=True)
class _Deeds:
    """What the tasks of a system can still do from where they stand."""

    system: TransitionSystem
    at: Sequence[int]
    values: Values
    waiting: Set[int]
    _steps: dict[int, tuple[Step, ...]] = field(default_factory=dict)

    def first(self, task: int) -> dict[int, str]:
        """Who can bring one of the conditions nearer on which this task waits, by which step."""
        found: dict[int, str] = {}
        for atom in self.awaited(task):
            found = {**_Search(self, task, atom).nearer(atom), **found}
        return found

    def awaited(self, task: int) -> Iterator["_Atom"]:
        """The conditions that do not hold, for a task that waits."""
        for step in self.system.programs[task].steps:
            if step.at == self.at[task] and step.when is not None and step.after_ns is None:
                yield from (atom for atom in _atoms(step.when.text) if atom.distance(self.values))

    def holders(self, reads: frozenset[str]) -> set[int] | None:
        """Who holds the lock that the condition is about; None where it is about none."""
        locks = [v.name for v in self.system.variables if v.unit == "task" and v.name in reads]
        if not locks:
            return None
        pids = {self.values[name] for name in locks}
        return {number for number, program in enumerate(self.system.programs) if program.pid in pids}

    def rests(self, task: int) -> bool:
        """Whether it waits with nothing to do."""
        return task in self.waiting and self.at[task] in self.system.programs[task].rests

    def ahead(self) -> Iterator[tuple[int, Step]]:
        """Every step that a task can come to from where it stands."""
        for task, program in enumerate(self.system.programs):
            if task not in self._steps:
                self._steps[task] = _reachable(program, self.at[task])
            for step in self._steps[task]:
                yield task, step


@dataclass(slots=True)
class _Search:
    """Who can bring a condition nearer on which a task waits."""

    deeds: _Deeds
    waiter: int
    goal: "_Atom"
    _known: dict[object, dict[int, str]] = field(default_factory=dict)

    def nearer(self, atom: "_Atom") -> dict[int, str]:
        """Who has a step ahead that makes the distance smaller; of the goal, or of what has to come first."""
        deeds, values = self.deeds, self.deeds.values
        holders = deeds.holders(atom.reads)
        now = atom.distance(values)
        found: dict[int, str] = {}
        for task, step in deeds.ahead():
            writes = {variable.name for variable, _ in step.changes}
            if not writes & atom.reads or (holders is not None and task not in holders):
                continue
            if atom is not self.goal and task == self.waiter:
                continue  # it waits: it can do nothing that has to come first
            after = {**values, **_after(step, values)}
            if atom.distance(after) >= now or self.goal.distance(after) > self.goal.distance(values):
                continue
            lacking = [v for v, _ in step.changes if not v.low <= after[v.name] <= v.high]
            if holders is not None:
                found.setdefault(task, step.label)
            elif lacking:
                found = {**self._brought(lacking, after), **found}
            elif deeds.rests(task):
                found = {**self._given_work(task), **found}
            else:
                found.setdefault(task, step.label)
        return found

    def _brought(self, lacking: Sequence[Variable], after: Values) -> dict[int, str]:
        """Who can bring all of these variables into their range; nobody if one of them nobody can."""
        found: dict[int, str] = {}
        for variable in lacking:
            up = after[variable.name] < variable.low
            wish = f"{variable.name} {'>' if up else '<'} {self.deeds.values[variable.name]}"
            if wish not in self._known:
                self._known[wish] = {}  # while it is looked for
                self._known[wish] = self.nearer(_atoms(wish)[0])
            if not self._known[wish]:
                return {}
            found = {**self._known[wish], **found}
        return found

    def _given_work(self, task: int) -> dict[int, str]:
        """Who can give a task work that rests."""
        if task not in self._known:
            self._known[task] = {}
            found: dict[int, str] = {}
            for atom in self.deeds.awaited(task):
                found = {**self.nearer(atom), **found}
            self._known[task] = found
        return self._known[task]


def _reachable(program: Program, point: int) -> tuple[Step, ...]:
    steps_at = program.steps_at()
    seen, queue = {point}, [point]
    for here in queue:
        for step in steps_at.get(here, ()):
            if step.to not in seen:
                seen.add(step.to)
                queue.append(step.to)
    return tuple(step for step in program.steps if step.at in seen)


def _after(step: Step, values: Values) -> dict[str, int]:
    """What a step would make of the values that it changes, whether it can be taken or not."""
    return {variable.name: _value(expression, values) for variable, expression in step.changes}


def _value(expression: Expression, values: Values) -> int:
    return int(eval(_code(expression.text), dict(SCALAR_NAMES), dict(values)))


@cache
def _code(text: str) -> CodeType:
    return compile(text, "<model>", "eval")


@dataclass(frozen=True, slots=True)
class _Atom:
    """A comparison in a condition."""

    distance: _Distance
    reads: frozenset[str]


@cache
def _atoms(text: str) -> tuple[_Atom, ...]:
    """The comparisons that a condition is made of, each with what makes it hold."""
    return tuple(_split(ast.parse(text, mode="eval").body, wanted=True))


def _split(node: ast.expr, *, wanted: bool) -> Iterator[_Atom]:
    """The comparisons below a node, of which `wanted` says whether they are to hold or not."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
        yield from _split(node.left, wanted=wanted)
        yield from _split(node.right, wanted=wanted)
    elif isinstance(node, ast.Compare):
        left, right = node.left, node.comparators[0]
        if isinstance(node.ops[0], ast.Eq) and _is_truth(left) and ast.unparse(right) == "0":
            yield from _split(left, wanted=not wanted)
        else:
            reads = frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name)) - SCALAR_NAMES.keys()
            yield _Atom(_distance(left, node.ops[0], right, wanted=wanted), reads)


def _is_truth(node: ast.expr) -> bool:
    return isinstance(node, ast.Compare) or (
        isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr)
    )


def _distance(left: ast.expr, operator: ast.cmpop, right: ast.expr, *, wanted: bool) -> _Distance:
    """How far a comparison is from what is wanted of it."""
    code = _code(f"({ast.unparse(left)}) - ({ast.unparse(right)})")
    # of one - other: whether it is wanted at least, at most, exactly or not at all 0, with this much added
    kind, added = _KINDS[type(operator), wanted]

    def distance(values: Values) -> int:
        difference = int(eval(code, dict(SCALAR_NAMES), dict(values))) + added
        if kind == "least":
            return max(0, -difference)
        if kind == "most":
            return max(0, difference)
        return abs(difference) if kind == "exactly" else int(difference == 0)

    return distance


_KINDS = {
    (ast.Gt, True): ("least", -1),
    (ast.Gt, False): ("most", 0),
    (ast.GtE, True): ("least", 0),
    (ast.GtE, False): ("most", 1),
    (ast.Lt, True): ("most", 1),
    (ast.Lt, False): ("least", 0),
    (ast.LtE, True): ("most", 0),
    (ast.LtE, False): ("least", -1),
    (ast.Eq, True): ("exactly", 0),
    (ast.Eq, False): ("other", 0),
}
