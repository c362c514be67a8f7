"""A plan's cells: every combination of its scenarios and axes, or why one fits no scenario. Pure.

A cell's scenario is the named one with the combination's keys put in and read again as a scenario file is, so
that everything that may be wrong with it is known before anything boots.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ioflusher.lab.matrix.plan import MOST_CELLS, Choice, MatrixPlan, PlanError
from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.records import Scenario
from ioflusher.scenario.settings import setting_path, with_settings

KERNEL = "kernel"  # the axis of kernels: a release each, as `lab run --kernel` takes it


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
