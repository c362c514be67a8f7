"""The machine's dirty limits raised for a while.

A daemon that stores through the page cache is paused in balance_dirty_pages() while NR_FILE_DIRTY and
NR_WRITEBACK together exceed the limit, and where those are pages of its own device they wait for it. Below
the mean of both limits nobody is paused (mm/page-writeback.c, dirty_freerun_ceiling): the daemon goes on, and
its device empties. A paused task looks again at the end of its pause, 200 ms at most (MAX_PAUSE).
"""

from ioflusher.machine.snapshot import Memory
from ioflusher.rescue.actions.action import FileWrite, Loss, NotApplicable, RescueAction, RescueStep
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay

VM = "/proc/sys/vm"
LEAST_RISE = 64 << 20  # bytes above what is dirty: the daemon dirties as much again while it stores
# of the memory that is available: dirty pages cannot be reclaimed at once
MOST_SHARE = 2


class DirtyLimits(RescueAction):
    """vm.dirty_bytes and vm.dirty_background_bytes raised, and put back once the device has caught up."""

    name = "dirty-limits"

    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep | NotApplicable:
        if freeze.way not in (FreezeWay.DIRTY_THROTTLING, FreezeWay.UNKNOWN, FreezeWay.PAGE_LOCK):
            return self.no(f"{freeze.waits} is not paused for dirty pages: {freeze.way.value}")
        restores = _restores(memory)
        if restores is None or memory.dirty_kib is None or memory.writeback_kib is None:
            return self.no("the machine's dirty limits and dirty pages are not known")
        dirty = (memory.dirty_kib + memory.writeback_kib) << 10
        wanted = 2 * dirty + LEAST_RISE
        most = (memory.available_kib << 10) // MOST_SHARE if memory.available_kib is not None else wanted
        limit = dirty_limit(memory)
        # what may be dirty without a pause is the mean of both limits: three quarters of the higher one
        if most * 3 // 4 <= dirty or (limit is not None and most <= limit):
            return self.no(
                f"{most >> 20} MiB is the most that this machine's memory bears, and that is no rise"
            )
        raised = min(wanted, most)
        if limit is not None:
            raised = max(raised, min(2 * limit, most))
        writes = (
            FileWrite(f"{VM}/dirty_bytes", str(raised)),
            FileWrite(f"{VM}/dirty_background_bytes", str(raised // 2)),
        )
        sure = "" if freeze.way is FreezeWay.DIRTY_THROTTLING else ", if it is paused for dirty pages"
        return RescueStep(
            action=self.name,
            loss=Loss.NOTHING,
            loses="nothing; until it is put back up to "
            f"{raised >> 20} MiB may be dirty, and would be lost in a power failure",
            reason=f"{dirty >> 20} MiB are dirty or under writeback; nobody is paused below "
            f"{raised * 3 // 4 >> 20} MiB then, so {freeze.waits} goes on storing{sure}",
            commands=tuple(write.command for write in writes),
            undo=tuple(write.command for write in restores),
            wait_s=5.0,
            writes=writes,
            restores=restores,
        )


def dirty_limit(memory: Memory) -> int | None:
    """vm.dirty_bytes or what vm.dirty_ratio comes to, roughly; None for unknown."""
    if memory.dirty_bytes:
        return memory.dirty_bytes
    if memory.dirty_ratio and memory.available_kib is not None:
        return (memory.available_kib << 10) * memory.dirty_ratio // 100
    return None


def _restores(memory: Memory) -> tuple[FileWrite, ...] | None:
    """Of each pair the one that holds: writing it clears the other (mm/page-writeback.c)."""
    writes = []
    for size, share, name in (
        (memory.dirty_background_bytes, memory.dirty_background_ratio, "dirty_background"),
        (memory.dirty_bytes, memory.dirty_ratio, "dirty"),
    ):
        if size:
            writes.append(FileWrite(f"{VM}/{name}_bytes", str(size)))
        elif share is not None:
            writes.append(FileWrite(f"{VM}/{name}_ratio", str(share)))
        else:
            return None
    return tuple(writes)
