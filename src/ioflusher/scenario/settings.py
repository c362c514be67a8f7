"""Keys of a scenario by their dotted names: read, changed and checked as a scenario's file is. Pure."""

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec

from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.file import check_scenario
from ioflusher.scenario.records import Scenario
from ioflusher.support.text import did_you_mean
from ioflusher.support.toml import read_table


class SettingError(ScenarioError):
    """No scenario has such a key."""


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
        SettingError: no scenario has such a key.
    """
    path: list[str] = []
    kind: Any = Scenario
    rest = key
    while rest:
        if typing.get_origin(kind) is dict:
            return (*path, rest)
        table = _table_of(kind)
        if table is None:
            raise SettingError(f"{key}: {'.'.join(path)} is no table", hint=f"name {'.'.join(path)} itself")
        name, _, rest = rest.partition(".")
        known = {item.name for item in fields(table)}
        if name not in known:
            before = "".join(f"{part}." for part in path)
            raise SettingError(
                f"{key}: scenarios have no key {before}{name}", hint=did_you_mean(name, known, before)
            )
        path.append(name)
        kind = typing.get_type_hints(table)[name]
    if _table_of(kind) is not None or typing.get_origin(kind) is dict:
        raise SettingError(
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
