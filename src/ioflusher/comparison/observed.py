"""What real kernels did: the kept runs of a scenario."""

from collections.abc import Iterable

from ioflusher.comparison.summary import HalfRun
from ioflusher.kernel.task_flags import Version
from ioflusher.kernlog.stacks.waits import StackKind
from ioflusher.lab.kernels.releases import version
from ioflusher.lab.outcome import Half, HalfOutcome, Run
from ioflusher.lab.store import ExperimentStore
from ioflusher.lab.trials import trial_key
from ioflusher.scenario.records import Scenario


def kept_runs(
    store: ExperimentStore, scenario: Scenario, kernel: Version, *, since: float = 0.0
) -> tuple[Run, ...]:
    """The kept runs that played this scenario on a kernel of this version, the oldest first.

    Args:
        store: what is kept.
        scenario: as it is now; runs of what it was before are others.
        kernel: the version's first two numbers.
        since: those of experiments that began then or later; seconds since 1970.

    Raises:
        StoreError: the store cannot be read.
    """
    wanted = trial_key(scenario, "", "", {})
    found: list[Run] = []
    for kept in reversed(store.comparable_experiments()):
        played = trial_key(kept.plan.definition, "", "", {})
        if kept.began_at >= since and played == wanted and version(kept.plan.kernel)[:2] == kernel:
            found += store.load_runs(kept.id).values()
    return tuple(found)


def observed_halves(runs: Iterable[Run], *, io_flusher: bool) -> tuple[HalfRun, ...]:
    """One half of each run that has it.

    Those that were lost say nothing and are left out, but for those whose workload gave up.
    """
    halves = (run.with_ if io_flusher else run.without for run in runs)
    return tuple(
        observed_half(half)
        for half in halves
        if half is not None and (half.outcome is not HalfOutcome.LOST or half.gave_up)
    )


def observed_half(half: Half) -> HalfRun:
    """A half as it is compared."""
    frozen = half.outcome is HalfOutcome.FROZEN
    told = [thread.explanation for thread in half.threads if thread.explanation is not None]
    kinds = [one.kind.value for one in told if one.kind not in (StackKind.IDLE, StackKind.OTHER)]
    misses = half.near_misses
    return HalfRun(
        outcome=half.outcome.value,
        frozen_after_s=half.when_s if frozen else None,
        longest_request_s=None if frozen or misses is None else misses.longest_request_s,
        waits=tuple(kinds) if frozen else (),
    )
