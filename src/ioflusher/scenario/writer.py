"""A scenario as the text of its file, with comments. Needs the extra `ioflusher[lab]` (tomlkit)."""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.records import Scenario, ThreadTable
from ioflusher.support.toml import Size

_UNITS = ((30, "G"), (20, "M"), (10, "K"))


def check_writer() -> None:
    """See that scenarios can be written.

    Raises:
        ScenarioError: tomlkit is not installed.
    """
    try:
        import tomlkit  # noqa: F401
    except ImportError as error:
        raise ScenarioError(
            "a scenario's file is written with a package that is not installed: tomlkit",
            hint="pip install 'ioflusher[lab]'",
        ) from error


def scenario_toml(
    scenario: Scenario, *, head: Sequence[str] = (), comments: Mapping[str, str] | None = None
) -> str:
    """The TOML text that `parse_scenario` reads as this scenario; keys that have their default are left out.

    Args:
        scenario: what to write.
        head: lines of comment at the top.
        comments: dotted key -> what to say behind it; for a table, below its heading.

    Raises:
        ScenarioError: tomlkit is not installed.
    """
    check_writer()
    import tomlkit

    said = comments or {}
    document = tomlkit.document()
    for line in head:
        document.add(tomlkit.comment(line))
    _fill(document, scenario, "", said)
    return tomlkit.dumps(document)


def threads_toml(threads: Sequence[ThreadTable], *, head: Sequence[str] = ()) -> str:
    """The tables [[daemon.thread]] that a scenario's file has for these; `head` is lines of comment.

    Raises:
        ScenarioError: tomlkit is not installed.
    """
    check_writer()
    import tomlkit

    array = tomlkit.aot()
    for thread in threads:
        entry = tomlkit.table()
        _fill(entry, thread, "", {})
        array.append(entry)
    document = tomlkit.document()
    for line in head:
        document.add(tomlkit.comment(line))
    daemon = tomlkit.table(is_super_table=True)
    daemon.add("thread", array)
    document.add("daemon", daemon)
    return tomlkit.dumps(document)


def _fill(table: Any, record: Any, before: str, comments: Mapping[str, str]) -> None:
    """Put the keys of a record into a table: values first, as TOML wants it, then tables."""
    import tomlkit

    types = typing.get_type_hints(type(record), include_extras=True)
    later = []
    for item in fields(record):
        key, value = f"{before}{item.name}", getattr(record, item.name)
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        if value is None or value == default:
            continue
        inner = is_dataclass(value) or isinstance(value, dict)
        if inner or (isinstance(value, tuple) and value and is_dataclass(value[0])):
            later.append((item.name, key, value))
        else:
            _add(
                table, item.name, size_text(value) if _is_size(types[item.name]) else value, comments.get(key)
            )
    for name, key, value in later:
        if isinstance(value, tuple):
            array = tomlkit.aot()
            for number, one in enumerate(value, 1):
                entry = tomlkit.table()
                if said := comments.get(f"{key} {number}"):
                    entry.add(tomlkit.comment(said))
                _fill(entry, one, f"{key} {number}.", comments)
                array.append(entry)
            table.add(name, array)
        elif isinstance(value, dict):
            entry = tomlkit.table()
            for dotted, content in value.items():
                _add(entry, dotted, content, comments.get(f"{key}.{dotted}"))
            table.add(name, entry)
        else:
            entry = tomlkit.table()
            if key in comments:
                entry.add(tomlkit.comment(comments[key]))
            _fill(entry, value, f"{key}.", comments)
            table.add(name, entry)


def _is_size(hint: Any) -> bool:
    return hint == Size or Size in typing.get_args(hint)


def _add(table: Any, name: str, value: Any, comment: str | None) -> None:
    import tomlkit

    item = tomlkit.item(list(value) if isinstance(value, tuple) else value)
    if comment:
        item.comment(comment)
    table.add(name, item)


def size_text(size: int) -> str | int:
    """Bytes as scenario files have them: "400M"; a number where no unit goes in without a rest."""
    for shift, unit in _UNITS:
        if size and not size % (1 << shift):
            return f"{size >> shift}{unit}"
    return size
