"""What is still to be played of a matrix, and in which order. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ioflusher.lab.outcome import Half, OneHalf, Plan
from ioflusher.lab.qemu import Accelerator


@dataclass(frozen=True, slots=True)
class Trial:
    """What is measured for one cell, or for several that come to the same.

    Attributes:
        key: `trials.trial_key` of it.
        name: of the (first) cell, for people.
        plan: what is played, one run of both halves of it.
        boot: what `Lab` takes for a kernel: a release, or the path of an image.
        accelerator: how the kernel is executed.
    """

    key: str
    name: str
    plan: Plan
    boot: str
    accelerator: Accelerator


@dataclass(frozen=True, slots=True)
class Task:
    """One run that is to be played: both halves of a trial, or the one that is still missing.

    Attributes:
        number: of the run among those of this trial and these halves that are played now, from 1.
        of: so many there are of them.
    """

    trial: Trial
    only: OneHalf | None
    number: int
    of: int

    @property
    def halves(self) -> int:
        """How many halves are played."""
        return 2 if self.only is None else 1


def missing_tasks(
    trials: Iterable[Trial], measured: Mapping[str, Iterable[Half]], *, runs: int, only: OneHalf | None
) -> tuple[Task, ...]:
    """What is missing until each half of each trial is there `runs` times.

    The first run of all trials comes before the second of any: a matrix that ends early has something of
    each cell, and what else this machine does meanwhile falls on all of them. Halves are played as pairs, as
    far as both are missing.
    """
    rounds: list[list[Task]] = [[] for _ in range(runs)]
    for trial in trials:
        have = Counter(half.io_flusher for half in measured.get(trial.key, ()))
        without = max(0, runs - have[False]) if only != "with" else 0
        with_ = max(0, runs - have[True]) if only != "without" else 0
        pairs = min(without, with_)
        single: OneHalf = "without" if without > with_ else "with"
        rest = max(without, with_) - pairs
        tasks = [Task(trial, None, number, pairs) for number in range(1, pairs + 1)]
        tasks += [Task(trial, single, number, rest) for number in range(1, rest + 1)]
        for place, task in enumerate(tasks):
            rounds[place].append(task)
    return tuple(task for played in rounds for task in played)
