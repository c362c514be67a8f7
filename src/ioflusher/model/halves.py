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
    """

    io_flusher: bool
    system: TransitionSystem
    seed: int
    result: RunResult
    steps: tuple[Happened, ...]
    first: int

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
        """Whether it came out as a scenario has it: "frozen" or "finished"."""
        wanted = {"frozen": RunOutcome.FROZEN, "finished": RunOutcome.DONE}.get(outcome)
        return self.result.outcome is wanted


def serves(program: Program) -> bool:
    """Whether it is a thread of a daemon, or a task that completes requests of a device."""
    completes = any(step.completes for step in program.steps)
    return program.daemon or (completes and not program.hardware)


def play_half(
    scenario: Scenario, *, io_flusher: bool, version: Version, seed: int = 0, samples: int = 0
) -> ModelHalf:
    """Play a half.

    Args:
        scenario: what to play.
        io_flusher: whether the daemon carries the state.
        version: of Linux.
        seed: of chance.
        samples: milliseconds of virtual time between two notes of all variables; 0 for none.

    Raises:
        IoflusherError: the model has not what the scenario is about.
    """
    system = build(scenario, io_flusher=io_flusher, version=version)
    kept = _Kept()
    result = run(
        system,
        seed=seed,
        stalled_s=scenario.frozen.stalled_s,
        sample_ns=samples * 1_000_000,
        on_step=kept.take,
    )
    steps = (*kept.before, *kept.behind)
    return ModelHalf(io_flusher, system, seed, result, steps, kept.first)


@dataclass(slots=True)
class _Kept:
    """The steps around the last completed request: a half that freezes may go on with vain steps for long."""

    before: deque[Happened] = field(default_factory=lambda: deque(maxlen=KEPT_BEFORE))
    behind: list[Happened] = field(default_factory=list)
    first: int = 0
    _taken: int = 0

    def take(self, step: Happened) -> None:
        self._taken += 1
        if len(self.behind) < KEPT_BEHIND:
            self.behind.append(step)
        if step.step.completes:
            self.before.extend(self.behind)
            self.behind.clear()
            self.first = self._taken - len(self.before)
