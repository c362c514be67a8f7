"""Rules on a daemon's own memory: locked, swapped out, and where swap lies."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from ioflusher.audit.finding import Evidence, Remedy, Severity, Subject, SubjectKind
from ioflusher.audit.rules.io_flusher_state import can_take_state
from ioflusher.audit.rules.rule import MOST_NAMED, Found, evidence_of_service, known, more, quoted
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import AuditedDaemon, Stake, Target, View
from ioflusher.kernel.capability import CAP_IPC_LOCK
from ioflusher.machine.process import Process
from ioflusher.machine.storage import Swap

_STATE = "the state on every thread"


def _judged(view: View) -> Iterator[AuditedDaemon]:
    """Daemons with work to do for a block device or a file system of the kernel."""
    return (daemon for daemon in view.daemons if daemon.stake >= Stake.UNUSED and daemon.worker)


def _base(view: View, daemon: AuditedDaemon) -> Severity:
    """By where its pages would go: to its own device, to another one, or nowhere."""
    if daemon.own_swaps:
        return Severity.ERROR
    return Severity.WARNING if view.disk_swaps else Severity.NOTE


def lock_memory(view: View, daemon: AuditedDaemon) -> Remedy:
    """Have all of a daemon's memory locked; by a command only where the figures say that it is safe."""
    pid = daemon.process.pid
    figures, safe = locking_figures(view, daemon.process, daemon.own_swaps)
    unit = ("LimitMEMLOCK=infinity", "MemorySwapMax=0")
    if not safe:
        return Remedy(f"Lock its memory when it starts, not as it runs: {figures}.", unit=unit)
    if daemon.in_nbd_do_it:
        return Remedy(
            f"`ioflusher set --lock-memory {pid}` locks its memory ({figures}), and ends with status 1 "
            "because of its thread in ioctl(NBD_DO_IT).",
            unit=unit,
        )
    swaps = daemon.own_swaps
    return Remedy(
        f"Lock its memory, which also brings back what is swapped out: {figures}.",
        commands=(
            *(f"swapoff {quoted(swap.path)}" for swap in swaps),
            *lock_commands(daemon.process),
            *(_swapon(swap) for swap in swaps),
        ),
        unit=unit,
    )


def lock_commands(process: Process) -> tuple[str, ...]:
    """Commands that have a process lock its memory, the limit lifted before where it has no CAP_IPC_LOCK."""
    pid, sets = process.pid, process.capabilities
    able = sets is not None and sets.effective >> CAP_IPC_LOCK & 1
    lift = () if able else (f"prlimit --pid {pid} --memlock=unlimited",)
    return (*lift, f"ioflusher set --lock-memory {pid}")


def locking_figures(view: View, process: Process, swaps: tuple[Swap, ...] = ()) -> tuple[str, bool]:
    """What mlockall may populate beside what is available, in words, and whether it leaves half of that.

    mlockall populates every mapping of the address space that may be accessed (mm/mlock.c, mm/gup.c
    populate_vma_page_range), so VmSize less VmRSS is the most that it can take. `swaps` are areas that are
    read back before. A daemon that serves the machine's swap froze it while its memory was locked.
    """
    size, resident, available = process.virtual_kib, process.resident_kib, view.snapshot.memory.available_kib
    if size is None or resident is None or available is None:
        names = (("VmSize", size), ("VmRSS", resident), ("MemAvailable", available))
        missing = ", ".join(name for name, value in names if value is None)
        return f"how much memory that takes is unknown ({missing})", False
    back = sum(swap.used for swap in swaps) >> 10
    most = max(0, size - resident) + back
    return (
        f"mlockall takes up to {most} KiB more (VmSize {size} KiB, {resident} KiB of it resident"
        + (f", {back} KiB of swap read back before" if back else "")
        + f"), and {available} KiB are available",
        most * 2 <= available,
    )


def _swapon(swap: Swap) -> str:
    """The command that brings a swap area back, with its priority where somebody gave it one (0 and "
    "above)."""
    priority = f"-p {swap.priority} " if swap.priority >= 0 else ""
    return f"swapon {priority}{quoted(swap.path)}"


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
        yield _swap_on(heaviest_first, tuple(swaps))


@dataclass(frozen=True, slots=True)
class _Carrier:
    """A daemon, what of that which it serves carries the swap, and what it lacks to be fit for that."""

    daemon: AuditedDaemon
    target: Target
    lacks: tuple[str, ...]

    @property
    def only_lacks_state(self) -> bool:
        return self.lacks == (_STATE,)

    @property
    def words(self) -> str:
        doubt = "" if self.target.service.certain else " (one of several candidates)"
        return f"{self.daemon.subject.words}{doubt} lacks {' and '.join(self.lacks)}"


def _lacks(daemon: AuditedDaemon) -> tuple[str, ...]:
    process = daemon.process
    return (
        *(() if daemon.covered else (_STATE,)),
        *(() if process.memory_locked or process.never_swapped else ("locked memory",)),
    )


def _swap_on(carriers: tuple[_Carrier, ...], swaps: tuple[Swap, ...]) -> Found:
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
        _move_swap(carriers, swaps),
        group=first.daemon.subject,
    )


def _move_swap(carriers: tuple[_Carrier, ...], swaps: tuple[Swap, ...]) -> Remedy:
    """Take swap off; where the state alone is missing and can be set, that makes the daemons fit."""
    if all(carrier.only_lacks_state and can_take_state(carrier.daemon) for carrier in carriers):
        return Remedy(
            "Put the state on every thread of the daemon: its memory is locked. Or put swap on a disk of its "
            "own.",
            commands=tuple(
                dict.fromkeys(f"ioflusher set {carrier.daemon.process.pid}" for carrier in carriers)
            ),
        )
    return Remedy(
        "Put swap on a disk of its own; or give its daemon the state on every thread and locked memory, "
        "which makes it fit to carry swap, and turn swap on again.",
        commands=tuple(f"swapoff {quoted(swap.path)}" for swap in swaps),
    )
