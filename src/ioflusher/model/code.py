"""Programs of tasks, written as the kernel's functions are: calls, choices, loops and waits.

A function of the kernel is a Python function that is given the `Code` of the task that calls it and writes
its steps there. What is known beforehand (a mask of an allocation, the flags of a thread, a version of the
kernel) is decided while it is written, in plain Python; what only the course of things tells becomes a
choice of steps:

    def mempool_alloc(code: Code, pool: Mempool) -> None:
        with code.call("mempool_alloc"):
            code.step("an element of the pool", {pool.free: pool.free - 1}, when=pool.free > 0,
                      waits_for="an element of the bio pool")

Calls nest, so the step above has the stack of whoever called it. There is no recursion at run time: in the
kernel PF_MEMALLOC keeps reclaim from entering itself, and here whoever writes the program does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ioflusher.model.transitions import Changes, Expression, Number, Program, Step, all_of, number

if TYPE_CHECKING:
    from ioflusher.model.plug import Plug


class Code:
    """The program of one task while it is written; `program()` is what comes of it.

    Attributes:
        flags: the PF_ flags of the thread, which functions of the kernel look at.
        group: the name of its memory control group; empty for none.
        killed: whether it has been sent SIGKILL (fatal_signal_pending()); None where it never is.
        plug: what it keeps back of what it submits, inside `ioflusher.model.plug.blk_plug`.
    """

    def __init__(self, flags: int = 0, group: str = "", killed: Expression | None = None) -> None:
        self.flags = flags
        self.group = group
        self.killed = killed
        self.plug: Plug | None = None
        self._steps: list[Step] = []
        self._points = 1
        self._at: int | None = 0  # None behind what never goes on
        self._calls: tuple[str, ...] = ()
        self._same: dict[int, int] = {}
        self._loops: list[int] = []
        self._rests: set[int] = set()

    @contextmanager
    def call(self, *names: str) -> Iterator[None]:
        """Inside functions of the kernel, the outermost first."""
        before = self._calls
        self._calls = (*reversed(names), *before)
        try:
            yield
        finally:
            self._calls = before

    @contextmanager
    def with_flags(self, flags: int) -> Iterator[None]:
        """With flags set on the task, as memalloc_noreclaim_save() to _restore() does; they nest."""
        before = self.flags
        self.flags |= flags
        try:
            yield
        finally:
            self.flags = before

    def step(
        self,
        label: str,
        changes: Changes | None = None,
        *,
        when: Expression | None = None,
        waits_for: str = "",
        interruptible: bool = False,
        takes_ns: Number | None = None,
        after_ns: Number | None = None,
        weight: int = 1,
        begins: str = "",
        completes: str = "",
        kills: str = "",
        fails: str = "",
    ) -> None:
        """One step from here on; the arguments are those of `ioflusher.model.transitions.Step`."""
        if self._at is None:
            return
        to = self._new_point()
        self._steps.append(
            Step(
                at=self._at,
                to=to,
                when=when,
                changes=tuple((variable, number(value)) for variable, value in (changes or {}).items()),
                calls=self._calls,
                label=label,
                waits_for=waits_for,
                interruptible=interruptible,
                takes_ns=None if takes_ns is None else number(takes_ns),
                after_ns=None if after_ns is None else number(after_ns),
                weight=weight,
                begins=begins,
                completes=completes,
                kills=kills,
                fails=fails,
            )
        )
        self._at = to

    def wait(self, when: Expression, waits_for: str, *, interruptible: bool = False) -> None:
        """Nothing but a wait."""
        self.step("", when=when, waits_for=waits_for, interruptible=interruptible)

    @contextmanager
    def choice(self) -> "Iterator[Ways]":
        """A choice; each of its ways begins here, and they come together behind it."""
        made = Ways(self, self._at, self._new_point())
        yield made
        self._at = made.join if made.joined else None

    @contextmanager
    def loop(self) -> Iterator[None]:
        """Again and again, until `leave`."""
        start = self._at
        if start is None:
            yield
            return
        end = self._new_point()
        self._loops.append(end)
        yield
        self._loops.pop()
        if self._at is not None:
            self._join(self._at, start)
        self._at = end if self._is_reached(end) else None

    def leave(self, loops: int = 1) -> None:
        """Go on behind the innermost loop, or behind so many of them."""
        if self._at is not None:
            self._join(self._at, self._loops[-loops])
            self._at = None

    def rest(self) -> None:
        """Here the task may stay for ever: it has nothing to do, or is done."""
        if self._at is not None:
            self._rests.add(self._at)

    def end(self) -> None:
        """Here the task is over."""
        self.rest()
        self._at = None

    def program(
        self,
        name: str,
        pid: int,
        *,
        works: bool = False,
        alike: str = "",
        daemon: bool = False,
        hardware: bool = False,
    ) -> Program:
        """The task with this program."""
        found = [replace(step, at=self._find(step.at), to=self._find(step.to)) for step in self._steps]
        rests = {self._find(point) for point in self._rests}
        if self._at is not None and works:
            rests.add(self._find(self._at))
        steps, rests = _numbered(_without_decisions(found, rests), rests)
        return Program(name, pid, self.flags, steps, frozenset(rests), works, alike, daemon, hardware)

    def _new_point(self) -> int:
        self._points += 1
        return self._points - 1

    def _join(self, point: int, other: int) -> None:
        """Make two points one, the other."""
        one, two = self._find(point), self._find(other)
        if one != two:
            self._same[one] = two

    def _find(self, point: int) -> int:
        while point in self._same:
            point = self._same[point]
        return point

    def _is_reached(self, point: int) -> bool:
        found = self._find(point)
        return any(self._find(step.to) == found for step in self._steps)


class Ways:
    """The ways of a choice, in the order in which they are asked."""

    def __init__(self, code: Code, fork: int | None, join: int) -> None:
        self._code = code
        self._fork = fork
        self._asked: Expression | None = None
        self.join = join
        self.joined = False

    @contextmanager
    def way(
        self,
        label: str = "",
        changes: Changes | None = None,
        *,
        when: Expression | None = None,
        waits_for: str = "",
        interruptible: bool = False,
        takes_ns: Number | None = None,
        after_ns: Number | None = None,
        weight: int = 1,
        begins: str = "",
    ) -> Iterator[None]:
        """A way that may be gone while its condition holds; where several hold, each of them may."""
        code = self._code
        code._at = self._fork
        code.step(
            label,
            changes,
            when=when,
            waits_for=waits_for,
            interruptible=interruptible,
            takes_ns=takes_ns,
            after_ns=after_ns,
            weight=weight,
            begins=begins,
        )
        if when is not None:
            self._asked = when if self._asked is None else self._asked | when
        yield
        if code._at is not None:
            code._join(code._at, self.join)
            self.joined = True

    @contextmanager
    def otherwise(
        self,
        label: str = "",
        changes: Changes | None = None,
        *,
        when: Expression | None = None,
        waits_for: str = "",
        takes_ns: Number | None = None,
        after_ns: Number | None = None,
    ) -> Iterator[None]:
        """The way where none of the conditions before holds (and this one does)."""
        none = self._asked.negated() if self._asked is not None else None
        with self.way(
            label,
            changes,
            when=all_of(none, when),
            waits_for=waits_for,
            takes_ns=takes_ns,
            after_ns=after_ns,
        ):
            yield


def _without_decisions(steps: list[Step], rests: set[int]) -> list[Step]:
    """The same program, where a step that only decides is one with the unconditional step behind it.

    What it would leave in between is a state in which nothing can happen but that step; a task that
    decides and acts at once is what a function without a wait in between looks like to the others.
    """
    while True:
        at: dict[int, list[Step]] = {}
        for step in steps:
            at.setdefault(step.at, []).append(step)
        for number_, step in enumerate(steps):
            behind = at.get(step.to, [])
            if (
                step.changes
                or step.waits_for
                or step.takes_ns is not None
                or step.after_ns is not None
                or step.begins
                or step.completes
                or step.kills
                or step.fails
                or len(behind) != 1
                or behind[0] is step
                or step.to in rests
                or step.at == step.to
            ):
                continue
            (then,) = behind
            if then.when is not None or then.after_ns is not None or then.to == step.to:
                continue
            steps[number_] = replace(
                then,
                at=step.at,
                when=step.when,
                label=", ".join(filter(None, (step.label, then.label))),
                weight=step.weight,
            )
            break
        else:
            return steps


def _numbered(steps: list[Step], rests: set[int]) -> tuple[tuple[Step, ...], set[int]]:
    """Only what can be reached from the beginning, points numbered from 0 in the order of the program."""
    at: dict[int, list[Step]] = {}
    for step in steps:
        at.setdefault(step.at, []).append(step)
    # the beginning may have been made one with a later point by a loop around the whole program
    first = steps[0].at if steps else 0
    numbers, waiting = {first: 0}, [first]
    while waiting:
        point = waiting.pop(0)
        for step in at.get(point, []):
            if step.to not in numbers:
                numbers[step.to] = len(numbers)
                waiting.append(step.to)
    kept = [
        replace(step, at=numbers[step.at], to=numbers[step.to])
        for point in sorted(numbers, key=numbers.__getitem__)
        for step in at.get(point, [])
    ]
    return tuple(kept), {numbers[point] for point in rests if point in numbers}
