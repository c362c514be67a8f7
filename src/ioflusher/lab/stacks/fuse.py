"""A file of a user-space file system below a loop device: /dev/loop0, served by a FUSE daemon.

The daemon is the scenario's own command, which mounts its view of {directory} at {mount} and stays in the
foreground; the loop device's file is {mount}/image.
"""

from pathlib import Path

from ioflusher.lab.guest.processes import Process, await_true
from ioflusher.lab.stacks.base import STORE, Stack, filled_in

DEVICE = "/dev/loop0"
MOUNT = Path("/run/lab/fuse")


class FuseStack(Stack):
    """loop0 over a file of a FUSE mount, over a file of an ordinary file system."""

    device = DEVICE
    _daemon: Process

    def start(self) -> None:
        image = self.make_store()
        MOUNT.mkdir()
        places = {"{directory}": str(STORE), "{mount}": str(MOUNT)}
        argv = filled_in(self.scenario.daemon.command, places)
        self._daemon = self.processes.start(argv, io_flusher=self.order.io_flusher)
        served = MOUNT / image.name
        await_true(served.exists, f"it had no file {served}", self._daemon)
        self.processes.step("losetup", DEVICE, str(served))

    def daemons(self) -> tuple[int, ...]:
        return (self._daemon.pid,)
