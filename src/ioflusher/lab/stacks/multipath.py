"""dm-multipath over two paths to one SCSI disk, which multipathd takes out of use and brings back: /dev/dm-0.

The disk is the kernel's own for tests, scsi_debug, with two hosts; its content lies in the machine's memory.
While no path is left, requests are queued for as long as it takes (no_path_retry), as whoever has swap or a
root on such a disk would have it. Only multipathd finds out that a path works again.
"""

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
PATHS = ("sda", "sdb")
DEVICE = "dm-0"
BLOCK = Path("/sys/block")
UDEVD = "/lib/systemd/systemd-udevd"


class MultipathStack(Stack):
    """dm-0 over sda and sdb."""

    device = f"/dev/{DEVICE}"
    _daemon: Process

    def start(self) -> None:
        CONFIGURATION.write_text(SETTINGS)
        # multipathd knows disks by what udev knows of them
        self.processes.step(UDEVD, "--daemon")
        size_mib = self.scenario.device.size >> 20
        self.processes.step(
            *("modprobe", "scsi_debug", "add_host=2", "vpd_use_hostno=0", f"dev_size_mb={size_mib}")
        )
        self.processes.step("udevadm", "settle", "--timeout=30")
        self._daemon = self.processes.start(self.scenario.daemon.command, io_flusher=self.order.io_flusher)
        self.set_up(self._daemon, {})
        await_true(self._has_both_paths, f"there was no {self.device} over two paths", self._daemon)

    def _has_both_paths(self) -> bool:
        return all((BLOCK / DEVICE / "slaves" / path).exists() for path in PATHS)

    def faults(self) -> Mapping[str, Fault]:
        return {
            **super().faults(),
            "paths-offline": Fault(lambda: self._put_paths("offline"), lambda: self._put_paths("running")),
        }

    def _put_paths(self, state: str) -> None:
        for path in PATHS:
            (BLOCK / path / "device" / "state").write_text(state)

    def daemons(self) -> tuple[int, ...]:
        return family(self._daemon)
