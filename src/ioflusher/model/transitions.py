"""A system of tasks as a transition system: what can happen next, and what it changes.

The model of a machine is one `TransitionSystem`: whole-numbered variables (free units of memory, requests
in flight, who holds a lock), and tasks, each of which stands at a point of its program. A `Step` leads a
task from one point to another: it may be taken while its condition holds, and changes variables, all at
once. Everything else is made of that:

- a task *waits* where it stands at a point none of whose steps has its condition met;
- a choice is a point with several steps; where more than one can be taken, either may happen;
- what takes time says how long (`takes_ns`), for a run; an exploration lets it take any time;
- a time-out is a step whose condition is that time has passed (`after_ns`): an exploration may always take
  it.

The kernel's functions are in `ioflusher.model.code`'s terms and leave no trace here but their names: each
step has the stack of calls that its task is in, so that a task that waits has the stack that the kernel
would show.

Conditions and changes are `Expression`s: texts of Python that mean the same for one machine (whole numbers)
and for a million at once (numpy arrays), so that a run and an exploration follow the very same rules.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Union


class Expression:
    """A whole number or a truth value that depends on variables.

    Built with + - * // < <= > >= & | and `is_`, `negated`; an `&` of two conditions is "and".

    Attributes:
        text: Python's text of it, with variables by their names.
        reads: the variables in it.
    """

    __slots__ = ("reads", "text")

    def __init__(self, text: str, reads: frozenset[str]) -> None:
        self.text = text
        self.reads = reads

    def __repr__(self) -> str:
        return self.text

    def __add__(self, other: "Number") -> "Expression":
        return _joined(self, "+", other)

    def __sub__(self, other: "Number") -> "Expression":
        return _joined(self, "-", other)

    def __mul__(self, other: "Number") -> "Expression":
        return _joined(self, "*", other)

    def __floordiv__(self, other: "Number") -> "Expression":
        return _joined(self, "//", other)

    def __lt__(self, other: "Number") -> "Expression":
        return _joined(self, "<", other)

    def __le__(self, other: "Number") -> "Expression":
        return _joined(self, "<=", other)

    def __gt__(self, other: "Number") -> "Expression":
        return _joined(self, ">", other)

    def __ge__(self, other: "Number") -> "Expression":
        return _joined(self, ">=", other)

    def __and__(self, other: "Expression") -> "Expression":
        return _joined(self, "&", other)

    def __or__(self, other: "Expression") -> "Expression":
        return _joined(self, "|", other)

    def is_(self, other: "Number") -> "Expression":
        """Whether both are the same number."""
        return _joined(self, "==", other)

    def negated(self) -> "Expression":
        """Whether the condition does not hold."""
        return Expression(f"({self.text} == 0)", self.reads)


Number = Union[Expression, int]  # noqa: UP007 - a class that is being defined has no |


class Variable(Expression):
    """A whole number that steps change.

    Attributes:
        name: an identifier, such as `free` or `nbd0_tags`.
        low, high: its least and its greatest value; a step that would leave them is an error in the model.
        initial: its value in the beginning.
        what: what it counts, for people, such as "free memory".
        unit: "memory" where it counts units of memory, else what it counts.
    """

    __slots__ = ("high", "initial", "low", "name", "unit", "what")

    def __init__(
        self, name: str, initial: int, high: int, *, low: int = 0, what: str = "", unit: str = ""
    ) -> None:
        super().__init__(name, frozenset((name,)))
        if not name.isidentifier() or not low <= initial <= high:
            raise ValueError(f"no variable: {name!r} is {initial}, within {low} and {high}")
        self.name = name
        self.initial = initial
        self.low = low
        self.high = high
        self.what = what or name
        self.unit = unit


Changes = Mapping[Variable, Number]

NOTHING_READ: frozenset[str] = frozenset()


def number(value: Number) -> Expression:
    """An expression, of a plain number too."""
    return value if isinstance(value, Expression) else Expression(str(int(value)), NOTHING_READ)


def minimum(one: Number, other: Number) -> Expression:
    """The smaller of two numbers."""
    return _called("minimum", one, other)


def maximum(one: Number, other: Number) -> Expression:
    """The larger of two numbers."""
    return _called("maximum", one, other)


def where(condition: Expression, yes: Number, no: Number) -> Expression:
    """One of two numbers."""
    return _called("where", condition, yes, no)


def total(numbers: Iterable[Expression]) -> Expression:
    """The sum of one number or more."""
    first, *others = numbers
    for other in others:
        first = first + other
    return first


def all_of(*conditions: Expression | None) -> Expression | None:
    """The condition that all hold, of which None always does; None for none."""
    found: Expression | None = None
    for condition in conditions:
        if condition is not None:
            found = condition if found is None else found & condition
    return found


def together(*several: Changes) -> dict[Variable, Number]:
    """Changes that happen at once; where two of them change the same variable, each by its own amount."""
    found: dict[Variable, Number] = {}
    for changes in several:
        for variable, value in changes.items():
            so_far = found.get(variable)
            found[variable] = value if so_far is None else number(so_far) + (number(value) - variable)
    return found


# what the names in a text mean where variables are plain numbers; numpy's own for arrays
SCALAR_NAMES = {"minimum": min, "maximum": max, "where": lambda condition, yes, no: yes if condition else no}


def _joined(one: Number, operator: str, other: Number) -> Expression:
    left, right = number(one), number(other)
    return _made(f"({left.text} {operator} {right.text})", left.reads | right.reads)


def _called(name: str, *given: Number) -> Expression:
    parts = [number(each) for each in given]
    reads = NOTHING_READ.union(*(part.reads for part in parts))
    return _made(f"{name}({', '.join(part.text for part in parts)})", reads)


def _made(text: str, reads: frozenset[str]) -> Expression:
    """An expression; of plain numbers alone, its value."""
    return Expression(text, reads) if reads else Expression(str(int(eval(text, dict(SCALAR_NAMES)))), reads)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a task can do, at once.

    Attributes:
        at, to: the points of the task's program before and after.
        when: the condition; None for none.
        changes: variables and their new values, all of which come from the old ones.
        calls: the functions that the task is in meanwhile, the innermost first, kernel names verbatim.
        label: what it does, a few words; empty for a step that only decides.
        waits_for: what a task waits for where the condition does not hold, a few words; empty where another
            step of the point says it.
        interruptible: whether it waits in state S; else in D.
        takes_ns: nanoseconds of virtual time that it takes, before the changes.
        after_ns: it may be taken once its task has stood at the point for so many nanoseconds; None: at once.
        weight: how often a run takes it where several can be taken, against theirs.
        begins: the device a request of which it begins; empty for none.
        completes: the device a request of which it completes, for what counts as progress; empty for none.
        kills: the program that the OOM killer takes here, where a run ends; empty for none.
        fails: the error with which the workload gives up here, where a run ends; empty for none.
    """

    at: int
    to: int
    when: Expression | None = None
    changes: tuple[tuple[Variable, Expression], ...] = ()
    calls: tuple[str, ...] = ()
    label: str = ""
    waits_for: str = ""
    interruptible: bool = False
    takes_ns: Expression | None = None
    after_ns: Expression | None = None
    weight: int = 1
    begins: str = ""
    completes: str = ""
    kills: str = ""
    fails: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """A task of the machine and its program.

    Attributes:
        name: its name in the kernel (comm).
        pid: its number; 0 is none's.
        flags: its PF_ flags.
        steps: all its steps; it begins at point 0.
        rests: the points at which it may stay for ever: where it is done, or has nothing to do.
        works: whether it has something to get done: the system is done when all such tasks rest.
        alike: a name that tasks have in common which cannot be told apart, for an exploration that counts
            states that differ in nothing but which of them is which as one; empty for a task of its own.
            Such tasks have equal programs, and no variable names one of them.
        daemon: it is a thread of a daemon that serves a device.
        hardware: it is no task but what a device does by itself, so that no log shows it.
    """

    name: str
    pid: int
    flags: int = 0
    steps: tuple[Step, ...] = ()
    rests: frozenset[int] = frozenset()
    works: bool = False
    alike: str = ""
    daemon: bool = False
    hardware: bool = False

    def steps_at(self) -> dict[int, tuple[Step, ...]]:
        """The steps of each point that has any, in their order."""
        found: dict[int, list[Step]] = {}
        for step in self.steps:
            found.setdefault(step.at, []).append(step)
        return {point: tuple(steps) for point, steps in found.items()}


@dataclass(frozen=True, slots=True)
class Level:
    """A mark that decides something when a sum of variables crosses it: a watermark, a limit.

    Attributes:
        name: such as "low watermark".
        units: where it is; a limit that is a share of memory moves.
        what: what crosses it, such as "free memory".
        of: how much of that there is.
    """

    name: str
    units: Expression
    what: str
    of: Expression


@dataclass(frozen=True, slots=True)
class TransitionSystem:
    """All of it.

    Attributes:
        name: what it is a model of.
        variables: every variable.
        programs: every task.
        in_flight: for each device, how many of its requests are not completed.
        unit_bytes: the bytes of a unit of memory.
        version: of Linux, such as "6.12".
        notes: what was asked for that makes no difference in it, a sentence each.
        levels: the watermarks and limits of memory, for people; the steps know theirs.
    """

    name: str
    variables: tuple[Variable, ...]
    programs: tuple[Program, ...]
    in_flight: tuple[tuple[str, Expression], ...] = ()
    unit_bytes: int = 1
    version: str = ""
    notes: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()
