"""The rule on the machine's dirty limit and the shares that devices may take of it."""

from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity, Subject, SubjectKind
from ioflusher.audit.rules.rule import MOST_NAMED, Found, known, more, quoted
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import AuditedDaemon, Stake, Target, View
from ioflusher.kernel.task_flags import PF_LOCAL_THROTTLE
from ioflusher.machine.graph.layers import Layer, device_layer
from ioflusher.machine.process import FileKind, FileUse
from ioflusher.machine.snapshot import Memory
from ioflusher.machine.storage import BlockDevice
from ioflusher.support.text import counted

BUFFERED = frozenset({FileKind.WRITTEN, FileKind.LOG, FileKind.DEVICE})
# nothing is written back there, and nobody is paused
IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})


def _dirty_limit(view: View) -> tuple[int, Evidence] | None:
    """The machine's dirty limit in bytes, as mm/page-writeback.c domain_dirty_limits() finds it, roughly."""
    memory = view.snapshot.memory
    if memory.dirty_bytes:
        return memory.dirty_bytes, Evidence("/proc/sys/vm/dirty_bytes", str(memory.dirty_bytes))
    if not dirty_limit_known(memory) or memory.dirty_ratio is None or memory.available_kib is None:
        return None
    limit = memory.available_kib * 1024 * memory.dirty_ratio // 100
    return limit, Evidence(
        "/proc/sys/vm/dirty_ratio", f"{memory.dirty_ratio} of {memory.available_kib} KiB available"
    )


def dirty_limit_known(memory: Memory) -> bool:
    """Whether it is known which of vm.dirty_bytes and vm.dirty_ratio holds; the other one reads 0."""
    if memory.dirty_bytes is None:
        return bool(memory.dirty_ratio)
    return memory.dirty_bytes > 0 or memory.dirty_ratio is not None


def share_of(device: BlockDevice, limit: int) -> int | None:
    """The share of the dirty limit, percent, that a device's pages may fill; None for unknown.

    max_ratio and max_bytes are one setting (since 6.2, mm/backing-dev.c). max_bytes is a share of the
    kernel's own limit of that moment, which differs from `limit` where that is computed from a ratio.
    """
    queue = device.queue
    if queue.strict_limit:
        return 0
    if queue.max_ratio is not None:
        return queue.max_ratio
    return None if queue.max_bytes is None else min(100, queue.max_bytes * 100 // max(1, limit))


def _writes_buffered(view: View, daemon: AuditedDaemon) -> tuple[Evidence, ...]:
    """What a daemon that may be paused writes through the page cache, on what it does not serve."""
    writing = (thread for thread in daemon.threads if thread.tid not in daemon.in_nbd_do_it)
    if all(thread.flags & PF_LOCAL_THROTTLE for thread in writing):
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


def dirty_limits(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Dirty limits that what is served can fill alone, while its daemon must dirty pages to empty it."""
    limit = _dirty_limit(view)
    if limit is None:
        return
    disks: dict[str, BlockDevice] = {}
    writes: dict[AuditedDaemon, tuple[Evidence, ...]] = {}
    for daemon in view.daemons:
        targets = [t for t in daemon.targets if t.service.essential and t.stake >= Stake.FILES and t.mounts]
        stores = _writes_buffered(view, daemon) if targets else ()
        if stores:
            writes[daemon] = stores
            disks |= {disk.name: disk for target in targets for disk in _written_disks(view, target)}
    shares = {name: share_of(disk, limit[0]) for name, disk in disks.items()}
    known = [share for share in shares.values() if share is not None]
    if not disks or sum(known) < 100:
        return
    yield _dirty_finding(view, limit, disks, shares, writes, thresholds)


def _written_disks(view: View, target: Target) -> Iterator[BlockDevice]:
    """The devices whose dirty pages the kernel counts for the file systems on a target."""
    for mount in target.mounts:
        device = view.layers.by_number.get(mount.number)
        if device is not None and target.layer in view.layers.below(device_layer(device.name)):
            yield view.whole_device(device)


def _dirty_finding(
    view: View,
    limit: tuple[int, Evidence],
    disks: dict[str, BlockDevice],
    shares: dict[str, int | None],
    writes: dict[AuditedDaemon, tuple[Evidence, ...]],
    thresholds: Thresholds,
) -> Found:
    each = max(1, 90 // len(disks))
    # a share that is smaller already stays as it is
    larger = [
        name for name, disk in disks.items() if disk.queue.max_ratio is None or disk.queue.max_ratio > each
    ]
    udev = f'SUBSYSTEM=="block", KERNEL=="{"|".join(larger)}", ATTR{{bdi/max_ratio}}="{each}"'
    files = [fact for facts in writes.values() for fact in facts]
    names = ", ".join(f"/dev/{name}" for name in disks)
    return Found(
        Severity.WARNING if limit[0] <= thresholds.dirty_mib << 20 else Severity.NOTE,
        Subject(SubjectKind.MACHINE, view.machine.name),
        f"pages of {names} alone may fill the machine's dirty limit of {limit[0] >> 20} MiB, and "
        f"{counted(len(files), 'file')} that their daemons write to without the state count towards it",
        (
            limit[1],
            *(
                Evidence(
                    f"/sys/block/{name}/bdi",
                    f"max_ratio {known(disk.queue.max_ratio)}, max_bytes {known(disk.queue.max_bytes)}, "
                    f"strict_limit {known(disk.queue.strict_limit)}: share {known(shares[name])} percent",
                )
                for name, disk in disks.items()
            ),
            *files[:MOST_NAMED],
            *more(len(files) - MOST_NAMED, "file"),
        ),
        Remedy(
            "Leave a part of the limit to other devices; or put the state on the daemons, or have them store "
            "with O_DIRECT.",
            commands=tuple(f"echo {each} > {quoted(f'/sys/block/{name}/bdi/max_ratio')}" for name in larger),
            lasting=(f"echo {quoted(udev)} > /etc/udev/rules.d/60-ioflusher.rules",),
        ),
        group=next(iter(writes)).subject if len(writes) == 1 else None,
    )
