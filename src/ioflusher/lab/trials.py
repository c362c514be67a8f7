"""What the store has of something that is to be measured, whoever had it played.

What a run measured is told by what was played: scenario, kernel, accelerator and daemon. So the store needs
no record of who asked for it, and a matrix or a search takes over what any other has played.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec

from ioflusher.lab.outcome import Plan, Run
from ioflusher.lab.store import ExperimentStore
from ioflusher.scenario.records import Scenario

LAB_PROGRAMS = (
    "ioflusher",
    "Python",
    "QEMU",
)  # of `versions.versions`: they play, and are not put to the test


def trial_key(scenario: Scenario, kernel: str, accelerator: str, programs: Mapping[str, str]) -> str:
    """What was measured, as one text: equal for two runs that show the same, however their story is told.

    Args:
        scenario: the whole definition; what it tells people and expects does not count, nor does the kernel
            that it asks for.
        kernel: the release that was booted.
        accelerator: as in `outcome.Plan`.
        programs: versions of the programs that were played with; the lab's own do not count.
    """
    machine = replace(scenario.machine, kernel="")
    daemon = replace(scenario.daemon, thread=())  # the model's word for what a guest has itself
    plain = replace(
        scenario, name="", title="", served="", pressed="", expected=(), machine=machine, daemon=daemon
    )
    counted = {name: version for name, version in programs.items() if name not in LAB_PROGRAMS}
    return json.dumps([msgspec.to_builtins(plain), kernel, accelerator, counted], sort_keys=True)


def trial_key_of(plan: Plan) -> str:
    """What the runs of a kept experiment measured."""
    return trial_key(plan.definition, plan.kernel, plan.accelerator, plan.versions)


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A run that is kept, and where: the experiment's number and its own in it."""

    experiment: int
    number: int
    run: Run


def measured_runs(
    store: ExperimentStore, trials: Iterable[str], *, since: float = 0.0
) -> dict[str, tuple[MeasuredRun, ...]]:
    """The runs that are kept of each trial (`trial_key`), in the order in which they were played.

    Args:
        store: where to look.
        trials: what to look for.
        since: seconds since 1970; experiments that began before do not count.

    Raises:
        StoreError: the store cannot be read.
    """
    found: dict[str, list[MeasuredRun]] = {one: [] for one in trials}
    for kept in reversed(store.comparable_experiments()):
        measured = found.get(trial_key_of(kept.plan))
        if measured is not None and kept.began_at >= since:
            measured += [
                MeasuredRun(kept.id, number, run) for number, run in store.load_runs(kept.id).items()
            ]
    return {one: tuple(runs) for one, runs in found.items()}
