"""A cell's halves, counted: how often frozen, lived or otherwise, with confidence intervals. Pure.

Needs the extra `ioflusher[lab]` for the intervals (scipy).
"""

import importlib.util
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ioflusher.lab.errors import LabError
from ioflusher.lab.outcome import Half, half_words

CONFIDENCE = 0.95


def check_statistics() -> None:
    """See, before there is anything to count, that intervals can be computed.

    Raises:
        LabError: the package is missing.
    """
    if importlib.util.find_spec("scipy") is None:
        raise LabError(
            "confidence intervals need a package that is not installed: scipy",
            hint="pip install 'ioflusher[lab]'",
        )


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something was seen.

    Attributes:
        count: how often.
        of: of so many.
    """

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the probability lies with 95 % confidence: Clopper and Pearson's exact interval.

        None where nothing was looked at.
        """
        from scipy.stats import binomtest

        if not self.of:
            return None
        found = binomtest(self.count, self.of).proportion_ci(CONFIDENCE, method="exact")
        return float(found.low), float(found.high)


@dataclass(frozen=True, slots=True)
class Spread:
    """The least and the most of what was counted or measured in several halves."""

    least: float
    most: float


@dataclass(frozen=True, slots=True)
class NearMissTally:
    """How near the daemon came to waiting for itself in halves that lived; None: no half knows it.

    Attributes:
        halves: of so many halves something is known.
        reclaim_with_io: entries into direct reclaim with I/O allowed.
        dirty_paused_s: seconds that its threads were throttled on dirty pages.
        throttled_s: seconds that they slept in reclaim.
        slowest_request_s: the device's slowest request.
        lower_bounds: whether a kernel dropped events, so that there may have been more.
    """

    halves: int
    reclaim_with_io: Spread | None
    dirty_paused_s: Spread | None
    throttled_s: Spread | None
    slowest_request_s: Spread | None
    lower_bounds: bool


def _spread(values: Iterable[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread(min(known), max(known)) if known else None


@dataclass(frozen=True, slots=True)
class HalfTally:
    """The halves of one cell that have the state, or of those that do not.

    Attributes:
        io_flusher: which.
        halves: all that were measured, in no particular order.
    """

    io_flusher: bool
    halves: tuple[Half, ...] = ()

    @property
    def frozen(self) -> Rate:
        """Those whose device froze and whose daemon was seen waiting for itself."""
        return Rate(sum(half.froze_by_itself for half in self.halves), len(self.halves))

    @property
    def lived(self) -> Rate:
        """Those that finished the work with every byte as it was written."""
        return Rate(sum(half.lived for half in self.halves), len(self.halves))

    @property
    def other(self) -> Rate:
        """Those that did neither: `other_words` says what."""
        return Rate(len(self.halves) - self.frozen.count - self.lived.count, len(self.halves))

    @property
    def other_words(self) -> tuple[tuple[str, int], ...]:
        """What the others did, and how often."""
        others = (half for half in self.halves if not (half.froze_by_itself or half.lived))
        return tuple(Counter(half_words(half) for half in others).most_common())

    @property
    def froze_after_s(self) -> tuple[float, ...]:
        """Seconds from the workload's begin to where the device stood still, of the frozen, in order."""
        return tuple(sorted(half.when_s for half in self.halves if half.froze_by_itself))

    @property
    def lived_after_s(self) -> tuple[float, ...]:
        """Seconds from the workload's begin to its end, of those that lived, in order."""
        return tuple(sorted(half.when_s for half in self.halves if half.lived))

    @property
    def near_misses(self) -> NearMissTally | None:
        """How near those that lived came to freezing; None where nothing is known of it."""
        known = [half.near_misses for half in self.halves if half.lived and half.near_misses]
        if not known:
            return None
        return NearMissTally(
            len(known),
            _spread(one.reclaim_with_io() for one in known),
            _spread(one.dirty_paused_s for one in known),
            _spread(one.throttled_s for one in known),
            _spread(one.longest_request_s for one in known),
            any(one.events_lost for one in known),
        )


@dataclass(frozen=True, slots=True)
class CellTally:
    """Both halves of a cell."""

    without: HalfTally
    with_: HalfTally

    def half(self, io_flusher: bool) -> HalfTally:
        """The halves with the state, or those without."""
        return self.with_ if io_flusher else self.without


def tally(halves: tuple[Half, ...]) -> CellTally:
    """The halves of a cell, sorted by whether their daemon had the state."""
    return CellTally(
        HalfTally(False, tuple(half for half in halves if not half.io_flusher)),
        HalfTally(True, tuple(half for half in halves if half.io_flusher)),
    )
