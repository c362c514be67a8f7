"""What is still found where less of each stack is shown: python -m tests.kernlog.cuts.

Of every stack of logs/ some frames are taken away, as people, consoles and trackers cut them, or its
name or its modules. Prints how many hangs are found then, and how many harmless logs become alarms.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from tests.kernlog.answers import LOGS

from ioflusher.kernlog.diagnose import Diagnoser
from ioflusher.kernlog.reading.console import parse_console
from ioflusher.kernlog.records import Record, TaskReport

LEAST = 3  # frames that stay
Cut = Callable[[TaskReport], TaskReport]


def outermost(number: int) -> Cut:
    """Without so many outermost frames."""
    return lambda report: replace(report, frames=report.frames[: max(LEAST, len(report.frames) - number)])


def innermost(number: int) -> Cut:
    """Without so many innermost frames."""
    return lambda report: replace(
        report, frames=report.frames[max(0, min(number, len(report.frames) - LEAST)) :]
    )


def part(share: float) -> Cut:
    """The inner part of each stack alone."""
    return lambda report: replace(report, frames=report.frames[: max(LEAST, int(share * len(report.frames)))])


CUTS: dict[str, Cut] = {
    "whole": lambda report: report,
    "without the 3 outermost frames": outermost(3),
    "without the 6 outermost frames": outermost(6),
    "without the 10 outermost frames": outermost(10),
    "the inner 60 % alone": part(0.6),
    "without the innermost frame": innermost(1),
    "without the 2 innermost frames": innermost(2),
    "without the 4 innermost frames": innermost(4),
    "without the tasks' names": lambda report: replace(report, comm=None),
    "without the modules' names": lambda report: replace(
        report, frames=tuple(replace(frame, module=None) for frame in report.frames)
    ),
}


def logs(kind: str) -> list[Path]:
    """Real hangs ("pos") or harmless logs ("neg"); lockdep's reports are told otherwise."""
    return [path for path in sorted(LOGS.glob(f"{kind}_*.txt")) if "_lockdep_" not in path.name]


def is_recursion(records: Iterable[Record], cut: Cut) -> bool:
    """What comes out of a log whose stacks are cut."""
    diagnoser = Diagnoser()
    for record in records:
        diagnoser.take(cut(record) if isinstance(record, TaskReport) else record)
    return diagnoser.result().recursion


def main() -> None:
    """Print the table."""
    read = {kind: [tuple(parse_console(path.read_bytes())) for path in logs(kind)] for kind in ("pos", "neg")}
    for name, cut in CUTS.items():
        found = [sum(is_recursion(records, cut) for records in read[kind]) for kind in ("pos", "neg")]
        print(f"{name}: {found[0]} of {len(read['pos'])} hangs, {found[1]} of {len(read['neg'])} harmless")


if __name__ == "__main__":
    main()
