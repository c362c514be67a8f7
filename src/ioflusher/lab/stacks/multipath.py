"""dm-multipath over paths to one SCSI disk, which multipathd takes out of use and brings back: /dev/dm-0.

The disk is the kernel's own for tests, scsi_debug, with a host for each path; its content lies in the
machine's memory. While no path is left, requests are queued for as long as it takes (no_path_retry), as
whoever has swap or a root on such a disk would have it. Only multipathd finds out that a path works again.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from ioflusher.lab.guest.processes import Process, await_true, family
from ioflusher.lab.stacks.base import Fault, Stack

CONFIGURATION = Path("/etc/multipath.conf")
# paths are looked at every second; only scsi_debug's disks are taken
SETTINGS = """\
defaults {
    find_multipaths no
    path_checker tur
    polling_interval 1
    max_polling_interval 1
    no_path_retry queue
}
blacklist {
    devnode ".*"
}
blacklist_exceptions {
    devnode "^sd"
    device {
        vendor "Linux"
        product "scsi_debug"
    }
}
"""
PATHS = 2  # where the scenario does not say
DEVICE = "dm-0"
BLOCK = Path("/sys/block")
UDEVD = "/lib/systemd/systemd-udevd"


class MultipathStack(Stack):
    """dm-0 over sda, sdb and further ones."""

    device = f"/dev/{DEVICE}"
    _daemon: Process

    def start(self) -> None:
        CONFIGURATION.write_text(SETTINGS)
        # multipathd knows disks by what udev knows of them
        self.processes.step(UDEVD, "--daemon")
        hosts = self._paths()
        size_mib = self.scenario.device.size >> 20
        self.processes.step(
            *("modprobe", "scsi_debug", f"add_host={hosts}", "vpd_use_hostno=0", f"dev_size_mb={size_mib}")
        )
        self.processes.step("udevadm", "settle", "--timeout=30")
        self._daemon = self.processes.start(self.scenario.daemon.command, io_flusher=self.order.io_flusher)
        self.set_up(self._daemon, {})
        otherwise = f"there was no {self.device} over {hosts} paths"
        await_true(lambda: len(self._slaves()) == hosts, otherwise, self._daemon)

    def _paths(self) -> int:
        return self.scenario.device.paths or PATHS

    def _slaves(self) -> tuple[str, ...]:
        """The disks below the device."""
        directory = BLOCK / DEVICE / "slaves"
        return tuple(sorted(os.listdir(directory))) if directory.exists() else ()

    def faults(self) -> Mapping[str, Fault]:
        return {
            **super().faults(),
            "paths-offline": Fault(lambda: self._put_paths("offline"), lambda: self._put_paths("running")),
        }

    def _put_paths(self, state: str) -> None:
        """A SCSI disk's state (drivers/scsi/scsi_sysfs.c, store_state_field: the line must end)."""
        for path in self._slaves():
            (BLOCK / path / "device" / "state").write_text(f"{state}\n")

    def daemons(self) -> tuple[int, ...]:
        return family(self._daemon)
