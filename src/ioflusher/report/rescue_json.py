"""A rescue's plan and outcome as `--json` prints them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ioflusher.rescue.actions.action import RescueStep
from ioflusher.rescue.freeze import DeviceFreeze
from ioflusher.rescue.perform import RescueOutcome
from ioflusher.rescue.plan import RescuePlan


def plan_record(plans: Sequence[RescuePlan], *, seen_all: bool) -> dict[str, Any]:
    """The plans; keys are the attributes' names. `seen_all`: whether nothing else can be frozen."""
    return {
        "frozen": bool(plans),
        "seen_all": seen_all,
        "freezes": [
            {
                **freeze_record(plan.freeze),
                "steps": [step_record(step) for step in plan.steps],
                "not_applicable": [{"action": other.action, "why": other.why} for other in plan.others],
            }
            for plan in plans
        ],
    }


def freeze_record(freeze: DeviceFreeze) -> dict[str, Any]:
    """One freeze."""
    device = freeze.device
    return {
        "device": device.path,
        "way": freeze.way.name.lower(),
        "seen": freeze.seen.name.lower(),
        "certain": freeze.certain,
        "reason": freeze.reason,
        "stalled_s": freeze.stalled_s,
        "in_flight": device.in_flight,
        "daemons": [
            {"pid": d.pid, "comm": d.comm, "role": d.role, "io_flusher": d.covered} for d in device.daemons
        ],
        "missing": list(device.missing),
        "kernel_targets": list(device.kernel_targets),
        "mounts": list(device.mounts),
        "swaps": list(device.swaps),
        "other_server": device.other_server and asdict(device.other_server),
        "fuse": [{"connection": mount.connection, "mount": mount.point} for mount in device.fuse],
        "threads": [
            {
                "pid": thread.pid,
                "tid": thread.tid,
                "comm": thread.comm,
                "state": thread.state,
                "wait": thread.wait.name.lower() if thread.wait else None,
                "target": thread.target or None,
                "stack": list(thread.functions),
            }
            for thread in freeze.threads
        ],
    }


def step_record(step: RescueStep) -> dict[str, Any]:
    """One action."""
    return {
        "action": step.action,
        "loss": step.loss.name.lower(),
        "loses": step.loses,
        "reason": step.reason,
        "commands": list(step.commands),
        "undo": list(step.undo),
        "wait_s": step.wait_s,
    }


def outcome_record(
    outcomes: Sequence[RescueOutcome], untouched: Sequence[tuple[DeviceFreeze, str]], *, seen_all: bool
) -> dict[str, Any]:
    """What rescues came to, and the freezes about which nothing was done, each with the reason.

    `seen_all`: whether nothing else can be frozen.
    """
    return {
        "frozen": bool(outcomes or untouched),
        "seen_all": seen_all,
        "recovered": not untouched and all(outcome.recovered for outcome in outcomes),
        "untouched": [{**freeze_record(freeze), "why": why} for freeze, why in untouched],
        "freezes": [
            {
                **freeze_record(outcome.plan.freeze),
                "recovered": outcome.recovered,
                "seconds": outcome.seconds,
                "actions": [
                    {
                        "action": step.step.action,
                        "result": step.result.name.lower(),
                        "detail": step.detail,
                        "seconds": step.seconds,
                    }
                    for step in outcome.steps
                ],
                "put_back": list(outcome.put_back),
                "left": list(outcome.left),
                "stands_still_again": outcome.stands_still_again,
            }
            for outcome in outcomes
        ],
    }
