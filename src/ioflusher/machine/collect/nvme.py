"""Controllers of NVMe over TCP, from /sys/class (drivers/nvme/host/fabrics.c)."""

from ioflusher.machine.collect.tree import Tree
from ioflusher.machine.endpoints import NvmeController
from ioflusher.machine.storage import BlockDevice

NVME = "sys/class/nvme"
NVME_SUBSYSTEMS = "sys/class/nvme-subsystem"


def collect_nvme(tree: Tree, devices: tuple[BlockDevice, ...]) -> tuple[NvmeController, ...]:
    """The controllers, each with the block devices that it brings; those of PCIe have no server.

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
