"""A rescue's plan and outcome, for people: prose in lines of a width, commands in one line each."""

from collections.abc import Iterator, Sequence

from ioflusher.report.wrapping import WIDTH, wrapped
from ioflusher.rescue.actions.action import Loss, RescueStep
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay
from ioflusher.rescue.perform import RescueOutcome, StepOutcome, StepResult
from ioflusher.rescue.plan import RescuePlan
from ioflusher.rescue.served import kernels_own
from ioflusher.support.text import printable

LOSSES = {
    Loss.NOTHING: "loses nothing",
    Loss.DEVICE: "loses what the device has not written",
}


def plan_lines(plans: Sequence[RescuePlan], width: int = WIDTH) -> Iterator[str]:
    """Each freeze with the actions that could end it."""
    for number, plan in enumerate(plans):
        if number:
            yield ""
        yield from freeze_lines(plan.freeze, width)
        if not plan.steps:
            yield "  no action here could end it"
        for place, step in enumerate(plan.steps, 1):
            yield from step_lines(place, step, width)
        for other in plan.others:
            yield from wrapped(f"not {other.action}: {printable(other.why)}", "  ", "    ", width)


def freeze_lines(freeze: DeviceFreeze, width: int = WIDTH) -> Iterator[str]:
    """What is frozen, and what serves it."""
    device = freeze.device
    sure = "" if freeze.certain else "perhaps "
    by = "" if freeze.way is FreezeWay.UNKNOWN else f" by {freeze.way.value}"
    yield f"{printable(device.path)}: {sure}frozen{by}, as seen in {freeze.seen.value}"
    yield from _labelled("  why: ", freeze.reason, width)
    servers = [
        f"{d.name}, {d.role}, {'with' if d.covered else 'without'} the IO_FLUSHER state"
        for d in device.daemons
    ]
    servers += [kernels_own(role) for role in device.kernel_targets]
    if servers:
        yield from _labelled("  served by: ", "; ".join(servers), width)
    lies = [*device.mounts, *(f"swap {swap}" for swap in device.swaps)]
    if lies:
        yield from _labelled("  carries: ", ", ".join(lies), width)


def step_lines(place: int, step: RescueStep, width: int = WIDTH) -> Iterator[str]:
    """One action with its commands."""
    yield f"  {place}. {step.action} ({LOSSES[step.loss]})"
    yield from _labelled("     why: ", step.reason, width)
    if step.loss:
        yield from _labelled("     loses: ", step.loses, width)
    for command in step.commands:
        yield f"     do:   {printable(command)}"
    for command in step.undo:
        yield f"     undo: {printable(command)}"


def _labelled(label: str, text: str, width: int) -> list[str]:
    """The text behind its label, further lines below its beginning."""
    return wrapped(printable(text), label, " " * len(label), width)


def step_outcome_lines(outcome: StepOutcome, width: int = WIDTH) -> list[str]:
    """What became of one action."""
    words = f"{outcome.step.action}: {outcome.result.value}"
    if outcome.result is StepResult.ENDED_IT and outcome.seconds is not None:
        words += f", a request completed {outcome.seconds:.2f} s after it"
    text = printable(f"{words}; {outcome.detail}" if outcome.detail else words)
    return wrapped(text, "", "  ", width)


def outcome_lines(outcome: RescueOutcome, width: int = WIDTH) -> Iterator[str]:
    """How it ended; the actions have been told one by one, and what was put back."""
    path = printable(outcome.plan.freeze.device.path)
    if not outcome.recovered:
        yield f"{path} still stands still"
        return
    if outcome.seconds is None:
        yield f"{path} goes on again: what was done for another device has ended its freeze, too"
        return
    lost = [o.step.loses for o in outcome.steps if o.result is StepResult.ENDED_IT and o.step.loss]
    losses = printable("; ".join(lost)) or "nothing"
    words = f"{path} goes on, {outcome.seconds:.2f} s after the first action; lost: {losses}"
    yield from wrapped(words, "", "  ", width)
    if outcome.stands_still_again:
        yield f"{path} stands still again"
