"""What a daemon needs in order not to freeze: which hardening is necessary, which is enough, how large a
reserve.

Each combination of the measures is explored, so the answer is not what a run happened to do: a combination is
enough if no freeze can be reached within the bounds, and it is not if there is a way to one, which is told. A
measure is necessary if no combination without it is enough.

The reserve is memory below the min watermark that the daemon alone may use: real-time tasks may have half
of it (ALLOC_MIN_RESERVE, mm/page_alloc.c). Its size is counted in requests, what a daemon holds for one.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from ioflusher.kernel.task_flags import Version
from ioflusher.model.build import build
from ioflusher.model.explore import Bounds, Exploration, Verdict, explore
from ioflusher.model.scale import Scale, small
from ioflusher.model.transitions import TransitionSystem
from ioflusher.scenario.records import Scenario

# of a real-time task's reserve, from the smallest on
LARGEST_RESERVE = 4
# BLK_DEF_MAX_SECTORS_CAP, include/linux/blkdev.h: 2,560 sectors, where the driver allows as much
LARGEST_REQUEST = 1280 << 10


class Measure(Enum):
    """What can be done for a daemon."""

    STATE = "the state"
    REALTIME = "real time and a reserve"
    LOCKED = "locked memory"


@dataclass(frozen=True, slots=True)
class TriedMeasures:
    """A combination of measures and what was found.

    Attributes:
        measures: those that were taken.
        exploration: with the way to a freeze, where there is one.
    """

    measures: frozenset[Measure]
    exploration: Exploration

    @property
    def enough(self) -> bool:
        """Whether no freeze can be reached."""
        return self.exploration.verdict is Verdict.NO_FREEZE

    @property
    def known(self) -> bool:
        """Whether everything was covered, or a freeze found."""
        return self.exploration.verdict in (Verdict.NO_FREEZE, Verdict.FREEZE)


@dataclass(frozen=True, slots=True)
class Sizing:
    """What a scenario's daemon needs.

    Attributes:
        scenario: its name. version: of Linux. scale: the instance that was explored. tried: every
        combination. reserve: the requests for which a reserve suffices where real-time scheduling is the
        only measure; None
            where none of those that were tried does.
        reserves: what was explored for that, from the smallest reserve on.
    """

    scenario: str
    version: Version
    scale: Scale
    tried: tuple[TriedMeasures, ...]
    reserve: int | None
    reserves: tuple[Exploration, ...]

    @property
    def sufficient(self) -> tuple[frozenset[Measure], ...]:
        """The smallest combinations that are enough: none of them has a smaller one in it that is, too."""
        enough = [one.measures for one in self.tried if one.enough]
        return tuple(one for one in enough if not any(other < one for other in enough))

    @property
    def necessary(self) -> frozenset[Measure]:
        """The measures that every combination has that is enough; none where none is."""
        enough = [one.measures for one in self.tried if one.enough]
        return frozenset.intersection(*enough) if enough else frozenset()

    @property
    def known(self) -> bool:
        """Whether the answer covers everything."""
        return all(one.known for one in self.tried)

    @property
    def reserve_bytes(self) -> int | None:
        """Bytes of the reserve, for requests as large as the block layer makes them."""
        return None if self.reserve is None else self.reserve * LARGEST_REQUEST


def size(
    scenario: Scenario,
    *,
    version: Version,
    scale: Scale | None = None,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
    on_tried: Callable[[TriedMeasures], None] = lambda tried: None,
) -> Sizing:
    """Explore every combination of the measures.

    Args:
        scenario: whose daemon is asked about; its own hardening does not count.
        version: of Linux.
        scale: the instance; None for `ioflusher.model.scale.small`.
        bounds: of each exploration.
        on_tried: told each one.

    Raises:
        IoflusherError: the model has not what the scenario is about.
    """
    scale = scale or small(scenario)
    explored: dict[str, Exploration] = {}

    def look(measures: frozenset[Measure], requests: int = 1) -> Exploration:
        system = _hardened(scenario, measures, requests, version, scale)
        key = repr((system.variables, [variable.initial for variable in system.variables], system.programs))
        if key not in explored:  # a measure that changes nothing need not be explored again
            explored[key] = explore(system, bounds)
        return explored[key]

    tried = []
    for measures in _combinations():
        found = TriedMeasures(measures, look(measures))
        on_tried(found)
        tried.append(found)
    reserves: list[Exploration] = []
    reserve = None
    for requests in range(1, LARGEST_RESERVE + 1):
        reserves.append(look(frozenset((Measure.REALTIME,)), requests))
        if reserves[-1].verdict is Verdict.NO_FREEZE:
            reserve = requests
            break
    return Sizing(scenario.name, version, scale, tuple(tried), reserve, tuple(reserves))


def _combinations() -> Iterator[frozenset[Measure]]:
    """All combinations, the smallest first."""
    measures = list(Measure)
    for number in range(len(measures) + 1):
        for chosen in itertools.combinations(measures, number):
            yield frozenset(chosen)


def _hardened(
    scenario: Scenario, measures: frozenset[Measure], reserve: int, version: Version, scale: Scale
) -> TransitionSystem:
    realtime = Measure.REALTIME in measures
    units = realtime_part(version) * reserve if realtime else 1
    hardening = replace(
        scenario.hardening,
        realtime=1 if realtime else 0,
        lock_memory=Measure.LOCKED in measures,
        min_free_kbytes=units * scale.unit_bytes // 1024,
    )
    hardened = replace(scenario, hardening=hardening)
    return build(hardened, io_flusher=Measure.STATE in measures, version=version, scale=scale)


def realtime_part(version: Version) -> int:
    """How many times what a real-time task may have lies below the min watermark: a half of it, a quarter
    before.

    1ebbb21811b7 "mm/page_alloc: explicitly define how __GFP_HIGH non-blocking allocations accesses
    reserves" (6.3).
    """
    return 2 if version >= (6, 3) else 4
