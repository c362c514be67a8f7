"""A run of the model as JSON, for programs."""

from typing import Any

from ioflusher.model.halves import ModelHalf
from ioflusher.model.run import Happened, Waiting
from ioflusher.model.transitions import TransitionSystem
from ioflusher.report.model_words import firsts, in_flight, last_steps, memory_rows, verdict
from ioflusher.scenario.records import Scenario

STEPS = 200


def model_record(
    scenario: Scenario, version: tuple[int, int], halves: tuple[ModelHalf, ...], seed: int
) -> dict[str, Any]:
    """Everything that a run of both halves came to; times in seconds of virtual time, sizes in bytes."""
    good, sentence = verdict(scenario, version, halves)
    return {
        "scenario": scenario.name,
        "title": scenario.title,
        "kernel": ".".join(map(str, version)),
        "seed": seed,
        "as_expected": good,
        "verdict": sentence,
        "notes": list(halves[0].system.notes),
        "halves": [_half(half) for half in halves],
    }


def _half(half: ModelHalf) -> dict[str, Any]:
    result = half.result
    steps, _ = last_steps(half, STEPS)
    return {
        "io_flusher": half.io_flusher,
        "outcome": result.outcome.value,
        "ended_s": result.at_ns / 1e9,
        "steps": result.steps,
        "completed": result.completed,
        "last_completed_s": {device: when / 1e9 for device, when in result.last_completed_ns.items()},
        "longest_s": {device: time / 1e9 for device, time in result.longest_ns.items()},
        "in_flight": in_flight(half),
        "memory": dict(memory_rows(half)),
        "unit_bytes": half.system.unit_bytes,
        "values": result.values,
        "cycle": [task.pid for task in half.cycle],
        "waiting": [_task(half, task) for task in result.waiting],
        "last_steps": [step_record(half.system, step) for step in steps],
    }


def _task(half: ModelHalf, task: Waiting) -> dict[str, Any]:
    return {
        "task": task.program,
        "pid": task.pid,
        "state": task.state,
        "flags": task.flags,
        "since_s": task.since_ns / 1e9,
        "waits_for": task.waits_for,
        "rests": task.rests,
        "behind": [{"pid": pid, "step": deed} for pid, deed in firsts(half, task)],
        "stack": list(task.calls),
    }


def step_record(system: TransitionSystem, step: Happened) -> dict[str, Any]:
    """A step that was taken, and what it changed."""
    program = system.programs[step.program]
    values = dict(zip((variable.name for variable in system.variables), step.values, strict=True))
    return {
        "time_s": step.at_ns / 1e9,
        "task": program.name,
        "pid": program.pid,
        "what": step.step.label,
        "in": list(step.step.calls),
        "changes": {variable.name: values[variable.name] for variable, _ in step.step.changes},
    }
