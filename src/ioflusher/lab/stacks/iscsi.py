"""A SCSI disk over TCP to a target in user space on the same machine: /dev/sda.

The kernel's initiator (iscsi_tcp) is the disk's driver; iscsid logs in and then stands beside the path. The
daemon in the path is the target: the scenario's own command, which listens at {portal} and has {file} as its
one unit. Some targets are told what to serve by commands of their own (`daemon.setup`).
"""

from pathlib import Path

from ioflusher.lab.guest.network import listens
from ioflusher.lab.guest.processes import Process, Processes, await_true, family
from ioflusher.lab.stacks.base import Stack, filled_in
from ioflusher.lab.stacks.scsi import DEVICE, await_disk

PORT = 3260  # RFC 7143, section 4.3.1
PORTAL = f"127.0.0.1:{PORT}"
RUN = Path("/run/lab")
ISCSID = ("iscsid", "--foreground", "--initiatorname={initiatorname}", "--config={config}")
INITIATOR = "iqn.2026-01.lab.ioflusher:initiator"


def write_initiator_files() -> dict[str, str]:
    """The files of an initiator's daemon, by the placeholder in its command: its name and its settings."""
    name, settings = RUN / "initiatorname.iscsi", RUN / "iscsid.conf"
    name.write_text(f"InitiatorName={INITIATOR}\n")
    settings.write_text("node.startup = manual\n")
    return {"{initiatorname}": str(name), "{config}": str(settings)}


def start_iscsid(processes: Processes) -> Process:
    """The initiator's daemon; it sets the IO_FLUSHER state itself and locks its memory."""
    return processes.start(filled_in(ISCSID, write_initiator_files()))


def log_in(processes: Processes, portal: str, iscsid: Process, *others: Process) -> None:
    """Log in to every target at the portal, the first of them becomes /dev/sda."""
    # iscsid takes a moment until it answers
    discover = ("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", portal)
    processes.step_until(*discover, running=(*others, iscsid))
    processes.step("iscsiadm", "-m", "node", "-p", portal, "--login")
    await_disk(iscsid, *others)


class IscsiStack(Stack):
    """sda through the kernel's initiator and the loopback network, over a file of an ordinary file system."""

    device = DEVICE
    _target: Process

    def start(self) -> None:
        image = self.make_store()
        places = {"{portal}": PORTAL, "{file}": str(image)}
        argv = filled_in(self.scenario.daemon.command, places)
        self._target = self.processes.start(argv, io_flusher=self.order.io_flusher)
        self.set_up(self._target, places)
        await_true(lambda: listens(PORT), f"it did not listen at {PORTAL}", self._target)
        iscsid = start_iscsid(self.processes)
        log_in(self.processes, PORTAL, iscsid, self._target)

    def daemons(self) -> tuple[int, ...]:
        return family(self._target)
