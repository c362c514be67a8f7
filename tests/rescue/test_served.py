"""What is known of a device that user space serves."""

from dataclasses import replace

from ioflusher.machine.endpoints import Connection
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.storage import BlockDevice, DeviceKind, DeviceMapper
from ioflusher.rescue.served import FuseMount, served_devices
from tests.audit.machines import DEVICE, FUSE, ROOT_MOUNT, SERVER, SSHFS, SWAP_ON_NBD, WELL, machine
from tests.rescue.freezes import served


def test_an_nbd_device_with_its_daemon_and_what_lies_on_it() -> None:
    """The disk of the kernel's own is none; the daemon's store is its disk."""
    (device,) = served(swaps=(SWAP_ON_NBD,))
    assert device.path == "/dev/nbd0"
    assert [(daemon.name, daemon.role, daemon.covered) for daemon in device.daemons] == [
        ("server (7)", "NBD server", False)
    ]
    assert device.mounts == ("/data",)
    assert device.swaps == ("/dev/nbd0",)
    assert [store.number for store in device.stores] == ["8:1"]


def test_a_daemon_that_is_gone_is_missing() -> None:
    """A device whose part nobody has."""
    gone = replace(SERVER, pid=None)
    (device,) = served_devices(Analysis(WELL, (gone,)))
    assert device.daemons == ()
    assert device.missing == ("NBD server",)


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


def test_connections_do_not_matter() -> None:
    """Only what was inferred does."""
    assert isinstance(WELL.connections[0], Connection)
    assert served_devices(Analysis(WELL, ())) == ()
