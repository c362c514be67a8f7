"""Two daemons, one on the other: /dev/nbd0, whose server stores into /dev/loop0, which a FUSE daemon serves.

A request for nbd0 is done once both have done their part. `daemon.command` is the upper one's, the NBD
server's; {file} is the loop device. The lower one is ours.
"""

from dataclasses import replace
from pathlib import Path

import msgspec

from ioflusher.lab.stacks.base import Stack
from ioflusher.lab.stacks.fuse import FuseStack
from ioflusher.lab.stacks.nbd import NbdStack


class StackedStack(NbdStack):
    """nbd0 over a loop device over a file of a FUSE mount, over a file of an ordinary file system."""

    _below: Stack

    def make_store(self) -> Path:
        """The loop device, served by the lower daemon."""
        ours = replace(self.scenario, daemon=replace(self.scenario.daemon, command=()))
        self._below = FuseStack(msgspec.structs.replace(self.order, scenario=ours), self.processes)
        self._below.start()
        return Path(self._below.device)

    def daemons(self) -> tuple[int, ...]:
        """The upper daemon with what it started, then the lower one."""
        return (*super().daemons(), *self._below.daemons())
