"""From a scenario to the system that it is.

What a scenario says and the model has not is an error that names the key. What makes no difference in the
model is a note of the system.
"""

from collections.abc import Callable

from ioflusher.kernel.task_flags import Version
from ioflusher.model.block import BIO_POOL_SIZE, SWAP_IN, BioPool
from ioflusher.model.daemon import DAEMON
from ioflusher.model.errors import NotModelledError
from ioflusher.model.files import ext4_file, nfs_file, xfs_file
from ioflusher.model.linux import Linux
from ioflusher.model.memcg import MemoryGroup
from ioflusher.model.memory import make_zone
from ioflusher.model.plug import add_kblockd
from ioflusher.model.reclaim import add_kswapd
from ioflusher.model.scale import FULL, Scale
from ioflusher.model.stacks import STACKS, StackPlan, has_locked
from ioflusher.model.swap import SwapArea
from ioflusher.model.transitions import TransitionSystem, number
from ioflusher.model.versions import holds
from ioflusher.model.workload import WORKLOAD, add_presser, add_reader, add_toucher, add_writer
from ioflusher.model.writeback import (
    BackingDevice,
    DirtyDomain,
    DirtyLimit,
    add_flusher,
    add_jbd2,
    make_backing_device,
)
from ioflusher.model.xfs import INODE_BYTES, XfsInodes
from ioflusher.model.xfs import KINDS as XFS_KINDS
from ioflusher.scenario.daemons import NBD, describe
from ioflusher.scenario.file import check_scenario
from ioflusher.scenario.records import CgroupTable, Scenario
from ioflusher.scenario.stacks import STACKS as SCENARIO_STACKS

# what a guest's kernel, its programs and their files have of its memory: of 400 MiB, 265 were left on 6.12
TAKEN = 135 << 20
# 5.8 did not keep the 140 MiB of xfs-on-nbd-5.8's reader in 320 MiB, where 5.6 did
TAKEN_5_8 = 180 << 20
PAGE_BYTES = 4096
# stacks below the SCSI layer, and SD_TIMEOUT, drivers/scsi/sd.h
SCSI, SCSI_TIMEOUT_S = ("tcmu", "iscsi", "iscsid"), 30
# stacks of which requests end with an error when their daemon does
FAILING = ("nbd", "nbd-tcp", "nbd-device", "stacked", "ublk", "fuse")
LRU_GEN = "/sys/kernel/mm/lru_gen/enabled"
# min_free_kbytes where nothing sets it: calculate_min_free_kbytes(), mm/page_alloc.c, for a guest of 512 MiB
MIN_FREE = 3 << 20

# the most memory that x86-64 can have, with page tables of five levels (MAX_PHYSMEM_BITS)
MOST_MEMORY = 1 << 52

# settings that the model has, with the least and the most that the kernel takes (vm_table of kernel/sysctl.c,
# since 6.13 in the files of mm): two pages of dirty_bytes (dirty_bytes_min); None: no bound of its own. 0
# bytes are what is there by itself: no limit in bytes
SYSCTL: dict[str, tuple[int, int | None]] = {
    "vm.dirty_bytes": (2 * PAGE_BYTES, None),
    "vm.dirty_background_bytes": (0, None),
    "vm.dirty_ratio": (0, 100),
    "vm.dirty_background_ratio": (0, 100),
    "vm.min_free_kbytes": (0, None),
    "vm.swappiness": (0, 200),
    "vm.vfs_cache_pressure": (0, None),
}
# settings that change nothing in it, with the reason
SYSCTL_WITHOUT_EFFECT = {
    "vm.watermark_boost_factor": "the watermarks are not boosted",
    "vm.page-cluster": "a unit is read from swap at a time",
}


def build(
    scenario: Scenario, *, io_flusher: bool, version: Version, scale: Scale = FULL, plugs: bool = False
) -> TransitionSystem:
    """The system of one half of a scenario.

    Args:
        plugs: whether tasks plug what they submit, which decides nothing (`ioflusher.model.plug`).

    Raises:
        ScenarioError: that is no scenario, or its daemon is not described.
        NotModelledError: the model has not what it asks for.
    """
    check_scenario(scenario, scenario.name)
    _check_modelled(scenario, version)
    linux = Linux(version, scale.unit_bytes)
    # of a small instance all memory is soon being written, which a killer would take for the end
    linux.kills = linux.in_full = scale == FULL
    linux.plugs = plugs
    threads = scenario.daemon.thread
    linux.realtime = bool(scenario.hardening.realtime) or any(thread.realtime for thread in threads)
    linux.oom_score_adj = scenario.hardening.oom_score_adj or 0
    _add_memory(linux, scenario, scale)
    pool = BioPool(linux.variable("bio_pool", BIO_POOL_SIZE, BIO_POOL_SIZE, what="elements of the bio pool"))
    memory = linux.variable(
        "daemon_memory", 0, linux.zone.free.high, what="memory of the daemon", unit="memory"
    )
    linux.daemon_memory = memory
    use = scenario.device.use
    if scenario.cgroup is not None and scenario.cgroup.memory_max is not None:
        limit = linux.units(scenario.cgroup.memory_max)
        group = MemoryGroup(limit, scenario.cgroup.version, files=use != "swap")
        members = (WORKLOAD, DAEMON) if scenario.cgroup.who == "both" else (WORKLOAD,)
        linux.groups.update(dict.fromkeys(members, group))
    compares = scale == FULL and use == "swap" and _can_be_read(scenario)
    swap_kinds = ("swap", SWAP_IN) if compares or _reads_swap(scenario) else ("swap",)
    kinds = swap_kinds if use == "swap" else ("write", *XFS_KINDS) if use == "xfs" else ("write",)
    stack = STACKS[scenario.device.kind](StackPlan(linux, scenario, io_flusher, scale, pool, memory, kinds))
    work = _work(linux, scenario)
    if scale.work_units:
        work = min(work, scale.work_units)
    if use == "swap":
        # on where it is built in (6.1, and built in by Debian) and nobody wrote 0
        lru_gen = holds("mglru", version) and scenario.kernel.write.get(LRU_GEN, "1") != "0"
        swappiness = int(scenario.kernel.sysctl.get("vm.swappiness", 60))
        size = scenario.device.size
        SwapArea(linux, stack.device, pool, size=size, swappiness=swappiness, lru_gen=lru_gen)
    else:
        backing = make_backing_device(
            linux,
            stack.device,
            pool,
            reclaim_writes=use == "xfs" and holds("xfs_reclaim_writes_file_pages", version),
        )
        if use == "nfs":
            add_writer(linux, nfs_file(backing), work)
        elif use == "xfs":
            _add_xfs(linux, scenario, backing, pool, work)
        else:
            add_writer(linux, ext4_file(backing), work)
            add_jbd2(linux, backing)
    # each looks at the dirty pages of all, so all have to be there
    for backing in linux.domain.backing:
        add_flusher(linux, backing)
    add_kswapd(linux)
    stack.start()
    if use == "swap":
        chunk = linux.units(scenario.workload.chunk)
        load, pause_ns = scenario.workload, scenario.workload.pause_ms * 1_000_000
        passes = load.passes
        left = add_toucher(
            linux, work, chunk_units=chunk, pause_ns=pause_ns, passes=passes, compares=compares
        )
        if scenario.pressure.kind == "anonymous":
            add_presser(linux, linux.units(scenario.pressure.size), number(work) - left)
    add_kblockd(linux)
    if scenario.pressure.kind == "reader":
        add_reader(linux, linux.units(scenario.pressure.size), unit_ns=linux.unit_bytes * 8)
    return linux.system(scenario.name, notes=_notes(scenario))


def _add_xfs(linux: Linux, scenario: Scenario, backing: BackingDevice, pool: BioPool, work: int) -> None:
    """XFS with its inodes, and the writer of files on it."""
    pressure = int(scenario.kernel.sysctl.get("vm.vfs_cache_pressure", 100))
    files = scenario.workload.size * scenario.workload.passes // scenario.workload.file_size
    units = round(files * INODE_BYTES / linux.unit_bytes)
    inodes = XfsInodes(linux, backing.device, pool, 2 * max(units, work), pressure)
    add_writer(linux, xfs_file(backing), work, inodes=inodes, inode_units=min(units, work))
    inodes.add_tasks()


def _work(linux: Linux, scenario: Scenario) -> int:
    """Units that the workload writes or touches; of a small file that is a page."""
    load = scenario.workload
    size = load.size
    if load.kind != "anonymous" and load.file_size < PAGE_BYTES:
        size = load.size // load.file_size * PAGE_BYTES
    return linux.units(size) * (1 if load.kind == "anonymous" else load.passes)


def _touches_again(scenario: Scenario) -> bool:
    """Whether a program touches again what may be in swap."""
    return scenario.workload.passes > 1 or scenario.pressure.kind == "anonymous"


def _can_be_read(scenario: Scenario) -> bool:
    """Whether the model has reads of the device at all: not through two daemons, or a cache of FUSE."""
    return scenario.device.kind != "stacked" and not describe(scenario).writeback_cache


def _reads_swap(scenario: Scenario) -> bool:
    """Whether anything that was swapped out is touched again: by a program, or by an event's thread."""
    threads = describe(scenario).threads
    idle = any(thread.takes == "events" and not has_locked(scenario.hardening, thread) for thread in threads)
    return scenario.device.use == "swap" and (_touches_again(scenario) or idle)


def min_free_bytes(scenario: Scenario) -> int:
    """vm.min_free_kbytes as a scenario's hardening has it, else its settings, else the kernel by itself."""
    if scenario.hardening.min_free_kbytes is not None:
        return scenario.hardening.min_free_kbytes * 1024
    return int(scenario.kernel.sysctl.get("vm.min_free_kbytes", 0)) * 1024 or MIN_FREE


def _taken(version: Version) -> int:
    """Bytes of a guest's memory that the scenario has not."""
    return TAKEN_5_8 if version == (5, 8) else TAKEN


def _add_memory(linux: Linux, scenario: Scenario, scale: Scale) -> None:
    """Zone and limits of dirty memory."""
    sysctl = scenario.kernel.sysctl
    taken = _taken(linux.version)
    size = scenario.machine.memory - taken
    if scenario.device.kind == "multipath":
        size -= scenario.device.size  # the disk is in memory (scsi_debug)
    if scenario.machine.memory > MOST_MEMORY:
        raise NotModelledError(
            f"{scenario.name}: machine.memory: expected at most {MOST_MEMORY >> 40} TiB, which x86-64 "
            f"can have, found {scenario.machine.memory >> 40} TiB"
        )
    if size <= 0:
        raise NotModelledError(
            f"{scenario.name}: machine.memory: expected more than {taken >> 20} MiB, which kernel and "
            f"programs have, found {scenario.machine.memory >> 20} MiB"
        )
    min_free = min_free_bytes(scenario)
    if scale.memory_units:
        size = min(size, scale.memory_units * scale.unit_bytes)
        min_free = min(min_free, size // 8)
    read = scenario.pressure.size if scenario.pressure.kind == "reader" else 0
    make_zone(linux, size=size, clean=min(read, size * 3 // 4), min_free=min_free)

    def limit(name: str, percent: int) -> DirtyLimit:
        in_bytes = int(sysctl.get(f"vm.{name}_bytes", 0))
        return DirtyLimit(linux.units(in_bytes), int(sysctl.get(f"vm.{name}_ratio", percent)))

    # the kernel's own percentages, vm_dirty_ratio and dirty_background_ratio
    linux.domain = DirtyDomain(limit("dirty", 20), limit("dirty_background", 10))


def _check_modelled(scenario: Scenario, version: Version) -> None:
    """What the model has not is not passed over."""

    def refuse(key: str, expected: str, found: object, why: str = "") -> None:
        raise NotModelledError(
            f"{scenario.name}: {key}: the model expects {expected}, found {found!r}",
            hint=f"{why}`ioflusher lab run` plays all that a scenario may say",
        )

    device, cgroup = scenario.device, scenario.cgroup
    if device.kind not in STACKS:
        refuse("device.kind", f"one of {', '.join(map(repr, STACKS))}", device.kind)
    if device.use == "btrfs":
        why = "what its transactions allocate and lock while they are written decides, and is not here; "
        refuse("device.use", "'swap', 'ext4', 'xfs' or 'nfs'", device.use, why)
    for name, value in scenario.kernel.sysctl.items():
        if name not in SYSCTL and name not in SYSCTL_WITHOUT_EFFECT:
            refuse(f"kernel.sysctl.{name}", f"one of {', '.join((*SYSCTL, *SYSCTL_WITHOUT_EFFECT))}", value)
        if not value.isdecimal():
            refuse(f"kernel.sysctl.{name}", "a whole number", value)
        least, most = SYSCTL.get(name, (0, None))
        if name == "vm.swappiness" and not holds("swappiness_200", version):
            most = 100
        if 0 < int(value) < least or (most is not None and int(value) > most):
            expected = f"at least {least}" if most is None else f"{least} to {most}"
            refuse(f"kernel.sysctl.{name}", f"{expected}, as the kernel does", value)
    for name, value in scenario.kernel.write.items():
        if name != LRU_GEN:
            refuse(f"kernel.write.{name}", f"{LRU_GEN} alone", value)
    if scenario.pressure.kind == "anonymous" and device.use != "swap":
        refuse("pressure.kind", "'none' or 'reader' without device.use 'swap'", scenario.pressure.kind)
    if device.use == "swap" and _touches_again(scenario) and not _can_be_read(scenario):
        refuse("workload.passes", "1 with this stack, of which nothing is read", scenario.workload.passes)
    if cgroup is not None:
        _check_cgroup(scenario, cgroup, refuse)
    _check_faults(scenario, version, refuse)


def _check_faults(
    scenario: Scenario, version: Version, refuse: Callable[[str, str, object, str], None]
) -> None:
    """What errors and time-outs do that the model has not."""
    kind, use = scenario.device.kind, scenario.device.use
    faults = {fault.kind for fault in scenario.fault}
    silent = faults & ({"remote-silent"} if kind == "iscsid" else {"daemon-killed", "daemon-stopped"})
    if silent and kind in SCSI and scenario.frozen.stalled_s >= SCSI_TIMEOUT_S:
        why = f"the time-out of SCSI, {SCSI_TIMEOUT_S} s, and what comes of it is not here; "
        less = f"less than {SCSI_TIMEOUT_S} with such a fault of device.kind {kind!r}"
        refuse("frozen.stalled_s", less, scenario.frozen.stalled_s, why)
    if "connection-cut" in faults and kind in NBD and not holds("nbd_replaces_one_connection", version):
        why = "there requests of a single connection that was cut end with an error; "
        refuse("fault.kind", "no 'connection-cut' before Linux 5.7", "connection-cut", why)
    if "daemon-killed" in faults and kind in FAILING:
        if use == "xfs":
            why = "what XFS does with an error of its log is not here; "
            refuse("fault.kind", "no 'daemon-killed' with device.use 'xfs'", "daemon-killed", why)
        if describe(scenario).writeback_cache:
            why = "errors of a FUSE write-back cache are not here; "
            refuse("fault.kind", "no 'daemon-killed' with this daemon", "daemon-killed", why)
    if "remote-cut" in faults and SCENARIO_STACKS[kind].remote == "nbd":
        if scenario.daemon.command:
            why = "whether it connects to the server outside again is known of our own daemon alone; "
            refuse("fault.kind", "no 'remote-cut' with a daemon.command", "remote-cut", why)
        if use != "swap" or "connection-cut" in faults:
            why = "errors that pass are here for swap alone, and for one connection; "
            refuse("fault.kind", "'remote-cut' alone and with device.use 'swap'", "remote-cut", why)


def _check_cgroup(
    scenario: Scenario, cgroup: CgroupTable, refuse: Callable[[str, str, object], None]
) -> None:
    """A group has to own all anonymous memory, or all pages of files: no page knows its owner."""
    for name in ("memory_high", "memory_min", "swap_max"):
        if getattr(cgroup, name) is not None:
            refuse(f"cgroup.{name}", "cgroup.memory_max alone", getattr(cgroup, name))
    if scenario.device.use == "swap":
        if cgroup.who != "workload":
            refuse("cgroup.who", "'workload' with device.use 'swap'", cgroup.who)
    elif cgroup.who != "both" or scenario.pressure.kind != "none":
        refuse("cgroup.who", "'both' with a file system, and pressure.kind 'none'", cgroup.who)


def _notes(scenario: Scenario) -> tuple[str, ...]:
    """What the scenario says that makes no difference in the model."""
    said = []
    if scenario.device.mkfs:
        said.append("device.mkfs has no effect: a file system has one allocation group")
    if scenario.hardening.reserve:
        said.append("hardening.reserve has no effect: reclaim leaves a daemon's own memory alone anyway")
    if describe(scenario).forks and any(fault.kind.startswith("daemon-") for fault in scenario.fault):
        said.append("fault has no effect: the process that the signal is sent to does not serve")
    without_effect = (name for name in scenario.kernel.sysctl if name in SYSCTL_WITHOUT_EFFECT)
    said += [f"kernel.sysctl.{name} has no effect: {SYSCTL_WITHOUT_EFFECT[name]}" for name in without_effect]
    return tuple(said)
