"""The storage collector on trees: one recorded in a guest, ones made by hand, this machine's own."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.machine.recording import Recorder, Recording, lay_out, record

from ioflusher.machine.collect.storage import Storage, collect_storage
from ioflusher.machine.collect.tree import Tree
from ioflusher.machine.storage import BlockDevice, Completed, DeviceKind

ROOTS = Path(__file__).with_name("roots")
RECORDED = ROOTS / "linux-6.12.json"

Collect = Callable[[dict[str, str]], tuple[Storage, dict[str, str]]]


def looked_at(root: Path) -> tuple[Storage, dict[str, str]]:
    """What is found below the root, and what could not be read with the reason."""
    notes: dict[str, str] = {}
    return collect_storage(Tree(root, lambda what, why: notes.update({what: why}))), notes


@pytest.fixture
def collect(tmp_path: Path) -> Collect:
    """Collects from a tree given as path -> text, or "-> target" for a link."""

    def collect_(files: dict[str, str]) -> tuple[Storage, dict[str, str]]:
        recording: Recording = {
            "texts": {path: text for path, text in files.items() if not text.startswith("->")},
            "links": {path: text[3:] for path, text in files.items() if text.startswith("->")},
            "names": {},
        }
        lay_out(recording, tmp_path)
        return looked_at(tmp_path)

    return collect_


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """The guest of test_daemons.py, as it was recorded on 6.12.117."""
    root = tmp_path_factory.mktemp("root")
    lay_out(json.loads(RECORDED.read_text()), root)
    storage, notes = looked_at(root)
    assert list(notes) == ["/dev/mapper/control (target types of device-mapper tables)"]
    return storage


def device(storage: Storage, name: str) -> BlockDevice:
    """The device of that name."""
    return next(found for found in storage.devices if found.name == name)


def test_kinds_of_a_recorded_machine(recorded: Storage) -> None:
    """Each device is what its driver's number or its parent says."""
    kinds = {found.name: found.kind.value for found in recorded.devices}
    assert {kinds[f"nbd{n}"] for n in range(8)} == {"nbd"}
    expected = {
        **dict.fromkeys(("sda", "sdb", "sdc", "sdd", "sde"), "scsi"),
        **dict.fromkeys(("vda", "vdb"), "virtio"),
        **dict.fromkeys(("dm-0", "dm-1", "dm-2"), "dm"),
        **{"ublkb0": "ublk", "zram0": "zram", "loop0": "loop"},
    }
    assert expected.items() <= kinds.items()
    assert list(kinds) == sorted(kinds, key=lambda name: (name.rstrip("0123456789"), len(name), name))


def test_devices_of_a_recorded_machine(recorded: Storage) -> None:
    """Multipath on two paths, crypt on a loop, an nbd client, a virtio disk of vduse, limits of a queue."""
    mpath = device(recorded, "dm-0")
    assert mpath.dm is not None
    assert (mpath.dm.uuid[:6], mpath.slaves, mpath.dm.targets) == ("mpath-", ("sdd", "sde"), ())
    assert device(recorded, "loop1").backing_file == "/run/crypt.img"
    assert device(recorded, "dm-1").slaves == ("loop1",)
    nbd = device(recorded, "nbd0")
    assert nbd.serving_pid is not None
    assert (nbd.size, nbd.in_flight, nbd.read_only) == (32 << 20, 0, False)
    assert nbd.queue.nr_requests == 128
    assert (nbd.queue.hardware_queues, nbd.queue.strict_limit, nbd.queue.max_ratio) == (1, False, 100)
    assert device(recorded, "nbd7").serving_pid is None
    assert "/vduse/vduse-disk/" in device(recorded, "vdb").path
    assert device(recorded, "sda").wwid == "naa.60014053b5c1a2e00004000800012345"
    assert device(recorded, "sdd").wwid == device(recorded, "sde").wwid


def test_mounts_of_a_recorded_machine(recorded: Storage) -> None:
    """Options that say what a file system stands on are kept, others are not; btrfs has both its devices."""
    mounts = {mount.point: mount for mount in recorded.mounts}
    assert mounts["/"].option("upperdir") == "/top/upper"
    assert mounts["/run/ganesha-mount"].option("port") == "12049"
    assert mounts["/run/nfs"].option("addr") == "127.0.0.1"
    assert mounts["/run/nfs"].option("sec") is None
    assert mounts["/run/two disks"].devices == ("loop2", "loop3")
    assert mounts["/usr"].read_only
    assert not mounts["/"].read_only
    assert (mounts["/run/ntfs"].fstype, mounts["/run/ntfs"].number) == ("fuseblk", "7:0")


def test_the_rest_of_a_recorded_machine(recorded: Storage) -> None:
    """Swap on zram and in a file, iSCSI sessions with their disks, tcmu devices, FUSE connections."""
    assert [(swap.path, swap.is_file, swap.number, swap.priority) for swap in recorded.swaps] == [
        ("/dev/zram0", False, device(recorded, "zram0").number, 5),
        ("/run/ext4/swap file", True, "7:4", -2),
    ]
    found = [(s.target, s.state, s.addresses, s.devices) for s in recorded.iscsi]
    assert found == [
        ("iqn.2026-01.test:tgt", "LOGGED_IN", ("127.0.0.1:3260",), ("sdb",)),
        ("iqn.2026-01.test:lio", "LOGGED_IN", ("127.0.0.1:3261",), ("sdc",)),
    ]
    assert [(t.uio, t.name, (t.wwid_suffix or "")[:4]) for t in recorded.tcmu] == [
        ("uio0", "tcm-user/0/loop", "3b5c"),
        ("uio1", "tcm-user/0/iscsi", "beef"),
    ]
    assert {7 << 20} < {connection.number for connection in recorded.fuse}


def test_an_older_kernel(tmp_path: Path) -> None:
    """6.1 has no limits in bytes for a backing device; all else is found as on 6.12."""
    lay_out(json.loads((ROOTS / "linux-6.1.json").read_text()), tmp_path)
    storage, _ = looked_at(tmp_path)
    nbd = device(storage, "nbd1")
    assert (nbd.size, nbd.queue.max_ratio) == (32 << 20, 100)
    assert (nbd.queue.max_bytes, nbd.queue.strict_limit) == (None, None)
    mpath = device(storage, "dm-0")
    assert mpath.dm is not None
    assert (mpath.dm.name, len(mpath.slaves)) == ("mpatha", 2)
    assert [session.devices for session in storage.iscsi] == [("sdb",), ("sdc",)]
    assert [swap.number for swap in storage.swaps] == [device(storage, "zram0").number, "7:4"]
    assert any(len(mount.devices) == 2 for mount in storage.mounts)


@pytest.mark.parametrize("name", ["linux-6.12.json", "linux-6.1.json"])
def test_a_recording_is_what_was_read(name: str, tmp_path: Path) -> None:
    """A recording laid out elsewhere gives the same records, and recording that gives the same recording."""
    recording = json.loads((ROOTS / name).read_text())
    lay_out(recording, tmp_path)
    first = collect_storage(Recorder(tmp_path))
    again = record(tmp_path)
    # namespaces of processes were not recorded; kdevtmpfs has one of its own
    others = [path for path in recording["texts"] if path.startswith("proc/") and path[5].isdigit()]
    for path in others:
        del recording["texts"][path]
    assert again["texts"] == recording["texts"]
    assert again["links"] == recording["links"]
    lay_out(again, tmp_path / "again")
    assert collect_storage(Recorder(tmp_path / "again")) == first


def block(name: str, number: str, at: str, **files: str) -> dict[str, str]:
    """A device's directory below /sys and its entry in /sys/class/block."""
    attributes = {f"{at}/{path.replace('__', '/')}": text for path, text in files.items()}
    return {
        f"sys/class/block/{name}": f"-> /{at}",
        f"{at}/dev": number + "\n",
        f"{at}/size": "16\n",
    } | attributes


def test_partitions_nvme_and_bcache(collect: Collect) -> None:
    """A partition knows its whole; shared numbers are told by the parent; a bcache has its cache too."""
    nvme = "sys/devices/pci/nvme/nvme0/nvme0n1"
    storage, notes = collect(
        {
            "proc/devices": "Block devices:\n  8 sd\n251 bcache\n259 blkext\n",
            **block("nvme0n1", "259:0", nvme, device__subsystem="-> /sys/class/nvme", wwid="eui.1"),
            **block("nvme0n1p2", "259:2", f"{nvme}/nvme0n1p2", partition="2", inflight="3 4"),
            **block("sda", "8:0", "sys/devices/x/block/sda", bcache__x=""),
            **block("sdb", "8:16", "sys/devices/x/block/sdb", bcache__cache="-> /sys/fs/bcache/uuid"),
            **block(
                "bcache0",
                "251:0",
                "sys/devices/virtual/block/bcache0",
                bcache="-> /sys/devices/x/block/sdb/bcache",
                slaves__sdb="-> /sys/devices/x/block/sdb",
            ),
            "sys/fs/bcache/uuid/cache0": "-> /sys/devices/x/block/sda/bcache",
        }
    )
    assert notes == {}
    assert device(storage, "nvme0n1").kind is DeviceKind.NVME
    assert device(storage, "nvme0n1").wwid == "eui.1"
    part = device(storage, "nvme0n1p2")
    assert (part.kind, part.parent, part.in_flight) == (DeviceKind.PARTITION, "nvme0n1", 7)
    assert device(storage, "bcache0").slaves == ("sdb", "sda")


def test_backing_files(collect: Collect) -> None:
    """A loop device's file, any bytes in its name; a zram's device, and a zram without one."""
    at = "sys/devices/virtual/block"
    storage, notes = collect(
        {
            "proc/devices": "Block devices:\n  7 loop\n252 zram\n",
            **block("loop0", "7:0", f"{at}/loop0", loop__backing_file="/a b\xff (deleted)\n"),
            **block("loop1", "7:1", f"{at}/loop1"),
            **block("zram0", "252:0", f"{at}/zram0", backing_dev="/dev/nbd0\n"),
            **block("zram1", "252:1", f"{at}/zram1", backing_dev="none\n", ro="1\n"),
        }
    )
    assert notes == {}
    found = {device.name: (device.backing_file, device.read_only) for device in storage.devices}
    assert found == {
        "loop0": ("/a b\\xff (deleted)", False),
        "loop1": (None, False),
        "zram0": ("/dev/nbd0", False),
        "zram1": (None, True),
    }


def test_iscsi_addresses(collect: Collect) -> None:
    """IPv6 in brackets; where there is no connection now, the address that it was set up with."""
    base = "sys/class/iscsi_connection/connection"
    storage, _ = collect(
        {
            "sys/class/iscsi_session/session2/state": "LOGGED_IN\n",
            "sys/class/iscsi_session/session10/state": "FAILED\n",
            f"{base}2:0/address": "fe80::1\n",
            f"{base}2:0/port": "3260\n",
            f"{base}2:0/persistent_address": "192.0.2.1\n",
            f"{base}2:0/persistent_port": "861\n",
            f"{base}10:0/address": "(null)\n",
            f"{base}10:0/port": "-1\n",
            f"{base}10:0/persistent_address": "10.0.0.1\n",
            f"{base}10:0/persistent_port": "860\n",
        }
    )
    assert [(s.name, s.state, s.addresses) for s in storage.iscsi] == [
        ("session2", "LOGGED_IN", ("[fe80::1]:3260",)),
        ("session10", "FAILED", ("10.0.0.1:860",)),
    ]


def test_what_cannot_be_known_is_noted(collect: Collect) -> None:
    """A serial without configfs, FUSE without fusectl, swap on a path of no device, lines of another form."""
    _, notes = collect(
        {
            "sys/class/uio/uio0/name": "tcm-user/1/disk/file//x\n",
            "sys/fs/fuse/connections/.empty": "",
            "proc/self/mountinfo": "1 0 0:50 / / rw - fuse.x y rw\nnonsense\n",
            "proc/swaps": "Filename\n/dev/nothing partition 1 1 1\nnonsense\n",
        }
    )
    assert {what.split()[0] for what in notes} == {
        "unit",
        "/sys/fs/fuse/connections",
        "device",
        "/proc/self/mountinfo",
        "/proc/swaps",
    }


def test_an_empty_root_is_an_empty_machine(tmp_path: Path) -> None:
    """Nothing there is nothing found, without a word."""
    assert looked_at(tmp_path) == (Storage((), (), (), (), (), (), ()), {})


def test_a_refused_file_is_noted(tmp_path: Path) -> None:
    """What cannot be read is said, with the system's reason."""
    (tmp_path / "proc/self/mountinfo").mkdir(parents=True)
    assert looked_at(tmp_path)[1] == {"/proc/self/mountinfo": "Is a directory"}


def test_overlay_layers_one_by_one(collect: Collect) -> None:
    """Each layer that newer kernels write by itself becomes one of lowerdir, its colons escaped."""
    storage, _ = collect(
        {"proc/self/mountinfo": "1 0 0:9 / / rw - overlay o rw,lowerdir+=/a\\040b,lowerdir+=/c:d\n"}
    )
    assert storage.mounts[0].option("lowerdir") == "/a b:/c\\:d"


def test_many_mounts_and_namespaces(collect: Collect, tmp_path: Path) -> None:
    """10,000 mounts are all there; another namespace adds its storage, each mount once, and no procfs."""
    files = {
        "proc/self/mountinfo": "".join(
            f"{n} 1 8:{n} / /m/{n} rw - ext4 /dev/sd rw\n" for n in range(1, 10_001)
        ),
        "proc/7/mountinfo": "20001 1 9:1 / /c rw - ext4 /dev/x rw\n20002 1 0:9 / /proc rw - proc proc rw\n",
        "proc/8/mountinfo": "20001 1 9:1 / /c rw - ext4 /dev/x rw\n",
    }
    collect(files)
    for pid, namespace in (("self", 100), ("7", 200), ("8", 200)):
        (tmp_path / f"proc/{pid}/ns").mkdir()
        (tmp_path / f"proc/{pid}/ns/mnt").symlink_to(f"mnt:[{namespace}]")
    storage, notes = looked_at(tmp_path)
    assert notes == {}
    assert len(storage.mounts) == 10_001
    assert (storage.mounts[-1].mount_id, storage.mounts[-1].namespace) == (20001, 200)
    assert storage.mounts[0].namespace == 100


@pytest.mark.live
def test_this_machine() -> None:
    """Devices have the numbers and sizes of /sys; mounts are those of mountinfo, with stat(2)'s number."""
    storage, _ = looked_at(Path("/"))
    names = {entry.name for entry in Path("/sys/class/block").iterdir()}
    assert {found.name for found in storage.devices} == names
    for found in storage.devices:
        directory = Path("/sys/class/block", found.name)
        assert found.number == (directory / "dev").read_text().strip()
        assert found.size == int((directory / "size").read_text()) * 512
    own = [m for m in storage.mounts if m.namespace == storage.mounts[0].namespace]
    assert len(own) == len(Path("/proc/self/mountinfo").read_bytes().splitlines())
    root = next(m for m in reversed(own) if m.point == "/")
    info = os.stat("/")
    if not root.number.startswith("0:"):
        assert root.number == f"{os.major(info.st_dev)}:{os.minor(info.st_dev)}"


@pytest.mark.parametrize("below", ["nvme-subsystem/nvme-subsys0", "nvme-fabrics/ctl/nvme1"])
def test_nvme_over_tcp(collect: Collect, below: str) -> None:
    """Controllers by TCP with their disks, with multipath and without; those of PCIe have no server."""
    disk = f"sys/devices/virtual/{below}/nvme0n1"
    found, _ = collect(
        {
            "sys/class/nvme/nvme0/transport": "pcie\n",
            "sys/class/nvme/nvme1/transport": "tcp\n",
            "sys/class/nvme/nvme1/address": "traddr=::1,trsvcid=4420,src_addr=::1\n",
            "sys/class/nvme/nvme1/subsysnqn": "nqn.x\n",
            "sys/class/nvme/nvme1/state": "live\n",
            "sys/class/nvme-subsystem/nvme-subsys0/nvme1/x": "",
            "proc/devices": "Block devices:\n259 blkext\n",
            "sys/class/block/nvme0n1": f"-> /{disk}",
            f"{disk}/dev": "259:1\n",
            f"{disk}/size": "8\n",
        }
    )
    (controller,) = found.nvme
    assert (controller.name, controller.subsystem, controller.state) == ("nvme1", "nqn.x", "live")
    assert (controller.address, controller.devices) == ("[::1]:4420", ("nvme0n1",))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("77 0 664 108 10 70 8936 182 0 236 291 3 0 64 0 2 5", Completed(92, 339968)),
        ("1 0 8 0 1 0 8 0 0 0 0", Completed(2, 4096)),  # before 4.18
        ("garbage", None),
    ],
)
def test_what_an_nbd_device_has_completed(collect: Collect, text: str, found: Completed | None) -> None:
    """Requests of all kinds, and bytes that reads returned."""
    files = {
        "proc/devices": "Block devices:\n 43 nbd\n",
        "sys/class/block/nbd0/dev": "43:0\n",
        "sys/class/block/nbd0/stat": f"  {text}\n",
    }
    (device,) = collect(files)[0].devices
    assert device.completed == found
