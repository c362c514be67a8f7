"""A file of a user-space file system below a loop device: /dev/loop0, served by a FUSE daemon.

Without `daemon.command` the daemon is ours, `ioflusher.lab.daemons.fuse_file`. Another's mounts its view of
{directory} at {mount} and stays in the foreground; the loop device's file is {mount}/image. With
`store = "disk"` there is no directory: the daemon is given the disk as {file} and shows it below {mount}
under the disk's own name.
"""

from pathlib import Path

from ioflusher.lab.guest.processes import Process, await_ready_line, await_true, family
from ioflusher.lab.stacks.base import STORE, Stack, filled_in, own_daemon

DEVICE = "/dev/loop0"
MOUNT = Path("/run/lab/fuse")


class FuseStack(Stack):
    """loop0 over a file of a FUSE mount, over a file of an ordinary file system or over a disk."""

    device = DEVICE
    _daemon: Process

    def start(self) -> None:
        image = self.make_store()
        MOUNT.mkdir()
        served = MOUNT / image.name
        command = self.scenario.daemon.command
        if command:
            places = {"{directory}": str(STORE), "{file}": str(image), "{mount}": str(MOUNT)}
            self._daemon = self.processes.start(filled_in(command, places), io_flusher=self.order.io_flusher)
            self.set_up(self._daemon, places)
            await_true(served.exists, f"there was no file {served}", self._daemon)
        else:
            argv = own_daemon(self.order, "fuse_file", "--store", str(image), str(MOUNT))
            self._daemon = self.processes.start(argv, stdout=True)
            await_ready_line(self._daemon, "serving ")
        self.processes.step("losetup", DEVICE, str(served))

    def daemons(self) -> tuple[int, ...]:
        return family(self._daemon)
