"""A SCSI disk over TCP whose connection iscsid must bring back when it is lost: /dev/sda.

The target is one outside the machine or, with the store "file", the kernel's own on the same machine. The
kernel's initiator serves the disk alone until the connection is lost: then it asks iscsid for another. It
waits for that as long as it takes (no replacement time-out), as whoever has swap or a root on such a disk
would have it wait.

Debian's iscsid sets the state itself. In the half without, the lab clears it (`hardening.state`).

The kernel's target writes from threads of its own, which no prctl reaches; they are watched, too.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from ioflusher.kernel.task import parse_stat
from ioflusher.lab.guest.network import put_link, shut_connections
from ioflusher.lab.guest.processes import Process, family
from ioflusher.lab.stacks.base import Fault, Stack, filled_in
from ioflusher.lab.stacks.iscsi import PORTAL, write_initiator_files
from ioflusher.lab.stacks.scsi import DEVICE, await_disk, make_backstore, make_iscsi_target, mount_configfs

TARGET = "iqn.2026-01.lab.ioflusher:kernel"
# settings of iscsid.conf, for this one target
SETTINGS = {
    "node.session.timeo.replacement_timeout": "-1",
    # the kernel's own pings over the connection, which would find out later than a cut connection shows
    "node.conn[0].timeo.noop_out_interval": "0",
    "node.conn[0].timeo.noop_out_timeout": "0",
}
LOOPBACK, OUTSIDE = "lo", "eth0"
# threads of the kernel's target for one connection (drivers/target/iscsi/iscsi_target_login.c)
TARGET_THREADS = ("iscsi_trx", "iscsi_ttx")


class IscsidStack(Stack):
    """sda through the kernel's initiator and the network; iscsid stands beside the path."""

    device = DEVICE
    _iscsid: Process

    def start(self) -> None:
        if self.scenario.daemon.store == "file":
            portal, target = PORTAL, TARGET
            self._start_target()
        else:
            portal, _, target = self.order.remote.removeprefix("iscsi://").partition("/")
        places = write_initiator_files()
        argv = filled_in(self.scenario.daemon.command, places)
        self._iscsid = self.processes.start(argv, io_flusher=self.order.io_flusher)
        self.set_up(self._iscsid, places)
        node = ("iscsiadm", "--mode=node", f"--targetname={target}", f"--portal={portal}")
        self.processes.step(*node, "--op=new")
        for name, value in SETTINGS.items():
            self.processes.step(*node, "--op=update", f"--name={name}", f"--value={value}")
        # iscsid takes a moment until it answers
        self.processes.step_until(*node, "--login", running=(self._iscsid,))
        await_disk(self._iscsid)

    def _start_target(self) -> None:
        """The kernel's own target, with a file as its unit."""
        image = self.make_store()
        target = mount_configfs(self.processes)
        control = f"fd_dev_name={image},fd_dev_size={self.scenario.device.size},fd_buffered_io=1"
        make_iscsi_target(target, make_backstore(target, "fileio_0/lab", control), TARGET, PORTAL)

    def faults(self) -> Mapping[str, Fault]:
        return {
            **super().faults(),
            "connection-cut": Fault(self._cut, lambda: put_link(self._link(), up=True)),
        }

    def _cut(self) -> None:
        """The connection ends at once, and there is no other one to be had."""
        for pid in family(self._iscsid):
            shut_connections(pid)
        put_link(self._link(), up=False)

    def _link(self) -> str:
        return LOOPBACK if self.scenario.daemon.store == "file" else OUTSIDE

    def daemons(self) -> tuple[int, ...]:
        """iscsid, then the threads of the kernel's target, where that is what serves."""
        return family(self._iscsid) + (target_threads() if self.scenario.daemon.store == "file" else ())


def target_threads(proc: Path = Path("/proc")) -> tuple[int, ...]:
    """The threads of the kernel's iSCSI target that serve connections."""
    found = []
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        try:
            stat = parse_stat((proc / entry / "stat").read_bytes())
        except OSError:
            continue  # it ended between the listing and the look
        if stat.kernel_thread and stat.comm.startswith(TARGET_THREADS):
            found.append(int(entry))
    return tuple(sorted(found))
