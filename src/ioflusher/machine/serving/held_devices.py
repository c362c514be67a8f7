"""Who serves ublk, vduse and tcmu devices: who holds the driver's character device."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from ioflusher.kernel.target import NAA_DIGITS, NO_SERIAL
from ioflusher.machine.serving.index import SnapshotIndex
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.storage import BlockDevice, DeviceKind


def _by_holders(
    index: SnapshotIndex,
    handle: str,
    role: StorageRole,
    target: str,
    why: str = "",
    *,
    certain: bool = True,
) -> Iterator[StorageService]:
    """A service a holder of the special device; one with nobody in it where there is none."""
    holders = index.held.get(handle, [])
    for pid in holders:
        evidence = f"{index.name(pid)} holds {handle}{why}"
        yield StorageService(pid, role, TargetKind.DEVICE, target, evidence, certain=certain)
    if not holders:
        evidence = f"nobody is seen to hold {handle}{why}"
        certain = certain and index.certain
        yield StorageService(None, role, TargetKind.DEVICE, target, evidence, certain=certain)


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
    the unit serial says; that is not certain where several have none. Where there is no such disk, the target
    of the service is the uio device.
    """
    disks: defaultdict[str, list[BlockDevice]] = defaultdict(list)
    for device in index.snapshot.devices:
        if device.wwid is not None and device.wwid.startswith("naa.6"):
            disks[device.wwid[-NAA_DIGITS:]].append(device)
    units = Counter(tcmu.wwid_suffix for tcmu in index.snapshot.tcmu)
    for tcmu in index.snapshot.tcmu:
        handle = f"/dev/{tcmu.uio}"
        here = disks.get(tcmu.wwid_suffix, []) if tcmu.wwid_suffix is not None else []
        # more than one disk of the same serial are paths to one unit
        certain = tcmu.wwid_suffix != NO_SERIAL or len(here) == units[tcmu.wwid_suffix] == 1
        for disk in here:
            why = f" ({tcmu.name}), and the name of {disk.name} is {disk.wwid}"
            yield from _by_holders(index, handle, StorageRole.TCMU_HANDLER, disk.name, why, certain=certain)
        if not here:
            yield from _by_holders(index, handle, StorageRole.TCMU_HANDLER, tcmu.uio, f" ({tcmu.name})")
