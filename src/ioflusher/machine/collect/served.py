"""Kernel objects behind which user space stands: iSCSI sessions, tcmu devices, FUSE connections."""

from ioflusher.kernel.target import parse_uio_name, wwid_suffix
from ioflusher.machine.collect.tree import Tree
from ioflusher.machine.services import FuseConnection, IscsiSession, NvmeController, TcmuDevice
from ioflusher.machine.storage import BlockDevice, Mount

SESSIONS = "sys/class/iscsi_session"
CONNECTIONS = "sys/class/iscsi_connection"
UIO = "sys/class/uio"
CORE = "sys/kernel/config/target/core"
FUSE = "sys/fs/fuse/connections"
NVME = "sys/class/nvme"
NVME_SUBSYSTEMS = "sys/class/nvme-subsystem"


def collect_iscsi(tree: Tree, devices: tuple[BlockDevice, ...]) -> tuple[IscsiSession, ...]:
    """The sessions of this machine's initiators (drivers/scsi/scsi_transport_iscsi.c)."""
    behind: dict[str, list[str]] = {}
    for device in devices:
        for part in device.path.split("/"):
            if part.startswith("session") and part[7:].isdigit():
                behind.setdefault(part, []).append(device.name)
                break
    addresses: dict[str, list[str]] = {}
    for name in tree.names(CONNECTIONS):
        session = "session" + name.removeprefix("connection").partition(":")[0]
        addresses.setdefault(session, []).append(_address(tree, f"{CONNECTIONS}/{name}"))
    return tuple(
        IscsiSession(
            name=name,
            target=tree.text(f"{SESSIONS}/{name}/targetname") or "",
            state=tree.text(f"{SESSIONS}/{name}/state") or "",
            addresses=tuple(address for address in addresses.get(name, ()) if address),
            devices=tuple(behind.get(name, ())),
        )
        for name in tree.names(SESSIONS)
    )


def _address(tree: Tree, base: str) -> str:
    """Where the connection leads: what it is connected to now, else what it was set to connect to."""
    for prefix in ("", "persistent_"):
        host = tree.text(f"{base}/{prefix}address")
        port = tree.text(f"{base}/{prefix}port")
        if host and port and host != "(null)":
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ""


def collect_nvme(tree: Tree, devices: tuple[BlockDevice, ...]) -> tuple[NvmeController, ...]:
    """The controllers by TCP (drivers/nvme/host/fabrics.c); those of PCIe have no server.

    With multipath (the default) a namespace's disk lies below its subsystem, which links its controllers;
    without, below its controller.
    """
    found = []
    for name in tree.names(NVME):
        if tree.text(f"{NVME}/{name}/transport") != "tcp":
            continue
        fields = dict(
            field.partition("=")[::2] for field in (tree.text(f"{NVME}/{name}/address") or "").split(",")
        )
        host, port = fields.get("traddr", ""), fields.get("trsvcid", "")
        above = [
            name,
            *(s for s in tree.names(NVME_SUBSYSTEMS) if tree.exists(f"{NVME_SUBSYSTEMS}/{s}/{name}")),
        ]
        found.append(
            NvmeController(
                name=name,
                subsystem=tree.text(f"{NVME}/{name}/subsysnqn") or "",
                state=tree.text(f"{NVME}/{name}/state") or "",
                address=(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") if host and port else "",
                devices=tuple(
                    device.name
                    for device in devices
                    if device.parent is None and any(f"/{part}/" in device.path for part in above)
                ),
            )
        )
    return tuple(found)


def collect_tcmu(tree: Tree) -> tuple[TcmuDevice, ...]:
    """The devices of the kernel's target served by user space (drivers/target/target_core_user.c)."""
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


def collect_fuse(tree: Tree, mounts: tuple[Mount, ...]) -> tuple[FuseConnection, ...]:
    """The connections of FUSE (fs/fuse/control.c); the file system fusectl must be mounted to see them."""
    if not tree.exists(FUSE):
        return ()
    numbers = [int(name) for name in tree.names(FUSE) if name.isdigit()]
    if not numbers and any(mount.fstype.split(".")[0] in ("fuse", "fuseblk") for mount in mounts):
        tree.note(f"/{FUSE}", "empty although FUSE is mounted: is fusectl mounted there?")
    return tuple(
        FuseConnection(number, tree.number(f"{FUSE}/{number}/waiting")) for number in sorted(numbers)
    )
