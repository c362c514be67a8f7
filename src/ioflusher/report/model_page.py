"""A scenario in the model as one HTML page in which a person steps through the end of both halves.

Needs jinja2. The page loads nothing. What it shows at each step is computed here; it only goes to and fro.
"""

import json
from collections.abc import Sequence
from typing import Any

from ioflusher import __version__
from ioflusher.kernel.task_flags import TaskFlags
from ioflusher.model.halves import ModelHalf, serves
from ioflusher.model.moments import StepTaken, TaskMoment, moments
from ioflusher.model.transitions import TransitionSystem, Variable
from ioflusher.report.model_words import (
    half_outcome,
    names_by_pid,
    task_words,
    value_of,
    verdict,
    wait_sentence,
)
from ioflusher.report.page import render_template
from ioflusher.scenario.records import Scenario
from ioflusher.support.text import counted

# steps that the page has of a half: in all, and of those behind the last completed request or its time
MOST_STEPS, MOST_BEHIND = 400, 200


def render_page(scenario: Scenario, version: tuple[int, int], halves: Sequence[ModelHalf]) -> str:
    """The page; everything from the scenario is escaped.

    Raises:
        IoflusherError: the package jinja2 is not installed.
    """
    good, sentence = verdict(scenario, version, tuple(halves))
    records = [_half(half) for half in halves]
    return render_template(
        "model.html.j2",
        scenario=scenario,
        kernel=".".join(map(str, version)),
        good=good,
        verdict=sentence,
        halves=records,
        data=json.dumps(records, separators=(",", ":")),
        version=__version__,
    )


def _half(half: ModelHalf) -> dict[str, Any]:
    system = half.system
    steps = [StepTaken(one.at_ns, one.program, one.step, one.values) for one in half.steps]
    points = list(half.points)
    end = min(len(steps), half.turn + MOST_BEHIND)
    begin = max(0, end - MOST_STEPS)
    for one in steps[:begin]:
        points[one.program] = one.step.to
    shown = steps[begin:end]
    texts: dict[str, int] = {}
    stacks: dict[tuple[str, ...], int] = {}
    before = steps[begin - 1].values if begin else None
    rows: list[dict[str, Any]] = []
    for taken, tasks in zip(shown, moments(system, points, shown), strict=True):
        doing = [_moment(task, texts, stacks) for task in tasks]
        if rows and not taken.step.label and taken.values == before:
            rows[-1]["m"] = doing  # it only decided: what it came to is seen at once
            continue
        rows.append(
            {
                "t": (taken.at_ns or 0) / 1e9,
                "p": taken.program,
                "l": texts.setdefault(taken.step.label or "goes on", len(texts)),
                "k": stacks.setdefault(taken.step.calls, len(stacks)),
                "v": list(taken.values),
                "d": _difference(system, before, taken.values),
                "c": bool(taken.step.completes),
                "m": doing,
                "e": [value_of(level.of, _named(system, taken.values)) for level in system.levels],
                "a": [value_of(level.units, _named(system, taken.values)) for level in system.levels],
                "f": [value_of(count, _named(system, taken.values)) for _, count in system.in_flight],
            }
        )
        before = taken.values
    cycle = [task_words(task) for task in half.cycle]
    tags = {variable.name: variable.high for variable in system.variables}
    return {
        "name": half.name,
        "frozen": half.frozen,
        "outcome": half_outcome(half),
        "began": shown[0].at_ns / 1e9 if shown and shown[0].at_ns else 0,
        "counted": counted(half.result.steps, "step"),
        "order": sorted(range(len(system.programs)), key=lambda number: _place(system, number)),
        "tasks": [
            {
                "name": names_by_pid(half)[program.pid],
                "daemon": serves(program),
                "hardware": program.hardware,
                "flags": " ".join(TaskFlags(program.flags).names),
            }
            for program in system.programs
        ],
        "variables": [_variable(variable) for variable in system.variables],
        "unit": system.unit_bytes,
        "levels": [{"name": level.name, "what": level.what} for level in system.levels],
        "devices": [{"name": name, "depth": tags.get(f"{name}_tags", 0)} for name, _ in system.in_flight],
        "texts": list(texts),
        "stacks": [list(calls) for calls in stacks],
        "steps": rows,
        "cycle": [*cycle, *cycle[:1]],
        "waits": [{"task": task_words(task), "why": wait_sentence(half, task)} for task in half.cycle],
    }


def _variable(variable: Variable) -> dict[str, Any]:
    return {"name": variable.name, "what": variable.what, "unit": variable.unit, "high": variable.high}


def _named(system: TransitionSystem, values: Sequence[int]) -> dict[str, int]:
    return dict(zip((variable.name for variable in system.variables), values, strict=True))


def _difference(
    system: TransitionSystem, before: Sequence[int] | None, after: Sequence[int]
) -> list[tuple[int, int]]:
    """The variables that a step changed, each with its value before."""
    if before is None:
        return []
    return [(number, old) for number, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]


def _place(system: TransitionSystem, number: int) -> tuple[bool, bool]:
    """Where a task is shown: daemons first, what is no task last."""
    return not serves(system.programs[number]), system.programs[number].hardware


_DOING = {"runs": 0, "busy": 1, "rests": 2, "waits": 3}


def _moment(
    task: TaskMoment, texts: dict[str, int], stacks: dict[tuple[str, ...], int]
) -> tuple[int, int, int, int]:
    """What a task does: how, the text, the stack, and whether it could be interrupted."""
    return (
        _DOING[task.doing],
        texts.setdefault(task.what, len(texts)),
        stacks.setdefault(task.calls, len(stacks)),
        int(task.interruptible),
    )
