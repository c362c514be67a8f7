"""Where the verbs that look at a machine get it from: this machine now, or files that `snapshot` wrote."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ioflusher.machine.codec import LARGEST_BYTES, load_snapshot, read_snapshot
from ioflusher.machine.errors import SnapshotError
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.snapshot import Snapshot

STANDARD_INPUT = Path("-")

_Command = TypeVar("_Command", bound=Callable[..., Any])


def snapshot_option(command: _Command) -> _Command:
    """Adds `--snapshot FILE`, repeatable: the parameter `snapshots`, a tuple of paths."""
    return click.option(
        "--snapshot",
        "snapshots",
        metavar="FILE",
        multiple=True,
        type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        help="Look at this recorded machine (`ioflusher snapshot`), or - for standard input; "
        "may be given several times.",
    )(command)


def snapshots_from(files: Sequence[Path], root: Path = Path("/")) -> Iterator[tuple[str, Snapshot]]:
    """Each machine with its name: the files one after another, or the live machine where there are none.

    Raises:
        SnapshotError: a file is no snapshot, or the live machine has no /proc.
    """
    if not files:
        from ioflusher.machine.collect.machine import collect

        yield "this machine", collect(root)
    for file in files:
        if file == STANDARD_INPUT:
            yield "standard input", _standard_input()
        else:
            yield str(file), read_snapshot(file)


def machines_from(files: Sequence[Path]) -> Iterator[Analysis]:
    """The same machines, each with what follows from its snapshot.

    What the collector inferred of the live machine is handed on: it is not inferred again.
    """
    if files:
        yield from (Analysis(snapshot) for _, snapshot in snapshots_from(files))
    else:
        from ioflusher.machine.collect.machine import collect_serving

        collected = collect_serving()
        yield Analysis(collected.snapshot, collected.services)


def _standard_input() -> Snapshot:
    data = sys.stdin.buffer.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise SnapshotError(f"standard input: longer than the {LARGEST_BYTES >> 20} MiB of a snapshot")
    return load_snapshot(data, "standard input")
