"""What the store has of a matrix's cells."""

from collections.abc import Iterable
from dataclasses import dataclass

from ioflusher.lab.matrix.cells import trial_key_of
from ioflusher.lab.outcome import Half
from ioflusher.lab.store import ExperimentStore


@dataclass(frozen=True, slots=True)
class MeasuredHalf:
    """A half that is kept, and where: the experiment's number and the run's in it."""

    experiment: int
    run: int
    half: Half


def measured_halves(
    store: ExperimentStore, trials: Iterable[str], *, since: float = 0.0
) -> dict[str, tuple[MeasuredHalf, ...]]:
    """The halves that are kept of each trial (`cells.trial_key`), in the order in which they were played.

    Args:
        store: where to look.
        trials: what to look for.
        since: seconds since 1970; experiments that began before do not count.

    Raises:
        StoreError: the store cannot be read.
    """
    found: dict[str, list[MeasuredHalf]] = {one: [] for one in trials}
    for kept in reversed(store.comparable_experiments()):
        measured = found.get(trial_key_of(kept.plan))
        if measured is None or kept.began_at < since:
            continue
        for number, run in store.load_runs(kept.id).items():
            measured += [MeasuredHalf(kept.id, number, half) for half in run.halves]
    return {one: tuple(halves) for one, halves in found.items()}
