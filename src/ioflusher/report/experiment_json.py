"""An experiment as JSON: all the evidence, names with their units."""

from typing import Any

from ioflusher.lab.outcome import DaemonThread, Experiment, Half


def experiment_record(experiment: Experiment) -> dict[str, Any]:
    """The whole experiment: {"scenario", "kernel", "runs": [{"without": {...}, "with": {...}}], ...}.

    A half that was not run is null.
    """
    return {
        "scenario": experiment.scenario,
        "title": experiment.title,
        "served": experiment.served,
        "pressed": experiment.pressed,
        "kernel": experiment.kernel,
        "accelerator": experiment.accelerator,
        "machine": experiment.machine,
        "verdict": experiment.verdict,
        "runs": [
            {"without": _half(run.without), "with": _half(run.with_), "proved": run.proved}
            for run in experiment.runs
        ],
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
        "console_tail": half.console_tail,
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
    }
