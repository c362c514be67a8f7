"""Devices of the kernel's SCSI target that user space serves (drivers/target/target_core_user.c)."""

from ioflusher.kernel.target import parse_uio_name, wwid_suffix
from ioflusher.machine.collect.tree import Tree
from ioflusher.machine.endpoints import TcmuDevice

UIO = "sys/class/uio"
CORE = "sys/kernel/config/target/core"


def collect_tcmu(tree: Tree) -> tuple[TcmuDevice, ...]:
    """The devices, by their entries of /sys/class/uio, with the unit serial that their disks show."""
    found = []
    for uio in tree.names(UIO):
        parsed = parse_uio_name(tree.text(f"{UIO}/{uio}/name") or "")
        if parsed is None:
            continue
        hba, name = parsed
        serial = tree.text(f"{CORE}/user_{hba}/{name}/wwn/vpd_unit_serial")
        if serial is None:
            tree.note(
                f"unit serial of the tcmu device user_{hba}/{name}",
                f"/{CORE}/user_{hba}/{name} does not have it",
            )
        found.append(TcmuDevice(uio, f"tcm-user/{hba}/{name}", wwid_suffix(serial or "")))
    return tuple(found)
