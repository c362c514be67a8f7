"""What the stacks have in common whose device is a SCSI disk: the kernel's own target, and the disk itself.

The kernel's target is set up by directories, files and links of configfs (Documentation/target/
tcm_mod_builder.rst, Documentation/filesystems/configfs.rst).
"""

import os
from pathlib import Path

from ioflusher.lab.guest.processes import Process, Processes, await_true

DEVICE = "/dev/sda"  # a guest's own disks are virtio's
CONFIGFS = Path("/sys/kernel/config")
# attributes of a target that takes every initiator, and lets it write
OPEN_TARGET = {
    "authentication": "0",
    "generate_node_acls": "1",
    "cache_dynamic_acls": "1",
    "demo_mode_write_protect": "0",
}


def mount_configfs(processes: Processes) -> Path:
    """Mount configfs; returns the directory of the kernel's target in it."""
    if not os.path.ismount(CONFIGFS):
        processes.step("mount", "-t", "configfs", "configfs", str(CONFIGFS))
    return CONFIGFS / "target"


def make_backstore(target: Path, name: str, control: str) -> Path:
    """Make the store `name`, as in "user_0/lab", told with `control` what it is; returns its directory."""
    store = target / "core" / name
    store.mkdir(parents=True)
    (store / "control").write_text(control)
    (store / "enable").write_text("1")
    return store


def make_iscsi_target(target: Path, store: Path, name: str, portal: str) -> None:
    """Serve the store as the one unit of an iSCSI target of the kernel, to whoever comes."""
    group = target / "iscsi" / name / "tpgt_1"
    group.mkdir(parents=True)
    for attribute, value in OPEN_TARGET.items():
        _set(group / "attrib" / attribute, value)
    make_lun(group, store)
    (group / "np" / portal).mkdir(parents=True)
    _set(group / "enable", "1")


def _set(file: Path, value: str) -> None:
    """Write a file whose directory the kernel has made."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(value)


def make_lun(port: Path, store: Path, number: int = 0) -> None:
    """Show the store as a unit of the target port."""
    lun = port / "lun" / f"lun_{number}"
    lun.mkdir(parents=True)
    (lun / "store").symlink_to(store)


def await_disk(*processes: Process, device: str = DEVICE) -> None:
    """Wait until the kernel has found the disk and knows its size."""
    size = Path("/sys/block", os.path.basename(device), "size")

    def found() -> bool:
        return size.exists() and int(size.read_text()) > 0 and os.path.exists(device)

    await_true(found, f"the kernel found no disk {device}", *processes)
