"""A snapshot as the rules look at it: its daemons, what each serves, and what depends on that."""

from collections import defaultdict
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from ioflusher.audit.finding import Severity, Subject, SubjectKind
from ioflusher.kernel.task import Thread
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.graph.layers import Layer, LayerKind
from ioflusher.machine.process import Process
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.storage import BlockDevice, DeviceKind, Mount, Swap

# What file systems in user space are called: "fuse", "fuseblk", "fuse.sshfs".
_FUSE = "fuse"
# of what a daemon serves, that are named one by one
MOST_SERVED = 6


class Stake(IntEnum):
    """What is lost while a target does not answer; the higher, the more."""

    NOTHING = 0  # nobody can write to it: no page waits to be written there
    USER_FUSE = 1  # a FUSE mount of an ordinary user
    FUSE = 2  # a FUSE mount of root
    UNUSED = 3  # a writable device that nothing is mounted from: written raw, or soon
    FILES = 4  # a writable file system: dirty pages
    SWAP = 5  # swap, which is needed when memory is short


@dataclass(frozen=True, slots=True)
class Target:
    """What one service serves, and what lies on it.

    Attributes:
        service: who serves it how.
        layer: the device or file system itself.
        name: as people call it: "/dev/nbd0", "/mnt/photos".
        stake: what depends on it.
        swaps, mounts: that lie on it, directly or through other layers; mounts writable ones only.
    """

    service: StorageService
    layer: Layer
    name: str
    stake: Stake
    swaps: tuple[Swap, ...]
    mounts: tuple[Mount, ...]

    @property
    def holder(self) -> bool:
        """Whether the process merely holds the device for the kernel, which does the work (an NBD client)."""
        return self.service.role is StorageRole.NBD_CLIENT and not self.service.essential

    @property
    def uncertainty_steps(self) -> int:
        """By how much a rule's severity is lower: the daemon is needed for recovery only, or not certain."""
        return (not self.service.essential) + (not self.service.certain)

    @property
    def low_stake_steps(self) -> int:
        """By how much a rule's severity is lower because little depends on the target."""
        return {Stake.UNUSED: 1, Stake.FUSE: 2, Stake.USER_FUSE: 2, Stake.NOTHING: 2}.get(self.stake, 0)

    @property
    def steps(self) -> int:
        """By how much a rule's severity is lower for this target than for one that all depends on."""
        return self.low_stake_steps + self.uncertainty_steps + self.holder


@dataclass(frozen=True, slots=True)
class AuditedDaemon:
    """A process of this machine that stands in the I/O path.

    Attributes:
        process: it.
        targets: what it serves, at least one.
        in_nbd_do_it: numbers of its threads that wait in ioctl(NBD_DO_IT) for the end of an nbd device. Such
            a thread does no I/O itself, and `ioflusher set` leaves it alone: interrupted, the kernel
            disconnects the device (drivers/block/nbd.c, nbd_start_device_ioctl).
    """

    process: Process
    targets: tuple[Target, ...]
    in_nbd_do_it: frozenset[int] = frozenset()

    @property
    def subject(self) -> Subject:
        """As findings name it."""
        return Subject(SubjectKind.PROCESS, self.process.comm, self.process.pid)

    @property
    def stake(self) -> Stake:
        """The highest of what it serves."""
        return max(target.stake for target in self.targets)

    @property
    def worker(self) -> bool:
        """Whether it has work to do for I/O or recovery, unlike a client that only holds a device."""
        return not all(target.holder for target in self.targets)

    @property
    def threads(self) -> tuple[Thread, ...]:
        """Its living threads that run its program; the kernel's workers for it are not among them."""
        return tuple(thread for thread in self.process.living if not thread.kernel_worker)

    @property
    def covered(self) -> bool:
        """Whether every thread that may do I/O carries the state: those in NBD_DO_IT only wait."""
        return all(thread.io_flusher for thread in self.threads if thread.tid not in self.in_nbd_do_it)

    @property
    def own_swaps(self) -> tuple[Swap, ...]:
        """The swap areas on what it serves, each once."""
        return tuple({swap.path: swap for target in self.targets for swap in target.swaps}.values())

    @property
    def serves(self) -> str:
        """As "NBD client and NBD server of /dev/nbd0", and no more than a few of many."""
        roles: dict[str, list[str]] = defaultdict(list)
        for target in self.targets:
            likely = "" if target.service.candidate is None else "likely "
            role = likely + target.service.role.value
            if role not in roles[target.name]:
                roles[target.name].append(role)
        names: dict[str, list[str]] = defaultdict(list)
        for name, played in roles.items():
            names[" and ".join(played)].append(name)
        return ", ".join(
            f"{played} of {', '.join(served[:MOST_SERVED])}"
            + (f" and {len(served) - MOST_SERVED} more" if len(served) > MOST_SERVED else "")
            for played, served in names.items()
        )

    def severity(self, base: Severity) -> Severity:
        """A rule's severity for this daemon: less where less depends on it."""
        return base.lowered(min(target.steps for target in self.targets))


class View:
    """What the rules are asked about.

    Attributes:
        snapshot: the machine.
        services: who serves what.
        layers: what lies on what.
        analysis: all that was computed from the snapshot, each part once; the graph among it.
    """

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.snapshot = snapshot = analysis.snapshot
        self.services = analysis.services
        self.layers = analysis.layers
        self._processes = {process.pid: process for process in snapshot.processes}

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """Every service with what depends on it."""
        return tuple(self._target(service) for service in self.services)

    @cached_property
    def daemons(self) -> tuple[AuditedDaemon, ...]:
        """The processes that serve something, by number; without those that may be strangers."""
        served: dict[int, list[Target]] = defaultdict(list)
        for target in self.targets:
            service = target.service
            if service.pid is not None and not service.kernel and service.speaks_protocol:
                served[service.pid].append(target)
        return tuple(
            AuditedDaemon(self._processes[pid], tuple(targets), self._in_nbd_do_it(self._processes[pid]))
            for pid, targets in sorted(served.items())
            if pid in self._processes and self._processes[pid].living
        )

    @property
    def machine(self) -> Subject:
        """The machine, as findings name it."""
        return Subject(SubjectKind.MACHINE, self.snapshot.system.hostname)

    @cached_property
    def disk_swaps(self) -> tuple[Swap, ...]:
        """Swap areas whose pages go to a device; those in compressed memory alone (zram) are left out."""
        return tuple(swap for swap in self.snapshot.swaps if not self._in_memory(swap))

    def whole_device(self, device: BlockDevice) -> BlockDevice:
        """The device itself, for a partition the one that it is a part of."""
        parent = self.layers.devices.get(device.parent) if device.parent else None
        return parent or device

    def name(self, pid: int) -> str:
        """A process as findings name it, "nbd-server (1234)"."""
        process = self._processes.get(pid)
        return f"{process.comm} ({pid})" if process is not None else f"process {pid}"

    def runs(self, pid: int) -> bool:
        """Whether the process is there and not all of it is dead."""
        return pid in self._processes and bool(self._processes[pid].living)

    def _in_nbd_do_it(self, process: Process) -> frozenset[int]:
        """Its threads in ioctl(NBD_DO_IT).

        /sys/block/nbdN/pid names the thread that started the device (nbd_start_device); where that was by
        ioctl, the thread stays inside, and its process keeps the device open.
        """
        held = {handle.number for handle in process.handles}
        started = {
            device.serving_pid
            for device in self.snapshot.devices
            if device.kind is DeviceKind.NBD and device.number in held
        }
        return frozenset(thread.tid for thread in process.threads if thread.tid in started)

    def _in_memory(self, swap: Swap) -> bool:
        layer = self.layers.of_swap(swap)
        device = self.layers.devices.get(layer.name) if layer and layer.kind is LayerKind.DEVICE else None
        # an unused backing_dev reads "none"
        return device is not None and device.kind is DeviceKind.ZRAM and device.backing_file in (None, "none")

    def _target(self, service: StorageService) -> Target:
        layer = self.layers.of_service(service)
        above = self.layers.above(layer)
        swaps = self.layers.swaps_on(above)
        mounts = tuple(
            mount
            for upper in sorted(above, key=lambda layer: layer.name)
            if upper.kind is LayerKind.FILE_SYSTEM
            for mount in self.layers.mounts.get(upper.name, ())
            if not mount.read_only
        )
        return Target(service, layer, self._name(service), self._stake(layer, swaps, mounts), swaps, mounts)

    def _stake(self, layer: Layer, swaps: tuple[Swap, ...], mounts: tuple[Mount, ...]) -> Stake:
        if swaps:
            return Stake.SWAP
        if any(not mount.fstype.startswith(_FUSE) for mount in mounts):
            return Stake.FILES
        if mounts:
            owned = {mount.option("user_id") for mount in mounts}
            return Stake.FUSE if owned & {None, "0"} else Stake.USER_FUSE
        device = self.layers.devices.get(layer.name) if layer.kind is LayerKind.DEVICE else None
        if device is None or device.read_only or self._mounted(layer):
            return Stake.NOTHING
        return Stake.UNUSED

    def _mounted(self, layer: Layer) -> bool:
        """Whether a file system lies on it (then all of its mounts are read-only, when this is asked)."""
        above = self.layers.above(layer)
        return any(upper.kind is LayerKind.FILE_SYSTEM for upper in above)

    def _name(self, service: StorageService) -> str:
        if service.kind is TargetKind.DEVICE:
            return f"/dev/{service.target}"
        mounts = self.layers.mounts.get(service.target)
        return mounts[0].point if mounts else f"file system {service.target}"
