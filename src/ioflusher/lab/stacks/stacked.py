"""Two daemons, one on the other: /dev/nbd0, whose server stores into /dev/loop0, which a FUSE daemon serves.

A request for nbd0 is done once both have done their part. `daemon.command` is the upper one's, the NBD
server's; {file} is the loop device. The lower one is ours.
Either may be left without the state (`hardening.daemon`).
"""

from dataclasses import replace
from pathlib import Path

import msgspec

from ioflusher.lab.guest.processes import Processes
from ioflusher.lab.messages import PlayHalf
from ioflusher.lab.stacks.base import Stack
from ioflusher.lab.stacks.fuse import FuseStack
from ioflusher.lab.stacks.nbd import NbdStack


class StackedStack(NbdStack):
    """nbd0 over a loop device over a file of a FUSE mount, over a file of an ordinary file system."""

    _below: Stack

    def __init__(self, order: PlayHalf, processes: Processes) -> None:
        self._order_below = self._order_for("lower", order)
        super().__init__(self._order_for("upper", order), processes)

    @staticmethod
    def _order_for(daemon: str, order: PlayHalf) -> PlayHalf:
        """The order as one of the daemons gets it: with the state where it is to carry it."""
        carries = order.io_flusher and order.scenario.hardening.daemon in ("both", daemon)
        return msgspec.structs.replace(order, io_flusher=carries)

    def make_store(self) -> Path:
        """The loop device, served by the lower daemon."""
        ours = replace(self.scenario, daemon=replace(self.scenario.daemon, command=()))
        self._below = FuseStack(msgspec.structs.replace(self._order_below, scenario=ours), self.processes)
        self._below.start()
        return Path(self._below.device)

    def daemons(self) -> tuple[int, ...]:
        """The upper daemon with what it started, then the lower one."""
        return (*super().daemons(), *self._below.daemons())

    def carriers(self) -> tuple[int, ...]:
        """Both of them, or the one that the scenario names."""
        match self.scenario.hardening.daemon:
            case "upper":
                return super().daemons()
            case "lower":
                return self._below.daemons()
            case "both":
                return self.daemons()
