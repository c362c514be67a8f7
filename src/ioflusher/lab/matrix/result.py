"""What a matrix shows: its cells with their tallies, and the judgement on them. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from ioflusher.lab.matrix.judgement import ContextJudgement, Fate, cell_fate, judge
from ioflusher.lab.matrix.plan import MatrixPlan
from ioflusher.lab.matrix.prepare import PreparedCell
from ioflusher.lab.matrix.tally import CellTally, tally
from ioflusher.lab.trials import MeasuredRun


class Contrast(Enum):
    """What the two halves of a cell show together."""

    CONTRAST = "contrast"  # every run froze without the state, every run lived with it
    AT_TIMES = "contrast at times"  # some froze without, all lived with
    NONE = "no difference"  # all lived
    FROZEN_TOO = "frozen too"
    OTHERWISE = "otherwise"
    ONE_HALF = "one half"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class CellResult:
    """One cell.

    Attributes:
        prepared: the cell, and why it cannot be played where it cannot.
        tally: its halves, counted.
        kept_as: the experiments in the store that they are from.
        error: what went wrong when the missing ones were to be played; empty for nothing.
    """

    prepared: PreparedCell
    tally: CellTally
    kept_as: tuple[int, ...] = ()
    error: str = ""

    @property
    def trouble(self) -> str:
        """Why there are not all the halves that were asked for, where that is known."""
        return self.prepared.trouble or self.error

    @property
    def contrast(self) -> Contrast:
        """What its halves show together."""
        without, with_ = self.tally.without, self.tally.with_
        if not without.halves and not with_.halves:
            return Contrast.NOT_MEASURED
        if not without.halves or not with_.halves:
            return Contrast.ONE_HALF
        match cell_fate(without), cell_fate(with_):
            case _, Fate.FREEZES:
                return Contrast.FROZEN_TOO
            case Fate.LIVES, Fate.LIVES:
                return Contrast.NONE
            case Fate.FREEZES, Fate.LIVES:
                froze = without.frozen
                return Contrast.CONTRAST if froze.count == froze.of else Contrast.AT_TIMES
        return Contrast.OTHERWISE

    def complete(self, plan: MatrixPlan) -> bool:
        """Whether every half that the plan asks for was measured."""
        asked = {None: (False, True), "without": (False,), "with": (True,)}[plan.only]
        return all(len(self.tally.half(io_flusher).halves) >= plan.runs for io_flusher in asked)


@dataclass(frozen=True, slots=True)
class MatrixResult:
    """The whole matrix as far as it was measured."""

    plan: MatrixPlan
    cells: tuple[CellResult, ...]
    judgements: tuple[ContextJudgement, ...]

    @property
    def missing(self) -> tuple[CellResult, ...]:
        """Cells that fit a scenario and lack halves."""
        return tuple(cell for cell in self.cells if cell.prepared.fits and not cell.complete(self.plan))

    @property
    def not_alive(self) -> tuple[CellResult, ...]:
        """Cells whose halves with the state did not all come out as their scenario expects: mostly, alive."""
        return tuple(
            cell
            for cell in self.cells
            if cell.prepared.trial
            and not all(
                half.came_out_as(cell.prepared.trial.plan.expected.with_) for half in cell.tally.with_.halves
            )
        )


def matrix_result(
    plan: MatrixPlan,
    prepared: Iterable[PreparedCell],
    measured: Mapping[str, tuple[MeasuredRun, ...]],
    errors: Mapping[str, str],
) -> MatrixResult:
    """The cells with what is measured of them.

    Args:
        plan: the plan.
        prepared: its cells.
        measured: `trials.measured_runs` of their keys.
        errors: trial's key -> what went wrong.
    """
    cells = []
    for one in prepared:
        key = one.trial.key if one.trial else ""
        runs = measured.get(key, ())
        cells.append(
            CellResult(
                one,
                tally(tuple(half for found in runs for half in found.run.halves)),
                tuple(dict.fromkeys(found.experiment for found in runs)),
                errors.get(key, ""),
            )
        )
    judgements = judge(plan, [(cell.prepared.cell, cell.tally) for cell in cells])
    return MatrixResult(plan, tuple(cells), judgements)
