"""A scenario played in the model: both halves, each with the steps around its end."""

from collections import deque
from dataclasses import dataclass, field

from ioflusher.kernel.task_flags import Version
from ioflusher.model.build import build
from ioflusher.model.run import Happened, RunOutcome, RunResult, Waiting, run
from ioflusher.model.transitions import Program, TransitionSystem
from ioflusher.model.waiting import wait_cycle
from ioflusher.scenario.records import Scenario

# steps that are kept up to the last completed request, and behind it
KEPT_BEFORE, KEPT_BEHIND = 400, 600


@dataclass(frozen=True, slots=True)
class ModelHalf:
    """One half of a scenario as the model plays it.

    Attributes:
        io_flusher: whether the daemon carries the state.
        system: what was played.
        seed: of chance.
        result: what it came to.
        steps: those around its end: the last ones up to the last completed request, and what came behind it.
        first: how many steps were taken before those.
        points: where each task stood before the first of them.
        turn: how many of them there are up to the last completed request, or to the time that was asked for.
    """

    io_flusher: bool
    system: TransitionSystem
    seed: int
    result: RunResult
    steps: tuple[Happened, ...]
    first: int
    points: tuple[int, ...]
    turn: int

    @property
    def name(self) -> str:
        """ "with" or "without" the state."""
        return "with" if self.io_flusher else "without"

    @property
    def frozen(self) -> bool:
        """Whether it froze."""
        return self.result.outcome is RunOutcome.FROZEN

    @property
    def cycle(self) -> tuple[Waiting, ...]:
        """The tasks that wait for one another, each for the next one; empty where none do, or it lives."""
        if not self.frozen:
            return ()
        waiting = {task.pid: task for task in self.result.waiting}
        behind = {pid: task.behind for pid, task in waiting.items()}
        daemons = [program.pid for program in self.system.programs if serves(program)]
        return tuple(waiting[pid] for pid in wait_cycle(behind, [pid for pid in daemons if pid in waiting]))

    def came_out_as(self, outcome: str) -> bool:
        """Whether it came out as a scenario has it: "frozen", "finished" or "out of memory"."""
        wanted = {
            "frozen": RunOutcome.FROZEN,
            "finished": RunOutcome.DONE,
            "out of memory": RunOutcome.OUT_OF_MEMORY,
        }
        return self.result.outcome is wanted.get(outcome)


def daemons_of(half: ModelHalf) -> tuple[str, ...]:
    """Names of the tasks in the circle that a log may not show to be daemons; kernel threads are none."""
    names = (task.program for task in half.cycle)
    return tuple(dict.fromkeys(name for name in names if not name.startswith(("kworker/", "kswapd"))))


def serves(program: Program) -> bool:
    """Whether it is a thread of a daemon, or a task that completes requests of a device."""
    completes = any(step.completes for step in program.steps)
    return program.daemon or (completes and not program.hardware)


def play_half(
    scenario: Scenario,
    *,
    io_flusher: bool,
    version: Version,
    seed: int = 0,
    sample_ns: int = 0,
    around_ns: int | None = None,
) -> ModelHalf:
    """Play a half.

    Args:
        scenario: what to play.
        io_flusher: whether the daemon carries the state.
        version: of Linux.
        seed: of chance.
        sample_ns: virtual time between two notes of all variables; 0 for none.
        around_ns: the time around which steps are kept; None for the last completed request.

    Raises:
        IoflusherError: the model has not what the scenario is about.
    """
    system = build(scenario, io_flusher=io_flusher, version=version)
    kept = _Kept([0] * len(system.programs), [0] * len(system.programs), around_ns)
    result = run(
        system,
        seed=seed,
        stalled_s=scenario.frozen.stalled_s,
        sample_ns=sample_ns,
        on_step=kept.take,
    )
    steps = (*kept.before, *kept.behind)
    return ModelHalf(
        io_flusher, system, seed, result, steps, kept.first, tuple(kept.points), len(kept.before)
    )


def play_halves(scenario: Scenario, *, version: Version, seed: int = 0) -> tuple[ModelHalf, ModelHalf]:
    """Both halves; where the one without the state freezes, the steps of the other are those of that time.

    The arguments are those of `play_half`.
    """
    without = play_half(scenario, io_flusher=False, version=version, seed=seed)
    last = max(without.result.last_completed_ns.values(), default=0) if without.frozen else None
    with_ = play_half(scenario, io_flusher=True, version=version, seed=seed, around_ns=last)
    return without, with_


def sampled(scenario: Scenario, half: ModelHalf, *, samples: int = 800) -> ModelHalf:
    """The same half, played once more, with so many notes of its variables over its time."""
    version = half.system.version.split(".")
    return play_half(
        scenario,
        io_flusher=half.io_flusher,
        version=(int(version[0]), int(version[1])),
        seed=half.seed,
        sample_ns=max(1, half.result.at_ns // samples),
    )


@dataclass(slots=True)
class _Kept:
    """The steps around a time; a half that freezes may go on with vain steps for long.

    Attributes:
        now: where the tasks stand.
        points: where they stood before the first step that is kept.
        around_ns: the time; None for that of the last completed request.
        first: how many steps were taken before.
    """

    now: list[int]
    points: list[int]
    around_ns: int | None
    before: deque[Happened] = field(default_factory=deque)
    behind: list[Happened] = field(default_factory=list)
    first: int = 0
    _taken: int = 0
    _left_out: bool = False

    def take(self, step: Happened) -> None:
        """Keep a step, as long as it is one of those."""
        late = bool(step.step.completes) if self.around_ns is None else step.at_ns <= self.around_ns
        if late and self._left_out:  # too many steps since the last one: what is kept begins here
            self.before.clear()
            self.behind.clear()
            self.points, self.first, self._left_out = list(self.now), self._taken, False
        if len(self.behind) < KEPT_BEHIND:
            self.behind.append(step)
        else:
            self._left_out = True
        self.now[step.program] = step.step.to
        self._taken += 1
        if late:
            self.before.extend(self.behind)
            self.behind.clear()
            while len(self.before) > KEPT_BEFORE:
                gone = self.before.popleft()
                self.points[gone.program] = gone.step.to
                self.first += 1
