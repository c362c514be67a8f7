"""What a daemon needs in order not to freeze: which hardening is necessary, which is enough, how large a
reserve.

Each combination of the measures is explored, so the answer is not what a run happened to do: a combination is
not enough if there is a way to a freeze, which is told. Where there is none, the instance may have been too
small for it, so the scenario is played at full size as well: a combination is enough if no freeze can be
reached within the bounds and no run of the whole freezes. A measure is necessary if every combination without
it is known not to be enough.

The reserve is memory below the min watermark that the daemon alone may use: real-time tasks may have half
of it (ALLOC_MIN_RESERVE, mm/page_alloc.c). Its size is counted in requests, what a daemon holds for one.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from ioflusher.kernel.task_flags import Version
from ioflusher.model.build import build, min_free_bytes
from ioflusher.model.explore import Bounds, Exploration, Stopped, Verdict, explore
from ioflusher.model.scale import FULL, Scale, small
from ioflusher.model.transitions import TransitionSystem
from ioflusher.model.versions import holds
from ioflusher.model.whole import WholeRuns, whole_runs
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
        exploration: of a small instance, with the way to a freeze, where there is one.
        whole: runs at full size; None where the exploration found a freeze, or was interrupted.
    """

    measures: frozenset[Measure]
    exploration: Exploration
    whole: WholeRuns | None

    @property
    def enough(self) -> bool:
        """Whether no freeze can be reached, and none came at full size."""
        return (
            self.exploration.verdict is Verdict.NO_FREEZE and self.whole is not None and not self.whole.frozen
        )

    @property
    def known(self) -> bool:
        """Whether everything was covered, or a freeze found."""
        if self.whole is not None and self.whole.frozen:
            return True
        return self.exploration.verdict in (Verdict.NO_FREEZE, Verdict.FREEZE)


@dataclass(frozen=True, slots=True)
class Sizing:
    """What a scenario's daemon needs.

    Attributes:
        scenario: its name. version: of Linux. scale: the instance that was explored. tried: every
            combination.
        reserve: the requests for which a reserve suffices where real-time scheduling is the only measure;
            None where none of those that were tried does.
        reserves: what was tried for that, from the smallest reserve on.
    """

    scenario: str
    version: Version
    scale: Scale
    tried: tuple[TriedMeasures, ...]
    reserve: int | None
    reserves: tuple[TriedMeasures, ...]

    @property
    def sufficient(self) -> tuple[frozenset[Measure], ...]:
        """The smallest combinations that are enough: none of them has a smaller one in it that is, too."""
        enough = [one.measures for one in self.tried if one.enough]
        return tuple(one for one in enough if not any(other < one for other in enough))

    @property
    def necessary(self) -> frozenset[Measure]:
        """The measures without which nothing is enough, as far as that is known; none where nothing is."""
        if self.interrupted or not any(one.enough for one in self.tried):
            return frozenset()
        perhaps = [one.measures for one in self.tried if one.enough or not one.known]
        return frozenset.intersection(*perhaps)

    @property
    def known(self) -> bool:
        """Whether the answer covers everything."""
        return not self.interrupted and all(one.known for one in self.tried)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it, with the combinations that it had come to."""
        return any(one.exploration.stopped is Stopped.INTERRUPTED for one in (*self.tried, *self.reserves))

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
    """Explore every combination of the measures, and play those in which no freeze was found at full size.

    Ctrl-C ends it; what was tried by then is returned.

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
    played: dict[str, WholeRuns] = {}

    def look(measures: frozenset[Measure], requests: int = 1) -> TriedMeasures:
        # a measure that changes nothing need not be explored again, nor played
        system = _small(scenario, measures, requests, version, scale)
        if (key := _key(system)) not in explored:
            explored[key] = explore(system, bounds)
        if explored[key].freeze is not None or explored[key].stopped is Stopped.INTERRUPTED:
            return TriedMeasures(measures, explored[key], None)
        whole = _whole(scenario, measures, requests, version)
        if (whole_key := _key(whole)) not in played:
            played[whole_key] = whole_runs(scenario, whole)
        return TriedMeasures(measures, explored[key], played[whole_key])

    tried: list[TriedMeasures] = []
    reserves: list[TriedMeasures] = []
    reserve = None
    for measures in _combinations():
        tried.append(look(measures))
        on_tried(tried[-1])
        if tried[-1].exploration.stopped is Stopped.INTERRUPTED:
            return Sizing(scenario.name, version, scale, tuple(tried), None, ())
    for requests in range(1, LARGEST_RESERVE + 1):
        reserves.append(look(frozenset((Measure.REALTIME,)), requests))
        if reserves[-1].enough:
            reserve = requests
            break
        if reserves[-1].exploration.stopped is Stopped.INTERRUPTED:
            break
    return Sizing(scenario.name, version, scale, tuple(tried), reserve, tuple(reserves))


def _key(system: TransitionSystem) -> str:
    return repr((system.variables, [variable.initial for variable in system.variables], system.programs))


def _combinations() -> Iterator[frozenset[Measure]]:
    """All combinations, the smallest first."""
    measures = list(Measure)
    for number in range(len(measures) + 1):
        for chosen in itertools.combinations(measures, number):
            yield frozenset(chosen)


def _small(
    scenario: Scenario, measures: frozenset[Measure], reserve: int, version: Version, scale: Scale
) -> TransitionSystem:
    """The instance that is explored: without a reserve the min watermark is a unit."""
    units = realtime_part(version) * reserve if Measure.REALTIME in measures else 1
    return _hardened(scenario, measures, units * scale.unit_bytes, version, scale)


def _whole(
    scenario: Scenario, measures: frozenset[Measure], reserve: int, version: Version
) -> TransitionSystem:
    """The scenario at full size, with a reserve as the answer has it: so much more than it has by itself."""
    least = min_free_bytes(replace(scenario, hardening=replace(scenario.hardening, min_free_kbytes=None)))
    if Measure.REALTIME in measures:
        least += realtime_part(version) * reserve * LARGEST_REQUEST
    return _hardened(scenario, measures, least, version, FULL)


def _hardened(
    scenario: Scenario, measures: frozenset[Measure], min_free: int, version: Version, scale: Scale
) -> TransitionSystem:
    hardening = replace(
        scenario.hardening,
        realtime=1 if Measure.REALTIME in measures else 0,
        lock_memory=Measure.LOCKED in measures,
        min_free_kbytes=min_free // 1024,
    )
    hardened = replace(scenario, hardening=hardening)
    return build(hardened, io_flusher=Measure.STATE in measures, version=version, scale=scale)


def realtime_part(version: Version) -> int:
    """How many times what a real-time task may have lies below the min watermark: it may have a half or a
    quarter of it.
    """
    return 2 if holds("rt_half_reserve", version) else 4
