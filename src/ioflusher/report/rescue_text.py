"""A rescue's plan and outcome, for people."""

from collections.abc import Iterator, Sequence

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


def plan_lines(plans: Sequence[RescuePlan]) -> Iterator[str]:
    """Each freeze with the actions that could end it."""
    for number, plan in enumerate(plans):
        if number:
            yield ""
        yield from freeze_lines(plan.freeze)
        if not plan.steps:
            yield "  no action here could end it"
        for place, step in enumerate(plan.steps, 1):
            yield from step_lines(place, step)
        for other in plan.others:
            yield f"  not {other.action}: {printable(other.why)}"


def freeze_lines(freeze: DeviceFreeze) -> Iterator[str]:
    """What is frozen, and what serves it."""
    device = freeze.device
    sure = "" if freeze.certain else "perhaps "
    by = "" if freeze.way is FreezeWay.UNKNOWN else f" by {freeze.way.value}"
    yield f"{printable(device.path)}: {sure}frozen{by}, as seen in {freeze.seen.value}"
    yield f"  why: {printable(freeze.reason)}"
    servers = [
        f"{d.name}, {d.role}, {'with' if d.covered else 'without'} the IO_FLUSHER state"
        for d in device.daemons
    ]
    servers += [kernels_own(role) for role in device.kernel_targets]
    if servers:
        yield "  served by: " + ", ".join(map(printable, servers))
    lies = [*device.mounts, *(f"swap {swap}" for swap in device.swaps)]
    if lies:
        yield f"  carries: {printable(', '.join(lies))}"


def step_lines(place: int, step: RescueStep) -> Iterator[str]:
    """One action with its commands."""
    yield f"  {place}. {step.action} ({LOSSES[step.loss]})"
    yield f"     why: {printable(step.reason)}"
    if step.loss:
        yield f"     loses: {printable(step.loses)}"
    for command in step.commands:
        yield f"     do:   {printable(command)}"
    for command in step.undo:
        yield f"     undo: {printable(command)}"


def step_outcome_line(outcome: StepOutcome) -> str:
    """What became of one action."""
    words = f"{outcome.step.action}: {outcome.result.value}"
    if outcome.result is StepResult.ENDED_IT and outcome.seconds is not None:
        words += f", a request completed {outcome.seconds:.2f} s after it"
    return printable(f"{words}; {outcome.detail}" if outcome.detail else words)


def outcome_lines(outcome: RescueOutcome) -> Iterator[str]:
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
    yield f"{path} goes on, {outcome.seconds:.2f} s after the first action; lost: {losses}"
    if outcome.stands_still_again:
        yield f"{path} stands still again"
