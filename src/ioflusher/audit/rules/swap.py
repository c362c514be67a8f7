"""Rules on a daemon's own memory: locked, swapped out, where swap lies and where it is stored."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from ioflusher.audit.finding import Evidence, Remedy, Severity, Subject, SubjectKind
from ioflusher.audit.rules.io_flusher_state import can_take_state, left_alone
from ioflusher.audit.rules.rule import MOST_NAMED, Found, evidence_of_service, known, more, quoted
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import AuditedDaemon, Stake, Target, View
from ioflusher.kernel.capability import CAP_IPC_LOCK
from ioflusher.kernel.lock_plan import LockFigures, LockMethod, plan_lock
from ioflusher.machine.graph.layers import LayerKind
from ioflusher.machine.process import FileKind, FileUse, Process
from ioflusher.machine.storage import Swap
from ioflusher.support.text import counted

_STATE = "the state on every thread"
_MEMORY = "locked memory"


def _judged(view: View) -> Iterator[AuditedDaemon]:
    """Daemons with work to do for a block device or a file system of the kernel."""
    return (daemon for daemon in view.daemons if daemon.stake >= Stake.UNUSED and daemon.worker)


def _base(view: View, daemon: AuditedDaemon) -> Severity:
    """By where its pages would go: to its own device, to another one, or nowhere."""
    if daemon.own_swaps:
        return Severity.ERROR
    return Severity.WARNING if view.disk_swaps else Severity.NOTE


def lock_memory(view: View, daemon: AuditedDaemon) -> Remedy:
    """Have all of a daemon's memory locked; by a command only where the figures say that it does no harm."""
    pid = daemon.process.pid
    reason, harmless = lock_plan(view, daemon.process, daemon.own_swaps)
    unit = ("LimitMEMLOCK=infinity", "MemorySwapMax=0")
    if not harmless:
        return Remedy(f"Lock its memory when it starts, not as it runs: {reason}.", unit=unit)
    if left_alone(daemon):
        return Remedy(
            f"`ioflusher set --lock-memory {pid}` locks its memory ({reason}), and ends with status 1 "
            "because it cannot put the state on all of it (see uncovered).",
            unit=unit,
        )
    return Remedy(f"Lock its memory: {reason}.", commands=lock_commands(daemon.process), unit=unit)


def lock_commands(process: Process) -> tuple[str, ...]:
    """Commands that have a process lock its memory, the limit lifted before where it has no CAP_IPC_LOCK."""
    pid, sets = process.pid, process.capabilities
    able = sets is not None and sets.has(CAP_IPC_LOCK)
    lift = () if able else (f"prlimit --pid {pid} --memlock=unlimited",)
    return (*lift, f"ioflusher set --lock-memory {pid}")


def lock_plan(view: View, process: Process, own_swaps: tuple[Swap, ...] = ()) -> tuple[str, bool]:
    """Why the memory of a process can be locked as it runs without harm, or why not; and whether.

    `kernel.lock_plan` judges the figures. Of what is absent VmSize less VmRSS is the most that it can be:
    reserved address space (PROT_NONE) counts there, and is not populated. What is in swap is brought back,
    which is harmless where the process does not serve that swap itself (`own_swaps`). `lock_commands` lifts
    the limit RLIMIT_MEMLOCK before.
    """
    memory = view.snapshot.memory
    size, resident, swapped = process.virtual_kib, process.resident_kib, process.swapped_kib
    if swapped is None or (swapped > 0 and own_swaps):
        return f"{known(swapped, ' KiB')} of it in swap" + (
            " that it serves itself" if own_swaps else ""
        ), False
    absent = None if size is None or resident is None else max(0, size - resident)
    available = memory.available_kib
    if available is not None and memory.dirty_kib is not None and memory.writeback_kib is not None:
        available = max(0, available - memory.dirty_kib - memory.writeback_kib)
    plan = plan_lock(
        LockFigures(
            mapped_kib=size,
            resident_kib=resident,
            swapped_kib=0,
            absent_kib=absent,
            total_kib=memory.total_kib,
            available_kib=available,
            group_kib=_room_in_groups(process),
        )
    )
    return plan.reason, plan.method is LockMethod.POPULATE


def _room_in_groups(process: Process) -> int | None:
    """KiB that are left below the limits of its control groups, the least of them; None for no limit.

    Of a group whose use is unknown nothing is known to be left.
    """
    rooms = [
        0 if group.current is None else max(0, limit - group.current) >> 10
        for group in process.cgroups or ()
        for limit in (group.max, group.high if group.version == 2 else None)
        if limit is not None
    ]
    return min(rooms, default=None)


def _of_swaps(swaps: tuple[Swap, ...]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence("/proc/swaps", f"{swap.path}, {swap.used >> 20} of {swap.size >> 20} MiB used")
        for swap in swaps
    )


def memory_not_locked(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons whose memory may be swapped out."""
    if not view.snapshot.swaps:
        return
    for daemon in _judged(view):
        process = daemon.process
        if process.never_swapped or process.locked_but(thresholds.unlocked_kib) is not False:
            continue
        yield Found(
            daemon.severity(_base(view, daemon)),
            daemon.subject,
            f"{daemon.serves}: {process.locked_kib} KiB of its memory are locked, "
            f"{known(process.resident_kib, ' KiB')} resident, and there "
            f"is swap{' on what it serves' if daemon.own_swaps else ''}",
            (
                Evidence(f"/proc/{process.pid}/status VmLck", known(process.locked_kib, " kB")),
                Evidence(f"/proc/{process.pid}/status VmRSS", known(process.resident_kib, " kB")),
                *_of_swaps(view.snapshot.swaps),
                *evidence_of_service(daemon),
            ),
            lock_memory(view, daemon),
        )


def swapped_out(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons of which memory is swapped out now."""
    for daemon in _judged(view):
        swapped = daemon.process.swapped_kib
        if swapped is None or swapped <= thresholds.swapped_kib:
            continue
        yield Found(
            daemon.severity(_base(view, daemon)),
            daemon.subject,
            f"{daemon.serves}: {swapped} KiB of its memory are swapped out now",
            (
                Evidence(f"/proc/{daemon.process.pid}/status VmSwap", f"{swapped} kB"),
                *_of_swaps(view.snapshot.swaps),
                *evidence_of_service(daemon),
            ),
            lock_memory(view, daemon),
        )


def swap_on_served(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Swap on a device whose daemon is not fit to carry it: one finding a swap area, whoever serves it."""
    carriers: dict[Swap, list[_Carrier]] = defaultdict(list)
    for daemon in view.daemons:
        if daemon.worker and (lacks := _lacks(daemon)):
            # a process may serve one device in two ways; the one that weighs more counts
            carried = sorted((target for target in daemon.targets if target.swaps), key=lambda t: -t.steps)
            for target in {target.layer: target for target in carried}.values():
                for swap in target.swaps:
                    carriers[swap].append(_Carrier(daemon, target, lacks))
    # areas on the same device are one finding
    areas: dict[tuple[_Carrier, ...], list[Swap]] = defaultdict(list)
    for swap, found in carriers.items():
        areas[tuple(sorted(found, key=lambda carrier: carrier.target.steps))].append(swap)
    for heaviest_first, swaps in areas.items():
        yield _swap_on(view, heaviest_first, tuple(swaps))


@dataclass(frozen=True, slots=True)
class _Carrier:
    """A daemon, what of that which it serves carries the swap, and what it lacks to be fit for that."""

    daemon: AuditedDaemon
    target: Target
    lacks: tuple[str, ...]

    @property
    def words(self) -> str:
        doubt = "" if self.target.service.certain else " (one of several candidates)"
        return f"{self.daemon.subject.words}{doubt} lacks {' and '.join(self.lacks)}"


def _lacks(daemon: AuditedDaemon) -> tuple[str, ...]:
    process = daemon.process
    return (
        *(() if daemon.covered else (_STATE,)),
        *(() if process.memory_locked or process.never_swapped else (_MEMORY,)),
    )


def _swap_on(view: View, carriers: tuple[_Carrier, ...], swaps: tuple[Swap, ...]) -> Found:
    first = carriers[0]
    names = ", ".join(swap.path for swap in swaps)
    targets = dict.fromkeys(carrier.target.name for carrier in carriers)
    return Found(
        Severity.ERROR.lowered(first.target.steps),
        Subject(SubjectKind.DEVICE, first.target.name),
        f"swap ({names}) lies on {', '.join(targets)}, and {'; '.join(one.words for one in carriers)}",
        (
            *_of_swaps(swaps),
            *(
                fact
                for carrier in carriers[:MOST_NAMED]
                for fact in (
                    Evidence(
                        f"/proc/{carrier.daemon.process.pid}/status VmLck",
                        known(carrier.daemon.process.locked_kib, " kB"),
                    ),
                    *evidence_of_service(carrier.daemon),
                )
            ),
            *more(len(carriers) - MOST_NAMED, "daemon"),
        ),
        _move_swap(view, carriers, swaps),
        group=first.daemon.subject,
    )


def _move_swap(view: View, carriers: tuple[_Carrier, ...], swaps: tuple[Swap, ...]) -> Remedy:
    """Make all of the daemons fit where commands can, else take swap off."""
    making_fit = [_make_fit(view, carrier) for carrier in carriers]
    if all(making_fit):
        reasons = "".join(
            f" ({lock_plan(view, one.daemon.process, one.daemon.own_swaps)[0]})"
            for one in carriers
            if _MEMORY in one.lacks
        )
        return Remedy(
            f"Make its daemon fit to carry swap: the state on every thread, and locked memory{reasons}. Or "
            "put swap on a disk of its own.",
            commands=tuple(dict.fromkeys(command for commands in making_fit for command in commands)),
        )
    return Remedy(
        "Put swap on a disk of its own; or give its daemon the state on every thread and locked memory, "
        "which makes it fit to carry swap, and turn swap on again.",
        commands=tuple(f"swapoff {quoted(swap.path)}" for swap in swaps),
    )


def _make_fit(view: View, carrier: _Carrier) -> tuple[str, ...]:
    """Commands that make a daemon fit to carry swap as it runs; empty where none can."""
    process = carrier.daemon.process
    if not can_take_state(carrier.daemon):
        return ()
    if _MEMORY not in carrier.lacks:
        return (f"ioflusher set {process.pid}",)
    # this sets the state, too
    return lock_commands(process) if lock_plan(view, process, carrier.daemon.own_swaps)[1] else ()


def swap_stored_in_file(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons that serve swap and have a file open for buffered writing, which the flusher writes back."""
    for daemon in view.daemons:
        stores = [file for file in daemon.process.files or () if _is_written_back(view, file)]
        if not (daemon.own_swaps and daemon.worker and stores):
            continue
        pid, first = daemon.process.pid, stores[0]
        others = f" and {counted(len(stores) - 1, 'file')} more" if len(stores) > 1 else ""
        yield Found(
            daemon.severity(Severity.WARNING),
            daemon.subject,
            f"{daemon.serves}: there is swap on it, and what it writes to {first.path}{others} is written "
            "back by the kernel's flusher, which does not carry the state",
            (
                *(
                    Evidence(f"/proc/{pid}, {file.kind.value} file", f"{file.path}, opened without O_DIRECT")
                    for file in stores[:MOST_NAMED]
                ),
                *more(len(stores) - MOST_NAMED, "file"),
                *_of_swaps(daemon.own_swaps),
                *evidence_of_service(daemon),
            ),
            Remedy(
                f"Have the daemon store on a block device of its own in place of {first.path}, and until "
                "then put swap on another disk.",
                commands=tuple(f"swapoff {quoted(swap.path)}" for swap in daemon.own_swaps),
            ),
        )


# file systems in memory: nothing of them is written back to a disk
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def _is_written_back(view: View, file: FileUse) -> bool:
    """Whether pages of the file that the process makes dirty are for the flusher to write."""
    if file.kind is not FileKind.WRITTEN or file.direct:
        return False
    layer = view.layers.of_file(file)
    if layer is None or layer.kind is not LayerKind.FILE_SYSTEM:
        return False
    return all(mount.fstype not in _IN_MEMORY for mount in view.layers.mounts.get(layer.name, ()))
