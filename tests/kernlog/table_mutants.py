"""Rows of the tables are taken out, one at a time: python -m tests.kernlog.table_mutants [--sample N].

A row is held where without it the answer to some log of logs/, some stack of stacks.txt (all that
tests/kernlog/answers.py keeps) or some name of alone.toml is another one. Prints how many of each table are
held, and which are not.
"""

import argparse
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.kernlog.alone import CASES, alone
from tests.kernlog.answers import LOGS, everything
from tests.kernlog.stacks import STACKS, log

from ioflusher.kernlog.reading import console
from ioflusher.kernlog.reading.console import parse_console
from ioflusher.kernlog.reading.frames import plain_name
from ioflusher.kernlog.records import LockdepReport, TaskReport
from ioflusher.kernlog.stacks import anatomy, askers, kernel_threads, roles, subsystems

# whatever remembers what a table said
REMEMBERED = (
    *(roles._index, roles.role_of, roles.tagged_rows, console._is_outermost, askers.daemon_named),
    *(kernel_threads.kernel_thread_named, subsystems.family, subsystems.completing_families, anatomy.dissect),
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One log, one stack of stacks.txt, or one name of alone.toml.

    Attributes:
        data: its text.
        words: the functions, task names and modules in it: a row that fits none of them cannot matter.
    """

    data: bytes
    words: frozenset[str]

    def answer(self) -> list[dict[str, Any]]:
        """What comes out."""
        return everything(self.data)


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and how it is used without one row."""

    name: str
    rows: tuple[Any, ...]
    pattern: Callable[[Any], str]
    module: Any
    reader: str

    def without(self, row: Any) -> Callable[[], object]:
        """The reader of a table that lacks a row."""
        left = tuple(other for other in self.rows if other is not row)
        if self.name == "subsystems":
            return lambda: {other.module: other for other in left}
        return lambda: left


def tables() -> Iterator[Table]:
    """Every table of kernlog/stacks."""
    yield Table("functions", roles.all_rows(), lambda row: row.pattern, roles, "all_rows")
    yield Table("daemons", askers.known_daemons(), lambda row: row.name, askers, "known_daemons")
    threads = kernel_threads.known_threads()
    yield Table("threads", threads, lambda row: row.name, kernel_threads, "known_threads")
    rows = tuple(subsystems.known_subsystems().values())
    yield Table("subsystems", rows, lambda row: row.module, subsystems, "known_subsystems")


def evidence() -> Iterator[Evidence]:
    """All logs and stacks."""
    logs = [path.read_bytes() for path in sorted(LOGS.glob("*.txt"))]
    stacks = [log(*stack) for cases in STACKS.values() for stack in cases.values()]
    names = [alone(section, name) for section, _, name in CASES]
    for data in (*logs, *stacks, *names):
        words: set[str] = set()
        for record in parse_console(data):
            if isinstance(record, TaskReport | LockdepReport):
                words.update(plain_name(frame.function) for frame in record.frames)
                words.update(frame.module for frame in record.frames if frame.module)
                words.update(filter(None, (record.comm, *(getattr(record, "workqueue", None) or "").split())))
        parts = {row.part for word in words if (row := roles.role_of(word)) and row.part}
        yield Evidence(data, frozenset(words | parts))


def fits(pattern: str, words: Iterable[str]) -> bool:
    """Whether a row may be about one of the words."""
    stem = pattern.strip("*#")
    return any(stem in word or word == stem[: len(word)] for word in words)


def main() -> None:
    """Take rows out, look whether an answer changes, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="so many rows at random in place of all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shown = [(one, one.answer()) for one in evidence()]
    for table in tables():
        rows = table.rows
        if arguments.sample and arguments.sample < len(rows):
            rows = tuple(random.Random(arguments.seed).sample(rows, arguments.sample))
        lost = [row for row in rows if not is_held(table, row, shown)]
        print(f"{table.name}: {len(rows) - len(lost)} of {len(rows)} rows are held", flush=True)
        print("  not held:", " ".join(table.pattern(row) for row in lost), flush=True)


def is_held(table: Table, row: Any, shown: list[tuple[Evidence, list[dict[str, Any]]]]) -> bool:
    """Whether some answer is another one without the row."""
    about = [(one, before) for one, before in shown if fits(table.pattern(row), one.words)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table.module, table.reader, table.without(row))
        forget()
        held = any(one.answer() != before for one, before in about)
    forget()
    return held


def forget() -> None:
    """Let every look-up ask the tables anew."""
    for remembered in REMEMBERED:
        remembered.cache_clear()


if __name__ == "__main__":
    main()
