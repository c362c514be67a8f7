"""An experiment as JSON: all the evidence, names with their units."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from ioflusher.lab.outcome import DaemonThread, Ending, Experiment, Half, Run


def experiment_record(experiment: Experiment, *, kept_as: int | None = None) -> dict[str, Any]:
    """The whole experiment: {"scenario", "kernel", "runs": [{"without": {...}, "with": {...}}], ...}.

    A half that was not played is null. `runs` has the runs that came to their end, `unfinished` the one in
    which the experiment ended early. `kept_as` is its number in the store.
    """
    plan = experiment.plan
    return {
        "scenario": plan.scenario,
        "title": plan.title,
        "served": plan.served,
        "pressed": plan.pressed,
        "kernel": plan.kernel,
        "accelerator": plan.accelerator,
        "machine": plan.machine,
        "only": plan.only,
        "versions": plan.versions,
        "at_once": plan.at_once,
        "verdict": experiment.verdict,
        "expected": {
            "without": plan.expected.without.value,
            "with": plan.expected.with_.value,
            "why": plan.expected.why or None,
        },
        "as_expected": experiment.as_expected,
        "planned": plan.runs,
        "done": len(experiment.runs),
        "ending": experiment.ending.value,
        "interrupted": experiment.ending is Ending.INTERRUPTED,
        "error": experiment.error,
        "kept_as": kept_as,
        "runs": [_run(run) for run in experiment.runs],
        "unfinished": experiment.unfinished and _run(experiment.unfinished),
        "definition": msgspec.to_builtins(plan.definition),
    }


def _run(run: Run) -> dict[str, Any]:
    began = run.began_at
    return {
        "without": _half(run.without),
        "with": _half(run.with_),
        "proved": run.proved,
        "began_at": None if began is None else datetime.fromtimestamp(began, UTC).isoformat("T", "seconds"),
        "host": run.host
        and {"cpus": run.host.cpus, "load_before": run.host.before, "load_after": run.host.after},
    }


def _half(half: Half | None) -> dict[str, Any] | None:
    if half is None:
        return None
    return {
        "outcome": half.outcome.value,
        "detail": half.detail,
        "io_flusher": half.io_flusher,
        "boot_s": round(half.boot_s, 2),
        "wall_s": round(half.wall_s, 2),
        "when_s": round(half.when_s, 2),
        "requests_completed": half.completed,
        "requests_in_flight": half.in_flight,
        "verified_bytes": half.verified_bytes,
        "wrong_chunks": half.wrong_chunks,
        "self_wait": half.witness is not None,
        "file_system": half.file_system and msgspec.to_builtins(half.file_system),
        "guest_memory": half.guest_memory and msgspec.to_builtins(half.guest_memory),
        "near_misses": half.near_misses and msgspec.to_builtins(half.near_misses),
        "threads": [_thread(thread) for thread in half.threads],
        "waiting": [{"comm": comm, "explanation": sentence} for comm, sentence in half.waiting],
        "samples": [
            {
                "time_s": round(sample.time_s, 2),
                "requests_completed": sample.completed,
                "requests_in_flight": sample.in_flight,
                "memory_kib": sample.memory_kib,
            }
            for sample in half.samples
        ],
        "hardening": list(half.hardening),
        "faults": [
            {
                "time_s": round(fault.time_s, 2),
                "kind": fault.kind,
                "begins": fault.begins,
                "failed": fault.failed or None,
            }
            for fault in half.faults
        ],
        "console_tail": half.console_tail,
        "console": half.console,
    }


def _thread(thread: DaemonThread) -> dict[str, Any]:
    explanation = thread.explanation
    return {
        "tid": thread.tid,
        "comm": thread.comm,
        "state": thread.state,
        "flags": thread.flags,
        "io_flusher": thread.io_flusher,
        "explanation": explanation
        and {
            "kind": explanation.kind.value,
            "sentence": explanation.sentence,
            "self_wait": explanation.self_wait,
            "stack": [
                {"function": marked.frame.function, "role": marked.role.value if marked.role else None}
                for marked in explanation.marked
            ],
        },
        "stack_text": thread.stack,
    }
