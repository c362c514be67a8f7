"""What is known of a device that user space serves."""

from dataclasses import replace

import pytest

from ioflusher.kernel.task import Thread
from ioflusher.machine.endpoints import Connection, Family, Listener, SocketEnd
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.process import DeviceHandle, FileKind, FileUse, Process
from ioflusher.machine.serving.service import Candidate, Confidence, StorageRole, StorageService, TargetKind
from ioflusher.machine.storage import BlockDevice, DeviceKind, DeviceMapper
from ioflusher.rescue.other_server import OtherServer
from ioflusher.rescue.served import FuseMount, served_devices
from tests.audit.machines import (
    BARE,
    DAEMON,
    DEVICE,
    FUSE,
    ROOT,
    ROOT_MOUNT,
    SERVER,
    SSHFS,
    SWAP_ON_NBD,
    WELL,
    machine,
)
from tests.rescue.freezes import served

PEERS = ((20, "sftp-server"), (21, "journald"), (22, "store"))


def test_an_nbd_device_with_its_daemon_and_what_lies_on_it() -> None:
    """The disk of the kernel's own is none; the daemon's store is its disk."""
    (device,) = served(swaps=(SWAP_ON_NBD,))
    assert device.path == "/dev/nbd0"
    assert [(daemon.name, daemon.role, daemon.covered) for daemon in device.daemons] == [
        ("server (7)", "NBD server", False)
    ]
    assert device.mounts == ("/data",)
    assert device.swaps == ("/dev/nbd0",)


def test_whom_the_daemon_waits_for_is_in_the_path() -> None:
    """As sshfs for its server, which stores: by a socket pair or a listener's, but not a logger."""
    peer, logger, other = (Process(pid, 1, name, 0, (Thread(pid, name, "S", BARE),)) for pid, name in PEERS)
    pair = Connection(Family.UNIX, (SocketEnd(200, "", (7,)), SocketEnd(201, "", (20,))))
    logs = Connection(Family.UNIX, (SocketEnd(202, "", (7,)), SocketEnd(203, "/dev/log", (21,))))
    further = Connection(Family.UNIX, (SocketEnd(204, "", (20,)), SocketEnd(205, "/run/x", (22,))))
    snapshot = machine(connections=(*WELL.connections, pair, logs, further))
    snapshot = replace(snapshot, processes=(*snapshot.processes, peer, logger, other))
    (device,) = served_devices(Analysis(snapshot, (SERVER,)))
    assert [(daemon.name, daemon.role, daemon.covered) for daemon in device.daemons[1:]] == [
        ("sftp-server (20)", "peer of a daemon", False),
        ("store (22)", "peer of a daemon", False),
    ]


def test_a_daemon_that_is_gone_is_missing() -> None:
    """A device whose part nobody has."""
    gone = replace(SERVER, pid=None)
    (device,) = served_devices(Analysis(WELL, (gone,)))
    assert device.daemons == ()
    assert device.missing == ("NBD server",)


@pytest.mark.parametrize("number", [1, 2])
def test_who_may_be_the_server_is_no_stranger_where_it_is_the_only_one(number: int) -> None:
    """One of several is left out; none of them makes the server missing, for one may well be it."""
    may_be = Candidate(Confidence.POSSIBLE, 1, number, "nothing says that it speaks NBD")
    (device,) = served_devices(Analysis(WELL, (replace(SERVER, certain=False, candidate=may_be),)))
    assert [daemon.pid for daemon in device.daemons] == ([7] if number == 1 else [])
    assert device.missing == ()


def test_nobody_is_missing_where_not_all_can_be_seen() -> None:
    """It would be said to be certain that the daemon is gone."""
    (device,) = served_devices(Analysis(WELL, (replace(SERVER, pid=None, certain=False),)))
    assert device.missing == ()


def test_the_kernels_own_target_is_no_process_and_not_missing() -> None:
    """Beside the initiator's daemon, which no request needs."""
    disk = BlockDevice("sda", "8:0", 1 << 30, DeviceKind.OTHER)
    target = StorageService(
        None, StorageRole.ISCSI_TARGET, TargetKind.DEVICE, "sda", "the kernel holds the end", kernel=True
    )
    initiator = StorageService(
        7, StorageRole.ISCSI_INITIATOR, TargetKind.DEVICE, "sda", "it holds netlink", essential=False
    )
    (device,) = served_devices(Analysis(machine(devices=(disk,)), (target, initiator)))
    assert device.kernel_targets == ("iSCSI target",)
    assert device.missing == ()
    assert device.servers == ("server (7)", "the kernel's own iSCSI target")


def test_a_client_that_only_holds_the_device_is_no_daemon() -> None:
    """It holds the driver's sockets."""
    client = StorageService(
        1, StorageRole.NBD_CLIENT, TargetKind.DEVICE, "nbd0", "it set it up", essential=False
    )
    (device,) = served_devices(Analysis(WELL, (SERVER, client)))
    assert [daemon.pid for daemon in device.daemons] == [7]
    assert device.clients == (1,)


def test_a_loop_device_on_a_fuse_file_names_the_connection() -> None:
    """By the number of the mount (st_dev), which is the connection's directory."""
    loop = BlockDevice("loop0", "7:0", 1 << 30, DeviceKind.LOOP, backing_file="/photos/disk.img")
    snapshot = machine(devices=(DEVICE, loop), mounts=(ROOT_MOUNT, FUSE))
    devices = {device.name: device for device in served_devices(Analysis(snapshot, (SSHFS,)))}
    assert devices["loop0"].fuse == (FuseMount(50, "/photos"),)
    assert devices["loop0"].daemons[0].role == "FUSE daemon"
    assert "nbd0" not in devices


def test_multipath_below_is_named() -> None:
    """Also where another device lies on it."""
    mpath = BlockDevice(
        "dm-0", "253:0", 1 << 30, DeviceKind.DM, dm=DeviceMapper("mpatha", "mpath-x", ("multipath",))
    )
    upper = BlockDevice(
        "dm-1", "253:1", 1 << 30, DeviceKind.DM, slaves=("dm-0",), dm=DeviceMapper("v", "LVM-x", ("linear",))
    )
    service = StorageService(7, StorageRole.MULTIPATH, TargetKind.DEVICE, "dm-0", "listens", essential=False)
    snapshot = machine(devices=(mpath, upper))
    assert [d.multipath for d in served_devices(Analysis(snapshot, (service,)))] == ["mpatha", "mpatha"]


OWN = FileUse("/var/lib/disk.img", FileKind.WRITTEN, ROOT, 1)
STORE = (FileUse("/usr/bin/server", FileKind.EXECUTABLE, ROOT, 1), OWN)
UNIX = Listener(Family.UNIX, SocketEnd(200, "/run/b.sock", (12,)))


def other(
    files: tuple[FileUse, ...] = STORE, listener: Listener = UNIX, *services: StorageService
) -> OtherServer | None:
    """What is found beside nbd0's server by a second process with these files, which listens there."""
    second = replace(DAEMON, pid=12, comm="second", files=files)
    snapshot = machine({"files": STORE}, listeners=(listener,))
    snapshot = replace(snapshot, processes=(*snapshot.processes, second))
    (device, *_) = served_devices(Analysis(snapshot, services or (SERVER,)))
    return device.other_server


def test_another_server_of_the_same_store_is_found() -> None:
    """A process that has the file open, it alone, and listens."""
    found = other()
    assert found == OtherServer(12, "second", "nbd+unix:///?socket=/run/b.sock", 7, "/var/lib/disk.img")
    anywhere = Listener(Family.TCP, SocketEnd(200, "0.0.0.0:10809", (12,)))
    found = other(listener=anywhere)
    assert found is not None
    assert found.uri == "nbd://127.0.0.1:10809/"


@pytest.mark.parametrize(
    "files",
    [
        (*STORE, replace(OWN, path="/var/lib/other.img")),  # which of them is served there?
        (replace(OWN, direct=True),),  # past the page cache, where the first one's writes lie
        (replace(OWN, kind=FileKind.READ),),
        (replace(OWN, device="8:2"),),
        (),
    ],
)
def test_what_is_no_server_of_the_same_store(files: tuple[FileUse, ...]) -> None:
    """Another file, another way, more than one."""
    assert other(files) is None


def test_nobody_takes_over_where_the_server_is_not_known_or_serves_more() -> None:
    """Killing it would take more than this device; one that does not listen for others cannot be reached."""
    assert other(STORE, UNIX, replace(SERVER, certain=False)) is None
    assert other(STORE, UNIX, SERVER, replace(SERVER, target="nbd1")) is None
    assert other(STORE, replace(UNIX, end=SocketEnd(200, "@hidden", (12,)))) is None
    assert other(STORE, replace(UNIX, end=SocketEnd(200, "/run/b.sock", (7,)))) is None


def test_a_ublk_server_that_stands_by_is_found() -> None:
    """It has the store and the driver's control device, and serves none."""
    ublk = BlockDevice("ublkb0", "259:0", 1 << 30, DeviceKind.UBLK)
    serves = StorageService(7, StorageRole.UBLK_SERVER, TargetKind.DEVICE, "ublkb0", "7 holds /dev/ublkc0")
    control = DeviceHandle("/dev/ublk-control", "10:122")
    for handles, found in (
        ((control,), OtherServer(12, "second", "", 7, "/var/lib/disk.img")),
        ((control, DeviceHandle("/dev/ublkc1", "241:1")), None),
        ((), None),
    ):
        second = replace(DAEMON, pid=12, comm="second", files=STORE, handles=handles)
        snapshot = machine({"files": STORE}, devices=(ublk,))
        snapshot = replace(snapshot, processes=(*snapshot.processes, second))
        (device,) = served_devices(Analysis(snapshot, (serves,)))
        assert device.other_server == found


def test_connections_do_not_matter() -> None:
    """Only what was inferred does."""
    assert isinstance(WELL.connections[0], Connection)
    assert served_devices(Analysis(WELL, ())) == ()
