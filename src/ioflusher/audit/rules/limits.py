"""Rules on limits: the OOM killer, memory control groups, the machine's reserve, its dirty limits."""

from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity, Subject, SubjectKind
from ioflusher.audit.limits import Limits
from ioflusher.audit.rules.common import Found, counted, evidence_of_service, quoted
from ioflusher.audit.view import Daemon, Stake, Target, View
from ioflusher.kernel.flags import PF_LOCAL_THROTTLE
from ioflusher.machine.graph.layers import Layer, device_layer
from ioflusher.machine.process import FileKind, FileUse, MemoryLimit
from ioflusher.machine.serving.service import TargetKind
from ioflusher.machine.storage import BlockDevice

# of all memory, percent: more is not asked for, for the reserve is lost to everybody else
MOST_RESERVE_PERCENT = 5
# bdi/strict_limit: commit 8e9d5ead865a (6.2); the file was seen or was not, see Queue
BUFFERED = frozenset({FileKind.WRITTEN, FileKind.LOG, FileKind.DEVICE})
# nothing is written back there, and nobody is paused
IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})


def oom_killable(view: View, limits: Limits) -> Iterator[Found]:
    """Daemons that the OOM killer may take."""
    for daemon in view.daemons:
        score = daemon.process.oom_score_adj
        if daemon.stake < Stake.UNUSED or score is None or score <= limits.oom_score_adj:
            continue
        pid = daemon.process.pid
        # a client that merely holds its device is needed as much: killed, it takes the device along
        steps = min(target.light + (0 if target.holder else target.doubt) for target in daemon.targets)
        yield Found(
            Severity.WARNING.lowered(steps),
            daemon.subject,
            f"{daemon.serves}: its oom_score_adj is {score}, so it may be killed when memory is short",
            (Evidence(f"/proc/{pid}/oom_score_adj", str(score)), *evidence_of_service(daemon)),
            Remedy(
                "Keep the OOM killer off it: -1000 means never.",
                commands=(f"choom -n -1000 -p {pid}",),
                unit=("OOMScoreAdjust=-1000",),
            ),
        )


def _limited(view: View) -> Iterator[tuple[Daemon, MemoryLimit]]:
    for daemon in view.daemons:
        if daemon.stake >= Stake.UNUSED and daemon.worker:
            for group in daemon.process.cgroups or ():
                yield daemon, group


def _control_file(group: MemoryLimit, name: str) -> str:
    below = "/sys/fs/cgroup" if group.version == 2 else "/sys/fs/cgroup/memory"
    return f"{below}{group.path.rstrip('/')}/{name}"


def memory_max(view: View, limits: Limits) -> Iterator[Found]:
    """Daemons in a control group with a hard memory limit."""
    for daemon, group in _limited(view):
        if group.max is not None:
            name, free = ("memory.max", "max") if group.version == 2 else ("memory.limit_in_bytes", "-1")
            yield _in_group(daemon, group, group.max, name, free, "MemoryMax=infinity", limits)


def memory_high(view: View, limits: Limits) -> Iterator[Found]:
    """Daemons in a control group that is slowed down above a mark. Version 1's soft limit slows nobody."""
    for daemon, group in _limited(view):
        if group.high is not None and group.version == 2:
            yield _in_group(daemon, group, group.high, "memory.high", "max", "MemoryHigh=infinity", limits)


def _in_group(
    daemon: Daemon, group: MemoryLimit, limit: int, name: str, free: str, setting: str, limits: Limits
) -> Found:
    far = group.current is not None and group.current * 100 <= limit * limits.used_percent
    file = _control_file(group, name)
    usage = _control_file(group, "memory.current" if group.version == 2 else "memory.usage_in_bytes")
    used = "an unknown part" if group.current is None else f"{group.current} bytes"
    return Found(
        daemon.severity(Severity.NOTE if far else Severity.WARNING),
        daemon.subject,
        f"{daemon.serves}: its control group {group.path} has {name} {limit} bytes, {used} of it used",
        (Evidence(file, str(limit)), Evidence(usage, used), *evidence_of_service(daemon)),
        Remedy(
            "Let the daemon run without a limit of memory, and limit the programs that use its device. The "
            "command changes the group as it runs; the setting belongs to the unit or slice of that name.",
            commands=(f"echo {free} > {quoted(file)}",),
            unit=(setting,),
        ),
    )


def _disk(view: View, device: BlockDevice) -> BlockDevice:
    """The whole device of a partition."""
    parent = view.layers.devices.get(device.parent) if device.parent else None
    return parent or device


def _vital(view: View) -> dict[str, tuple[BlockDevice, list[Target]]]:
    """The whole devices that processes of this machine serve and that carry files or swap, by name."""
    vital: dict[str, tuple[BlockDevice, list[Target]]] = {}
    for daemon in view.daemons:
        for target in daemon.targets:
            service = target.service
            device = view.layers.devices.get(service.target) if service.kind is TargetKind.DEVICE else None
            if device is not None and service.essential and target.stake >= Stake.FILES:
                disk = _disk(view, device)
                vital.setdefault(disk.name, (disk, []))[1].append(target)
    return vital


def served_disks(view: View) -> tuple[BlockDevice, ...]:
    """The whole devices whose queues the reserve has to be enough for."""
    return tuple(device for device, _ in _vital(view).values())


def reserve_of(device: BlockDevice, request_kib: int) -> int | None:
    """Kernel memory, KiB, that a full queue of the device may take; None where its length is unknown."""
    queue = device.queue
    if queue.nr_requests is None:
        return None
    longest = min(queue.max_sectors_kib or request_kib, request_kib)
    return queue.nr_requests * max(1, queue.hardware_queues or 1) * longest


def small_reserve(view: View, limits: Limits) -> Iterator[Found]:
    """A reserve of memory too small for the queues of what is served."""
    memory = view.snapshot.memory
    if memory.min_free_kib is None or memory.total_kib is None:
        return
    vital = _vital(view)
    needs = {name: reserve_of(device, limits.request_kib) for name, (device, _) in vital.items()}
    wanted = min(
        sum(need for need in needs.values() if need is not None),
        memory.total_kib * MOST_RESERVE_PERCENT // 100,
    )
    if memory.min_free_kib >= wanted:
        return
    swap = any(target.stake is Stake.SWAP for _, targets in vital.values() for target in targets)
    yield Found(
        Severity.WARNING if swap else Severity.NOTE,
        view.machine,
        f"the reserve of {memory.min_free_kib} KiB is less than the {wanted} KiB that the queues of "
        f"{', '.join(f'/dev/{name}' for name in needs)} may take",
        (
            Evidence("/proc/sys/vm/min_free_kbytes", str(memory.min_free_kib)),
            *(
                Evidence(
                    f"/sys/block/{name}/queue",
                    f"nr_requests {device.queue.nr_requests}, max_sectors_kb {device.queue.max_sectors_kib}, "
                    f"hardware queues {device.queue.hardware_queues}",
                )
                for name, (device, _) in vital.items()
            ),
        ),
        Remedy(
            "Raise the reserve; or shorten the queue (/sys/block/NAME/queue/nr_requests).",
            commands=(f"sysctl -w vm.min_free_kbytes={wanted}",),
            lasting=(f"echo vm.min_free_kbytes = {wanted} > /etc/sysctl.d/60-ioflusher.conf",),
        ),
    )


def _dirty_limit(view: View) -> tuple[int, Evidence] | None:
    """The machine's dirty limit in bytes, as mm/page-writeback.c domain_dirty_limits() finds it, roughly."""
    memory = view.snapshot.memory
    if memory.dirty_bytes:
        return memory.dirty_bytes, Evidence("/proc/sys/vm/dirty_bytes", str(memory.dirty_bytes))
    if memory.dirty_ratio is None or memory.available_kib is None:
        return None
    limit = memory.available_kib * 1024 * memory.dirty_ratio // 100
    return limit, Evidence(
        "/proc/sys/vm/dirty_ratio", f"{memory.dirty_ratio} of {memory.available_kib} KiB available"
    )


def share_of(device: BlockDevice, limit: int) -> int | None:
    """The share of the dirty limit, percent, that a device's pages may fill; None for unknown."""
    queue = device.queue
    if queue.strict_limit:
        return 0
    if queue.max_bytes:
        return min(100, queue.max_bytes * 100 // max(1, limit))
    return queue.max_ratio


def _writes_buffered(view: View, daemon: Daemon) -> tuple[Evidence, ...]:
    """What a daemon that may be paused writes through the page cache, on what it does not serve."""
    if all(thread.flags & PF_LOCAL_THROTTLE for thread in daemon.threads):
        return ()
    own = {target.layer for target in daemon.targets}
    return tuple(
        Evidence(f"/proc/{daemon.process.pid}, {file.kind.value} file", file.path)
        for file in daemon.process.files or ()
        if file.kind in BUFFERED and not file.direct and _has_dirty_pages(view, file, own)
    )


def _has_dirty_pages(view: View, file: FileUse, own: set[Layer]) -> bool:
    """Whether the file lies on a disk or server of another kind than what the daemon serves."""
    layer = view.layers.of_file(file)
    mounts = view.layers.mounts.get(layer.name, ()) if layer else ()
    return layer not in own and not any(mount.fstype in IN_MEMORY for mount in mounts)


def dirty_limits(view: View, limits: Limits) -> Iterator[Found]:
    """Dirty limits that what is served can fill alone, while its daemon must dirty pages to empty it."""
    limit = _dirty_limit(view)
    if limit is None:
        return
    disks: dict[str, BlockDevice] = {}
    writes: list[Evidence] = []
    for daemon in view.daemons:
        targets = [t for t in daemon.targets if t.service.essential and t.stake >= Stake.FILES and t.mounts]
        stores = _writes_buffered(view, daemon) if targets else ()
        if stores:
            writes += stores
            disks |= {disk.name: disk for target in targets for disk in _written_disks(view, target)}
    shares = {name: share_of(disk, limit[0]) for name, disk in disks.items()}
    known = [share for share in shares.values() if share is not None]
    if not disks or sum(known) < 100:
        return
    yield _dirty_finding(view, limit, disks, shares, tuple(writes), limits)


def _written_disks(view: View, target: Target) -> Iterator[BlockDevice]:
    """The devices whose dirty pages the kernel counts for the file systems on a target."""
    for mount in target.mounts:
        device = view.layers.by_number.get(mount.number)
        if device is not None and target.layer in view.layers.below(device_layer(device.name)):
            yield _disk(view, device)


def _dirty_finding(
    view: View,
    limit: tuple[int, Evidence],
    disks: dict[str, BlockDevice],
    shares: dict[str, int | None],
    writes: tuple[Evidence, ...],
    limits: Limits,
) -> Found:
    each = max(1, 90 // len(disks))
    udev = f'SUBSYSTEM=="block", KERNEL=="{"|".join(disks)}", ATTR{{bdi/max_ratio}}="{each}"'
    names = ", ".join(f"/dev/{name}" for name in disks)
    return Found(
        Severity.WARNING if limit[0] <= limits.dirty_mib << 20 else Severity.NOTE,
        Subject(SubjectKind.MACHINE, view.machine.name),
        f"pages of {names} alone may fill the machine's dirty limit of {limit[0] >> 20} MiB, and "
        f"{counted(len(writes), 'file')} that their daemons write to without the state count towards it",
        (
            limit[1],
            *(
                Evidence(
                    f"/sys/block/{name}/bdi",
                    f"max_ratio {disk.queue.max_ratio}, max_bytes {disk.queue.max_bytes}, "
                    f"strict_limit {disk.queue.strict_limit}: share {shares[name]} percent",
                )
                for name, disk in disks.items()
            ),
            *writes[:8],
        ),
        Remedy(
            "Leave a part of the limit to other devices; or put the state on the daemons, or have them store "
            "with O_DIRECT.",
            commands=tuple(f"echo {each} > {quoted(f'/sys/block/{name}/bdi/max_ratio')}" for name in disks),
            lasting=(f"echo {quoted(udev)} > /etc/udev/rules.d/60-ioflusher.rules",),
        ),
    )
