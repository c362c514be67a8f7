"""Lock the memory of a process that runs, without a wait for what only that process can bring.

`kernel.lock_plan` says how that can happen. The figures are read first, from outside. Then one thread of
the process calls mlockall(2) in the way that they allow. What is in swap is brought back only once the lock
is in force without populating, and from outside: a page at a time, by process_vm_readv(2), which lets go of
the process's mmap_lock while the page is read (mm/gup.c, FOLL_UNLOCKABLE), and no longer than memory lasts.
All threads of the process run meanwhile.
"""

import struct
import time
from collections.abc import Callable, Iterator
from mmap import PAGESIZE
from pathlib import Path

from ioflusher.flag.attach.arch import Call, CallName
from ioflusher.flag.attach.memory_figures import (
    MemoryUnreadableError,
    MemoryView,
    machine_memory_kib,
    read_memory,
)
from ioflusher.flag.attach.outcome import MemoryOutcome, ThreadOutcome, ThreadResult
from ioflusher.kernel.lock_plan import KEPT_SHARE, LockFigures, LockMethod, mib, plan_lock
from ioflusher.kernel.syscalls import process_vm_touch

# What populating is given beyond the time of every call: memory is cleared at some GB/s, and at tens of MB/s
# where the machine is emulated.
_POPULATED_KIB_PER_SECOND = 32 * 1024
# The same for pages brought back from swap, which are read one by one over a network, it may be.
_FETCHED_KIB_PER_SECOND = 1024
_LOOK_EVERY = 64  # pages brought back from swap between two looks at what is free
_PAGE_SWAPPED = 1 << 62  # Documentation/admin-guide/mm/pagemap.rst
_ENTRY = 8  # bytes of pagemap a page


def lock_process_memory(
    pid: int, call: Callable[[Call], ThreadOutcome], timeout: float, *, dry_run: bool, proc: Path
) -> MemoryOutcome:
    """Lock the memory of process `pid` as far as that is safe, and bring back what is in swap.

    `call` has one thread of the process make a call; `timeout` in seconds counts for reading its figures, and
    for bringing back on top of a second for every MiB. With `dry_run` nothing is called, and the outcome says
    what would be done.
    """
    try:
        view = read_memory(pid, timeout, proc)
        plan = plan_lock(view.figures)
        if plan.method is None:
            return MemoryOutcome(ThreadResult.REFUSED, None, view.figures, plan.reason)
        if dry_run:
            return MemoryOutcome(ThreadResult.WOULD, plan.method, view.figures, plan.reason)
        done = call(lock_call(plan.method, view.figures))
        if done.outcome is not ThreadResult.DONE:
            return MemoryOutcome(done.outcome, plan.method, view.figures, done.detail)
        if not view.figures.swapped_kib:
            return MemoryOutcome(ThreadResult.DONE, plan.method, view.figures, plan.reason)
        reason = plan.reason
        if plan.fetch:
            seconds = timeout + view.figures.swapped_kib / _FETCHED_KIB_PER_SECOND
            reason = fetch_swapped(pid, view, time.monotonic() + seconds, proc) or reason
        return _after_fetching(pid, call, timeout, proc, reason)
    except MemoryUnreadableError as error:
        return MemoryOutcome(ThreadResult.TIMED_OUT, None, LockFigures(), str(error))
    except (FileNotFoundError, ProcessLookupError):
        return MemoryOutcome(ThreadResult.GONE, None, LockFigures())
    except OSError as error:
        return MemoryOutcome(ThreadResult.DENIED, None, LockFigures(), f"{error.filename}: {error.strerror}")


def _after_fetching(
    pid: int, call: Callable[[Call], ThreadOutcome], timeout: float, proc: Path, reason: str
) -> MemoryOutcome:
    """What is locked now; with nothing left in swap there may be room to populate the rest."""
    view = read_memory(pid, timeout, proc)
    left = view.figures.swapped_kib or 0
    if left:
        return MemoryOutcome(
            ThreadResult.PARTIAL, LockMethod.ON_FAULT, view.figures, f"{mib(left)} are left in swap: {reason}"
        )
    plan = plan_lock(view.figures)
    if plan.method is LockMethod.POPULATE:
        done = call(lock_call(plan.method, view.figures))
        if done.outcome is not ThreadResult.DONE:
            return MemoryOutcome(done.outcome, LockMethod.ON_FAULT, view.figures, done.detail)
        return MemoryOutcome(ThreadResult.DONE, plan.method, view.figures, plan.reason)
    return MemoryOutcome(ThreadResult.DONE, LockMethod.ON_FAULT, view.figures, plan.reason)


def lock_call(method: LockMethod, figures: LockFigures) -> Call:
    """The call that locks, with the time that it may take."""
    populated = figures.absent_kib or 0 if method is LockMethod.POPULATE else 0
    return Call(CallName.MLOCKALL, (method.value,), populated / _POPULATED_KIB_PER_SECOND)


def fetch_swapped(pid: int, view: MemoryView, deadline: float, proc: Path) -> str:
    """Bring the swapped pages of a process back until `deadline` (time.monotonic()), or memory gets short.

    Why it stopped before the last page, in words; empty where it did not.
    """
    for number, address in enumerate(swapped_pages(pid, view, proc)):
        if number % _LOOK_EVERY == 0:
            total, available = machine_memory_kib(proc)
            if total is None or available is None or available < total // KEPT_SHARE:
                return f"{mib(available or 0)} are available now, too little to bring back more"
        if time.monotonic() > deadline:
            return "the time was up"
        process_vm_touch(pid, address)  # one that was unmapped meanwhile needs nothing
    return ""


def swapped_pages(pid: int, view: MemoryView, proc: Path) -> Iterator[int]:
    """The addresses of the pages that are in swap, of mappings that can be read."""
    with open(proc / str(pid) / "pagemap", "rb", buffering=0) as file:
        for memory in view.mappings:
            if not (memory.swapped_kib and memory.lockable):
                continue
            first, end = memory.mapping.start // PAGESIZE, memory.mapping.end // PAGESIZE
            file.seek(first * _ENTRY)
            entries = file.read((end - first) * _ENTRY)
            for place, (entry,) in enumerate(struct.iter_unpack("=Q", entries)):
                if entry & _PAGE_SWAPPED:
                    yield (first + place) * PAGESIZE
