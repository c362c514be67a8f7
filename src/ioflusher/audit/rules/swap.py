"""Rules on a daemon's own memory: locked, swapped out, and where swap lies."""

from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity, Subject, SubjectKind
from ioflusher.audit.rules.rule import Found, evidence_of_service, quoted
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import AuditedDaemon, Stake, Target, View
from ioflusher.kernel.capability import CAP_IPC_LOCK
from ioflusher.machine.storage import Swap


def _judged(view: View) -> Iterator[AuditedDaemon]:
    """Daemons with work to do for a block device or a file system of the kernel."""
    return (daemon for daemon in view.daemons if daemon.stake >= Stake.UNUSED and daemon.worker)


def _base(view: View, daemon: AuditedDaemon) -> Severity:
    """By where its pages would go: to its own device, to another one, or nowhere."""
    if any(target.swaps for target in daemon.targets):
        return Severity.ERROR
    return Severity.WARNING if view.disk_swaps else Severity.NOTE


def lock_memory(daemon: AuditedDaemon) -> Remedy:
    """Have all of a daemon's memory locked."""
    pid = daemon.process.pid
    sets = daemon.process.capabilities
    lift = (
        () if sets and sets.effective >> CAP_IPC_LOCK & 1 else (f"prlimit --pid {pid} --memlock=unlimited",)
    )
    return Remedy(
        "Lock its memory, which also brings back what is swapped out. For good: the daemon calls "
        "mlockall(MCL_CURRENT | MCL_FUTURE) itself, or its control group keeps out of swap.",
        commands=(*lift, f"ioflusher set --lock-memory {pid}"),
        unit=("LimitMEMLOCK=infinity", "MemorySwapMax=0"),
    )


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
        own = any(target.swaps for target in daemon.targets)
        yield Found(
            daemon.severity(_base(view, daemon)),
            daemon.subject,
            f"{daemon.serves}: {process.locked_kib} KiB of its memory are locked, "
            f"{'unknown' if process.resident_kib is None else process.resident_kib} KiB resident, and there "
            f"is swap{' on what it serves' if own else ''}",
            (
                Evidence(f"/proc/{process.pid}/status VmLck", f"{process.locked_kib} kB"),
                Evidence(f"/proc/{process.pid}/status VmRSS", f"{process.resident_kib} kB"),
                *_of_swaps(view.snapshot.swaps),
                *evidence_of_service(daemon),
            ),
            lock_memory(daemon),
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
            lock_memory(daemon),
        )


def swap_on_served(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Swap on a device whose daemon is not fit to carry it."""
    for daemon in view.daemons:
        process = daemon.process
        fit = process.covered and (process.memory_locked or process.never_swapped)
        if fit or not daemon.worker:
            continue
        # a process may serve one device in two ways; the heavier one counts
        carried = sorted((target for target in daemon.targets if target.swaps), key=lambda t: -t.steps)
        for target in {target.layer: target for target in carried}.values():
            yield _swap_on(target, daemon)


def _swap_on(target: Target, daemon: AuditedDaemon) -> Found:
    process = daemon.process
    lacks = [
        *([] if process.covered else ["the state on every thread"]),
        *([] if process.memory_locked or process.never_swapped else ["locked memory"]),
    ]
    names = ", ".join(swap.path for swap in target.swaps)
    return Found(
        Severity.ERROR.lowered(target.steps),
        Subject(SubjectKind.DEVICE, target.name),
        f"swap ({names}) lies on what {daemon.subject.words} serves, which lacks {' and '.join(lacks)}",
        (
            *_of_swaps(target.swaps),
            Evidence(f"/proc/{process.pid}/status VmLck", f"{process.locked_kib} kB"),
            *evidence_of_service(daemon),
        ),
        Remedy(
            "Put swap on a disk of its own; or give its daemon the state on every thread and locked memory "
            f"(`ioflusher set --lock-memory {process.pid}`), which makes it fit to carry swap.",
            commands=tuple(f"swapoff {quoted(swap.path)}" for swap in target.swaps),
        ),
    )
