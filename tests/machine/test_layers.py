"""Which device or file system lies on which, over hand-built machines."""

import pytest

from ioflusher.machine.graph.layers import Layers, device_layer, file_system_layer
from ioflusher.machine.process import FileKind, FileUse, Process
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.snapshot import Memory, Snapshot, System
from ioflusher.machine.storage import BlockDevice, DeviceKind, DeviceMapper, Mount, Swap

SYSTEM = System("host", "6.12.0", "x86_64", "2026-11-25T01:00:00Z", privileged=True)
NBD = BlockDevice("nbd0", "43:0", 1 << 30, DeviceKind.NBD)
PART = BlockDevice("nbd0p1", "43:1", 1 << 29, DeviceKind.PARTITION, parent="nbd0")
CRYPT = BlockDevice(
    "dm-0", "254:0", 1 << 29, DeviceKind.DM, slaves=("nbd0p1",), dm=DeviceMapper("safe", "CRYPT-x")
)
LOOP = BlockDevice("loop0", "7:0", 1 << 20, DeviceKind.LOOP, backing_file="/safe/a b.img (deleted)")
MOUNTS = (
    Mount(1, 0, "8:1", "/", "/", "ext4", "/dev/sda1"),
    Mount(2, 1, "254:0", "/", "/safe", "ext4", "/dev/mapper/safe"),
    Mount(3, 1, "0:40", "/", "/merged", "overlay", "none", (("lowerdir", "/usr:/safe/low"),)),
    Mount(4, 1, "0:50", "/", "/pool", "btrfs", "/dev/sdb", devices=("loop0",)),
)
MACHINE = Snapshot(
    SYSTEM,
    Memory(),
    devices=(BlockDevice("sda1", "8:1", 1 << 30, DeviceKind.PARTITION), NBD, PART, CRYPT, LOOP),
    mounts=MOUNTS,
    swaps=(
        Swap("/safe/swap", True, "254:0", 1 << 20, 0, -2),
        Swap("/dev/dm-0", False, "254:0", 1 << 20, 0, -3),
    ),
)
ON_NBD = {device_layer(name) for name in ("nbd0", "nbd0p1", "dm-0", "loop0")}


def test_what_lies_on_a_device() -> None:
    """Partitions, mapped devices, loop devices in their files, overlays and btrfs on them."""
    above = Layers(MACHINE).above(device_layer("nbd0"))
    systems = {file_system_layer(number) for number in ("254:0", "0:40", "0:50")}
    assert above == ON_NBD | systems


def test_what_a_file_lies_on() -> None:
    """By mount where that is known, by device number, and down to the disk."""
    layers = Layers(MACHINE)
    by_mount = FileUse("/pool/x", FileKind.LOG, "0:77", mount_id=4)
    by_number = FileUse("/safe/x", FileKind.READ, "254:0")
    assert layers.of_file(by_mount) == file_system_layer("0:50")
    assert layers.of_file(by_number) == file_system_layer("254:0")
    assert layers.of_file(FileUse("/x", FileKind.READ, "99:9")) is None
    assert layers.of_file(FileUse("/dev/nbd0", FileKind.DEVICE, "43:0")) == device_layer("nbd0")
    below = layers.below(file_system_layer("0:50"))
    assert below >= ON_NBD
    assert device_layer("sda1") not in below


def test_paths_find_their_mount() -> None:
    """The longest mount point of whole path components counts; mapped names mean their device."""
    layers = Layers(MACHINE)
    assert layers.of_path("/safe/deep/file") == file_system_layer("254:0")
    assert layers.of_path("/safer") == file_system_layer("8:1")
    assert layers.of_path("/dev/mapper/safe") == device_layer("dm-0")
    assert layers.of_path("relative") is None


def test_a_mount_over_a_mount_hides_it() -> None:
    """Of two mounts at one point the upper one is meant, whichever number is higher."""
    upper = Mount(2, 9, "43:0", "/", "/", "ext4", "/dev/nbd0")
    lower = Mount(9, 1, "8:1", "/", "/", "ext4", "/dev/sda1")
    for mounts in ((upper, lower), (lower, upper)):
        assert Layers(Snapshot(SYSTEM, Memory(), mounts=mounts)).of_path("/x") == file_system_layer("43:0")


def test_swaps_and_services() -> None:
    """Swap files lie on their file system, swap devices are devices, services name either."""
    layers = Layers(MACHINE)
    assert layers.swaps_on(layers.above(device_layer("nbd0"))) == MACHINE.swaps
    assert layers.swaps_on([device_layer("dm-0")]) == MACHINE.swaps[1:]
    by_label = Swap("/dev/disk/by-label/swap", False, "43:0", 1 << 20, 0, -2)
    assert layers.of_swap(by_label) == device_layer("nbd0"), "by its number, whatever its path"
    assert layers.of_swap(Swap("/dev/mapper/safe", False, None, 1 << 20, 0, -2)) == device_layer("dm-0")
    served = StorageService(1, StorageRole.FUSE_SERVER, TargetKind.MOUNT, "0:40", "")
    assert layers.of_service(served) == file_system_layer("0:40")


def test_a_file_system_lies_on_its_device_by_number_or_by_name() -> None:
    """/dev/root is no name of a device, and a number "0:41" none of a device's."""
    by_number = Mount(5, 1, "43:0", "/", "/a", "ext4", "/dev/root")
    by_name = Mount(6, 1, "0:41", "/", "/b", "btrfs", "/dev/nbd0")
    layers = Layers(Snapshot(SYSTEM, Memory(), devices=(NBD,), mounts=(by_number, by_name)))
    for number in ("43:0", "0:41"):
        system = file_system_layer(number)
        assert layers.below(system) == {system, device_layer("nbd0")}


def test_cyclic_tables_end() -> None:
    """Tables that name each other, as only a forged snapshot has them, are walked once."""
    one = BlockDevice("dm-1", "254:1", 1, DeviceKind.DM, slaves=("dm-2",))
    two = BlockDevice("dm-2", "254:2", 1, DeviceKind.DM, slaves=("dm-1",))
    layers = Layers(Snapshot(SYSTEM, Memory(), devices=(one, two)))
    assert layers.below(device_layer("dm-1")) == layers.above(device_layer("dm-1"))


def test_a_mount_above_hides_what_is_below_it() -> None:
    """A later mount at /a hides the older one at /a/b; one that was made upon it does not hide."""
    root = Mount(1, 1, "8:1", "/", "/", "ext4", "/dev/sda1")
    hidden = Mount(2, 1, "8:2", "/", "/a/b", "ext4", "/dev/sda2")
    over = Mount(3, 1, "8:3", "/", "/a", "ext4", "/dev/sda3")
    inside = Mount(4, 3, "8:4", "/", "/a/c", "ext4", "/dev/sda4")
    layers = Layers(Snapshot(SYSTEM, Memory(), mounts=(root, hidden, over, inside)))
    assert layers.of_path("/a/b/file") == file_system_layer("8:3")
    assert layers.of_path("/a/c/file") == file_system_layer("8:4")
    assert layers.of_path("/" + "x/" * 100_000) is None


def test_overlays_of_containers() -> None:
    """The directories of a container's root are paths of the host, whatever they would mean inside it."""
    host = Mount(1, 1, "8:1", "/", "/", "ext4", "/dev/sda1", namespace=1)
    options = (("lowerdir", "/layers/a:/layers/b"), ("upperdir", "/layers/up:1"))
    inside = Mount(9, 8, "0:60", "/", "/", "overlay", "overlay", options, namespace=2)
    layers = Layers(Snapshot(SYSTEM, Memory(), mounts=(host, inside)))
    root = file_system_layer("8:1")
    assert list(layers.of_overlay(inside)) == [
        ("upperdir", "/layers/up:1", root),
        ("lowerdir", "/layers/a", root),
        ("lowerdir", "/layers/b", root),
    ]
    assert layers.below(file_system_layer("0:60")) == {file_system_layer("0:60"), root}


def test_a_path_of_a_reasonable_length() -> None:
    """Four times PATH_MAX, for bytes that are not UTF-8 and are written as four."""
    layers = Layers(MACHINE)
    assert layers.of_path("/" + "x" * (4 * 4096 - 1)) == file_system_layer("8:1")
    assert layers.of_path("/" + "x" * (4 * 4096)) is None


@pytest.mark.parametrize(
    ("first", "expected"),
    [((1, 7), "8:7"), ((1, None), "8:3"), ((2, 7), "8:3"), (None, "8:3")],
)
def test_whose_name_space_a_path_means(first: tuple[int, int | None] | None, expected: str) -> None:
    """That of process 1; where it is not known, that of the first mount."""
    mounts = tuple(
        Mount(number, number, f"8:{number}", "/", "/", "ext4", f"/dev/sd{number}", namespace=number)
        for number in (3, 7)
    )
    processes = (Process(first[0], 0, "x", 0, (), mount_namespace=first[1]),) if first else ()
    layers = Layers(Snapshot(SYSTEM, Memory(), processes=processes, mounts=mounts))
    assert layers.of_path("/x") == file_system_layer(expected)
    assert layers.of_path("/x", 7) == file_system_layer("8:7")
    assert layers.of_path("/x", 9) is None
