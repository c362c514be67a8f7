"""The share of the dirty limit that the daemon's own store may have, raised for a while.

A device with a small max_ratio, or with strict_limit, pauses its writers for its own share even while the
machine's limit is far away (mm/page-writeback.c, wb_dirty_limits and wb_over_bg_thresh; FUSE mounts have
max_ratio 1 and the strict limit).
"""

from ioflusher.machine.snapshot import Memory
from ioflusher.rescue.actions.action import FileWrite, Loss, NotApplicable, RescueAction, RescueStep
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay


class StoreShare(RescueAction):
    """bdi/max_ratio 100 and bdi/strict_limit 0 for what the daemon writes to."""

    name = "store-share"

    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep | NotApplicable:
        if freeze.way not in (FreezeWay.DIRTY_THROTTLING, FreezeWay.UNKNOWN):
            return self.no(f"the daemon is not paused for dirty pages: {freeze.way.value}")
        writes, restores, names = [], [], []
        for share in freeze.device.stores:
            directory = f"/sys/class/bdi/{share.number}"
            if share.max_ratio is not None and share.max_ratio < 100:
                writes.append(FileWrite(f"{directory}/max_ratio", "100"))
                restores.append(FileWrite(f"{directory}/max_ratio", str(share.max_ratio)))
                names.append(share.name)
            if share.strict_limit:
                writes.append(FileWrite(f"{directory}/strict_limit", "0"))
                restores.append(FileWrite(f"{directory}/strict_limit", "1"))
                names.append(share.name)
        if not writes:
            return self.no("no store of the daemons has a share of its own of the dirty limit")
        return RescueStep(
            action=self.name,
            loss=Loss.NOTHING,
            loses="nothing",
            reason="what the daemon stores into has a share of its own of the dirty limit: "
            + ", ".join(dict.fromkeys(names)),
            commands=tuple(write.command for write in writes),
            undo=tuple(write.command for write in restores),
            wait_s=5.0,
            writes=tuple(writes),
            restores=tuple(restores),
        )
