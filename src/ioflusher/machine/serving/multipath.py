"""Who brings the paths of multipath devices back: who listens at multipathd's socket."""

from collections.abc import Iterator

from ioflusher.machine.endpoints import Family
from ioflusher.machine.serving.index import SnapshotIndex
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.storage import BlockDevice

# libmpathcmd/mpath_cmd.c: the socket by which the tools speak with multipathd, abstract
MULTIPATHD_SOCKET = "@/org/kernel/linux/storage/multipathd"


def multipath_services(index: SnapshotIndex) -> Iterator[StorageService]:
    """Multipath devices need multipathd to bring paths back; it listens at a socket of its own."""
    devices = [d for d in index.snapshot.devices if d.dm is not None and _is_multipath(d)]
    if not devices:
        return
    pids = {
        pid
        for listener in index.snapshot.listeners
        if listener.family is Family.UNIX and listener.end.address == MULTIPATHD_SOCKET
        for pid in listener.end.pids
    }
    # systemd holds the socket too, or alone before the daemon is first asked
    pids -= {1}
    for device in devices:
        for pid in sorted(pids):
            evidence = f"{index.name(pid)} listens at {MULTIPATHD_SOCKET}, and {device.name} is multipath"
            yield _multipath(pid, device, evidence, certain=len(pids) == 1)
        if not pids:
            evidence = f"{device.name} is multipath, and nobody is seen to listen at {MULTIPATHD_SOCKET}"
            yield _multipath(None, device, evidence, certain=index.certain)


def _is_multipath(device: BlockDevice) -> bool:
    assert device.dm is not None
    return "multipath" in device.dm.targets or device.dm.uuid.startswith("mpath-")


def _multipath(pid: int | None, device: BlockDevice, evidence: str, *, certain: bool) -> StorageService:
    return StorageService(
        pid, StorageRole.MULTIPATH, TargetKind.DEVICE, device.name, evidence, certain, essential=False
    )
