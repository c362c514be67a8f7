"""Whether the model allows what a run on a real kernel did.

Asked is not what the model would do, but what it can do: every order of steps of a small instance is
explored. A frozen half is allowed if a freeze can be reached, there or in a run of the whole, one that
lived if some run of the model lives, and the daemon may wait where some wait of its program in the model is
of the same kind. What was not covered is unknown.
"""

from dataclasses import dataclass
from enum import Enum

from ioflusher.comparison.observed import observed_half
from ioflusher.comparison.predicted import kinds_of_waits, predicted_halves
from ioflusher.kernel.task_flags import Version
from ioflusher.lab.outcome import Half, HalfOutcome
from ioflusher.model.build import build
from ioflusher.model.explore import Bounds, Verdict, explore
from ioflusher.model.scale import small
from ioflusher.scenario.records import Scenario

# runs of the model in which one that comes out so is looked for
SEEDS = 20


class Allowance(Enum):
    """Whether the model can do it."""

    ALLOWED = "allowed"
    NOT_ALLOWED = "not allowed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CheckedDeed:
    """Something that the run did.

    Attributes:
        what: a few words.
        allowance: whether the model can do it.
        why: what that rests on, a few words.
    """

    what: str
    allowance: Allowance
    why: str


@dataclass(frozen=True, slots=True)
class CheckedHalf:
    """One half of a run.

    Attributes:
        io_flusher: whether the daemon carried the state.
        deeds: what it did; none where it was lost.
    """

    io_flusher: bool
    deeds: tuple[CheckedDeed, ...]

    @property
    def allowance(self) -> Allowance:
        """Not allowed if anything is not, unknown if anything is, or if nothing was observed."""
        found = {deed.allowance for deed in self.deeds}
        if Allowance.NOT_ALLOWED in found:
            return Allowance.NOT_ALLOWED
        return Allowance.ALLOWED if found == {Allowance.ALLOWED} else Allowance.UNKNOWN


def check_half(scenario: Scenario, half: Half, version: Version, bounds: Bounds) -> CheckedHalf:
    """Ask the model about a half that a real kernel played.

    Raises:
        IoflusherError: the model has not what the scenario is about.
    """
    if half.outcome is HalfOutcome.FROZEN:
        seen = observed_half(half)
        deeds = (_freeze(scenario, half, version, bounds), *_waits(scenario, half, version, seen.waits))
    elif half.outcome is HalfOutcome.FINISHED:
        deeds = (_life(scenario, half, version),)
    elif half.outcome is HalfOutcome.LOST:
        deeds = (_loss(scenario, half, version),) if half.gave_up else ()
    else:
        why = "the model knows no such end"
        deeds = (CheckedDeed(half.outcome.value, Allowance.UNKNOWN, why),)
    return CheckedHalf(half.io_flusher, deeds)


def _freeze(scenario: Scenario, half: Half, version: Version, bounds: Bounds) -> CheckedDeed:
    system = build(scenario, io_flusher=half.io_flusher, version=version, scale=small(scenario))
    found = explore(system, bounds)
    if found.freeze is not None:
        why = f"a way of {len(found.freeze.way)} steps leads to a freeze"
        return CheckedDeed("it froze", Allowance.ALLOWED, why)
    if found.verdict is Verdict.NO_FREEZE:
        # what takes more waiters than a small instance has may still happen in a whole one
        seed = _seed_that(scenario, half, version, "frozen")
        if seed is not None:
            return CheckedDeed("it froze", Allowance.ALLOWED, f"seed {seed} freezes, too")
        why = f"no freeze is among all {found.states:,} states"
        return CheckedDeed("it froze", Allowance.NOT_ALLOWED, why)
    why = f"not covered after {found.states:,} states: {found.stopped.value}"
    return CheckedDeed("it froze", Allowance.UNKNOWN, why)


def _waits(
    scenario: Scenario, half: Half, version: Version, seen: tuple[str, ...]
) -> tuple[CheckedDeed, ...]:
    system = build(scenario, io_flusher=half.io_flusher, version=version)
    possible = kinds_of_waits(system)
    known = ", ".join(sorted(possible)) or "none"
    return tuple(
        CheckedDeed(
            f"its daemon waited: {kind}",
            Allowance.ALLOWED if kind in possible else Allowance.NOT_ALLOWED,
            f"the waits of its daemon in the model: {known}",
        )
        for kind in sorted(set(seen))
    )


def _life(scenario: Scenario, half: Half, version: Version) -> CheckedDeed:
    seed = _seed_that(scenario, half, version, "finished")
    if seed is None:
        return CheckedDeed("it was done", Allowance.UNKNOWN, f"none of {SEEDS} seeds is done")
    return CheckedDeed("it was done", Allowance.ALLOWED, f"seed {seed} is done, too")


def _loss(scenario: Scenario, half: Half, version: Version) -> CheckedDeed:
    seed = _seed_that(scenario, half, version, "lost")
    if seed is None:
        return CheckedDeed("its workload gave up", Allowance.UNKNOWN, f"it does in none of {SEEDS} seeds")
    return CheckedDeed("its workload gave up", Allowance.ALLOWED, f"it does with seed {seed}, too")


def _seed_that(scenario: Scenario, half: Half, version: Version, outcome: str) -> int | None:
    """The first seed whose run of the half comes out so; None where none does."""
    for seed in range(SEEDS):
        (played,) = predicted_halves(scenario, version, (seed,), io_flusher=half.io_flusher)
        if played.outcome == outcome:
            return seed
    return None
