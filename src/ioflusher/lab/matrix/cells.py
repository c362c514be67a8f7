"""A plan's cells: every combination of its scenarios and axes, or why one fits no scenario. Pure.

A cell's scenario is the named one with the combination's keys put in and read again as a scenario file is, so
that everything that may be wrong with it is known before anything boots.
"""

import itertools
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import msgspec

from ioflusher.lab.errors import ScenarioError
from ioflusher.lab.matrix.plan import MOST_CELLS, Choice, MatrixPlan, PlanError
from ioflusher.lab.outcome import Plan
from ioflusher.lab.scenario import Scenario
from ioflusher.lab.scenario_file import check_scenario
from ioflusher.support.text import did_you_mean
from ioflusher.support.toml import read_table

KERNEL = "kernel"  # the axis of kernels: a release each, as `lab run --kernel` takes it
LAB_PROGRAMS = (
    "ioflusher",
    "Python",
    "QEMU",
)  # of `versions.versions`: they play, and are not put to the test


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of a plan.

    Attributes:
        scenario_name: the scenario that it began with.
        coordinates: (name of the axis, label of the value) for each axis.
        kernel: the kernel that is asked for; None for the scenario's own, or the default.
        scenario: what is played; None where the combination fits no scenario.
        misfit: why it does not fit.
    """

    scenario_name: str
    coordinates: tuple[tuple[str, str], ...]
    kernel: str | None
    scenario: Scenario | None
    misfit: str = ""

    @property
    def name(self) -> str:
        """The whole combination in words."""
        return ", ".join((self.scenario_name, *(f"{axis} {label}" for axis, label in self.coordinates)))

    def label(self, axis: str) -> str | None:
        """Its value on an axis; None where there is no such axis."""
        return dict(self.coordinates).get(axis)


def plan_cells(plan: MatrixPlan, scenarios: Mapping[str, Scenario]) -> tuple[Cell, ...]:
    """All combinations, the plan's scenarios first, then its axes, the last one the fastest.

    Args:
        plan: the plan.
        scenarios: those that it names, by the names that it has for them.

    Raises:
        PlanError: an axis is about a key that no scenario has, or there are too many combinations.
    """
    for axis in plan.axes:
        for choice in axis.choices:
            for key, _ in choice.settings:
                if key != KERNEL:
                    setting_path(key)
    number = len(plan.scenarios) * math.prod(len(axis.choices) for axis in plan.axes)
    if number > MOST_CELLS:
        raise PlanError(
            f"{plan.name}: {number} combinations, at most {MOST_CELLS} can be worked on",
            hint="leave out values, or make two plans of it",
        )
    names = [axis.name for axis in plan.axes]
    return tuple(
        _cell(scenarios[name], names, choices)
        for name in plan.scenarios
        for choices in itertools.product(*(axis.choices for axis in plan.axes))
    )


def _cell(base: Scenario, names: list[str], choices: tuple[Choice, ...]) -> Cell:
    coordinates = tuple((name, choice.label) for name, choice in zip(names, choices, strict=True))
    settings = {key: value for choice in choices for key, value in choice.settings}
    kernel = settings.pop(KERNEL, None)
    cell = Cell(base.name, coordinates, None if kernel is None else str(kernel), None)
    try:
        scenario = with_settings(base, settings)
    except ScenarioError as error:
        said = str(error).removeprefix(f"{base.name}: ")
        return replace(cell, misfit=said)
    values = ", ".join(f"{axis} {label}" for axis, label in coordinates if axis != KERNEL)
    return replace(
        cell, scenario=replace(scenario, title=f"{base.title}; {values}" if values else base.title)
    )


def with_settings(base: Scenario, settings: Mapping[str, Any]) -> Scenario:
    """The scenario with other values for these dotted keys.

    Raises:
        ScenarioError: that is no scenario.
    """
    raw = _without_none(msgspec.to_builtins(base))
    for key, value in settings.items():
        *tables, last = setting_path(key)
        table = raw
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
    scenario = read_table(raw, Scenario, origin=base.name, error=ScenarioError)
    check_scenario(scenario, base.name)
    return scenario


def _without_none(raw: Any) -> Any:
    """TOML has no null: a key without a value is not there."""
    match raw:
        case dict():
            return {key: _without_none(value) for key, value in raw.items() if value is not None}
        case list() | tuple():
            return [_without_none(value) for value in raw]
        case _:
            return raw


def setting_path(key: str) -> tuple[str, ...]:
    """A dotted key as the names of tables and the last one's key, by the types of a scenario.

    Below a table of any keys (kernel.sysctl) the rest is one key, dots and all: kernel.sysctl.vm.dirty_bytes.

    Raises:
        PlanError: no scenario has such a key.
    """
    path: list[str] = []
    kind: Any = Scenario
    rest = key
    while rest:
        if typing.get_origin(kind) is dict:
            return (*path, rest)
        table = _table_of(kind)
        if table is None:
            raise PlanError(f"{key}: {'.'.join(path)} is no table", hint=f"name {'.'.join(path)} itself")
        name, _, rest = rest.partition(".")
        known = {item.name for item in fields(table)}
        if name not in known:
            before = "".join(f"{part}." for part in path)
            raise PlanError(
                f"{key}: scenarios have no key {before}{name}", hint=did_you_mean(name, known, before)
            )
        path.append(name)
        kind = typing.get_type_hints(table)[name]
    if _table_of(kind) is not None or typing.get_origin(kind) is dict:
        raise PlanError(
            f"{key}: this is a table, not a key",
            hint="name a key in it; several at once are variants",
        )
    return tuple(path)


def _table_of(kind: Any) -> Any:
    """The dataclass that a type is, or may be beside None."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next((found for found in map(_table_of, typing.get_args(kind)) if found), None)
    return kind if is_dataclass(kind) else None


def setting_of(scenario: Scenario, key: str) -> Any:
    """The value that a scenario has for a dotted key; None where it has none."""
    value: Any = scenario
    for name in setting_path(key):
        if isinstance(value, dict):
            value = value.get(name)
        elif value is not None:
            value = getattr(value, name)
    return value


def trial_key(scenario: Scenario, kernel: str, accelerator: str, programs: Mapping[str, str]) -> str:
    """What was measured, as one text: equal for two runs that show the same, however their story is told.

    Args:
        scenario: the whole definition; name, title and the two sentences for people do not count.
        kernel: the release that was booted.
        accelerator: as in `outcome.Plan`.
        programs: versions of the programs that were played with; the lab's own do not count.
    """
    plain = replace(scenario, name="", title="", served="", pressed="")
    counted = {name: version for name, version in programs.items() if name not in LAB_PROGRAMS}
    return json.dumps([msgspec.to_builtins(plain), kernel, accelerator, counted], sort_keys=True)


def trial_key_of(plan: Plan) -> str:
    """What the runs of a kept experiment measured."""
    return trial_key(plan.definition, plan.kernel, plan.accelerator, plan.versions)
