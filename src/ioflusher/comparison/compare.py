"""Prediction and observation side by side, and where they differ. Pure."""

from dataclasses import dataclass
from enum import Enum

from ioflusher.comparison.summary import HalfRun, HalfSummary, summary


class Agreement(Enum):
    """How prediction and observation of a half go together."""

    ALIKE = "alike"
    PARTLY = "partly"  # some runs came out the other way
    DIFFERENT = "different"
    UNKNOWN = "unknown"  # nothing was observed


@dataclass(frozen=True, slots=True)
class ComparedHalf:
    """One half.

    Attributes:
        io_flusher: whether the daemon carries the state.
        observed: on real kernels.
        predicted: in the model.
        outcome: how the outcomes go together.
        waits: how the places go together in which the daemon waits; unknown where either never froze.
    """

    io_flusher: bool
    observed: HalfSummary
    predicted: HalfSummary
    outcome: Agreement
    waits: Agreement


@dataclass(frozen=True, slots=True)
class Comparison:
    """A scenario on one kernel.

    Attributes:
        scenario: its name.
        kernel: the version.
        halves: without the state and with it.
    """

    scenario: str
    kernel: str
    halves: tuple[ComparedHalf, ...]

    @property
    def observed(self) -> bool:
        """Whether any half was observed."""
        return any(half.observed.runs for half in self.halves)

    @property
    def alike(self) -> bool:
        """Whether nothing that was observed differs from what was predicted."""
        found = [each for half in self.halves for each in (half.outcome, half.waits)]
        return Agreement.DIFFERENT not in found and any(one is not Agreement.UNKNOWN for one in found)


def compared(
    observed: tuple[HalfRun, ...], predicted: tuple[HalfRun, ...], *, io_flusher: bool
) -> ComparedHalf:
    """A half's runs on real kernels beside those in the model."""
    seen, said = summary(observed), summary(predicted)
    return ComparedHalf(io_flusher, seen, said, _outcomes(seen, said), _waits(seen, said))


def _outcomes(seen: HalfSummary, said: HalfSummary) -> Agreement:
    if not seen.runs or not said.runs:
        return Agreement.UNKNOWN
    if seen.outcomes[0][0] != said.outcomes[0][0]:
        common = {name for name, _ in seen.outcomes} & {name for name, _ in said.outcomes}
        return Agreement.PARTLY if common else Agreement.DIFFERENT
    return Agreement.ALIKE if len(seen.outcomes) == len(said.outcomes) == 1 else Agreement.PARTLY


def _waits(seen: HalfSummary, said: HalfSummary) -> Agreement:
    if not seen.waits or not said.waits:
        return Agreement.UNKNOWN
    where, told = {kind for kind, _ in seen.waits}, {kind for kind, _ in said.waits}
    if not where & told:
        return Agreement.DIFFERENT
    return Agreement.ALIKE if told <= where else Agreement.PARTLY
