"""Every order of steps of a small system, by the plainest program that does it, to judge `explore` by."""

from dataclasses import dataclass

from ioflusher.model.transitions import SCALAR_NAMES, Expression, Step, TransitionSystem

State = tuple[tuple[int, ...], tuple[int, ...]]  # the points, the values


@dataclass
class Found:
    """What there is.

    Attributes:
        depth: of every state.
        following: of every state.
        doomed: the states from which the system cannot get done.
        transitions: the number of steps that can be taken in some state.
    """

    depth: dict[State, int]
    following: dict[State, list[State]]
    doomed: set[State]
    transitions: int


def beginning(system: TransitionSystem) -> State:
    """The first state."""
    return (0,) * len(system.programs), tuple(variable.initial for variable in system.variables)


def value(system: TransitionSystem, expression: Expression, values: tuple[int, ...]) -> int:
    """An expression in a state."""
    names = {variable.name: number for variable, number in zip(system.variables, values, strict=True)}
    return int(eval(expression.text, {**SCALAR_NAMES, **names}))


def taken(system: TransitionSystem, state: State, task: int, step: Step) -> State | None:
    """The state after a step; None where it cannot be taken."""
    points, values = state
    if points[task] != step.at or (step.when is not None and not value(system, step.when, values)):
        return None
    new = list(values)
    for variable, changed in step.changes:
        new[system.variables.index(variable)] = value(system, changed, values)
    return (*points[:task], step.to, *points[task + 1 :]), tuple(new)


def done(system: TransitionSystem, state: State) -> bool:
    """Whether every task that works rests."""
    return all(
        point in task.rests for task, point in zip(system.programs, state[0], strict=True) if task.works
    )


def search(system: TransitionSystem) -> Found:
    """All of it."""
    first = beginning(system)
    depth, following, queue = {first: 0}, {}, [first]
    transitions = 0
    for state in queue:
        following[state] = [
            after
            for number, task in enumerate(system.programs)
            for step in task.steps
            if (after := taken(system, state, number, step)) is not None
        ]
        transitions += len(following[state])
        for after in following[state]:
            if after not in depth:
                depth[after] = depth[state] + 1
                queue.append(after)
    saved = {state for state in depth if done(system, state)}
    while more := {state for state in depth if state not in saved and saved.intersection(following[state])}:
        saved |= more
    return Found(depth, following, set(depth) - saved, transitions)
