"""Snapshots as JSON: one object a file, checked whole when it is read back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ioflusher.machine.errors import SnapshotError
from ioflusher.machine.snapshot import FORMAT, VERSION, Snapshot
from ioflusher.support.streams import read_at_most

# A machine with 10,000 threads and 50,000 descriptors makes a few MB.
LARGEST_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class _Head:
    """What says of a file that it is a snapshot; the rest is passed over."""

    format: Any = None
    version: Any = None


_head_decoder = msgspec.json.Decoder(_Head)
_decoder = msgspec.json.Decoder(Snapshot)


def dump_snapshot(snapshot: Snapshot) -> bytes:
    """The snapshot as one JSON object and a newline."""
    return msgspec.json.encode(snapshot) + b"\n"


def load_snapshot(data: bytes, name: str = "the input") -> Snapshot:
    """The snapshot in the text of one file.

    Raises:
        SnapshotError: where it is cut off, of another kind or version, or a value is of the wrong type.
    """
    hint = "make one with `ioflusher snapshot > host.json`"
    try:
        head = _head_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SnapshotError(
            f"{name} is not a whole JSON object, as a snapshot is: {error}", hint=hint
        ) from error
    if head.format != FORMAT:
        raise SnapshotError(f'{name}: expected "format": "{FORMAT}", found {head.format!r:.60}', hint=hint)
    if head.version != VERSION:
        raise SnapshotError(
            f"{name}: this program reads snapshots of version {VERSION}, found {head.version!r:.60}",
            hint=hint,
        )
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SnapshotError(f"{name}: a value is not what a snapshot holds: {error}", hint=hint) from error


def read_snapshot(path: Path) -> Snapshot:
    """The snapshot in a file.

    Raises:
        SnapshotError: where the file cannot be read, is too long, or holds no snapshot.
    """
    try:
        with path.open("rb") as file:
            data = read_at_most(file, LARGEST_BYTES + 1)
    except OSError as error:
        raise SnapshotError(f"cannot read {path}: {error.strerror}", errno=error.errno) from error
    if len(data) > LARGEST_BYTES:
        raise SnapshotError(f"{path}: longer than the {LARGEST_BYTES >> 20} MiB that a snapshot may have")
    return load_snapshot(data, str(path))
