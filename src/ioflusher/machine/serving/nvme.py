"""Who serves the namespaces of NVMe over TCP: the target, where it is on this same machine.

drivers/nvme/host/tcp.c and drivers/nvme/target/tcp.c: both ends of a connection are the kernel's where the
target is nvmet; a process (SPDK's nvmf_tgt) holds the target's end where it is the server.
"""

from collections.abc import Iterator

from ioflusher.machine.peers import split_address
from ioflusher.machine.serving.at_address import servers_at
from ioflusher.machine.serving.index import SnapshotIndex
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind


def nvme_services(index: SnapshotIndex) -> Iterator[StorageService]:
    """Local targets, for each namespace of each controller by TCP."""
    for controller in index.snapshot.nvme:
        host, port = split_address(controller.address)
        for found in servers_at(index, host, port, f"controller {controller.name}"):
            for name in controller.devices:
                yield StorageService(
                    found.pid,
                    StorageRole.NVME_TARGET,
                    TargetKind.DEVICE,
                    name,
                    found.evidence,
                    found.certain,
                    found.kernel,
                )
