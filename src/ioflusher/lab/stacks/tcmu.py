"""A SCSI disk of the kernel's own target, whose commands a daemon takes from a UIO device: /dev/sda.

tcm_loop makes the disk, target_core_user hands its commands on (Documentation/target/tcmu-design.rst). The
store is made first and the daemon started then: tcmu-runner, like all that use its library, takes up the
stores that it finds. It serves once it holds the UIO device.
"""

from pathlib import Path

from ioflusher.lab.guest.processes import Process, await_true, family, holds, with_log
from ioflusher.lab.stacks.base import Stack
from ioflusher.lab.stacks.scsi import DEVICE, await_disk, make_backstore, make_lun, mount_configfs

UIO = "/dev/uio0"
LOG = Path("/var/log/tcmu-runner.log")
# the handler of tcmu-runner for files; one that is no qcow image it would "treat as raw" (its qcow.c)
HANDLER = "qcow"
# made up, in the form that the kernel wants (NAA identifiers of 64 bits, which begin with 5)
PORT, INITIATOR = "naa.5001405000000001", "naa.5001405000000002"


class TcmuStack(Stack):
    """sda through tcm_loop and target_core_user, over a file of an ordinary file system."""

    device = DEVICE
    _daemon: Process

    def start(self) -> None:
        image = self.make_store().with_suffix(".qcow2")
        size = self.scenario.device.size
        self.processes.step("qemu-img", "create", "-q", "-f", "qcow2", str(image), str(size))
        target = mount_configfs(self.processes)
        handler = f"{HANDLER}/{image}"
        control = f"dev_config={handler},dev_size={size}"
        store = make_backstore(target, "user_0/lab", control)
        # tcmu-runner ends at once where it reaches no bus
        self.processes.step("mkdir", "-p", "/run/dbus")
        self.processes.step("dbus-daemon", "--system", "--fork")
        with with_log(LOG):
            self._daemon = self.processes.start(
                self.scenario.daemon.command, io_flusher=self.order.io_flusher
            )
            self.set_up(self._daemon, {})
            await_true(
                lambda: any(holds(pid, UIO) for pid in self.daemons()),
                f"it did not take up {handler} ({UIO})",
                self._daemon,
            )
            port = target / "loopback" / PORT / "tpgt_1"
            port.mkdir(parents=True)
            (port / "nexus").write_text(INITIATOR)
            make_lun(port, store)
            await_disk(self._daemon)

    def daemons(self) -> tuple[int, ...]:
        return family(self._daemon)
