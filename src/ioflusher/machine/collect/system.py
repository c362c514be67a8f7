"""The machine itself: its name and kernel, its memory and the limits that vm.* sets."""

import os
from datetime import UTC, datetime
from pathlib import Path

from ioflusher.kernel.meminfo import parse_meminfo
from ioflusher.machine.collect.tree import Tree
from ioflusher.machine.snapshot import Memory, System

# Memory's field -> /proc/sys/vm
_SYSCTLS = {
    "min_free_kib": "min_free_kbytes",
    "swappiness": "swappiness",
    "watermark_scale_factor": "watermark_scale_factor",
    "watermark_boost_factor": "watermark_boost_factor",
    "dirty_bytes": "dirty_bytes",
    "dirty_background_bytes": "dirty_background_bytes",
    "dirty_ratio": "dirty_ratio",
    "dirty_background_ratio": "dirty_background_ratio",
}


def read_system(root: Path, tree: Tree, *, privileged: bool) -> System:
    """The machine; a recorded one was taken when its /proc directory was last changed."""
    if root == Path("/"):
        machine, moment = os.uname().machine, datetime.now(UTC)
    else:
        machine = tree.text("proc/sys/kernel/arch") or "unknown"  # since 6.1
        moment = datetime.fromtimestamp((root / "proc").stat().st_mtime, UTC)
    return System(
        hostname=tree.text("proc/sys/kernel/hostname") or "unknown",
        release=tree.text("proc/sys/kernel/osrelease") or "unknown",
        machine=machine,
        taken=moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        privileged=privileged,
    )


def read_memory(tree: Tree) -> Memory:
    """What /proc/meminfo and /proc/sys/vm say; None for what they do not."""
    info = parse_meminfo(tree.data("proc/meminfo") or b"")
    return Memory(
        total_kib=info.total_kib,
        free_kib=info.free_kib,
        available_kib=info.available_kib,
        swap_total_kib=info.swap_total_kib,
        swap_free_kib=info.swap_free_kib,
        dirty_kib=info.dirty_kib,
        writeback_kib=info.writeback_kib,
        **{name: tree.number(f"proc/sys/vm/{file}") for name, file in _SYSCTLS.items()},
    )
