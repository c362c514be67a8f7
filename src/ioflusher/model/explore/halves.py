"""A scenario explored: both halves, small."""

from dataclasses import dataclass

from ioflusher.kernel.task_flags import Version
from ioflusher.model.build import build
from ioflusher.model.explore import Bounds, Exploration, Reductions, Verdict, Watcher, explore
from ioflusher.model.scale import Scale
from ioflusher.scenario.records import Scenario


@dataclass(frozen=True, slots=True)
class ExploredHalf:
    """One half of a scenario with every order of its steps.

    Attributes:
        io_flusher: whether the daemon carries the state.
        scale: how large an instance was explored.
        exploration: what was found.
    """

    io_flusher: bool
    scale: Scale
    exploration: Exploration

    @property
    def name(self) -> str:
        """ "with" or "without" the state."""
        return "with" if self.io_flusher else "without"

    def came_out_as(self, outcome: str) -> bool:
        """Whether it came out as a scenario has it: "frozen" or "finished"."""
        wanted = {"frozen": Verdict.FREEZE, "finished": Verdict.NO_FREEZE}.get(outcome)
        return self.exploration.verdict is wanted


def explore_half(
    scenario: Scenario,
    *,
    io_flusher: bool,
    version: Version,
    scale: Scale,
    bounds: Bounds,
    reductions: Reductions,
    threads: int | None = None,
    watch: Watcher | None = None,
) -> ExploredHalf:
    """Explore a half.

    Raises:
        IoflusherError: the model has not what the scenario is about.
    """
    system = build(scenario, io_flusher=io_flusher, version=version, scale=scale)
    found = explore(system, bounds, reductions=reductions, threads=threads, watch=watch)
    return ExploredHalf(io_flusher, scale, found)
