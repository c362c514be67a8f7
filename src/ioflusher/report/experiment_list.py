"""The experiments that the store keeps, as lines for a terminal and as JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from ioflusher.lab.outcome import Ending, HalfOutcome
from ioflusher.lab.store import KeptExperiment, KeptRun
from ioflusher.support.text import columns, printable

_HEAD = ("RUN", "BEGAN", "SCENARIO", "KERNEL", "DONE", "WITHOUT", "WITH", "PROVED")


def experiment_lines(experiments: Iterable[KeptExperiment]) -> list[str]:
    """A head and a line for each; times are local ones."""
    return columns(_HEAD, [_row(experiment) for experiment in experiments])


def _row(kept: KeptExperiment) -> tuple[str, ...]:
    plan, runs = kept.plan, kept.runs
    whole = _whole(kept)
    early = {
        Ending.COMPLETE: "",
        Ending.INTERRUPTED: ", interrupted",
        Ending.FAILED: ", failed",
        Ending.UNKNOWN: ", no end",
    }[kept.ending]
    return (
        str(kept.id),
        datetime.fromtimestamp(kept.began_at).astimezone().strftime("%Y-%m-%d %H:%M"),
        plan.scenario,
        printable(plan.kernel),
        f"{len(whole)} of {plan.runs}{early}",
        _tally([run.without for run in runs]),
        _tally([run.with_ for run in runs]),
        f"{sum(run.proved for run in runs)} of {len(whole)}" if plan.only is None else "-",
    )


def _whole(kept: KeptExperiment) -> list[KeptRun]:
    """The runs in which every half that was asked for was played."""
    only = kept.plan.only
    return [
        run
        for run in kept.runs
        if (run.without is not None or only == "with") and (run.with_ is not None or only == "without")
    ]


def _tally(outcomes: Sequence[HalfOutcome | None]) -> str:
    """Outcomes, the most frequent first: "6 frozen, 1 lost"; "frozen" where there is one run."""
    counts = Counter(outcome.value for outcome in outcomes if outcome is not None)
    if not counts:
        return "-"
    if len(outcomes) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def experiment_list_record(experiments: Iterable[KeptExperiment]) -> list[dict[str, Any]]:
    """The same as JSON, without the evidence."""
    return [
        {
            "id": kept.id,
            "began_at": datetime.fromtimestamp(kept.began_at, UTC).isoformat("T", "seconds"),
            "program": kept.program,
            "scenario": kept.plan.scenario,
            "kernel": kept.plan.kernel,
            "accelerator": kept.plan.accelerator,
            "only": kept.plan.only,
            "planned": kept.plan.runs,
            "done": len(_whole(kept)),
            "ending": kept.ending.value,
            "error": kept.error,
            "runs": [
                {
                    "number": run.number,
                    "without": run.without and run.without.value,
                    "with": run.with_ and run.with_.value,
                    "proved": run.proved,
                }
                for run in kept.runs
            ],
        }
        for kept in experiments
    ]
