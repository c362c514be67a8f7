"""A block device in user space over io_uring: /dev/ublkbN and a ublk server.

Without `daemon.command` the server is ours, `ioflusher.lab.daemons.ublk`. Another's makes a device of {file}
and stays in the foreground; the device is the one that was not there before.
"""

import os
from pathlib import Path

from ioflusher.lab.guest.processes import Process, await_ready_line, await_true, family
from ioflusher.lab.stacks.base import Stack, filled_in, own_daemon

BLOCK = Path("/sys/block")


def ublk_devices(block: Path = BLOCK) -> set[str]:
    """The names of the ublk devices that take requests: their size is known."""
    found = set()
    for entry in block.glob("ublkb*"):
        try:
            if int((entry / "size").read_text()):
                found.add(entry.name)
        except OSError:
            continue  # it went away
    return found


class UblkStack(Stack):
    """ublkb0 over a file of an ordinary file system."""

    device = ""
    _server: Process

    def start(self) -> None:
        image = self.make_store()
        command = self.scenario.daemon.command
        if not command:
            self._server = self.processes.start(
                own_daemon(self.order, "ublk", "--store", str(image)), stdout=True
            )
            self.device = await_ready_line(self._server, "serving ")
            return
        before = ublk_devices()
        places = {"{file}": str(image)}
        argv = filled_in(command, places)
        self._server = self.processes.start(argv, io_flusher=self.order.io_flusher)
        self.set_up(self._server, places)
        await_true(lambda: bool(ublk_devices() - before), "there was no new ublk device", self._server)
        self.device = os.path.join("/dev", min(ublk_devices() - before))

    def daemons(self) -> tuple[int, ...]:
        return family(self._server)
