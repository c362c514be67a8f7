"""Everything that can happen in a system of tasks: whether a freeze can be reached, and by which way.

`explore(system)` follows every order of steps. It answers that no freeze is reachable within the bounds that
the system's own sizes are, or the shortest way to one, or that not everything was covered.

A *freeze* is a state from which no continuation gets the system done, that is, every task that works to a
point of rest: a deadlock, in which nobody can take a step, or a livelock, in which tasks go round for ever (a
daemon that is paused, looks again and is paused again). In the terms of temporal logic, it holds that
AG EF done. Time does not count: a step takes any time, and a time-out may come at once or never.
"""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet

from ioflusher.model.explore.doomed import doomed_states
from ioflusher.model.explore.expand import Expander
from ioflusher.model.explore.layout import layout_of
from ioflusher.model.explore.moves import moves_of
from ioflusher.model.explore.records import (
    NO_REDUCTIONS,
    Bounds,
    Exploration,
    Freeze,
    FreezeKind,
    Progress,
    Reductions,
    Standing,
    Stands,
    Stopped,
    Taken,
    Verdict,
    Watcher,
)
from ioflusher.model.explore.search import StateSearch
from ioflusher.model.explore.way import Walk, deadlock, livelock
from ioflusher.model.run import ModelError
from ioflusher.model.transitions import TransitionSystem

__all__ = [
    "NO_REDUCTIONS",
    "Bounds",
    "Exploration",
    "Freeze",
    "FreezeKind",
    "ModelError",
    "Progress",
    "Reductions",
    "Standing",
    "Stands",
    "Stopped",
    "Taken",
    "Verdict",
    "Watcher",
    "explore",
]

MOST_THREADS = 64


def explore(
    system: TransitionSystem,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
    *,
    reductions: Reductions = Reductions(),  # noqa: B008 - frozen
    threads: int = 1,
    whole: bool = False,
    watch: Watcher | None = None,
    watch_seconds: float = 0.25,
) -> Exploration:
    """Follow every order of steps of a system.

    Ctrl-C ends the search; what it covered is returned.

    Args:
        bounds: how far to go.
        reductions: which states may stand for others.
        whole: go on when a deadlock was found, for the number of all states.
        threads: how many. One is the fastest where levels are small; where they have many thousands of states
            two are as fast (docs/benchmarks.md).
        watch: called with the progress, every so often.
        watch_seconds: how often.

    Raises:
        ModelError: a step leaves the range of a variable; the message has the step and the state.
    """
    exploring = _Exploring(system, bounds, reductions, max(1, min(threads, MOST_THREADS)), whole=whole)
    with ThreadPoolExecutor(1) as pool:
        # in another thread, so that Ctrl-C cannot end it between two of its steps
        running = pool.submit(exploring.run)
        while True:
            try:
                return _wait(running, exploring, watch, watch_seconds)
            except KeyboardInterrupt:
                exploring.stop.set()


def _wait(
    running: "Future[Exploration]", exploring: "_Exploring", watch: Watcher | None, seconds: float
) -> Exploration:
    while True:
        try:
            return running.result(seconds)
        except NotYet:
            if running.done():
                raise
            if watch is not None:
                watch(exploring.search.progress())


class _Exploring:
    def __init__(
        self, system: TransitionSystem, bounds: Bounds, reductions: Reductions, threads: int, *, whole: bool
    ) -> None:
        moves = moves_of(system, reductions)
        points = [
            1 + max((0, *(step.at for step in task.steps), *(step.to for step in task.steps), *task.rests))
            for task in system.programs
        ]
        self.stop = threading.Event()
        self._expander = Expander(system, layout_of(system, points), moves)
        self._bounds = bounds
        self._reductions = reductions
        self._threads = threads
        self.search = StateSearch(self._expander, bounds, threads, self.stop, whole=whole)

    def _until_done(self, states: int) -> StateSearch:
        bounds = Bounds(min(states, self._bounds.states), self._bounds.bytes)
        return StateSearch(self._expander, bounds, self._threads, self.stop, until_done=True)

    def run(self) -> Exploration:
        expander, bounds = self._expander, self._bounds
        graph = self.search.run(Walk(expander).row)
        freeze = None
        if graph.stuck:
            freeze = deadlock(graph, expander, self._until_done)
        else:
            doomed, arrows = doomed_states(graph, expander)
            if len(doomed):
                freeze = livelock(graph, expander, doomed, arrows, covered=graph.stopped is Stopped.COVERED)
        if freeze is not None:
            verdict = Verdict.FREEZE
        else:
            verdict = Verdict.NO_FREEZE if graph.stopped is Stopped.COVERED else Verdict.NOT_COVERED
        return Exploration(
            system=expander.system,
            bounds=bounds,
            reductions=self._reductions,
            verdict=verdict,
            stopped=graph.stopped,
            freeze=freeze,
            states=graph.states,
            deadlocks=graph.deadlocks,
            transitions=graph.transitions,
            depth=len(graph.levels) - 1,
            seconds=graph.seconds,
            bytes=graph.bytes,
            threads=self._threads,
        )
