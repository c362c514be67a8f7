"""Runs of a scenario at its full size, beside an exploration of a small instance of it.

An exploration that finds no freeze says so of its instance alone: a few requests, a few units of memory. What
takes more of them than that, such as sixteen threads all caught in reclaim, shows only at full size. A run
follows one order of steps there, so that it can show a freeze and cannot exclude one.
"""

from dataclasses import dataclass

from ioflusher.model.run import RunOutcome, run
from ioflusher.model.transitions import TransitionSystem
from ioflusher.scenario.records import Scenario

# courses of chance that are played: a run takes a tenth of a second
SEEDS = 5


@dataclass(frozen=True, slots=True)
class WholeRuns:
    """What the runs came to.

    Attributes:
        seeds: how many there were, with the seeds from 0 on.
        frozen: the seeds that froze.
    """

    seeds: int
    frozen: tuple[int, ...]


def whole_runs(scenario: Scenario, system: TransitionSystem, *, seeds: int = SEEDS) -> WholeRuns:
    """Play a system, which a scenario was built into at full size, for several seeds."""
    stalled_s = scenario.frozen.stalled_s
    outcomes = [run(system, seed=seed, stalled_s=stalled_s).outcome for seed in range(seeds)]
    return WholeRuns(seeds, tuple(seed for seed, one in enumerate(outcomes) if one is RunOutcome.FROZEN))
