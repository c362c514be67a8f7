"""Block devices from /sys/class/block: what drives each, what it stands on, and what its queue may hold."""

from ioflusher.kernel.devices import parse_block_majors
from ioflusher.machine.collect.dm import TableReader
from ioflusher.machine.collect.tree import Tree
from ioflusher.machine.storage import BlockDevice, Completed, DeviceKind, DeviceMapper, Queue
from ioflusher.support.text import text_of

CLASS = "sys/class/block"
_SECTOR = 512  # the unit of the attribute "size", whatever the device's own is

# The driver that registered the major number, as /proc/devices names it (register_blkdev in the driver).
_DRIVERS = {
    "nbd": DeviceKind.NBD,
    "loop": DeviceKind.LOOP,
    "zram": DeviceKind.ZRAM,
    "device-mapper": DeviceKind.DM,
    "md": DeviceKind.MD,
    "mdp": DeviceKind.MD,
    "bcache": DeviceKind.BCACHE,
    "rbd": DeviceKind.RBD,
    "sd": DeviceKind.SCSI,
    "sr": DeviceKind.SCSI,
    "virtblk": DeviceKind.VIRTIO,
}
# The subsystem that the disk's parent device belongs to: for drivers on the shared major number 259.
_SUBSYSTEMS = {
    "scsi": DeviceKind.SCSI,
    "virtio": DeviceKind.VIRTIO,
    "nvme": DeviceKind.NVME,
    "nvme-subsystem": DeviceKind.NVME,
}


def collect_block(tree: Tree) -> tuple[BlockDevice, ...]:
    """All block devices and partitions, in natural order of their names."""
    majors = parse_block_majors(tree.data("proc/devices") or b"")
    tables = TableReader(tree)
    with tables:
        found = (_device(tree, name, majors, tables) for name in tree.names(CLASS))
        return tuple(device for device in found if device is not None)


def _device(tree: Tree, name: str, majors: dict[int, str], tables: TableReader) -> BlockDevice | None:
    """One device; None where it went away meanwhile."""
    path = tree.link(f"{CLASS}/{name}")
    base = (path or f"/{CLASS}/{name}").lstrip("/")
    number = tree.text(f"{base}/dev")
    if number is None:
        return None
    kind = _kind(tree, base, number, majors)
    whole = kind is not DeviceKind.PARTITION
    return BlockDevice(
        name=text_of(name.encode(errors="surrogateescape")),
        number=number,
        size=(tree.number(f"{base}/size") or 0) * _SECTOR,
        kind=kind,
        path="/" + base,
        parent=None if whole else base.split("/")[-2],
        slaves=_slaves(tree, base, kind) if whole else (),
        backing_file=_backing_file(tree, base, kind),
        wwid=tree.text(f"{base}/device/wwid") or tree.text(f"{base}/wwid") if whole else None,
        serving_pid=tree.number(f"{base}/pid") if kind is DeviceKind.NBD else None,
        backend=tree.text(f"{base}/backend") if kind is DeviceKind.NBD else None,
        dm=_mapper(tree, base, number, tables) if kind is DeviceKind.DM else None,
        queue=_queue(tree, base) if whole else Queue(),
        in_flight=_in_flight(tree, base),
        read_only=bool(tree.flag(f"{base}/ro")),
        completed=_completed(tree, base) if kind is DeviceKind.NBD else None,
    )


def _kind(tree: Tree, base: str, number: str, majors: dict[int, str]) -> DeviceKind:
    if tree.exists(f"{base}/partition"):
        return DeviceKind.PARTITION
    driver = majors.get(int(number.partition(":")[0]), "")
    if driver in _DRIVERS:
        return _DRIVERS[driver]
    # ublk's disks have the shared number too; the driver counts ublkbN and its server's ublkcN alike
    name = base.rpartition("/")[2]
    if name.startswith("ublkb") and tree.exists(f"sys/class/ublk-char/ublkc{name[5:]}"):
        return DeviceKind.UBLK
    subsystem = tree.link(f"{base}/device/subsystem")
    if subsystem is not None:
        return _SUBSYSTEMS.get(subsystem.rpartition("/")[2], DeviceKind.OTHER)
    return DeviceKind.OTHER


def _slaves(tree: Tree, base: str, kind: DeviceKind) -> tuple[str, ...]:
    """What the kernel links below slaves/, and a bcache's cache devices, which it does not link there."""
    slaves = tree.names(f"{base}/slaves")
    if kind is DeviceKind.BCACHE:
        # drivers/md/bcache/super.c: bcache0/bcache -> the backing device's directory, its cache -> the set,
        # whose cache0 ... -> the bcache directories of the caches
        backing = (tree.link(f"{base}/bcache") or "").lstrip("/")
        cache_set = (tree.link(f"{backing}/cache") or "").lstrip("/") if backing else ""
        entries = (n for n in tree.names(cache_set) if n.startswith("cache")) if cache_set else iter(())
        caches = (tree.link(f"{cache_set}/{entry}") for entry in entries)
        slaves += [cache.split("/")[-2] for cache in caches if cache is not None]
    return tuple(dict.fromkeys(slaves))


def _backing_file(tree: Tree, base: str, kind: DeviceKind) -> str | None:
    if kind is DeviceKind.LOOP:
        return tree.text(f"{base}/loop/backing_file")
    if kind is DeviceKind.ZRAM:
        backing = tree.text(f"{base}/backing_dev")
        return None if backing in ("none", "") else backing
    return None


def _mapper(tree: Tree, base: str, number: str, tables: TableReader) -> DeviceMapper:
    return DeviceMapper(
        name=tree.text(f"{base}/dm/name") or "",
        uuid=tree.text(f"{base}/dm/uuid") or "",
        targets=tables.targets(number),
    )


def _queue(tree: Tree, base: str) -> Queue:
    return Queue(
        nr_requests=tree.number(f"{base}/queue/nr_requests"),
        max_sectors_kib=tree.number(f"{base}/queue/max_sectors_kb"),
        hardware_queues=len(tree.names(f"{base}/mq")) or None,
        min_ratio=tree.number(f"{base}/bdi/min_ratio"),
        max_ratio=tree.number(f"{base}/bdi/max_ratio"),
        max_bytes=tree.number(f"{base}/bdi/max_bytes"),
        strict_limit=tree.flag(f"{base}/bdi/strict_limit"),
        rotational=tree.flag(f"{base}/queue/rotational"),
    )


def _in_flight(tree: Tree, base: str) -> int | None:
    """Reads and writes together: the attribute holds both numbers."""
    numbers = (tree.text(f"{base}/inflight") or "").split()
    return sum(map(int, numbers)) if len(numbers) == 2 and all(n.isdigit() for n in numbers) else None


def _completed(tree: Tree, base: str) -> Completed | None:
    """Documentation/block/stat.rst: reads, merged, sectors, ms; writes ...; discards ...; flushes."""
    fields = (tree.text(f"{base}/stat") or "").split()
    if len(fields) < 4 or not all(field.isdigit() for field in fields):
        return None
    numbers = [int(field) for field in fields] + [0] * 17  # discards came with 4.18, flushes with 5.5
    return Completed(numbers[0] + numbers[4] + numbers[11] + numbers[15], numbers[2] * _SECTOR)
