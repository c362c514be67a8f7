"""An exploration as JSON, for programs."""

from typing import Any

from ioflusher.model.explore import Freeze, Taken
from ioflusher.model.explore.halves import ExploredHalf
from ioflusher.model.transitions import TransitionSystem
from ioflusher.report.exploration_words import changes, verdict
from ioflusher.scenario.records import Scenario


def exploration_record(
    scenario: Scenario, version: tuple[int, int], halves: tuple[ExploredHalf, ...]
) -> dict[str, Any]:
    """Everything that was found; sizes in bytes, memory in units."""
    good, sentence = verdict(scenario, version, halves)
    return {
        "scenario": scenario.name,
        "title": scenario.title,
        "kernel": ".".join(map(str, version)),
        "as_expected": good,
        "verdict": sentence,
        "halves": [_half(half) for half in halves],
    }


def _half(half: ExploredHalf) -> dict[str, Any]:
    found, scale = half.exploration, half.scale
    return {
        "io_flusher": half.io_flusher,
        "verdict": found.verdict.name.lower(),
        "stopped": found.stopped.name.lower(),
        "unit_bytes": scale.unit_bytes,
        "queue_depth": scale.queue_depth,
        "work_units": scale.work_units,
        "runs_at_full_size": {"seeds": half.whole.seeds, "frozen": list(half.whole.frozen)},
        "bounds": {"states": found.bounds.states, "bytes": found.bounds.bytes, "depth": found.bounds.depth},
        "states": found.states,
        "transitions": found.transitions,
        "depth": found.depth,
        "seconds": found.seconds,
        "states_per_second": found.states_per_second,
        "bytes_per_state": found.bytes_per_state,
        "threads": found.threads,
        "freeze": _freeze(found.system, found.freeze) if found.freeze is not None else None,
    }


def _freeze(system: TransitionSystem, freeze: Freeze) -> dict[str, Any]:
    return {
        "kind": freeze.kind.name.lower(),
        "shortest": freeze.shortest,
        "doomed_after": freeze.doomed_after,
        "way": [_step(system, taken) for taken in freeze.way],
        "round": [_step(system, taken) for taken in freeze.round],
        "end": [
            {
                "task": program.name,
                "pid": program.pid,
                "does": standing.how.name.lower(),
                "waits_for": list(standing.waits_for),
                "state": "S" if standing.interruptible else "D",
                "stack": list(standing.calls),
            }
            for program, standing in freeze.named(system)
        ],
    }


def _step(system: TransitionSystem, taken: Taken) -> dict[str, Any]:
    program = system.programs[taken.task]
    return {
        "task": program.name,
        "pid": program.pid,
        "what": taken.step.label,
        "in": list(taken.step.calls),
        "changes": changes(system, taken),
        "values": dict(zip((variable.name for variable in system.variables), taken.values, strict=True)),
    }
