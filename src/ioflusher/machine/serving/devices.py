"""Who serves ublk, vduse, tcmu and multipath devices: who holds the driver's character device or socket."""

from collections import defaultdict
from collections.abc import Iterator

from ioflusher.kernel.target import NAA_DIGITS
from ioflusher.machine.services import Family
from ioflusher.machine.serving.index import SnapshotIndex
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.storage import BlockDevice, DeviceKind

# libmpathcmd/mpath_cmd.c: the socket by which the tools speak with multipathd, abstract
MULTIPATHD_SOCKET = "@/org/kernel/linux/storage/multipathd"


def _by_holders(
    index: SnapshotIndex, handle: str, role: StorageRole, target: str, why: str = ""
) -> Iterator[StorageService]:
    """A service a holder of the special device; one with nobody in it where there is none."""
    holders = index.held.get(handle, [])
    for pid in holders:
        evidence = f"{index.name(pid)} holds {handle}{why}"
        yield StorageService(pid, role, TargetKind.DEVICE, target, evidence)
    if not holders:
        evidence = f"nobody is seen to hold {handle}{why}"
        yield StorageService(None, role, TargetKind.DEVICE, target, evidence, certain=index.certain)


def ublk_services(index: SnapshotIndex) -> Iterator[StorageService]:
    """drivers/block/ublk_drv.c: requests of /dev/ublkbN go to who has /dev/ublkcN open."""
    for device in index.snapshot.devices:
        if device.kind is DeviceKind.UBLK:
            number = device.name.removeprefix("ublkb")
            yield from _by_holders(index, f"/dev/ublkc{number}", StorageRole.UBLK_SERVER, device.name)


def vduse_services(index: SnapshotIndex) -> Iterator[StorageService]:
    """drivers/vdpa/vdpa_user/vduse_dev.c: the disk's directory lies below the vduse device of that name."""
    for device in index.snapshot.devices:
        _, below, rest = device.path.partition("/vduse/")
        if below and device.parent is None:
            name = rest.partition("/")[0]
            yield from _by_holders(index, f"/dev/vduse/{name}", StorageRole.VDUSE_SERVER, device.name)


def tcmu_services(index: SnapshotIndex) -> Iterator[StorageService]:
    """drivers/target/target_core_user.c: commands go to who has the uio device open.

    The disk on this machine, through tcm_loop or an iSCSI session, is the one whose world-wide name ends as
    the unit serial says. Where there is none, the target of the service is the uio device.
    """
    disks: defaultdict[str, list[BlockDevice]] = defaultdict(list)
    for device in index.snapshot.devices:
        if device.wwid is not None and device.wwid.startswith("naa.6"):
            disks[device.wwid[-NAA_DIGITS:]].append(device)
    for tcmu in index.snapshot.tcmu:
        handle = f"/dev/{tcmu.uio}"
        here = disks.get(tcmu.wwid_suffix, []) if tcmu.wwid_suffix is not None else []
        for disk in here:
            why = f" ({tcmu.name}), and the name of {disk.name} is {disk.wwid}"
            yield from _by_holders(index, handle, StorageRole.TCMU_HANDLER, disk.name, why)
        if not here:
            yield from _by_holders(index, handle, StorageRole.TCMU_HANDLER, tcmu.uio, f" ({tcmu.name})")


def dm_services(index: SnapshotIndex) -> Iterator[StorageService]:
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
