"""How much diagnose reasons rather than remembers: python -m tests.kernlog.generality [DIRECTORY...].

From the tables all rows are taken of the subsystems that a real hang's tasks are in (functions, kernel
threads, modules; what no subsystem in particular does stays). Whoever is still found then would have been
found in a subsystem that nobody had listed. Prints the share of the hangs of logs/, or of DIRECTORY (text
files, with a readings.json that says which are hangs), that is found without all of its subsystems, and, of
each pair of a hang and one subsystem of it, without that one; the same of the stacks of stacks.txt.
"""

import argparse
import json
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.kernlog.answers import LOGS
from tests.kernlog.stacks import STACKS, log
from tests.kernlog.table_mutants import REMEMBERED

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.reading.console import task_reports
from ioflusher.kernlog.stacks import kernel_threads, roles, subsystems
from ioflusher.kernlog.stacks.anatomy import dissect
from ioflusher.kernlog.stacks.subsystems import family


def hangs(directories: list[Path]) -> Iterator[Path]:
    """The logs of real hangs: lockdep's predictions need no table."""
    if not directories:
        yield from (path for path in sorted(LOGS.glob("pos_*.txt")) if "_lockdep_" not in path.name)
    for directory in directories:
        for readings in sorted(directory.glob("readings*.json")):
            told = json.loads(readings.read_text("utf-8")).values()
            yield from sorted(directory / one["file"] for one in told if one["kind"] == "hang")


def families_of(data: bytes) -> tuple[str, ...]:
    """The subsystems of a log's tasks, in the log's order."""
    bodies = (dissect(report.frames, report.comm) for report in task_reports(data))
    names = (family(step.part) for body in bodies for step in body.steps)
    return tuple(dict.fromkeys(name for name in names if name))


@contextmanager
def without(names: Set[str]) -> Iterator[None]:
    """The tables without the rows of some subsystems."""
    lost = {row.pattern for row in roles.all_rows() if family(row.part) in names}
    functions = tuple(row for row in roles.all_rows() if not _is_of(row, names, lost))
    threads = tuple(row for row in kernel_threads.known_threads() if row.family not in names)
    known = subsystems.known_subsystems()
    modules = {module: row for module, row in known.items() if row.family not in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roles, "all_rows", lambda: functions)
        patch.setattr(kernel_threads, "known_threads", lambda: threads)
        patch.setattr(subsystems, "known_subsystems", lambda: modules)
        _forget()
        yield
    _forget()


def _is_of(row: roles.RoleRow, names: Set[str], lost: Set[str]) -> bool:
    """Whether a row is one of a subsystem; a row of tags alone belongs to the function that it is about."""
    if row.role is not None or row.pattern.startswith("*"):
        return row.pattern in lost
    about = roles.role_of(row.pattern.rstrip("*") or row.pattern)
    return row.pattern in lost or (about is not None and family(about.part) in names)


def _forget() -> None:
    for remembered in REMEMBERED:
        remembered.cache_clear()


def main() -> None:
    """Print both shares, and what is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directories", nargs="*", type=Path)
    found, kept, alone, pairs = 0, 0, 0, 0
    for path in hangs(parser.parse_args().directories):
        data = path.read_bytes()
        names = families_of(data)
        if not diagnose_log(data).recursion:
            continue
        found += 1
        with without(set(names)):
            whole = diagnose_log(data).recursion
        kept += whole
        lost = []
        for name in names:
            with without({name}):
                pairs += 1
                if diagnose_log(data).recursion:
                    alone += 1
                else:
                    lost.append(name)
        if lost or not whole:
            print(f"{path.stem}: {'kept' if whole else 'lost'}; lost without {' '.join(lost) or '-'}")
    print(f"hangs without all of their subsystems: {kept} of {found}")
    print(f"without one of them: {alone} of {pairs}")
    right = {
        verdict: [stack_is_right(log(*stack), verdict == "recursion") for stack in stacks.values()]
        for verdict, stacks in STACKS.items()
    }
    for verdict, told in right.items():
        print(f"stacks of stacks.txt ({verdict}): {sum(told)} of {len(told)}")


def stack_is_right(data: bytes, recursion: bool) -> bool:
    """Whether a stack comes out right without the rows of all of its subsystems."""
    with without(set(families_of(data))):
        return diagnose_log(data).recursion is recursion


if __name__ == "__main__":
    main()
