"""Whether this machine can run both halves of a pair at once without one taking what the other needs."""

import os
from dataclasses import dataclass
from pathlib import Path

from ioflusher.kernel.meminfo import parse_meminfo
from ioflusher.scenario.records import Scenario
from ioflusher.support.sizes import format_size
from ioflusher.support.text import counted

# beside the guest's memory, as measured under emulation: QEMU, translated code, disks in a temporary file
EMULATOR_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Capacity:
    """What this process may use of the machine.

    Attributes:
        cpus: processors.
        memory_bytes: memory that can be had without swapping; None where not known.
    """

    cpus: int
    memory_bytes: int | None


def this_machine(root: Path = Path("/")) -> Capacity:
    """The processors that this process may run on, and free memory, within its container's limits.

    A container sees its own control group at /sys/fs/cgroup (cgroups(7), "cgroup namespaces"); the files are
    those of version 2, Documentation/admin-guide/cgroup-v2.rst.
    """
    cpus = len(os.sched_getaffinity(0))
    quota, _, period = _text(root / "sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cpus = min(cpus, int(quota) // int(period))
    available = parse_meminfo(_text(root / "proc/meminfo").encode()).available_kib
    memory = None if available is None else available << 10
    limit = _text(root / "sys/fs/cgroup/memory.max")
    if limit.isdigit():
        memory = int(limit) if memory is None else min(memory, int(limit))
    return Capacity(max(1, cpus), memory)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def half_bytes(scenario: Scenario) -> int:
    """Memory of this machine that one half takes."""
    outside = scenario.device.size if scenario.daemon.store == "remote" else 0
    return scenario.machine.memory + outside + EMULATOR_BYTES


def why_in_turn(scenario: Scenario, capacity: Capacity) -> str | None:
    """Why both halves cannot run at once here; None where they can.

    Each virtual processor needs one of this machine's: a guest that waits for its turn is another experiment.
    """
    if capacity.cpus < 2 * scenario.machine.cpus:
        return (
            f"this machine has {counted(capacity.cpus, 'processor')} for 2 guests of {scenario.machine.cpus}"
        )
    needed = 2 * half_bytes(scenario)
    if capacity.memory_bytes is not None and capacity.memory_bytes < needed:
        free = format_size(capacity.memory_bytes)
        return f"this machine has {free} of memory to spare, and both at once need {format_size(needed)}"
    return None
