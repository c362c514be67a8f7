"""What froze and what lived on real kernels before there was a model: each row again, in the model.

The rows are measurements on throw-away guests of 768 MiB, Linux 6.12 and 6.1; those guests left less memory
to programs than the lab's own do, so that a row here has 100 MiB less.
"""

from dataclasses import dataclass, field

import pytest

from ioflusher.model.build import build
from ioflusher.model.run import RunOutcome, run
from ioflusher.scenario.file import parse_scenario
from ioflusher.scenario.records import Scenario
from ioflusher.scenario.settings import with_settings

SEEDS = range(3)

THROTTLED = """
name = "throttled"
title = "ext4 on nbd, stored in a file of another disk"
served = "by a daemon"
pressed = "by a writer"
[machine]
memory = "668M"
[kernel.sysctl]
"vm.dirty_bytes" = 8388608
"vm.dirty_background_bytes" = 4194304
[device]
size = "1G"
use = "ext4"
[daemon]
store = "file"
[workload]
kind = "files"
size = "160M"
"""

SWAP = """
name = "swap"
title = "swap on nbd, forwarded to a server outside"
served = "by a daemon"
pressed = "by a hog and a reader"
[machine]
memory = "668M"
[kernel.sysctl]
"vm.swappiness" = 100
"vm.min_free_kbytes" = 8192
"vm.watermark_boost_factor" = 0
[kernel.write]
"/sys/kernel/mm/lru_gen/enabled" = "0"
[device]
size = "1G"
use = "swap"
[daemon]
store = "remote"
[hardening]
lock_memory = true
[workload]
kind = "anonymous"
size = "330M"
pause_ms = 10
[pressure]
kind = "reader"
size = "290M"
"""

FROZEN, DONE = RunOutcome.FROZEN, RunOutcome.DONE


@dataclass(frozen=True)
class Row:
    """A line of the table: settings besides the base's, and what became of the halves."""

    base: str
    label: str
    without: RunOutcome
    with_state: RunOutcome
    settings: dict[str, object] = field(default_factory=dict)
    version: tuple[int, int] = (6, 12)


def dirty(mib: int) -> dict[str, object]:
    """A dirty limit, half of it in the background."""
    limits = {"vm.dirty_bytes": mib << 20, "vm.dirty_background_bytes": mib << 19}
    return {f"kernel.sysctl.{name}": value for name, value in limits.items()}


SWAPPINESS = "kernel.sysctl.vm.swappiness"
MGLRU: dict[str, object] = {"kernel.write./sys/kernel/mm/lru_gen/enabled": "1"}
ROWS = (
    Row(THROTTLED, "as said", FROZEN, DONE),
    Row(THROTTLED, "xfs instead of ext4", FROZEN, DONE, {"device.use": "xfs"}),
    Row(THROTTLED, "store on the bare disk", FROZEN, DONE, {"daemon.store": "disk"}),
    Row(THROTTLED, "dirty_bytes 4 MiB", FROZEN, DONE, dirty(4)),
    Row(THROTTLED, "kernel 6.1", FROZEN, DONE, version=(6, 1)),
    Row(THROTTLED, "dirty_bytes 16 MiB: slow", DONE, DONE, dirty(16)),
    Row(THROTTLED, "dirty_bytes 32 MiB: slow", DONE, DONE, dirty(32)),
    Row(THROTTLED, "default ratios, 330 MiB", DONE, DONE, {**dirty(0), "workload.size": 330 << 20}),
    Row(SWAP, "as said", FROZEN, DONE),
    Row(SWAP, "kernel 6.1", FROZEN, DONE, version=(6, 1)),
    Row(SWAP, "nothing locked or allocated beforehand", FROZEN, DONE, {"hardening.lock_memory": False}),
    Row(SWAP, "real-time scheduling", DONE, DONE, {"hardening.realtime": 10}),
    Row(SWAP, "swappiness 60", FROZEN, DONE, {SWAPPINESS: 60}),
    Row(SWAP, "multi-generational LRU, swappiness 200", FROZEN, DONE, {**MGLRU, SWAPPINESS: 200}),
    Row(SWAP, "multi-generational LRU, swappiness 100: nothing was swapped", DONE, DONE, MGLRU),
    Row(
        SWAP,
        "no reader, everything anonymous",
        FROZEN,
        FROZEN,
        {"pressure.kind": "none", "pressure.size": 0, "workload.size": 750 << 20},
    ),
)


def scenario_of(row: Row) -> Scenario:
    """The scenario of a line."""
    return with_settings(parse_scenario(row.base), row.settings)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.base.split(chr(34))[1]}: {row.label}")
@pytest.mark.parametrize("io_flusher", [False, True], ids=["without", "with"])
def test_a_row_comes_out_as_it_was_measured(row: Row, io_flusher: bool) -> None:
    """The same outcome, whatever chance does."""
    system = build(scenario_of(row), io_flusher=io_flusher, version=row.version)
    outcomes = {run(system, seed=seed).outcome for seed in SEEDS}
    assert outcomes == {row.with_state if io_flusher else row.without}
