"""What verbs read: recorded machines and other files, of which - is standard input, or the live machine."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ioflusher.cli.file_parameters import DASH, InputFile
from ioflusher.support.streams import read_at_most

if TYPE_CHECKING:
    from ioflusher.machine.graph.analysis import Analysis
    from ioflusher.machine.snapshot import Snapshot

STANDARD_INPUT = DASH

_Command = TypeVar("_Command", bound=Callable[..., Any])


def read_standard_input(most: int) -> bytes:
    """All of standard input, but no more than a byte above `most`, which tells that there is more."""
    return read_at_most(sys.stdin.buffer, most + 1) if sys.stdin is not None else b""


def snapshot_option(command: _Command) -> _Command:
    """Adds `--snapshot FILE`, repeatable: the parameter `snapshots`, a tuple of paths."""
    return click.option(
        "--snapshot",
        "snapshots",
        metavar="FILE",
        multiple=True,
        type=InputFile(),
        help="Look at this recorded machine (`ioflusher snapshot`), or - for standard input; "
        "may be given several times.",
    )(command)


def snapshots_from(files: Sequence[Path], root: Path = Path("/")) -> "Iterator[tuple[str, Snapshot]]":
    """Each machine with its name: the files one after another, or the live machine where there are none.

    Raises:
        SnapshotError: a file is no snapshot, or the live machine has no /proc.
    """
    if not files:
        from ioflusher.machine.collect.machine import collect

        yield "this machine", collect(root)
    for file in files:
        yield source_name(file), read_source(file)


def source_name(file: Path) -> str:
    """The file in words."""
    return "standard input" if file == STANDARD_INPUT else str(file)


def read_source(file: Path) -> "Snapshot":
    """The snapshot in a file or in standard input.

    Raises:
        SnapshotError: there is none in it.
    """
    from ioflusher.machine.codec import LARGEST_BYTES, load_snapshot, read_snapshot
    from ioflusher.machine.errors import SnapshotError

    if file != STANDARD_INPUT:
        return read_snapshot(file)
    data = read_standard_input(LARGEST_BYTES)
    if len(data) > LARGEST_BYTES:
        raise SnapshotError(f"standard input: longer than the {LARGEST_BYTES >> 20} MiB of a snapshot")
    return load_snapshot(data, "standard input")


def machines_from(files: Sequence[Path], *, listeners: bool = False) -> "Iterator[Analysis]":
    """The same machines, each with what follows from its snapshot.

    What the collector inferred of the live machine is handed on: it is not inferred again. `listeners`: look
    closely at its processes that listen or stand by, too.
    """
    from ioflusher.machine.graph.analysis import Analysis

    if files:
        yield from (Analysis(snapshot) for _, snapshot in snapshots_from(files))
    else:
        from ioflusher.machine.collect.machine import collect_serving

        collected = collect_serving(listeners=listeners)
        yield Analysis(collected.snapshot, collected.services)
