"""One FUSE connection aborted by /sys/fs/fuse/connections/N/abort (fs/fuse/control.c)."""

from ioflusher.machine.snapshot import Memory
from ioflusher.rescue.actions.action import FileWrite, Loss, NotApplicable, RescueAction, RescueStep
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay


class FuseAbort(RescueAction):
    """Every request of the file system fails at once, and the mount is "not connected" from then on."""

    name = "fuse-abort"

    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep | NotApplicable:
        if not freeze.device.fuse:
            return self.no("no FUSE file system is in the path")
        if freeze.way is FreezeWay.PATHS_LOST:
            return self.no(f"the FUSE daemon is not what is waited for: {freeze.way.value}")
        writes = tuple(
            FileWrite(f"/sys/fs/fuse/connections/{mount.connection}/abort", "1")
            for mount in freeze.device.fuse
        )
        points = ", ".join(f"{mount.point} (connection {mount.connection})" for mount in freeze.device.fuse)
        return RescueStep(
            action=self.name,
            loss=Loss.DEVICE,
            loses=f"the mount {points} and with it {lost_with(freeze)}",
            reason=f"requests wait for the FUSE daemon of {points}; aborted, they fail instead",
            commands=tuple(write.command for write in writes),
            wait_s=10.0,
            writes=writes,
        )


def lost_with(freeze: DeviceFreeze) -> str:
    """What is lost where the requests of the device fail."""
    device = freeze.device
    words = [f"what {device.path} has not written yet"]
    if device.mounts:
        words.append(f"file systems on it turn read-only or fail ({', '.join(device.mounts)})")
    if device.swaps:
        words.append(f"processes whose pages lie in its swap are killed ({', '.join(device.swaps)})")
    return "; ".join(words)
