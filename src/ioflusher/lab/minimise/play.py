"""Makes a scenario smaller: plays what the search asks for, keeps every run, and stops when it is told to."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ioflusher.lab.capacity import this_machine, why_in_turn
from ioflusher.lab.errors import LabError
from ioflusher.lab.minimise.search import Search, Tried, Try
from ioflusher.lab.outcome import Ending, Run, half_words
from ioflusher.lab.repeat import RunKeeper, plan_runs, play_runs
from ioflusher.lab.session import Lab
from ioflusher.lab.store import ExperimentStore, StoreError
from ioflusher.lab.trials import measured_runs, trial_key_of
from ioflusher.scenario.records import Scenario


class NoContrastError(LabError):
    """The scenario itself does not show the contrast, so that there is nothing to make smaller."""


class SearchEnd(Enum):
    """Why a search ended."""

    DONE = "done"  # nothing more can be taken away or halved
    TIME = "time is up"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Answered:
    """A try and what came of it.

    Attributes:
        number: from 0, which is the scenario as it is.
        step: what was tried.
        tried: what came of it.
        played: how many runs were played for it; 0 where all were kept ones.
    """

    number: int
    step: Try
    tried: Tried
    played: int


def minimise(
    lab: Lab,
    base: Scenario,
    store: ExperimentStore,
    *,
    runs: int,
    since: float = 0.0,
    deadline: float | None = None,
    sequential: bool = False,
    on_begin: Callable[[int, Try], None] = lambda number, step: None,
    on_try: Callable[[Answered], None] = lambda answered: None,
    on_error: Callable[[StoreError], None] = lambda error: None,
) -> tuple[Search, SearchEnd]:
    """Search for a smaller scenario that shows the contrast in every one of `runs` runs.

    Args:
        lab: with the kernel to play on.
        base: the scenario.
        store: has the runs of earlier searches, which count, and gets each run of this one.
        runs: how often a try is played, unless a run does not show the contrast.
        since: seconds since 1970; runs of experiments that began before do not count.
        deadline: by time.monotonic(); no try begins after it. None for no end.
        on_begin: is told that a try is played.
        on_try: is told what came of each try.
        on_error: is told what could not be kept.

    Raises:
        NoContrastError: the scenario does not show the contrast itself.
        LabError: it cannot be played.
    """
    search = Search(base)
    answers: dict[str, Tried] = {}
    number = 0

    def answer(step: Try) -> Tried:
        nonlocal number
        at_once = not sequential and why_in_turn(step.scenario, this_machine()) is None
        plan = plan_runs(lab, step.scenario, at_once=at_once)
        key = trial_key_of(plan)
        if key in answers:
            return answers[key]
        seen = [one.run for one in measured_runs(store, [key], since=since)[key]]
        seen = [run for run in seen if run.whole(None)][:runs]
        played = 0
        tried = _judged(seen)
        on_begin(number, step)
        while tried.shows and len(seen) < runs:
            experiment = play_runs(lab, plan, keeper=RunKeeper(store, on_error))
            if experiment.ending is Ending.INTERRUPTED:
                raise KeyboardInterrupt
            played += 1
            if experiment.ending is Ending.FAILED:
                tried = Tried(False, (experiment.error or "it could not be played").partition("\n")[0])
                break
            seen += experiment.runs
            tried = _judged(seen)
        answers[key] = tried
        on_try(Answered(number, step, tried, played))
        number += 1
        return tried

    try:
        whole = answer(Try(base, "as it is"))
        if not whole.shows:
            raise NoContrastError(
                f"{base.name} does not show the contrast: {whole.words}",
                hint="`ioflusher lab run` shows what happens; there is nothing to make smaller",
            )
        steps = search.steps()
        step = next(steps, None)
        while step is not None:
            if deadline is not None and time.monotonic() > deadline:
                return search, SearchEnd.TIME
            try:
                step = steps.send(answer(step))
            except StopIteration:
                step = None
    except KeyboardInterrupt:
        return search, SearchEnd.INTERRUPTED
    return search, SearchEnd.DONE


def _judged(runs: list[Run]) -> Tried:
    """What runs show together; of those that show no contrast, the first one is told."""
    for run in runs:
        if not run.proved:
            words = ", ".join(
                f"{half_words(half)} {'with' if half.io_flusher else 'without'}" for half in run.halves
            )
            return Tried(False, words)
    return Tried(True, "frozen without, finished with")
