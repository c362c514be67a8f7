"""Inside the guest: a memory control group with the scenario's limits, and the programs that are to be in it.

They join before they are executed, so that all of their memory is counted. Documentation/admin-guide,
cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ioflusher.lab.guest.processes import Processes, SetupFailed
from ioflusher.scenario.records import CgroupTable

ROOT = Path("/sys/fs/cgroup")
MOUNTS = {1: ROOT / "memory", 2: ROOT}


@dataclass(frozen=True, slots=True)
class Groups:
    """The group that each of these starts in, None for the root's."""

    daemon: Path | None = None
    workload: Path | None = None


def make_groups(table: CgroupTable | None, reserve: int, processes: Processes) -> Groups:
    """The scenario's group, for those that are to be in it, and the daemon's for a reserve of so many bytes.

    Raises:
        SetupFailed: as `make_group`.
    """
    kept = {"memory.min": reserve} if reserve else {}
    daemon: Path | None = None
    workload: Path | None = None
    if table is not None:
        for_daemon = table.who != "workload"
        group = make_group(
            table.version, "lab", group_limits(table) | (kept if for_daemon else {}), processes
        )
        daemon = group if for_daemon else None
        workload = group if table.who != "daemon" else None
    if reserve and daemon is None:
        daemon = make_group(2, "daemon", kept, processes)
    return Groups(daemon, workload)


def make_group(version: int, name: str, limits: Mapping[str, int], processes: Processes) -> Path:
    """The directory of a new group whose files of these names hold these numbers of bytes.

    Raises:
        SetupFailed: where the kernel has no such controller or file.
    """
    mount = MOUNTS[version]
    lacking = f"this kernel has no memory controller of control groups version {version}"
    group = mount / name
    try:
        if version == 2:
            _enable(mount, processes, lacking)
        else:
            _mount(mount, processes, lacking)
        group.mkdir()
        for file, value in limits.items():
            (group / file).write_text(str(value))
    except OSError as error:
        raise SetupFailed(f"control group of version {version}: {error}") from error
    return group


def _enable(mount: Path, processes: Processes, lacking: str) -> None:
    """Mount version 2 where nobody has, and give its groups the memory controller."""
    if not (mount / "cgroup.controllers").exists():
        processes.step("mount", "-t", "cgroup2", "none", str(mount))
    try:
        (mount / "cgroup.subtree_control").write_text("+memory")
    except OSError as error:
        raise SetupFailed(f"{lacking}: {error}") from error


def _mount(mount: Path, processes: Processes, lacking: str) -> None:
    """Mount version 1's memory controller where systemd and container engines have it."""
    if (mount / "cgroup.procs").exists():
        return
    processes.step("mount", "-t", "tmpfs", "none", str(mount.parent))
    mount.mkdir()
    try:
        processes.step("mount", "-t", "cgroup", "-o", "memory", "none", str(mount))
    except SetupFailed as error:
        raise SetupFailed(f"{lacking} (CONFIG_MEMCG_V1, which 6.1 has and 6.12 may not): {error}") from error


def group_limits(table: CgroupTable) -> dict[str, int]:
    """The files of a group and the bytes in them; in version 1 swap is counted together with memory."""
    if table.version == 1:
        limits = {"memory.limit_in_bytes": table.memory_max}
        if table.memory_max is not None and table.swap_max is not None:
            limits["memory.memsw.limit_in_bytes"] = table.memory_max + table.swap_max
    else:
        limits = {
            "memory.max": table.memory_max,
            "memory.high": table.memory_high,
            "memory.min": table.memory_min,
            "memory.swap.max": table.swap_max,
        }
    return {file: value for file, value in limits.items() if value is not None}
