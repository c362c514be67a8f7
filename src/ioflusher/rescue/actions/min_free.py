"""The kernel's own reserve given to those who wait: vm.min_free_kbytes lowered for a while.

An allocation passes while more pages are free than the min watermark (mm/page_alloc.c, __zone_watermark_ok),
and a frozen machine stands right at it. The size of the reserve is what becomes free at once.
"""

from ioflusher.machine.snapshot import Memory
from ioflusher.rescue.actions.action import FileWrite, Loss, NotApplicable, RescueAction, RescueStep
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay

PART = 4  # what is left of it: atomic allocations and the driver's own live on that


class MinFree(RescueAction):
    """vm.min_free_kbytes at a quarter."""

    name = "min-free"

    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep | NotApplicable:
        if freeze.way is not FreezeWay.RECLAIM:
            return self.no(f"the daemon does not wait for memory: {freeze.way.value}")
        now = memory.min_free_kib
        if now is None:
            return self.no("vm.min_free_kbytes is not known")
        path = "/proc/sys/vm/min_free_kbytes"
        write, restore = FileWrite(path, str(now // PART)), FileWrite(path, str(now))
        return RescueStep(
            action=self.name,
            loss=Loss.NOTHING,
            loses="nothing; until it is put back, bursts of network packets may find no memory",
            reason=f"an allocation of {freeze.waits} waits; {(now - now // PART) >> 10} MiB of the kernel's "
            "reserve are free for it at once",
            commands=(write.command,),
            undo=(restore.command,),
            wait_s=12.0,
            writes=(write,),
            restores=(restore,),
        )
