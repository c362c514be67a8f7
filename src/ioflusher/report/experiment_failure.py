"""Why an experiment is not what a test asked for, in words that stand alone in the log of a CI system."""

from collections.abc import Iterator

from ioflusher.kernlog.fleet import Options
from ioflusher.lab.explain import explain_half
from ioflusher.lab.outcome import Experiment, Half, HalfOutcome, Plan, half_words
from ioflusher.report.experiment_text import flags_sentence, half_sentence
from ioflusher.support.text import printable

# of halves alike; the store has the others
MOST_HALVES = 3
CONSOLE_LINES = 10
_PROMISES = {
    "with": "the daemon must survive {state}",
    "without": "the daemon must freeze without the state, seen waiting for itself",
    None: "the daemon must freeze without the state, and survive {state}",
}


def failure_text(experiment: Experiment, *, kept_as: int | None) -> str:
    """The story of the halves that are not as they must be; `kept_as` is the experiment's number."""
    return "\n".join(printable(line) for line in _lines(experiment, kept_as))


def _lines(experiment: Experiment, kept_as: int | None) -> Iterator[str]:
    plan = experiment.plan
    runs = (*experiment.runs, *([experiment.unfinished] if experiment.unfinished else []))
    failed = [
        (number, half) for number, run in enumerate(runs, 1) for half in run.halves if not _as_promised(half)
    ]
    bad = len({number for number, _ in failed})
    promise = _PROMISES[plan.only].format(state=_state(plan, True))
    yield f"{plan.scenario}: {promise}; it did not in {bad} of {len(runs)} runs"
    if experiment.error:
        yield from experiment.error.splitlines()
    yield f"  served   {plan.served}"
    yield f"  pressed  {plan.pressed}"
    yield f"  machine  Linux {plan.kernel}, {plan.machine}, {plan.accelerator}"
    for number, half in failed[:MOST_HALVES]:
        yield ""
        yield from _story(number, half, plan)
    if len(failed) > MOST_HALVES:
        yield f"and {len(failed) - MOST_HALVES} more"
    if kept_as is not None:
        yield ""
        verbs = ", ".join(f"`ioflusher lab {verb} {kept_as}`" for verb in ("show", "explain", "replay"))
        yield f"kept as run {kept_as}: {verbs}"


def _state(plan: Plan, io_flusher: bool) -> str:
    """What a half had that the other had not."""
    if io_flusher and plan.definition.hardening.state == "own":
        return "by itself"
    return "with the state" if io_flusher else "without the state"


def _as_promised(half: Half) -> bool:
    return half.lived if half.io_flusher else half.froze_by_itself


def _story(number: int, half: Half, plan: Plan) -> Iterator[str]:
    yield f"run {number}, {_state(plan, half.io_flusher)}: {half_words(half).upper()} {half_sentence(half)}"
    yield f"  {flags_sentence(half)}"
    if half.witness is not None and half.witness.explanation is not None:
        thread = half.witness
        yield f"  kernel stack of the daemon's thread {thread.tid} ({thread.comm}), state {thread.state}:"
        for marked in half.witness.explanation.marked:
            yield f"    {marked.label:18}{marked.frame.function}"
    if half.outcome is not HalfOutcome.FINISHED:
        for remedy in _remedies(half, plan):
            yield f"  remedy: {remedy}"
        tail = half.console_tail.splitlines()[-CONSOLE_LINES:]
        if tail:
            yield "  last lines of the guest's console:"
            yield from (f"    {line}" for line in tail)


def _remedies(half: Half, plan: Plan) -> tuple[str, ...]:
    """What would have prevented it, where its stacks show a recursion."""
    if not half.io_flusher and half.froze_by_itself:
        return ()
    episodes = explain_half(half, plan, "run", Options()).diagnosis.episodes
    return next((episode.remedies for episode in episodes if episode.recursion), ())
