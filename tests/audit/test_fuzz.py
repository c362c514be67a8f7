"""Forged snapshots: whatever a file holds, an audit ends in a report that is safe to print."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Sarif

from ioflusher.audit.config import Config
from ioflusher.audit.fleet import Judged
from ioflusher.audit.run import audit
from ioflusher.machine.codec import dump_snapshot, load_snapshot
from ioflusher.machine.endpoints import FuseConnection
from ioflusher.machine.errors import SnapshotError
from ioflusher.machine.process import DeviceHandle, MemoryLimit
from ioflusher.machine.snapshot import Unreadable
from ioflusher.report.audit_json import audit_record
from ioflusher.report.audit_sarif import sarif_log
from ioflusher.report.audit_text import render_audit
from tests.audit.machines import BARE, COVERED, FUSE, SWAP_ON_NBD, WELL, machine, threads

RICH = machine(
    {
        "threads": threads(BARE, COVERED),
        "locked_kib": 0,
        "oom_score_adj": 0,
        "cgroups": (MemoryLimit("/x", 2, 1 << 20, 1 << 20, 0, 9),),
        "handles": (DeviceHandle("/dev/fuse", "10:229", 50),),
    },
    swaps=(SWAP_ON_NBD,),
    mounts=(*WELL.mounts, FUSE),
    fuse=(FuseConnection(50, 3),),
    unreadable=(Unreadable("/proc/7/maps", "Permission denied", 7),),
)
TEXTS = ("\x1b[2J\n", "", "/", "nbd0", "/dev/nbd0", "'; reboot '", "\u202e" * 3, "43:0", "a/\x00", "é" * 5000)
NUMBERS = (0, -1, 1, 7, 43, 1 << 31, 1 << 62, -(1 << 62))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values of a JSON text that are neither objects nor arrays."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list):
        return [leaf for number, item in enumerate(value) for leaf in leaves(item, (*path, number))]
    return [path]


MODEL = json.loads(dump_snapshot(RICH))
LEAVES = [path for path in leaves(MODEL) if path[0] not in ("format", "version")]


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(LEAVES),
            st.sampled_from(TEXTS) | st.sampled_from(NUMBERS) | st.none() | st.booleans() | st.text(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_changed_snapshots_are_refused_or_judged(changes: list[tuple[tuple[Any, ...], object]]) -> None:
    """Any values in any places: the room's error, or a report in all forms."""
    raw = json.loads(json.dumps(MODEL))
    for path, value in changes:
        place = raw
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
    try:
        snapshot = load_snapshot(json.dumps(raw).encode())
    except SnapshotError:
        return
    result = Judged("x", audit(snapshot, Config()))
    for line in render_audit([result]):
        assert "\n" not in line.plain
        assert line.plain == "" or line.plain.isprintable()
    json.dumps(audit_record([result]))
    Sarif.model_validate(sarif_log([result]))
