"""What an exploration is asked for and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ioflusher.model.transitions import Program, Step, TransitionSystem


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far an exploration goes; what it did not reach it does not judge.

    Attributes:
        states: the number of states.
        bytes: bytes of memory for states, the set of visited ones and transitions.
        depth: the number of steps from the beginning; None for any.
    """

    states: int = 20_000_000
    bytes: int = 2 << 30
    depth: int | None = None


@dataclass(frozen=True, slots=True)
class Reductions:
    """Which states are left out because others stand for them; none changes the verdict.

    Attributes:
        alike: states that differ in nothing but which of alike tasks is which count as one.
        alone: a step that touches nothing that other tasks touch is taken before all others.
        merged: such a step that follows another one is made one with it.
    """

    alike: bool = True
    alone: bool = True
    merged: bool = True


NO_REDUCTIONS = Reductions(alike=False, alone=False, merged=False)


class Verdict(Enum):
    """What is known afterwards."""

    NO_FREEZE = "no freeze is reachable within these bounds"
    FREEZE = "a freeze is reachable"
    NOT_COVERED = "not everything was covered, and no freeze was found in what was"


class Stopped(Enum):
    """Why an exploration ended."""

    COVERED = "all was covered"
    FREEZE = "a freeze was found"
    STATES = "the bound on states was reached"
    BYTES = "the bound on memory was reached"
    DEPTH = "the bound on depth was reached"
    INTERRUPTED = "it was interrupted"


class FreezeKind(Enum):
    """What a freeze comes to."""

    DEADLOCK = "no task can take a step"
    LIVELOCK = "some tasks go round for ever, and none that works gets done"


class Stands(Enum):
    """What a task does in a freeze."""

    RESTS = "rests"
    WAITS = "waits"
    GOES_ROUND = "goes round"


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was taken.

    Attributes:
        task: the number of the task in the system.
        step: the step.
        points: where each task stands after it.
        values: each variable's value after it, in the system's order.
    """

    task: int
    step: Step
    points: tuple[int, ...]
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """A task in a freeze.

    Attributes:
        task: the number of the task in the system.
        point: where it stands.
        how: what it does there.
        waits_for: what it waits for, in the words of its steps; empty where it does not wait.
        calls: the functions that it is in, the innermost first.
        interruptible: whether it waits in state S.
    """

    task: int
    point: int
    how: Stands
    waits_for: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    interruptible: bool = False


@dataclass(frozen=True, slots=True)
class Freeze:
    """A state from which no continuation gets the system done, and the way to it.

    Attributes:
        kind: a deadlock, or a livelock.
        way: the steps from the beginning to the end state.
        doomed_after: after so many steps of the way it could no longer be avoided; None where that was too
            much to find out.
        round: in a livelock, steps that lead from the end state to itself.
        standing: every task in the end state.
        shortest: whether no shorter way leads to a freeze; not known where not everything was covered. Of a
            livelock it is the way up to `doomed_after`.
    """

    kind: FreezeKind
    way: tuple[Taken, ...]
    doomed_after: int | None
    round: tuple[Taken, ...]
    standing: tuple[Standing, ...]
    shortest: bool

    def named(self, system: TransitionSystem) -> tuple[tuple[Program, Standing], ...]:
        """Each task with what it does in the end."""
        return tuple((system.programs[standing.task], standing) for standing in self.standing)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an exploration is.

    Attributes:
        states: the states found.
        depth: the steps from the beginning to those that are followed now.
        waiting: the states found and not yet followed.
        seconds: since it began.
        bytes: held in memory.
    """

    states: int
    depth: int
    waiting: int
    seconds: float
    bytes: int

    @property
    def states_per_second(self) -> float:
        """States found in a second, on average."""
        return self.states / self.seconds if self.seconds else 0.0


Watcher = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Exploration:
    """What was found.

    Attributes:
        system: what was explored.
        bounds, reductions: as asked.
        verdict: what is known.
        stopped: why it ended.
        freeze: the freeze that was found.
        states: the number of states found.
        deadlocks: how many of those that were followed are deadlocks.
        transitions: the number of steps that can be taken, counted over all states that were followed.
        depth: the steps from the beginning to the farthest state found.
        seconds: of the search, without what came before and after.
        bytes: held at the end for states, the set of visited ones and transitions.
        threads: the threads used.
    """

    system: TransitionSystem
    bounds: Bounds
    reductions: Reductions
    verdict: Verdict
    stopped: Stopped
    freeze: Freeze | None
    states: int
    deadlocks: int
    transitions: int
    depth: int
    seconds: float
    bytes: int
    threads: int

    @property
    def states_per_second(self) -> float:
        """States found in a second of search."""
        return self.states / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_state(self) -> float:
        """Bytes held for a state."""
        return self.bytes / self.states
