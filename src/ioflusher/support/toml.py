"""From TOML text to a frozen dataclass, strictly: every message names file, key, what was expected and found.

The dataclass is the schema. A field's type says what its key takes:

| type | TOML |
|---|---|
| str, int, float, bool | a string, a whole number, a number, true or false |
| Literal["a", "b"] | one of them |
| a dataclass | a table; a key that it does not know is an error that names the nearest one |
| dict[str, T] | a table of any keys |
| tuple[T, ...] | an array; of dataclasses, it is written as tables: [[key]] |
| T or None | T; the key may be missing where the field has a default |
| Annotated[T, Form(...)] | what the form reads, such as a size |
| Any | anything, not looked into |
"""

import functools
import re
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from ioflusher.errors import IoflusherError
from ioflusher.support.sizes import SizeError, parse_size
from ioflusher.support.text import did_you_mean

LARGEST_BYTES = 1 << 20
# of a key or a value that is wrong, so many characters are in the message
_SHOWN = 60

T = TypeVar("T")


class TomlError(IoflusherError):
    """A TOML text does not say what it has to say."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a value is written that TOML has no type for.

    Attributes:
        expected: the form in words, as in 'a size such as "768M"'.
        read: its value from TOML's own; raises ValueError for what is none.
        hint: what else to know about it, None for nothing.
    """

    expected: str
    read: Callable[[object], object]
    hint: str | None = None


def _size(value: object) -> int:
    try:
        return parse_size(str(value))
    except SizeError as error:
        raise ValueError(value) from error


# bytes, written as a number or as support.sizes reads it
Size = Annotated[int, Form('a size such as "768M"', _size)]


def whole_number(least: int, most: int, meaning: str) -> Form:
    """The form of a whole number within limits, both of which it may have."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(value)
        return value

    return Form(f"a whole number from {least} to {most}", read, f"it is the {meaning}")


def read_file(path: Path, *, what: str = "", error: type[IoflusherError] = TomlError) -> str:
    """The text of a TOML file; `what` is it for messages: "the scenario".

    Raises:
        IoflusherError: as `error`, where it cannot be read, is longer than 1 MiB, or is not UTF-8.
    """
    name = f"{what} {path}" if what else str(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as problem:
        raise error(f"cannot read {name}: {problem.strerror or problem}", errno=problem.errno) from problem
    if len(data) > LARGEST_BYTES:
        raise error(f"{name}: longer than {LARGEST_BYTES >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise error(f"{name}: not UTF-8, as TOML is: byte {problem.start}") from problem


def packaged_texts(package: str, folder: str) -> dict[str, str]:
    """The TOML files in a folder of a package: name without its ending to text, in the order of names."""
    from importlib import resources  # guests load this module, and have no use for that one

    directory = resources.files(package) / folder
    return {
        entry.name.removesuffix(".toml"): entry.read_text()
        for entry in sorted(directory.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def parse_toml(text: str, kind: type[T], *, origin: str, error: type[IoflusherError] = TomlError) -> T:
    """The dataclass that a TOML text holds.

    Args:
        text: the TOML.
        kind: a dataclass; see the table at the top.
        origin: what messages call the text, a file's name.
        error: the class of exceptions.

    Raises:
        IoflusherError: as `error`, for what is not TOML, keys that are unknown or missing, wrong values.
    """
    try:
        import tomllib  # only who reads a text needs it; guests under emulation have records alone

        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as problem:
        raise error(f"{origin}: not TOML: {problem}") from problem
    return read_table(raw, kind, origin=origin, error=error)


def read_table(
    raw: dict[str, Any],
    kind: type[T],
    *,
    origin: str,
    where: str = "",
    error: type[IoflusherError] = TomlError,
) -> T:
    """The dataclass that a table holds which `tomllib` has read; `where` is its own key, "" for the file.

    Raises:
        IoflusherError: as for `parse_toml`.
    """
    return typing.cast(T, _Reader(origin, error).table(kind, raw, f"{where}." if where else ""))


@contextmanager
def lines_told(text: str, origin: str, *others: str) -> Iterator[None]:
    """An error that is raised inside about a key of this text has its line, too: "FILE:7: device.use: ...".

    Args:
        text: the TOML.
        origin: what messages call it.
        others: other names that its messages may begin with, in place of which origin stands then.
    """
    try:
        yield
    except IoflusherError as error:
        message = str(error)
        name = next((name for name in (origin, *others) if message.startswith(f"{name}: ")), None)
        if name is not None:
            said = message.removeprefix(f"{name}: ")
            line = _line_of(said, key_lines(text))
            place = f"{origin}:{line}" if line else origin
            error.args = (f"{place}: {said}",)
        raise


# the beginning of a line that has a key or the name of a table
_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEYS = re.compile(rf"\s*(?P<open>\[{{0,2}})\s*(?P<keys>{_KEY}(?:\s*\.\s*{_KEY})*)\s*(?P<end>=|\]{{1,2}})")
# a key in a message: its table of an array with a number, or its dotted name
_NAMED = re.compile(r"[\w-]+(?:\.[\w-]+)*(?: \d+(?:: [\w-]+)?)?")


def key_lines(text: str) -> dict[str, int]:
    """The line of each key and each table of a TOML text, by its name as messages have it.

    "device.use", "fault 2", "fault 2: kind". What stands within a table in braces has none.
    """
    lines: dict[str, int] = {}
    table, quotes = "", ""
    for number, line in enumerate(text.splitlines(), 1):
        found = None if quotes else _KEYS.match(line)
        if found:
            name = ".".join(part.strip("\"'") for part in re.findall(_KEY, found["keys"]))
            if found["open"] == "[[":
                count = 1 + sum(re.fullmatch(rf"{re.escape(name)} \d+", key) is not None for key in lines)
                lines.setdefault(name, number)
                name = f"{name} {count}"
            if found["open"]:
                table = f"{name}: " if found["open"] == "[[" else f"{name}."
            else:
                name = table + name
            lines.setdefault(name, number)
        for mark in ('"""', "'''"):
            if quotes in ("", mark) and line.count(mark) % 2:
                quotes = "" if quotes else mark
    return lines


def _line_of(said: str, lines: dict[str, int]) -> int | None:
    """The line of the first key that a message names, or of the table that it would stand in."""
    for found in _NAMED.findall(said):
        table = found.partition(": ")[0]
        for name in (found, table, table.partition(" ")[0], found.rpartition(".")[0]):
            if name in lines:
                return lines[name]
    return None


def shown_key(key: str) -> str:
    """A key as a message has it: bare where TOML lets it be so, else quoted, escaped and cut."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) and len(key) <= _SHOWN else repr(key)[:_SHOWN]


@functools.cache
def _types(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


@dataclass(frozen=True, slots=True)
class _Reader:
    """What every step needs to know for its messages."""

    origin: str
    error: type[IoflusherError]

    def table(self, kind: Any, raw: dict[str, Any], where: str) -> Any:
        """A dataclass; `where` is the beginning of its keys: "" or "machine."."""
        known = {item.name: item for item in fields(kind)}
        for key in raw:
            if key not in known:
                message = f"{self.origin}: unknown key {where}{shown_key(key)}"
                raise self.error(message, hint=did_you_mean(key, known, where))
        values = {}
        for name, item in known.items():
            hint = _types(kind)[name]
            if name in raw:
                values[name] = self.value(hint, raw[name], where + name)
            elif item.default is MISSING and item.default_factory is MISSING:
                form = _form(hint)
                expected = form.expected if form else _expected(hint)
                raise self.error(
                    f"{self.origin}: the key {where}{name} is missing: expected {expected}",
                    hint=form.hint if form else None,
                )
        return kind(**values)

    def value(self, hint: Any, raw: Any, key: str) -> Any:
        """The value of one key."""
        form = _form(hint)
        if form is not None:
            try:
                return form.read(raw)
            except ValueError:
                self.wrong(key, form.expected, raw, form.hint)
        if hint is Any:
            return raw
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return self.value(next(one for one in inner if one is not types.NoneType), raw, key)
        if is_dataclass(hint) and isinstance(raw, dict):
            return self.table(hint, raw, f"{key}.")
        if origin is dict and isinstance(raw, dict):
            return {name: self.value(inner[1], one, f"{key}.{shown_key(name)}") for name, one in raw.items()}
        if origin is tuple and isinstance(raw, list):
            return tuple(self.item(inner[0], one, key, number) for number, one in enumerate(raw, 1))
        # `in` alone takes True for 1
        if origin is typing.Literal and any(raw == one and type(raw) is type(one) for one in inner):
            return raw
        if hint is float and type(raw) is int:
            return float(raw)
        # a bool is an int in Python, not in TOML
        if type(raw) is hint:
            return raw
        self.wrong(key, _expected(hint, key), raw)

    def item(self, hint: Any, raw: Any, key: str, number: int) -> Any:
        """One of an array; keys of a table in it are named after "suppress 2: "."""
        if is_dataclass(hint) and isinstance(raw, dict):
            return _Reader(f"{self.origin}: {key} {number}", self.error).table(hint, raw, "")
        return self.value(hint, raw, f"{key} {number}")

    def wrong(self, key: str, expected: str, raw: object, hint: str | None = None) -> NoReturn:
        """Say that the value of a key is not what it has to be."""
        raise self.error(f"{self.origin}: {key}: expected {expected}, found {_found(raw)}", hint=hint)


def _form(hint: Any) -> Form | None:
    """The form that a type carries, also where None may stand for it."""
    if typing.get_origin(hint) is Annotated:
        return next((extra for extra in hint.__metadata__ if isinstance(extra, Form)), None)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next((form for form in map(_form, typing.get_args(hint)) if form), None)
    return None


def _expected(hint: Any, key: str = "") -> str:
    """What a type takes, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _expected(next(one for one in inner if one is not types.NoneType), key)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, inner))
    if origin is tuple:
        if is_dataclass(inner[0]):
            return f"tables [[{key}]]" if key else "tables"
        return f"an array, each of it {_expected(inner[0])}"
    if is_dataclass(hint) or origin is dict:
        return "a table"
    return _NAMES.get(hint, str(hint))


_NAMES: dict[Any, str] = {
    str: "a string in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _found(raw: object) -> str:
    match raw:
        case dict():
            return "a table"
        case list():
            return "an array"
        case bool():
            return str(raw).lower()
        case _:
            return repr(raw)[:_SHOWN]
