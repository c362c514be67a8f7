"""Plan files: TOML text to a `MatrixPlan`, pure and strict; and where the files are."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from ioflusher.lab.errors import LabError
from ioflusher.lab.outcome import OneHalf
from ioflusher.support.text import did_you_mean
from ioflusher.support.toml import packaged_texts, parse_toml, read_file, whole_number

MOST_RUNS = 1000
MOST_CELLS = 10_000
# the axis or table whose keys harden a daemon, where a plan does not say which axes do
HARDENING = "hardening"


class PlanError(LabError):
    """A plan file does not say what a plan must say."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of an axis.

    Attributes:
        label: what tables call it.
        settings: dotted keys of the scenario with their values as TOML has them.
    """

    label: str
    settings: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """What varies between cells: a dotted key, or a named set of variants with several keys each."""

    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class MatrixPlan:
    """What a matrix is to measure.

    Attributes:
        name: a word for the command line.
        title: one line for people.
        scenarios: names of scenarios, or files.
        runs: how often each half of each cell is played.
        only: the one half that is played; None for both.
        axes: what varies, the slowest first.
        hardening: names of those axes that harden the daemon; the first value of each is "without it".
    """

    name: str
    title: str
    scenarios: tuple[str, ...]
    runs: int
    only: OneHalf | None
    axes: tuple[Axis, ...]
    hardening: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _PlanFile:
    """The keys of a plan file."""

    name: str
    scenarios: tuple[str, ...]
    title: str = ""
    runs: Annotated[int, whole_number(1, MOST_RUNS, "number of runs of each cell")] = 3
    only: Literal["with", "without"] | None = None
    axes: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    hardening: tuple[str, ...] | None = None


def parse_plan(text: str, *, origin: str = "plan") -> MatrixPlan:
    """A plan from TOML text; raises PlanError with the key, what was expected and what was found."""
    file = parse_toml(text, _PlanFile, origin=origin, error=PlanError)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", file.name):
        raise PlanError(f"{origin}: name: expected small letters, digits and hyphens, found {file.name!r}")
    if not file.scenarios:
        raise PlanError(f"{origin}: scenarios: expected at least one, found none")
    axes = (
        *(_axis(name, values, origin) for name, values in _leaves(file.axes)),
        *(_variants(name, variants, origin) for name, variants in file.variants.items()),
    )
    _check(axes, origin)
    hardening = file.hardening
    if hardening is None:
        hardening = tuple(axis.name for axis in axes if axis.name.partition(".")[0] == HARDENING)
    known = [axis.name for axis in axes]
    for name in hardening:
        if name not in known:
            raise PlanError(
                f"{origin}: hardening: expected names of axes, found {name!r}",
                hint=did_you_mean(name, known),
            )
    return MatrixPlan(file.name, file.title, file.scenarios, file.runs, file.only, axes, hardening)


def _axis(key: str, values: object, origin: str) -> Axis:
    if not isinstance(values, list) or not values:
        found = "an empty array" if values == [] else repr(values)[:60]
        raise PlanError(
            f"{origin}: axes.{key}: expected an array of values, found {found}",
            hint='as in "device.use" = ["ext4", "xfs"]',
        )
    return Axis(key, tuple(Choice(value_label(value), ((key, value),)) for value in values))


def _variants(name: str, variants: dict[str, dict[str, Any]], origin: str) -> Axis:
    if not variants:
        raise PlanError(f"{origin}: variants.{name}: expected tables, each named after its variant")
    return Axis(name, tuple(Choice(label, tuple(_leaves(keys))) for label, keys in variants.items()))


def _leaves(table: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Dotted keys with their values, whether the dots stand in a key's quotes or between tables."""
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{before}{key}.")
        else:
            found.append((before + key, value))
    return found


def _check(axes: tuple[Axis, ...], origin: str) -> None:
    """Names and keys are there once, and the labels of an axis differ."""
    owner: dict[str, str] = {}
    for axis in axes:
        labels = [choice.label for choice in axis.choices]
        for label in labels:
            if labels.count(label) > 1:
                raise PlanError(f"{origin}: {axis.name}: {label} is there twice")
        for key in dict.fromkeys(key for choice in axis.choices for key, _ in choice.settings):
            if key in owner:
                raise PlanError(
                    f"{origin}: {key} is set by two axes, {owner[key]} and {axis.name}",
                    hint="put it into the variants of one of them",
                )
            owner[key] = axis.name
    names = [axis.name for axis in axes]
    for name in names:
        if names.count(name) > 1:
            raise PlanError(f"{origin}: two axes are called {name}")


def value_label(value: object) -> str:
    """A value of a plan file as tables show it."""
    match value:
        case bool():
            return "true" if value else "false"
        case list():
            return shlex.join(map(str, value)) if value else "none"
        case _:
            return str(value)


def builtin_plans() -> dict[str, str]:
    """The plans that come with the package: name to TOML text."""
    return packaged_texts("ioflusher.lab.matrix", "plans")


def find_plan(wanted: str) -> MatrixPlan:
    """A built-in plan by name, or one from a file, whose scenarios' files lie beside it.

    Raises:
        PlanError: there is none of that name, or it is no plan.
    """
    known = builtin_plans()
    if wanted in known:
        return parse_plan(known[wanted], origin=wanted)
    if not wanted.endswith(".toml") and "/" not in wanted:
        raise PlanError(
            f"no plan {wanted!r}",
            hint=f"{did_you_mean(wanted, known)} A file ends in .toml",
        )
    path = Path(wanted)
    plan = parse_plan(read_file(path, what="the plan", error=PlanError), origin=wanted)
    beside = tuple(
        str(path.parent / name) if name.endswith(".toml") or "/" in name else name for name in plan.scenarios
    )
    return MatrixPlan(plan.name, plan.title, beside, plan.runs, plan.only, plan.axes, plan.hardening)
