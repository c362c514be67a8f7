"""TOML into dataclasses: every kind of value, and for every mistake file, key, expected, found, nearest."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from ioflusher.errors import IoflusherError
from ioflusher.support.toml import (
    Size,
    TomlError,
    key_lines,
    lines_told,
    parse_toml,
    read_file,
    read_table,
    whole_number,
)


@dataclass(frozen=True, slots=True)
class Disk:
    """A table."""

    size: Size
    kind: Literal["hdd", "ssd"] = "ssd"
    spare: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """A whole file."""

    name: str
    root: Disk
    share: float = 0.5
    level: Literal[1, 2] = 1
    nice: Annotated[int, whole_number(-20, 19, "nice value")] | None = None
    words: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    settings: dict[str, int] = field(default_factory=dict)
    others: dict[str, Disk] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)


SHORT = 'name = "a"\nroot.size = 1\n'
WHOLE = """
name = "a"
share = 1
nice = -20
words = ["x", "y"]
root = { size = "1MiB", kind = "hdd", spare = true }
settings = { "vm.swappiness" = 60 }
others.one.size = 4096
rest = { any = [1, "thing"] }

[[disks]]
size = 1

[[disks]]
size = "2K"
"""


def test_every_kind_of_value() -> None:
    """Tables, arrays of tables, tables by name, numbers, sizes, choices and what has a default."""
    assert parse_toml(WHOLE, Machine, origin="x") == Machine(
        name="a",
        root=Disk(1 << 20, "hdd", True),
        share=1.0,
        nice=-20,
        words=("x", "y"),
        disks=(Disk(1), Disk(2048)),
        settings={"vm.swappiness": 60},
        others={"one": Disk(4096)},
        rest={"any": [1, "thing"]},
    )
    assert parse_toml(SHORT, Machine, origin="x") == Machine("a", Disk(1))


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("name", "not TOML: ", None),
        ("a = " + "[" * 5000, "not TOML: ", None),
        ("nmae = 1", "unknown key nmae", "did you mean name?"),
        ('"\\u001b[31m" = 1', r"unknown key '\x1b[31m'", "it may be one of "),
        (SHORT + "root.sise = 1", "unknown key root.sise", "did you mean root.size?"),
        (SHORT + 'others."a b".sise = 1', "unknown key others.'a b'.sise", "did you mean others.'a b'.size?"),
        (SHORT + "disks = [{ size = 1 }, { sise = 1 }]", "disks 2: unknown key sise", "did you mean size?"),
        ("root.size = 1", "the key name is missing: expected a string in quotes", None),
        ('name = "a"', "the key root is missing: expected a table", None),
        ('name = "a"\n[root]', 'the key root.size is missing: expected a size such as "768M"', None),
        (SHORT + "disks = [{}]", "disks 1: the key size is missing: expected a size", None),
        ("name = 3", "name: expected a string in quotes, found 3", None),
        ("name = true", "name: expected a string in quotes, found true", None),
        ("name = 1979-05-27", "name: expected a string in quotes, found datetime.date(1979, 5, 27)", None),
        (f"name = {['x' * 100]}", "name: expected a string in quotes, found an array", None),
        ('name = "a"\nroot = "b"', "root: expected a table, found 'b'", None),
        ('name = "a"\nroot.size = 1.5', 'root.size: expected a size such as "768M", found 1.5', None),
        ('name = "a"\nroot.size = true', 'root.size: expected a size such as "768M", found true', None),
        ('name = "a"\nroot.size = "1X"', "root.size: expected a size such as \"768M\", found '1X'", None),
        (SHORT + "root.kind = 1", "root.kind: expected one of 'hdd', 'ssd', found 1", None),
        (SHORT + "root.spare = 1", "root.spare: expected true or false, found 1", None),
        (SHORT + "level = true", "level: expected one of 1, 2, found true", None),
        (SHORT + "share = true", "share: expected a number, found true", None),
        (SHORT + 'share = "1"', "share: expected a number, found '1'", None),
        (
            SHORT + "nice = 20",
            "nice: expected a whole number from -20 to 19, found 20",
            "it is the nice value",
        ),
        (SHORT + "nice = true", "nice: expected a whole number from -20 to 19, found true", "it is the nice"),
        (SHORT + "nice = 1.0", "nice: expected a whole number from -20 to 19, found 1.0", "it is the nice"),
        (SHORT + "words = 1", "words: expected an array, each of it a string in quotes, found 1", None),
        (SHORT + "words = ['a', 1]", "words 2: expected a string in quotes, found 1", None),
        (SHORT + "disks = {}", "disks: expected tables [[disks]], found a table", None),
        (SHORT + "disks = [1]", "disks 1: expected a table, found 1", None),
        (SHORT + "settings = []", "settings: expected a table, found an array", None),
        (SHORT + "settings.a = true", "settings.a: expected a whole number, found true", None),
        (SHORT + "others.a = 1", "others.a: expected a table, found 1", None),
    ],
)
def test_mistakes(text: str, says: str, hint: str | None) -> None:
    """The message begins with the file and says key, expected and found; the hint helps where one can."""
    with pytest.raises(TomlError) as caught:
        parse_toml(text, Machine, origin="m.toml")
    assert str(caught.value).startswith(f"m.toml: {says}")
    assert (caught.value.hint or "").startswith(hint or "")
    assert (caught.value.hint is None) is (hint is None)


def test_long_values_are_cut() -> None:
    """A value of a megabyte does not become a message of a megabyte, nor does a key."""
    for text in (f'name = "a"\nroot = "{"x" * 100000}"', "k" * 100000 + " = 1"):
        with pytest.raises(TomlError) as caught:
            parse_toml(text, Machine, origin="m.toml")
        assert len(str(caught.value)) < 200


def test_a_part_of_a_file() -> None:
    """A table that is read by itself is named by its whole key."""
    assert read_table({"size": 1}, Disk, origin="f", where="d.x") == Disk(1)
    with pytest.raises(TomlError, match=r"^f: unknown key d\.x\.sise$"):
        read_table({"sise": 1}, Disk, origin="f", where="d.x")


class OwnError(IoflusherError):
    """A caller's own class."""


def test_files(tmp_path: Path) -> None:
    """A file that is missing, no text or too long is an error of the caller's class, with what it is for."""
    path = tmp_path / "a.toml"
    path.write_text("é")
    assert read_file(path) == "é"
    for data, says in (
        (b"a\xff", "not UTF-8, as TOML is: byte 1"),
        (b"#" * ((1 << 20) + 1), "longer than 1 MiB"),
    ):
        path.write_bytes(data)
        with pytest.raises(OwnError, match=says):
            read_file(path, error=OwnError)
    with pytest.raises(OwnError, match=f"^cannot read the thing {tmp_path}: Is a directory") as caught:
        read_file(tmp_path, what="the thing", error=OwnError)
    assert caught.value.errno == 21


LINES = """# a comment
name = "x = 1"

[machine]
memory = 1
modules = [
  "size = 3",
]
text = '''
[device]
size = 2
'''

[kernel.sysctl]
"vm.dirty_bytes" = 4

[[fault]]
kind = "a"

[[fault]]
kind = "b"
"""


def test_the_line_of_each_key() -> None:
    """By the names that messages have; what only looks like a key, within a text, is none."""
    assert key_lines(LINES) == {
        "name": 2,
        "machine": 4,
        "machine.memory": 5,
        "machine.modules": 6,
        "machine.text": 9,
        "kernel.sysctl": 14,
        "kernel.sysctl.vm.dirty_bytes": 15,
        "fault": 17,
        "fault 1": 17,
        "fault 1: kind": 18,
        "fault 2": 20,
        "fault 2: kind": 21,
    }


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("m.toml: unknown key machine.memory", "m.toml:5: unknown key machine.memory"),
        ("m.toml: fault 2: kind: expected 'a'", "m.toml:21: fault 2: kind: expected 'a'"),
        ("m.toml: fault 2: 'b' is none", "m.toml:20: fault 2: 'b' is none"),
        ("m.toml: fault 2: at_s: expected", "m.toml:20: fault 2: at_s: expected"),
        ("m.toml: the key machine.cpus is missing", "m.toml:4: the key machine.cpus is missing"),
        ("x: kernel.sysctl.vm.dirty_bytes: no", "m.toml:15: kernel.sysctl.vm.dirty_bytes: no"),
        ("m.toml: nothing that it has", "m.toml: nothing that it has"),
        ("other.toml: machine.memory: no", "other.toml: machine.memory: no"),
    ],
)
def test_an_error_is_told_with_its_line(said: str, told: str) -> None:
    """That of the key, else of its table, else none; what is about another file stays as it is."""
    with pytest.raises(TomlError) as caught, lines_told(LINES, "m.toml", "x"):
        raise TomlError(said, hint="a hint")
    assert (str(caught.value), caught.value.hint) == (told, "a hint")
