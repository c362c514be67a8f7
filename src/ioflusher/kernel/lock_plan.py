"""Whether the memory of a process that runs can be locked without harm: judged on figures alone.

mlockall(MCL_CURRENT) populates: it brings every page of every mapping into memory, thread stacks of 8 MiB and
memory never touched included, and while it does it holds the process's mmap_lock for reading (mm/gup.c,
__mm_populate). Two things make it wait there. Where no memory is free, the allocation waits for the kernel
to free some, which may mean to write to swap; and with the IO_FLUSHER state set the thread tries again and
again, for it may not start that I/O itself, and no process is killed for an allocation without __GFP_FS
(mm/page_alloc.c, __alloc_pages_may_oom). Where a page is in swap, it must be read. If the process itself
serves the device on which swap lies, another of its threads must serve that request; as soon as that
thread calls mmap(2), munmap(2), mprotect(2) or mremap(2), as malloc does, it waits for the mmap_lock. The
process then waits for itself, and the machine for the process. Seen in a guest: docs/flag.md.

MCL_ONFAULT (Linux 4.4) populates nothing: what is in memory stays there, what is touched later stays from
then on. It allocates nothing and reads nothing, so it cannot wait.
"""

from dataclasses import dataclass
from enum import Enum

from ioflusher.kernel.syscalls import MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT

# Of the machine's memory, the part that locking must leave available to everybody else.
KEPT_SHARE = 8


class LockMethod(Enum):
    """How memory is locked, by the flags of mlockall(2)."""

    POPULATE = MCL_CURRENT | MCL_FUTURE
    ON_FAULT = MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT


@dataclass(frozen=True, slots=True)
class LockFigures:
    """What decides, all in KiB; None where it is not known, for the two limits also where there is none.

    Attributes:
        mapped_kib: VmSize, which RLIMIT_MEMLOCK is compared with.
        resident_kib: VmRSS.
        swapped_kib: VmSwap.
        absent_kib: what is mapped, accessible, and neither in memory nor in swap: what mlockall would
            populate. About VmData + VmStk + VmExe + VmLib - VmRSS; `kernel.smaps.absent_kib` counts it.
        limit_kib: RLIMIT_MEMLOCK, soft; None with CAP_IPC_LOCK, for which there is no limit.
        total_kib: MemTotal.
        available_kib: MemAvailable without Dirty and Writeback: free, or clean page cache.
        group_kib: the least room below memory.max and memory.high of its control groups.
    """

    mapped_kib: int | None = None
    resident_kib: int | None = None
    swapped_kib: int | None = None
    absent_kib: int | None = None
    limit_kib: int | None = None
    total_kib: int | None = None
    available_kib: int | None = None
    group_kib: int | None = None


@dataclass(frozen=True, slots=True)
class LockPlan:
    """What to do.

    Attributes:
        method: how to lock; None: not at all.
        fetch: whether what is in swap may be brought back, page by page, once ON_FAULT is in force.
        reason: why, with the figures, in a sentence without a full stop.
    """

    method: LockMethod | None
    fetch: bool
    reason: str


def plan_lock(figures: LockFigures) -> LockPlan:
    """How the memory of a running process is locked without harm; pure.

    POPULATE only where nothing of it is in swap, what is absent is at most half of what is available, and an
    eighth of the machine's memory stays available. Else ON_FAULT. Not at all where the limit is too low, or
    where the process's memory would leave less than that eighth.
    """
    refusal = _refusal(figures)
    if refusal:
        return LockPlan(None, False, refusal)
    room = figures.available_kib
    if room is not None and figures.group_kib is not None:
        room = min(room, figures.group_kib)
    if room is None or figures.total_kib is None or figures.swapped_kib is None or figures.absent_kib is None:
        return LockPlan(LockMethod.ON_FAULT, False, "what it would populate, or what is free, is not known")
    kept = figures.total_kib // KEPT_SHARE
    where = f"{mib(room)} are available"
    if figures.swapped_kib:
        what = f"{mib(figures.swapped_kib)} of it are in swap"
        if figures.swapped_kib > room // 2 or room - figures.swapped_kib < kept:
            return LockPlan(LockMethod.ON_FAULT, False, f"{what}, too much to bring back while {where}")
        return LockPlan(LockMethod.ON_FAULT, True, f"{what}, {where}")
    what = f"mlockall would populate {mib(figures.absent_kib)}"
    if figures.absent_kib > room // 2:
        return LockPlan(LockMethod.ON_FAULT, False, f"{what}, more than half of what is free: {where}")
    if room - figures.absent_kib < kept:
        return LockPlan(
            LockMethod.ON_FAULT, False, f"{what}, {where}, and {mib(kept)} of them are left to everybody else"
        )
    return LockPlan(LockMethod.POPULATE, False, f"{what}, {where}")


def _refusal(figures: LockFigures) -> str:
    """Why the memory must not be locked at all; empty where it may be."""
    mapped, limit = figures.mapped_kib, figures.limit_kib
    if limit is not None and mapped is not None and mapped > limit // 2:
        # Past the limit mmap(2) fails with EAGAIN (mm/mmap.c, mlock_future_ok), and with it malloc.
        return (
            f"its memory lock limit (RLIMIT_MEMLOCK) is {mib(limit)} and it maps {mib(mapped)}: what it maps "
            f"later counts too, so give it {mib(2 * mapped)} or unlimited"
        )
    total, resident = figures.total_kib, figures.resident_kib
    if total is None or resident is None:
        return ""
    wanted = resident + (figures.swapped_kib or 0)
    if total - wanted < total // KEPT_SHARE:
        return (
            f"{mib(wanted)} of memory locked would leave {mib(max(0, total - wanted))} of the machine's "
            f"{mib(total)} to everybody else"
        )
    return ""


def mib(kib: int) -> str:
    """KiB as a message has them: whole MiB, smaller amounts in KiB."""
    return f"{kib // 1024} MiB" if kib >= 1024 else f"{kib} KiB"
