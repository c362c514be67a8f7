"""A diagnosis as `ioflusher diagnose --json` prints it."""

from collections.abc import Iterable
from typing import Any

from ioflusher.kernlog.diagnosis import Episode, EventCount
from ioflusher.kernlog.fleet import LogResult


def diagnosis_record(results: Iterable[LogResult]) -> dict[str, Any]:
    """The results as `ioflusher diagnose --json` prints them; each episode names its input."""
    kept = tuple(results)
    return {
        "recursion": any(result.diagnosis.recursion for result in kept),
        "episodes": [
            {**_episode(episode), "input": result.name}
            for result in kept
            for episode in result.diagnosis.episodes
        ],
        "inputs": [
            {
                "name": result.name,
                "recursion": result.diagnosis.recursion,
                "reports": result.diagnosis.reports,
                "dropped": result.diagnosis.dropped,
                "memory": result.diagnosis.memory,
                "events": [_event(event) for event in result.diagnosis.events],
                "trouble": result.trouble,
            }
            for result in kept
        ],
    }


def _event(event: EventCount) -> dict[str, Any]:
    return {
        "kind": event.kind.value,
        "count": event.count,
        "first": event.first,
        "line": event.line,
        "offset": event.offset,
    }


def _episode(episode: Episode) -> dict[str, Any]:
    """Its keys are the attributes' names."""
    return {
        "kind": episode.kind.value,
        "recursion": episode.recursion,
        "confidence": episode.confidence.value,
        "sentence": episode.sentence,
        "why": episode.why,
        "missing": episode.missing,
        "tasks": [
            {
                "comm": task.comm,
                "pid": task.pid,
                "tid": task.tid,
                "state": task.state,
                "blocked_seconds": task.blocked_seconds,
                "io_flusher": task.io_flusher,
                "line": task.line,
                "offset": task.offset,
            }
            for task in episode.tasks
        ],
        "count": episode.count,
        "needs": episode.needs,
        "device": episode.device,
        "daemon": episode.daemon,
        "chain": [
            {
                "function": step.frame.function,
                "module": step.frame.module,
                "reliable": step.frame.reliable,
                "role": step.role.value if step.role else None,
                "reason": step.reason or None,
            }
            for step in episode.chain
        ],
        "begins": list(episode.begins),
        "cycle": list(episode.cycle),
        "edges": [
            {
                "waiter": edge.waiter,
                "thing": edge.thing,
                "waits": edge.waits,
                "giver": edge.giver,
                "gives": edge.gives,
                "known": edge.known.value,
                "missing": edge.missing,
            }
            for edge in episode.edges
        ],
        "waits": list(episode.waits),
        "gives": list(episode.gives),
        "kernel": episode.kernel,
        "notes": list(episode.notes),
        "remedies": list(episode.remedies),
    }
