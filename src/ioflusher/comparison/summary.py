"""What became of one half of a scenario over several runs: on real kernels, or in the model."""

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FigureSpread:
    """A figure over several runs.

    Attributes:
        lowest, median, highest: in the unit of the figure.
    """

    lowest: float
    median: float
    highest: float


@dataclass(frozen=True, slots=True)
class HalfRun:
    """One run of a half.

    Attributes:
        outcome: "frozen", "finished", or what else it was.
        frozen_after_s: seconds from the workload's begin to the last completed request, where it froze.
        longest_request_s: seconds without a completed request, or of the longest one; None for unknown.
        waits: what the stacks of the daemon's threads say where it froze, values of
            `ioflusher.kernlog.stacks.waits.StackKind`.
    """

    outcome: str
    frozen_after_s: float | None = None
    longest_request_s: float | None = None
    waits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HalfSummary:
    """A half over its runs.

    Attributes:
        runs: how many.
        outcomes: how many of each outcome, the most frequent first.
        frozen_after_s, longest_request_s: over the runs that have them; None for none.
        waits: in how many frozen runs a thread of the daemon stood in each kind of wait.
    """

    runs: int
    outcomes: tuple[tuple[str, int], ...]
    frozen_after_s: FigureSpread | None
    longest_request_s: FigureSpread | None
    waits: tuple[tuple[str, int], ...]

    def share(self, outcome: str) -> float:
        """Which part of the runs came out so; 0 where there is none."""
        return dict(self.outcomes).get(outcome, 0) / self.runs if self.runs else 0.0


def summary(runs: Iterable[HalfRun]) -> HalfSummary:
    """The runs of a half as one."""
    runs = tuple(runs)
    waits = Counter(kind for one in runs for kind in set(one.waits))
    return HalfSummary(
        runs=len(runs),
        outcomes=tuple(Counter(one.outcome for one in runs).most_common()),
        frozen_after_s=_spread(one.frozen_after_s for one in runs),
        longest_request_s=_spread(one.longest_request_s for one in runs),
        waits=tuple(waits.most_common()),
    )


def _spread(figures: Iterable[float | None]) -> FigureSpread | None:
    known = sorted(figure for figure in figures if figure is not None)
    if not known:
        return None
    return FigureSpread(known[0], statistics.median(known), known[-1])
