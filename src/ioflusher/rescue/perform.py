"""Doing a plan: one action after the other until a request completes, as far as allowed, and back again.

All that is needed is loaded first (`Rescue`); `end` then allocates next to nothing. An action that fails or
hangs is said, and the next one has its turn. What was changed is put back once the device has caught up.
"""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ioflusher.errors import IoflusherError
from ioflusher.rescue.actions.action import Loss, Prepared, RescueAction, RescueStep
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.live import DeviceRequests
from ioflusher.rescue.plan import ACTIONS, RescuePlan
from ioflusher.rescue.worker import Worker

POLL_S = 0.05
DO_S = 5.0  # for one action to be done; what takes longer hangs and goes on behind
CAUGHT_UP_S = 2.0  # nothing in flight, or requests completing, for so long
SETTLE_S = 60.0  # then what was changed is put back in any case


class StepResult(Enum):
    """What became of an action."""

    ENDED_IT = "ended it"  # a request completed after it
    NO_EFFECT = "no effect"
    BEGUN = "begun"  # in the background
    DONE = "done"
    FAILED = "failed"
    HANGS = "hangs"
    NOT_ALLOWED = "not allowed"  # it loses more than was allowed
    NOT_READY = "cannot be done here"
    NOT_NEEDED = "not needed"


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One action, and what became of it.

    Attributes:
        step, result: them.
        detail: what was done, or why not; "" for nothing to tell.
        seconds: from doing it to the first completed request; None without one.
    """

    step: RescueStep
    result: StepResult
    detail: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RescueOutcome:
    """What a rescue came to.

    Attributes:
        plan: what was done.
        steps: each action in its order.
        recovered: whether requests complete again.
        seconds: from the first action to the first completed request; None without one, or without an action.
        put_back: what was put back, in words.
        left: what could not be put back, in words.
        stands_still_again: whether requests stood still at the end, once all was put back.
    """

    plan: RescuePlan
    steps: tuple[StepOutcome, ...]
    recovered: bool
    seconds: float | None
    put_back: tuple[str, ...]
    left: tuple[str, ...]
    stands_still_again: bool


def ended_with_another(plan: RescuePlan) -> RescueOutcome:
    """Of a freeze that was over before anything was done about it."""
    return RescueOutcome(
        plan, steps=(), recovered=True, seconds=None, put_back=(), left=(), stands_still_again=False
    )


@dataclass(slots=True)
class _Ready:
    """A step with everything loaded."""

    step: RescueStep
    prepared: Prepared
    worker: Worker
    future: "Future[str] | None" = None


class Rescue:
    """A plan with everything loaded that doing it takes.

    Args:
        plan: it.
        most: the most that an action may lose.
        settle_s: seconds after which what was changed is put back in any case.
        actions: those that the plan was made of.
        told: is called with each action's outcome as soon as it is known.
        told_back: is called with a line for what was put back, or could not be.
        root: of the machine whose device is watched.

    Raises:
        RescueError: the device vanished.
    """

    def __init__(
        self,
        plan: RescuePlan,
        *,
        most: Loss = Loss.NOTHING,
        settle_s: float = SETTLE_S,
        actions: tuple[RescueAction, ...] = ACTIONS,
        told: Callable[[StepOutcome], None] = lambda outcome: None,
        told_back: Callable[[str], None] = lambda line: None,
        root: Path = Path("/"),
    ) -> None:
        self._plan = plan
        self._settle_s = settle_s
        self._told = told
        self._told_back = told_back
        self._outcomes: list[StepOutcome] = []
        self._requests = DeviceRequests(plan.freeze.device.name, root)
        self._ready: list[_Ready] = []
        self._refused: list[StepOutcome] = []
        by_name = {action.name: action for action in actions}
        for step in plan.steps:
            if step.loss > most:
                self._refused.append(StepOutcome(step, StepResult.NOT_ALLOWED, step.loses))
                continue
            try:
                prepared = by_name[step.action].prepare(plan.freeze, step)
            except IoflusherError as error:
                self._refused.append(StepOutcome(step, StepResult.NOT_READY, str(error)))
                continue
            self._ready.append(_Ready(step, prepared, Worker(step.action)))

    def end(self) -> RescueOutcome:
        """Do it; returns once the device has caught up and all is put back, or nothing more may be done.

        Where a signal ends it, what was changed is put back, too.

        Raises:
            RescueError: the device vanished before anything was done.
        """
        before, _ = self._requests.read()
        done: list[_Ready] = []
        try:
            seconds = self._do(before, done)
        finally:
            put_back, left = self._put_back(done)
        recovered = seconds is not None
        again = recovered and self._stands_still()
        return RescueOutcome(self._plan, tuple(self._outcomes), recovered, seconds, put_back, left, again)

    def _do(self, before: int, done: list[_Ready]) -> float | None:
        """One action after the other, those that were begun into `done`; seconds to the first request."""
        begun = time.monotonic()
        ended_after: float | None = None
        for ready in sorted(self._ready, key=lambda ready: not ready.step.background):
            if ended_after is not None:
                self._tell(StepOutcome(ready.step, StepResult.NOT_NEEDED))
                continue
            done.append(ready)
            acted = time.monotonic()
            outcome = self._act(ready, before)
            if outcome.result is StepResult.ENDED_IT:
                assert outcome.seconds is not None
                ended_after = acted - begun + outcome.seconds
            self._tell(outcome)
        if done and all(ready.step.background for ready in done):
            ended_after = self._wait(before, begun, done[-1].step.wait_s)
        for refused in self._refused if ended_after is None else ():
            self._tell(refused)
        if ended_after is not None:
            self._settle(done)
        self._tell_of_background(done)
        return ended_after

    def close(self) -> None:
        """Give up what was loaded."""
        for ready in self._ready:
            ready.worker.end()
            if ready.future is None or ready.future.done():  # what hangs uses its files still
                ready.prepared.close()
        self._requests.close()

    def _tell(self, outcome: StepOutcome) -> None:
        self._outcomes.append(outcome)
        self._told(outcome)

    def _act(self, ready: _Ready, before: int) -> StepOutcome:
        """Do one action, and wait for a request that completes."""
        acted = time.monotonic()
        ready.future = future = ready.worker.begin(ready.prepared.do)
        if ready.step.background:
            try:
                future.result(0.5)
            except NotYet:
                pass
            except IoflusherError:
                pass  # told at the end
            return StepOutcome(ready.step, StepResult.BEGUN)
        detail = ""
        deadline = acted + DO_S
        while time.monotonic() < deadline:
            if (seconds := self._completed_since(before, acted)) is not None:
                detail = future.result() if future.done() and not future.exception() else ""
                return StepOutcome(ready.step, StepResult.ENDED_IT, detail, seconds)
            if future.done():
                try:
                    detail = future.result()
                except (IoflusherError, OSError) as error:
                    return StepOutcome(ready.step, StepResult.FAILED, str(error))
                break
            time.sleep(POLL_S)
        else:
            return StepOutcome(ready.step, StepResult.HANGS, f"not done within {DO_S:g} s")
        seconds = self._wait(before, acted, ready.step.wait_s)
        result = StepResult.NO_EFFECT if seconds is None else StepResult.ENDED_IT
        return StepOutcome(ready.step, result, detail, seconds)

    def _wait(self, before: int, acted: float, wait_s: float) -> float | None:
        """Wait for a request that completes; seconds since `acted` then."""
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if (seconds := self._completed_since(before, acted)) is not None:
                return seconds
            time.sleep(POLL_S)
        return None

    def _completed_since(self, before: int, acted: float) -> float | None:
        """Seconds since `acted` if a request completed; a device that is gone has completed all."""
        try:
            completed, _ = self._requests.read()
        except RescueError:
            return time.monotonic() - acted
        return time.monotonic() - acted if completed != before else None

    def _settle(self, done: list[_Ready]) -> None:
        """Wait until the device has caught up and what goes on in the background is over."""
        deadline = time.monotonic() + self._settle_s
        quiet_since = time.monotonic()
        while time.monotonic() < deadline:
            pending = [r for r in done if r.step.background and r.future and not r.future.done()]
            try:
                _, in_flight = self._requests.read()
            except RescueError:
                return
            if in_flight:
                quiet_since = time.monotonic()
            if not pending and time.monotonic() - quiet_since >= CAUGHT_UP_S:
                return
            time.sleep(POLL_S)

    def _tell_of_background(self, done: list[_Ready]) -> None:
        """What became of what went on in the background."""
        for ready in done:
            if not ready.step.background or ready.future is None:
                continue
            try:
                self._tell(StepOutcome(ready.step, StepResult.DONE, ready.future.result(0)))
            except NotYet:
                self._tell(StepOutcome(ready.step, StepResult.HANGS, "not done yet, and goes on"))
            except (IoflusherError, OSError) as error:
                self._tell(StepOutcome(ready.step, StepResult.FAILED, str(error)))

    def _put_back(self, done: list[_Ready]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Undo what was done, the last first; and what could not be undone."""
        put_back: list[str] = []
        left: list[str] = []
        for ready in reversed(done):
            if ready.future is None or ready.step.background:
                continue
            with contextlib.suppress(NotYet, IoflusherError, OSError):
                ready.future.result(0)
            if ready.future.done() and ready.future.exception() is not None:
                continue  # it put itself back
            words, back = self._undo(ready)
            if words:
                (put_back if back else left).append(words)
                self._told_back(f"put back: {words}" if back else f"NOT put back: {words}")
        return tuple(put_back), tuple(left)

    def _undo(self, ready: _Ready) -> tuple[str, bool]:
        """What was put back, and whether it was; "" for nothing that had to be."""
        step = ready.step
        try:
            return ready.worker.begin(ready.prepared.undo).result(DO_S), True
        except NotYet:
            by_hand = "; ".join(step.undo or step.commands[-1:]) or "nothing to undo"
            return f"{step.action} hangs: {by_hand}", False
        except (IoflusherError, OSError) as error:
            by_hand = "; put it back by: " + "; ".join(step.undo) if step.undo else ""
            return f"{step.action}: {error}{by_hand}", False

    def _stands_still(self) -> bool:
        """Whether requests are in flight and none completes within the time that tells."""
        try:
            before, in_flight = self._requests.read()
            deadline = time.monotonic() + CAUGHT_UP_S
            while in_flight and time.monotonic() < deadline:
                time.sleep(POLL_S)
                now, in_flight = self._requests.read()
                if now != before:
                    return False
        except RescueError:
            return False
        return bool(in_flight)
