"""A scenario explored: both halves, small, each beside runs of the whole."""

from dataclasses import dataclass

from ioflusher.kernel.task_flags import Version
from ioflusher.model.build import build
from ioflusher.model.explore import (
    Bounds,
    Exploration,
    FreezeKind,
    ModelError,
    Reductions,
    Verdict,
    Watcher,
    explore,
)
from ioflusher.model.run import RunOutcome, follow
from ioflusher.model.scale import Scale
from ioflusher.model.whole import WholeRuns, whole_runs
from ioflusher.scenario.records import Scenario


@dataclass(frozen=True, slots=True)
class ExploredHalf:
    """One half of a scenario with every order of its steps.

    Attributes:
        io_flusher: whether the daemon carries the state.
        scale: how large an instance was explored.
        exploration: what was found.
        whole: what runs at full size came to.
    """

    io_flusher: bool
    scale: Scale
    exploration: Exploration
    whole: WholeRuns

    @property
    def name(self) -> str:
        """ "with" or "without" the state."""
        return "with" if self.io_flusher else "without"

    def came_out_as(self, outcome: str) -> bool:
        """Whether it came out as a scenario has it: "frozen" or "finished".

        A freeze at full size is one, too: it may take more than the small instance has. What was not covered
        came out as nothing.
        """
        verdict = self.exploration.verdict
        if verdict is Verdict.NOT_COVERED:
            return False
        frozen = verdict is Verdict.FREEZE or bool(self.whole.frozen)
        return outcome == ("frozen" if frozen else "finished")


def explore_half(
    scenario: Scenario,
    *,
    io_flusher: bool,
    version: Version,
    scale: Scale,
    bounds: Bounds,
    reductions: Reductions,
    threads: int = 1,
    watch: Watcher | None = None,
) -> ExploredHalf:
    """Explore a half, and play it at full size; the way to a freeze is gone once more by the engine of runs.

    Raises:
        IoflusherError: the model has not what the scenario is about.
        ModelError: the engine of runs cannot go that way, or ends elsewhere.
    """
    system = build(scenario, io_flusher=io_flusher, version=version, scale=scale)
    found = explore(system, bounds, reductions=reductions, threads=threads, watch=watch)
    replay(found)
    whole = build(scenario, io_flusher=io_flusher, version=version)
    return ExploredHalf(io_flusher, scale, found, whole_runs(scenario, whole))


def replay(found: Exploration) -> None:
    """Go the way to a freeze, step by step, as `ioflusher model run` takes steps: another judge of it.

    Raises:
        ModelError: a step cannot be taken, or what comes of all of them is not that freeze.
    """
    freeze = found.freeze
    if freeze is None:
        return
    way = (*freeze.way, *freeze.round)
    end = follow(found.system, ((taken.task, taken.step) for taken in way))
    if way and tuple(end.values.values()) != way[-1].values:
        raise ModelError(f"{found.system.name}: a run of the way to the freeze ends in another state")
    stuck = freeze.kind is FreezeKind.DEADLOCK
    if end.outcome is not (RunOutcome.FROZEN if stuck else RunOutcome.OUT_OF_TIME):
        raise ModelError(f"{found.system.name}: a run of the way to the freeze is {end.outcome.value}")
