"""Block devices, mounts and swap as a snapshot holds them; sizes in bytes."""

from dataclasses import dataclass
from enum import Enum


class DeviceKind(Enum):
    """What drives a block device."""

    NBD = "nbd"
    UBLK = "ublk"
    LOOP = "loop"
    ZRAM = "zram"
    DM = "dm"
    MD = "md"
    BCACHE = "bcache"
    RBD = "rbd"
    SCSI = "scsi"
    NVME = "nvme"
    VIRTIO = "virtio"
    PARTITION = "partition"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class DeviceMapper:
    """A device-mapper device.

    Attributes:
        name, uuid: as /sys/block/dm-N/dm has them; the uuid's prefix names its owner (mpath-, LVM-, CRYPT-).
        targets: the target types of its table in order, without their arguments (those of crypt hold a key);
            empty where the table could not be read.
    """

    name: str
    uuid: str
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Queue:
    """What a device's queue may hold: /sys/block/NAME/queue and /sys/block/NAME/bdi; None for unknown.

    Attributes:
        nr_requests: requests that may be queued.
        max_sectors_kib: of the longest request.
        hardware_queues: directories below mq/.
        min_ratio, max_ratio: share of the dirty limit, percent.
        max_bytes: bdi/max_bytes, 0 for no limit (since 6.2).
        strict_limit: bdi/strict_limit (since 6.2).
        rotational: whether seeks cost time.
    """

    nr_requests: int | None = None
    max_sectors_kib: int | None = None
    hardware_queues: int | None = None
    min_ratio: int | None = None
    max_ratio: int | None = None
    max_bytes: int | None = None
    strict_limit: bool | None = None
    rotational: bool | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """What a device has completed since it exists, /sys/block/NAME/stat.

    Attributes:
        requests: reads, writes, discards and flushes.
        read_bytes: that the reads returned.
    """

    requests: int
    read_bytes: int


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """One block device or partition.

    Attributes:
        name: as in /sys/class/block, kernel name ("nbd0", "dm-3", "sda1").
        number: "major:minor".
        size: bytes.
        kind: what drives it.
        path: its real directory below /sys, which names the host, session, virtio or vduse parent.
        parent: for a partition, the whole device's name.
        slaves: names of the devices that it stands on (dm, md, bcache, multipath).
        backing_file: loop/backing_file; zram/backing_dev where it is a file or a device name; else None.
        wwid: world-wide name, as device/wwid or wwid has it.
        serving_pid: /sys/block/nbdN/pid: who set the device up; None where there is none.
        backend: /sys/block/nbdN/backend, the identifier that its client gave.
        dm: for device mapper.
        queue: its limits.
        in_flight: reads and writes that were issued and not completed yet.
        read_only: whether it refuses writes.
        completed: requests so far; only of nbd devices, None for unknown.
    """

    name: str
    number: str
    size: int
    kind: DeviceKind
    path: str = ""
    parent: str | None = None
    slaves: tuple[str, ...] = ()
    backing_file: str | None = None
    wwid: str | None = None
    serving_pid: int | None = None
    backend: str | None = None
    dm: DeviceMapper | None = None
    queue: Queue = Queue()
    in_flight: int | None = None
    read_only: bool = False
    completed: Completed | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/PID/mountinfo, without options that may hold secrets.

    Attributes:
        mount_id, parent_id: numbers, unique in the snapshot.
        number: "major:minor" of the file system; "0:N" where it has no block device of its own.
        root: the part of the file system that is mounted.
        point: where, in the namespace that it was read from, which is `namespace`.
        fstype: as "ext4", "fuse.sshfs".
        source: device, server or any word.
        options: the few that say what it stands on: addr, trans, lowerdir, upperdir, workdir, subvol, rfdno,
            user_id; and "ro" or "rw" by name with an empty value.
        namespace: inode number of a mount namespace that shows it, None for unknown.
        devices: block devices of a file system on several (btrfs), by name.
    """

    mount_id: int
    parent_id: int
    number: str
    root: str
    point: str
    fstype: str
    source: str
    options: tuple[tuple[str, str], ...] = ()
    namespace: int | None = None
    devices: tuple[str, ...] = ()

    def option(self, name: str) -> str | None:
        """The value of an option that was kept, None where it is not there."""
        return next((value for key, value in self.options if key == name), None)

    @property
    def read_only(self) -> bool:
        """Whether nothing is written through it."""
        return self.option("ro") is not None


@dataclass(frozen=True, slots=True)
class Swap:
    """One line of /proc/swaps.

    Attributes:
        path: a device or a file.
        is_file: whether it is a file on a file system.
        number: of the device, or of the file system that the file lies on; None for unknown.
        size, used: bytes.
        priority: higher ones are used first.
    """

    path: str
    is_file: bool
    number: str | None
    size: int
    used: int
    priority: int
