"""A matrix as JSON: every cell with its counts, intervals, times, and the runs that they are from."""

from typing import Any

import msgspec

from ioflusher.lab.matrix.judgement import ContextJudgement, Shown
from ioflusher.lab.matrix.result import CellResult, MatrixResult
from ioflusher.lab.matrix.tally import CONFIDENCE, HalfTally, Rate


def matrix_record(result: MatrixResult, *, command: str, ending: str) -> dict[str, Any]:
    """The whole matrix; `command` plays it again, `ending` says how this call of it ended."""
    plan = result.plan
    return {
        "plan": plan.name,
        "title": plan.title,
        "command": command,
        "ending": ending,
        "runs": plan.runs,
        "only": plan.only,
        "axes": {axis.name: [choice.label for choice in axis.choices] for axis in plan.axes},
        "hardening": list(plan.hardening),
        "confidence": CONFIDENCE,
        "complete": not result.missing,
        "cells": [_cell(result, cell) for cell in result.cells],
        "judgements": [_judgement(one) for one in result.judgements],
    }


def _cell(result: MatrixResult, cell: CellResult) -> dict[str, Any]:
    one, trial = cell.prepared.cell, cell.prepared.trial
    return {
        "name": one.name,
        "scenario": one.scenario_name,
        "coordinates": dict(one.coordinates),
        "fits": cell.prepared.fits,
        "complete": cell.complete(result.plan),
        "trouble": cell.trouble or None,
        "kernel": trial and trial.plan.kernel,
        "accelerator": trial and trial.plan.accelerator,
        "shows": cell.contrast.value,
        "without": _half(cell.tally.without),
        "with": _half(cell.tally.with_),
        "kept_as": list(cell.kept_as),
    }


def _half(half: HalfTally) -> dict[str, Any]:
    return {
        "halves": len(half.halves),
        "frozen": _rate(half.frozen),
        "lived": _rate(half.lived),
        "other": {**_rate(half.other), "what": dict(half.other_words)},
        "froze_after_s": [round(time, 2) for time in half.froze_after_s],
        "lived_after_s": [round(time, 2) for time in half.lived_after_s],
        "near_misses": half.near_misses and msgspec.to_builtins(half.near_misses),
    }


def _rate(rate: Rate) -> dict[str, Any]:
    interval = rate.interval
    return {
        "count": rate.count,
        "of": rate.of,
        "interval": None if interval is None else [round(bound, 4) for bound in interval],
    }


def _judgement(judgement: ContextJudgement) -> dict[str, Any]:
    return {
        "context": dict(judgement.context),
        "hardenings": [
            {
                "hardening": verdict.hardening,
                "sufficient": _shown(verdict.sufficient),
                "necessary": _shown(verdict.necessary),
            }
            for verdict in judgement.verdicts
        ],
        "lives_with": [sorted(names) for names in judgement.enough],
    }


def _shown(shown: Shown) -> dict[str, str]:
    return {"answer": shown.answer.value, "why": shown.why}
