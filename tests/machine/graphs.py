"""Machines made by hand for the tests of the storage graph and of its pictures."""

from typing import Any

from ioflusher.kernel.task import Thread
from ioflusher.kernel.task_flags import PF_IO_FLUSHER
from ioflusher.machine.endpoints import Connection, Family, Listener, SocketEnd
from ioflusher.machine.process import FileKind, FileUse, Process
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.snapshot import Memory, Snapshot, System
from ioflusher.machine.storage import BlockDevice, DeviceKind, Mount, Swap

SYSTEM = System("storage1", "6.12.0", "x86_64", "2026-11-25T01:00:00Z", privileged=True)
RW = (("rw", ""),)
DISK = BlockDevice("vda", "254:0", 8 << 30, DeviceKind.VIRTIO)
ROOT = Mount(20, 1, "254:0", "/", "/", "ext4", "/dev/vda", RW, namespace=1)


def nbd(number: int) -> BlockDevice:
    """An nbd device of 256 MiB."""
    return BlockDevice(f"nbd{number}", f"43:{number}", 256 << 20, DeviceKind.NBD)


def mount(mount_id: int, number: str, point: str, source: str, fstype: str = "ext4", **options: str) -> Mount:
    """A writable mount of a whole file system below the root."""
    return Mount(mount_id, 20, number, "/", point, fstype, source, (*RW, *options.items()), namespace=1)


def daemon(
    pid: int,
    comm: str = "nbd-server",
    *files: FileUse,
    covered: int = 0,
    threads: int = 2,
    locked: bool = True,
) -> Process:
    """A process of which the first `covered` threads carry the state."""
    return Process(
        pid,
        1,
        comm,
        0,
        tuple(
            Thread(pid + n, comm, "S", 0x400000 | (PF_IO_FLUSHER if n < covered else 0))
            for n in range(threads)
        ),
        locked_kib=9000 if locked else 0,
        swapped_kib=0,
        resident_kib=8000,
        exe="/usr/bin/" + comm,
        files=files or (FileUse("/usr/bin/" + comm, FileKind.EXECUTABLE, "254:0", 20),),
        mount_namespace=1,
    )


def serves(
    pid: int | None, target: str, role: StorageRole = StorageRole.NBD_SERVER, **more: Any
) -> StorageService:
    """A service of a device, or of a file system where the target is a number."""
    kind = TargetKind.MOUNT if ":" in target else TargetKind.DEVICE
    return StorageService(pid, role, kind, target, f"{pid} holds the socket of {target}", **more)


def swap_on(device: BlockDevice) -> Swap:
    """All of the device as swap."""
    return Swap(f"/dev/{device.name}", False, device.number, device.size, 1 << 20, -2)


def talk(client: int, server: int, address: str) -> tuple[Connection, Listener]:
    """A connection of two processes, and the socket that the server listens at."""
    family = Family.UNIX if address.startswith(("/", "@")) else Family.TCP
    end = SocketEnd(server * 10, address, (server,))
    listener = Listener(family, SocketEnd(server * 10 + 1, address, (server,)))
    return Connection(family, (SocketEnd(client * 10, "", (client,)), end)), listener


def machine(
    devices: tuple[BlockDevice, ...] = (),
    mounts: tuple[Mount, ...] = (),
    swaps: tuple[Swap, ...] = (),
    processes: tuple[Process, ...] = (),
    talks: tuple[tuple[Connection, Listener], ...] = (),
) -> Snapshot:
    """A machine with its root on a disk of its own, and what is given."""
    return Snapshot(
        SYSTEM,
        Memory(),
        processes=processes,
        devices=(DISK, *devices),
        mounts=(ROOT, *mounts),
        swaps=swaps,
        connections=tuple(connection for connection, _ in talks),
        listeners=tuple(listener for _, listener in talks),
    )


SWAP_ON_NBD = machine((nbd(0),), swaps=(swap_on(nbd(0)),), processes=(daemon(812),))
"""Swap on nbd0, served by a daemon of which no thread carries the state."""

TWO_DAEMONS = machine(
    (nbd(0), nbd(1)),
    (mount(30, "43:0", "/a", "/dev/nbd0"), mount(31, "43:1", "/b", "/dev/nbd1")),
    processes=(
        daemon(100, "first", FileUse("/b/store.img", FileKind.WRITTEN, "43:1", 31), covered=2),
        daemon(
            200, "second", FileUse("/a/bin/second", FileKind.EXECUTABLE, "43:0", 30), covered=2, locked=False
        ),
    ),
)
"""The first daemon stores on the device of the second, whose program lies on the device of the first."""
