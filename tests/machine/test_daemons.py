"""The distribution's own storage daemons, started in a guest, are each found by collect() and services()."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.lab.conftest import ioflusher
from tests.machine.packages import CEPH, DAEMONS, unpacked
from tests.needs import need

from ioflusher.machine.codec import load_snapshot
from ioflusher.machine.serving.infer import services
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.storage import BlockDevice, DeviceKind

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name("programs")
MODULES = (
    *("nbd nbds_max=8", "tcm_loop", "target_core_user", "iscsi_tcp", "iscsi_target_mod", "dm-multipath"),
    *("fuse", "ublk_drv", "loop", "nfsd", "nfsv4"),
)


@dataclass(frozen=True, slots=True)
class Look:
    """One snapshot of the guest, and who served what in it."""

    snapshot: Snapshot
    services: list[dict[str, Any]]

    def of(self, role: str, target: str) -> list[tuple[str | None, bool, bool, bool]]:
        """Who plays the role for the target: name, certain, kernel, essential."""
        return [
            (found["comm"], found["certain"], found["kernel"], found["essential"])
            for found in self.services
            if (found["role"], found["target"]) == (role, target)
        ]

    def number(self, point: str) -> str:
        """The number of the file system mounted there."""
        return next(mount.number for mount in self.snapshot.mounts if mount.point == point)

    def device(self, name: str) -> BlockDevice:
        """The block device of that name."""
        return next(device for device in self.snapshot.devices if device.name == name)

    def disk_of(self, target: str) -> str:
        """The disk behind the iSCSI session to the target of that name."""
        (session,) = [s for s in self.snapshot.iscsi if s.target == f"iqn.2026-01.test:{target}"]
        (disk,) = session.devices
        return disk


def looks_of(
    script: str, packages: Sequence[str], modules: Sequence[str], *programs: Path
) -> dict[str, Look]:
    """What the script saw in a guest, by look; all that it started is there."""
    tree = unpacked(packages)
    done = ioflusher(
        *("lab", "exec", "--timeout", "400", "--memory", "1500M"),
        *(word for directory in (tree, *programs) for word in ("--share", str(directory))),
        *(word for module in modules for word in ("--load", module)),
        *("--", "env", f"PYTHONPATH={ROOT}/src:{ROOT}"),
        *(sys.executable, "-m", f"tests.machine.{script}", str(tree), *map(str, programs)),
        timeout=500,
    )
    print(done.stderr.decode())  # how long each step took
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr.decode()
    assert [line for line in lines if "failed" in line] == [], done.stderr.decode()
    place = os.environ.get("IOFLUSHER_RECORD")
    for line in lines:
        if place and "root" in line:
            Path(place).write_text(json.dumps(line["root"], indent=0) + "\n")
    return {
        line["snapshot"]: Look(load_snapshot(json.dumps(line["whole"]).encode()), line["services"])
        for line in lines
        if "snapshot" in line
    }


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Look]:
    """What guest_daemons.py saw; IOFLUSHER_RECORD=FILE keeps its recording of the tree (roots/)."""
    programs = tmp_path_factory.mktemp("programs")
    subprocess.run(
        [need("gcc"), "-O2", "-o", programs / "ublk", PROGRAMS / "ublk.c"], check=True, timeout=120
    )
    return looks_of("guest_daemons", DAEMONS, MODULES, programs)


@pytest.fixture
def all_(guest: dict[str, Look]) -> Look:
    """The guest with every daemon at work."""
    return guest["all"]


FOUND = (True, False, True)  # certain, not the kernel, needed for each request
STANDBY = (True, False, False)  # needed for recovery


@pytest.mark.parametrize(
    ("device", "client", "server"),
    [
        ("nbd0", [("nbd-client", *STANDBY)], "nbdkit"),  # by ioctl, over a Unix socket
        ("nbd1", [], "nbd-server"),  # by netlink, over TCP: the client is gone
        ("nbd2", [("qemu-nbd", *FOUND)], "qemu-nbd"),  # one process is both ends
        ("nbd3", [("python", *STANDBY)], "python"),  # ours
    ],
)
def test_nbd(all_: Look, device: str, client: list[tuple[str, bool, bool, bool]], server: str) -> None:
    """nbd-client by ioctl and by netlink, nbdkit, nbd-server, qemu-nbd, and our own daemon."""
    assert all_.of("NBD client", device) == client
    assert all_.of("NBD server", device) == [(server, *FOUND)]


def test_devices_that_nothing_tells_apart(guest: dict[str, Look]) -> None:
    """With two devices by netlink each of the two servers may have either; the others stay certain."""
    two = guest["two"]
    for device in ("nbd1", "nbd4"):
        found = two.of("NBD server", device)
        assert sorted(found) == [("nbd-server", False, False, True), ("nbdkit", False, False, True)]
    assert two.of("NBD server", "nbd0") == [("nbdkit", *FOUND)]


def test_scsi(all_: Look) -> None:
    """tcmu-runner behind tcm_loop and behind LIO's iSCSI target; tgtd; iscsid; LIO itself."""
    (by_loop,) = (d.name for d in all_.snapshot.devices if "/tcm_loop_0/" in d.path)
    assert all_.of("tcmu handler", by_loop) == [("tcmu-runner", *FOUND)]
    lio, tgt = all_.disk_of("lio"), all_.disk_of("tgt")
    assert all_.of("tcmu handler", lio) == [("tcmu-runner", *FOUND)]
    assert all_.of("iSCSI target", lio) == [(None, True, True, True)]
    assert all_.of("iSCSI target", tgt) == [("tgtd", *FOUND)]
    for disk in (lio, tgt):
        assert all_.of("iSCSI initiator daemon", disk) == [("iscsid", *STANDBY)]


def test_multipath(all_: Look) -> None:
    """multipathd, and its device with two paths."""
    assert all_.of("multipath daemon", "dm-0") == [("multipathd", *STANDBY)]
    device = all_.device("dm-0")
    assert device.dm is not None
    assert device.dm.targets == ("multipath",)
    assert len(device.slaves) == 2


@pytest.mark.parametrize(
    ("point", "daemon"),
    [
        ("/run/sshfs-a", "sshfs"),
        ("/run/sshfs-b", "sshfs"),
        ("/run/overlay", "fuse-overlayfs"),
        ("/run/ntfs", "ntfs-3g"),
    ],
)
def test_fuse(all_: Look, point: str, daemon: str) -> None:
    """sshfs twice, fuse-overlayfs, and ntfs-3g on a loop device."""
    assert all_.of("FUSE daemon", all_.number(point)) == [(daemon, *FOUND)]


def test_file_systems_mounted_where_they_are_served(all_: Look) -> None:
    """NFS by the kernel's server and by nfs-ganesha, CIFS by smbd."""
    assert all_.of("file server", all_.number("/run/nfs")) == [(None, True, True, True)]
    assert all_.of("file server", all_.number("/run/ganesha-mount")) == [("ganesha.nfsd", *FOUND)]
    assert all_.of("file server", all_.number("/run/cifs")) == [("smbd", *FOUND)]


def test_ublk_and_vduse(all_: Look) -> None:
    """A ublk server, and QEMU's storage daemon behind a virtio disk."""
    assert all_.device("ublkb0").kind is DeviceKind.UBLK
    assert all_.of("ublk server", "ublkb0") == [("ublk", *FOUND)]
    (disk,) = (d.name for d in all_.snapshot.devices if "/vduse/" in d.path)
    assert all_.of("vduse server", disk) == [("qemu-storage-da", *FOUND)]


def test_layers_without_a_daemon(all_: Look) -> None:
    """Targets of dm tables without crypt's key, loop, btrfs on two devices, swap on zram and in a file."""
    names = {device.dm.name: device for device in all_.snapshot.devices if device.dm is not None}
    secret, two = names["secret"], names["two\\x20parts"]
    assert secret.dm is not None
    assert two.dm is not None
    assert (secret.dm.targets, two.dm.targets) == (("crypt",), ("linear", "zero"))
    assert two.slaves == (secret.name,)
    (backing,) = secret.slaves
    assert all_.device(backing).backing_file == "/run/crypt.img"
    assert "5ec4e75ec4e7" not in repr(all_.snapshot)
    (mount,) = (m for m in all_.snapshot.mounts if m.point == "/run/two disks")
    assert len(mount.devices) == 2
    zram, file = all_.snapshot.swaps
    assert (zram.path, zram.is_file, zram.number) == ("/dev/zram0", False, all_.device("zram0").number)
    assert (file.path, file.is_file, file.number) == ("/run/ext4/swap file", True, all_.number("/run/ext4"))


def test_daemons_that_are_gone(guest: dict[str, Look]) -> None:
    """What they served stays, and is served by nobody; those that live are still found."""
    gone = guest["gone"]
    (by_loop,) = (d.name for d in gone.snapshot.devices if "/tcm_loop_0/" in d.path)
    (by_vduse,) = (d.name for d in gone.snapshot.devices if "/vduse/" in d.path)
    tgt = gone.disk_of("tgt")
    expected = [
        *(("NBD server", "nbd1"), ("NBD server", "nbd4"), ("tcmu handler", by_loop), ("iSCSI target", tgt)),
        *(("iSCSI initiator daemon", tgt), ("multipath daemon", "dm-0"), ("vduse server", by_vduse)),
        *(("FUSE daemon", gone.number(f"/run/sshfs-{name}")) for name in "ab"),
    ]
    for role, target in expected:
        assert [found[:3] for found in gone.of(role, target)] == [(None, True, False)], (role, target)
    assert gone.of("NBD server", "nbd2") == [("qemu-nbd", *FOUND)]
    assert gone.of("FUSE daemon", gone.number("/run/overlay")) == [("fuse-overlayfs", *FOUND)]


def test_the_file_says_the_same(guest: dict[str, Look]) -> None:
    """A snapshot read back says what the machine said of itself, and nothing was unreadable."""
    for look in guest.values():
        again = [(s.pid, s.role.value, s.target, s.evidence) for s in services(look.snapshot)]
        assert again == [(s["pid"], s["role"], s["target"], s["evidence"]) for s in look.services]
        assert look.snapshot.unreadable == ()


@pytest.fixture(scope="module")
def ceph() -> dict[str, Look]:
    """A Ceph cluster of one monitor and one store in memory."""
    return looks_of("guest_rbd", CEPH, ("nbd", "rbd"))


def test_krbd(ceph: dict[str, Look]) -> None:
    """The kernel's own client is served by the store for each request, by the monitor for recovery."""
    look = ceph["krbd"]
    assert look.device("rbd0").kind is DeviceKind.RBD
    assert sorted(look.of("Ceph daemon", "rbd0")) == [("ceph-mon", *STANDBY), ("ceph-osd", *FOUND)]
    # the kernel's connections with them are not taken for the nbd device's
    assert look.of("NBD server", "nbd0") == [("rbd-nbd", *FOUND)]


def test_rbd_nbd(ceph: dict[str, Look]) -> None:
    """rbd-nbd, on the cluster, is both ends of its device."""
    look = ceph["all"]
    assert look.of("NBD client", "nbd0") == [("rbd-nbd", *FOUND)]
    assert look.of("NBD server", "nbd0") == [("rbd-nbd", *FOUND)]
    # it stands on the cluster's daemons, which run here too
    names = {process.pid: process.comm for process in look.snapshot.processes}
    talks = [{names.get(pid) for end in c.ends for pid in end.pids} for c in look.snapshot.connections]
    assert {"rbd-nbd", "ceph-mon"} in talks
    assert {"rbd-nbd", "ceph-osd"} in talks


def test_nbd_by_netlink_over_loopback() -> None:
    """Two servers behind loopback TCP and rpcbind: by the bytes each device has its server."""
    packages = (
        "nbd-client",
        "nbd-server",
        "nbdkit",
        "qemu-utils",
        "nfs-kernel-server",
        "rpcbind",
        "iproute2",
    )
    looks = looks_of("guest_loopback", packages, ("nbd nbds_max=4", "nfsd"))
    busy = looks["busy"]
    assert [busy.of("NBD server", f"nbd{n}") for n in range(3)] == [
        [(name, *FOUND)] for name in ("nbd-server", "qemu-nbd", "nbdkit")
    ]
    quiet = looks["quiet"]
    assert {name for name, *_ in quiet.of("NBD server", "nbd0")} == {"nbd-server", "nbdkit"}


def test_nvme_and_a_handler_that_executes_itself() -> None:
    """NVMe over TCP from the kernel's own target; an nbd handler that runs its own program as the client."""
    look = looks_of("guest_nvme", ("iproute2", "nbd-client"), ("nbd", "nvme-tcp", "nvmet-tcp"))["all"]
    assert look.of("NVMe target", "nvme0n1") == [(None, True, True, True)]
    (client,) = [s for s in look.services if (s["role"], s["target"]) == ("NBD client", "nbd0")]
    (server,) = [s for s in look.services if (s["role"], s["target"]) == ("NBD server", "nbd0")]
    processes = {process.pid: process for process in look.snapshot.processes}
    assert processes[client["pid"]].ppid == server["pid"]
    assert processes[client["pid"]].exe == processes[server["pid"]].exe
    assert (client["essential"], server["essential"], server["certain"]) == (False, True, True)
