"""Who serves what: the inference over a Snapshot."""

from ioflusher.machine.serving.ceph import ceph_services
from ioflusher.machine.serving.files import file_server_services, fuse_services
from ioflusher.machine.serving.held_devices import tcmu_services, ublk_services, vduse_services
from ioflusher.machine.serving.index import SnapshotIndex
from ioflusher.machine.serving.iscsi import iscsi_services
from ioflusher.machine.serving.multipath import multipath_services
from ioflusher.machine.serving.nbd import nbd_services
from ioflusher.machine.serving.nvme import nvme_services
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.snapshot import Snapshot


def services(snapshot: Snapshot) -> tuple[StorageService, ...]:
    """Who serves what, inferred from the facts of the snapshot alone, in a stable order.

    loop, zram, md and bcache have no daemon: what they stand on is in BlockDevice. docs/serving.md has each
    fact and where the kernel makes it.
    """
    index = SnapshotIndex(snapshot)
    found: dict[tuple[int | None, StorageRole, TargetKind, str], StorageService] = {}
    for infer in (
        nbd_services,
        ublk_services,
        vduse_services,
        tcmu_services,
        iscsi_services,
        nvme_services,
        ceph_services,
        multipath_services,
        fuse_services,
        file_server_services,
    ):
        for service in infer(index):
            found.setdefault((service.pid, service.role, service.kind, service.target), service)
    return tuple(found.values())
