"""The rule on the machine's reserve of free memory, vm.min_free_kbytes."""

from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity
from ioflusher.audit.rules.rule import Found
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import Stake, Target, View
from ioflusher.machine.serving.service import TargetKind
from ioflusher.machine.storage import BlockDevice

# of all memory, percent: more is not asked for, for the reserve is lost to everybody else
MOST_RESERVE_PERCENT = 5


def _vital(view: View) -> dict[str, tuple[BlockDevice, list[Target]]]:
    """The whole devices that processes of this machine serve and that carry files or swap, by name."""
    vital: dict[str, tuple[BlockDevice, list[Target]]] = {}
    for daemon in view.daemons:
        for target in daemon.targets:
            service = target.service
            device = view.layers.devices.get(service.target) if service.kind is TargetKind.DEVICE else None
            if device is not None and service.essential and target.stake >= Stake.FILES:
                disk = view.whole_device(device)
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
    longest = request_kib if queue.max_sectors_kib is None else min(queue.max_sectors_kib, request_kib)
    queues = 1 if queue.hardware_queues is None else max(1, queue.hardware_queues)
    return queue.nr_requests * queues * longest


def small_reserve(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """A reserve of memory too small for the queues of what is served."""
    memory = view.snapshot.memory
    if memory.min_free_kib is None or memory.total_kib is None:
        return
    vital = _vital(view)
    needs = {name: reserve_of(device, thresholds.request_kib) for name, (device, _) in vital.items()}
    wanted = sum(need for need in needs.values() if need is not None)
    most = memory.total_kib * MOST_RESERVE_PERCENT // 100
    if memory.min_free_kib >= min(wanted, most):
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
        _raise_reserve(memory.min_free_kib, memory.total_kib, wanted, [disk for disk, _ in vital.values()]),
    )


def _raise_reserve(set_kib: int, total_kib: int, wanted_kib: int, disks: list[BlockDevice]) -> Remedy:
    """What to do about a reserve of `set_kib` where the queues may take `wanted_kib`, which is more."""
    most = total_kib * MOST_RESERVE_PERCENT // 100
    if wanted_kib > most:
        return Remedy(
            f"The queues may take {wanted_kib} KiB, {wanted_kib * 100 // total_kib} percent of the machine's "
            f"{total_kib} KiB; a reserve of that size is lost to everybody else, and more than "
            f"{MOST_RESERVE_PERCENT} percent ({most} KiB; set are {set_kib} KiB) is not advised. Shorten the "
            "queues in that proportion "
            f"({', '.join(f'/sys/block/{disk.name}/queue/nr_requests' for disk in disks)}), or move devices "
            "to another machine, and look again."
        )
    return Remedy(
        f"Raise the reserve from {set_kib} to {wanted_kib} KiB, {wanted_kib * 100 / total_kib:.1f} percent "
        "of the machine's memory; or shorten the queue (/sys/block/NAME/queue/nr_requests).",
        commands=(f"sysctl -w vm.min_free_kbytes={wanted_kib}",),
        lasting=(f"echo vm.min_free_kbytes = {wanted_kib} > /etc/sysctl.d/60-ioflusher.conf",),
    )
