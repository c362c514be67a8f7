"""A scenario explored: both halves, small, each beside runs of the whole."""

from dataclasses import dataclass

from ioflusher.kernel.task_flags import Version
from ioflusher.model.build import build
from ioflusher.model.explore import Bounds, Exploration, Reductions, Verdict, Watcher, explore
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
    """Explore a half, and play it at full size.

    Raises:
        IoflusherError: the model has not what the scenario is about.
    """
    system = build(scenario, io_flusher=io_flusher, version=version, scale=scale)
    found = explore(system, bounds, reductions=reductions, threads=threads, watch=watch)
    whole = build(scenario, io_flusher=io_flusher, version=version)
    return ExploredHalf(io_flusher, scale, found, whole_runs(scenario, whole))
