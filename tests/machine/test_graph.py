"""The storage graph of machines made by hand: every kind of edge, and what is not known."""

from dataclasses import replace

import pytest
from tests.machine.graphs import ROOT, SWAP_ON_NBD, daemon, machine, mount, nbd, serves, swap_on, talk

from ioflusher.kernel.task import Thread
from ioflusher.machine.codec import dump_snapshot, load_snapshot
from ioflusher.machine.endpoints import (
    Connection,
    Family,
    IscsiSession,
    Listener,
    Remote,
    SocketEnd,
    TcmuDevice,
)
from ioflusher.machine.graph.build import storage_graph
from ioflusher.machine.graph.nodes import Graph, Need, NodeKind, Reason
from ioflusher.machine.process import FileKind, FileUse, MemoryLimit
from ioflusher.machine.serving.service import StorageRole, StorageService
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.storage import BlockDevice, DeviceKind, DeviceMapper, Mount, Swap

Brief = tuple[str, str, str]


def brief(graph: Graph) -> set[Brief]:
    """Source, reason and target of each edge."""
    return {(edge.source, edge.reason.name, edge.target) for edge in graph.edges}


def edges_of(snapshot: Snapshot, *services: StorageService) -> set[Brief]:
    """The edges of a machine in brief."""
    return brief(storage_graph(snapshot, services))


def unknown(graph: Graph) -> list[str]:
    """Names of the nodes for what the snapshot does not tell."""
    return [node.name for node in graph.nodes if node.kind is NodeKind.UNKNOWN]


def device(name: str, number: str, kind: DeviceKind, **more: object) -> BlockDevice:
    """A device of 1 GiB."""
    return replace(BlockDevice(name, number, 1 << 30, kind), **more)  # type: ignore[arg-type]


SDA = device("sda", "8:0", DeviceKind.SCSI)
SDB = device("sdb", "8:16", DeviceKind.SCSI)


@pytest.mark.parametrize(
    ("upper", "reason", "target"),
    [
        (device("sda1", "8:1", DeviceKind.PARTITION, parent="sda"), "PARTITION", "dev:sda"),
        (device("dm-0", "253:0", DeviceKind.DM, slaves=("sda",), dm=DeviceMapper("r", "u")), "DM", "dev:sda"),
        (device("md0", "9:0", DeviceKind.MD, slaves=("sda",)), "RAID", "dev:sda"),
        (device("bcache0", "252:0", DeviceKind.BCACHE, slaves=("sda",)), "BCACHE", "dev:sda"),
        (device("vdx", "259:0", DeviceKind.OTHER, slaves=("sda",)), "SLAVE", "dev:sda"),
        (device("loop0", "7:0", DeviceKind.LOOP, backing_file="/srv/x.img (deleted)"), "LOOP", "fs:254:0"),
        (device("loop0", "7:0", DeviceKind.LOOP, backing_file="/dev/sda"), "LOOP", "dev:sda"),
        (device("zram0", "251:0", DeviceKind.ZRAM, backing_file="/dev/sda"), "ZRAM", "dev:sda"),
    ],
)
def test_devices_on_devices(upper: BlockDevice, reason: str, target: str) -> None:
    """A device waits for what it stands on, by the reason of its kind."""
    assert (f"dev:{upper.name}", reason, target) in edges_of(machine((SDA, upper)))


def test_mounts_and_file_systems() -> None:
    """Mounts and bind mounts lead to one file system; that to its device by number, source or members."""
    bind = Mount(31, 20, "8:0", "/part", "/bind", "ext4", "/dev/sda", namespace=1)
    btrfs = replace(mount(32, "0:40", "/pool", "/dev/sda", "btrfs"), devices=("sda", "sdb"))
    single = mount(33, "0:41", "/one", "/dev/sdb", "btrfs")
    found = edges_of(machine((SDA, SDB), (mount(30, "8:0", "/mnt", "/dev/sda"), bind, btrfs, single)))
    assert found >= {
        ("mount:30", "MOUNT", "fs:8:0"),
        ("mount:31", "BIND", "fs:8:0"),
        ("fs:8:0", "LIES_ON", "dev:sda"),
        ("fs:0:40", "MEMBER", "dev:sda"),
        ("fs:0:40", "MEMBER", "dev:sdb"),
        ("fs:0:41", "LIES_ON", "dev:sdb"),
    }


def test_overlay_directories() -> None:
    """An overlay waits for the file systems of its directories; escaped colons belong to a name."""
    data = mount(30, "8:0", "/data:x", "/dev/sda")
    over = mount(
        31, "0:50", "/merged", "overlay", "overlay", lowerdir="/usr:/data\\:x/low:l/AB", upperdir="/data:x/up"
    )
    graph = storage_graph(machine((SDA,), (data, over)), ())
    assert brief(graph) >= {
        ("fs:0:50", "LOWER", "fs:254:0"),
        ("fs:0:50", "LOWER", "fs:8:0"),
        ("fs:0:50", "UPPER", "fs:8:0"),
    }
    assert unknown(graph) == ["lower layers of an overlay"]  # the relative path


def test_swap_areas() -> None:
    """A swap device is a device, a swap file lies on its file system; a tmpfs may be swapped out."""
    file = Swap("/swap", True, "254:0", 1 << 20, 0, -3)
    shm = mount(30, "0:23", "/dev/shm", "tmpfs", "tmpfs")
    found = edges_of(machine((nbd(0),), (shm,), (swap_on(nbd(0)), file)))
    assert found >= {
        ("swap:/dev/nbd0", "SWAP", "dev:nbd0"),
        ("swap:/swap", "SWAP", "fs:254:0"),
        ("fs:0:23", "SWAPPED", "swapped"),
        ("swapped", "SWAPPED", "swap:/swap"),
    }


@pytest.mark.parametrize(
    ("fstype", "source", "options", "server"),
    [
        ("nfs4", "filer:/export", {"addr": "10.0.0.5"}, "remote:10.0.0.5"),
        ("cifs", "//filer/share", {}, "remote:filer"),
        ("9p", "host", {"trans": "virtio"}, "remote:the hypervisor"),
    ],
)
def test_file_systems_of_other_machines(
    fstype: str, source: str, options: dict[str, str], server: str
) -> None:
    """A network file system waits for its server."""
    assert ("fs:0:60", "REMOTE", server) in edges_of(
        machine(mounts=(mount(30, "0:60", "/net", source, fstype, **options),))
    )


def test_iscsi_disks() -> None:
    """An iSCSI disk waits for its target's machine, unless that is known to be this one."""
    session = IscsiSession("session1", "iqn.x", "LOGGED_IN", ("10.0.0.9:3260",), ("sda",))
    disks = replace(machine((SDA,)), iscsi=(session,))
    remote = ("dev:sda", "REMOTE", "remote:10.0.0.9:3260")
    assert remote in edges_of(disks)
    target = serves(None, "sda", StorageRole.ISCSI_TARGET, kernel=True)
    found = edges_of(disks, target)
    assert remote not in found
    assert ("dev:sda", "SERVED", "kernel:iSCSI target") in found


def test_services() -> None:
    """Devices and file systems wait for who serves them; nobody, a process that is gone, a uio device too."""
    fuse = mount(30, "0:70", "/photos", "host:", "fuse.sshfs")
    snapshot = replace(
        machine((nbd(0), nbd(1)), (fuse,), processes=(daemon(5), daemon(6, "sshfs"))),
        tcmu=(TcmuDevice("uio0", "tcm-user/1/x"),),
    )
    graph = storage_graph(
        snapshot,
        (
            serves(5, "nbd0"),
            serves(6, "0:70", StorageRole.FUSE_SERVER),
            serves(None, "nbd1"),
            serves(77, "uio0", StorageRole.TCMU_HANDLER),
        ),
    )
    assert brief(graph) >= {
        ("dev:nbd0", "SERVED", "pid:5"),
        ("fs:0:70", "SERVED", "pid:6"),
        ("dev:nbd1", "SERVED", "unknown:server:dev:nbd1"),
        ("dev:uio0", "SERVED", "unknown:pid:77"),
    }


def test_a_fuse_daemon_that_is_not_known() -> None:
    """It is called by where its file system was mounted first."""
    twice = (mount(30, "0:70", "/first", "x", "fuse.x"), mount(31, "0:70", "/second", "x", "fuse.x"))
    graph = storage_graph(machine(mounts=twice), ())
    (node,) = (node for node in graph.nodes if node.kind is NodeKind.UNKNOWN)
    assert (node.name, node.detail) == ("a FUSE daemon", "of fuse.x at /first")


def test_what_the_kernel_serves_needs_no_process() -> None:
    """Also where a process is named that asked for it: it is not waited for, nor what it stands on."""
    snapshot = machine((nbd(0),), processes=(daemon(5, "x", *FILES),))
    found = edges_of(snapshot, serves(5, "nbd0", kernel=True))
    assert ("dev:nbd0", "SERVED", "kernel:NBD server") in found
    assert not {edge for edge in found if "pid:5" in edge}


def test_what_a_process_serves_is_called_as_people_call_it() -> None:
    """A device by its name, a file system by where it was mounted first."""
    twice = (
        mount(30, "0:70", "/photos", "host:", "fuse.sshfs"),
        mount(31, "0:70", "/b", "host:", "fuse.sshfs"),
    )
    services = (serves(5, "0:70", StorageRole.FUSE_SERVER), serves(5, "nbd0"))
    graph = storage_graph(machine((nbd(0),), twice, processes=(daemon(5),)), services)
    (node,) = (node for node in graph.nodes if node.pid == 5)
    assert node.detail == "FUSE daemon of /photos, NBD server of nbd0"


FILES = (
    FileUse("/usr/bin/x", FileKind.EXECUTABLE, "254:0", 20),
    FileUse("/usr/lib/libx.so", FileKind.LIBRARY, "254:0"),
    FileUse("/mnt/log", FileKind.LOG, "8:0", 30),
    FileUse("/mnt/data", FileKind.WRITTEN, "8:0", 30),
    FileUse("/mnt/conf", FileKind.READ, "0:99", 30),  # by its mount, whatever st_dev is
    FileUse("/mnt/archive", FileKind.MAPPED, "0:99"),  # by its path
    FileUse("/dev/sdb", FileKind.DEVICE, "8:16"),
    FileUse("/dev/nbd0", FileKind.DEVICE, "43:0"),  # the device that it serves itself
    FileUse("gone", FileKind.READ, "0:98"),
)


def test_what_a_daemon_stands_on() -> None:
    """One edge a kind of file and file system: by mount, by device number, by path; else unknown."""
    snapshot = machine(
        (SDA, SDB, nbd(0)), (mount(30, "8:0", "/mnt", "/dev/sda"),), processes=(daemon(5, "x", *FILES),)
    )
    found = {edge for edge in edges_of(snapshot, serves(5, "nbd0")) if edge[0] == "pid:5"}
    assert found == {
        ("pid:5", "EXECUTABLE", "fs:254:0"),
        ("pid:5", "LIBRARY", "fs:254:0"),
        ("pid:5", "LOG", "fs:8:0"),
        ("pid:5", "WRITTEN", "fs:8:0"),
        ("pid:5", "READ", "fs:8:0"),
        ("pid:5", "MAPPED", "fs:8:0"),
        ("pid:5", "OPEN_DEVICE", "dev:sdb"),
        ("pid:5", "READ", "unknown:number:0:98"),
        ("pid:5", "RECLAIM", "reclaim"),
    }


@pytest.mark.parametrize(
    ("number", "said"), [(1, "/l0"), (3, "/l0, /l1, /l2"), (4, "/l0, /l1, /l2 and 1 more")]
)
def test_three_are_named(number: int, said: str) -> None:
    """Of files of a kind on one file system, and how many more there are."""
    logs = [FileUse(f"/l{n}", FileKind.LOG, "254:0", 20) for n in range(number)]
    graph = storage_graph(machine((nbd(0),), processes=(daemon(5, "x", *logs),)), (serves(5, "nbd0"),))
    (edge,) = (edge for edge in graph.edges if edge.reason is Reason.LOG)
    assert edge.evidence == f"log: {said}"


def test_locked_memory_needs_no_file_again() -> None:
    """What is mapped and locked is needed at the start alone; what is open goes on being needed."""
    for locked, need in ((True, Need.START), (False, Need.WORK)):
        snapshot = machine((SDA, SDB, nbd(0)), processes=(daemon(5, "x", *FILES, locked=locked),))
        graph = storage_graph(snapshot, (serves(5, "nbd0"),))
        needs = {edge.reason: edge.need for edge in graph.edges if edge.source == "pid:5"}
        assert (needs[Reason.EXECUTABLE], needs[Reason.LIBRARY], needs[Reason.MAPPED]) == (need, need, need)
        assert needs[Reason.LOG] is Need.WORK


def test_files_that_were_not_read() -> None:
    """A daemon whose files are not known stands on its program, and on something unknown."""
    snapshot = machine((nbd(0),), processes=(replace(daemon(5), files=None),))
    found = edges_of(snapshot, serves(5, "nbd0"))
    assert ("pid:5", "EXECUTABLE", "fs:254:0") in found
    assert ("pid:5", "READ", "unknown:files:5") in found


@pytest.mark.parametrize(("covered", "reclaims"), [(0, True), (1, True), (2, False)])
def test_reclaim_of_processes_that_are_not_covered(covered: int, reclaims: bool) -> None:
    """One thread without the state is enough; it may write to swap and writable file systems on devices."""
    snapshot = machine(
        (nbd(0), SDA, SDB),
        (
            mount(30, "0:23", "/dev/shm", "tmpfs", "tmpfs"),
            Mount(31, 20, "8:0", "/", "/ro", "ext4", "/dev/sda", (("ro", ""),), namespace=1),
            mount(32, "0:70", "/photos", "host:", "fuse.sshfs"),
            mount(33, "8:16", "/windows", "/dev/sdb", "fuseblk"),
            mount(34, "0:60", "/net", "filer:/export", "nfs4"),
            mount(35, "0:61", "/new", "/dev/sdb", "newfs"),
            mount(36, "8:77", "/lost", "/dev/lost"),
            replace(mount(37, "0:62", "/pool", "pool", "poolfs"), devices=("sdb",)),
            mount(38, "0:63", "/tank", "tank", "zfs"),
        ),
        (swap_on(nbd(0)),),
        (daemon(5, covered=covered),),
    )
    found = edges_of(snapshot, serves(5, "nbd0"))
    assert (("pid:5", "RECLAIM", "reclaim") in found) is reclaims
    targets = {target for source, _, target in found if source == "reclaim"}
    written = {"swap:/dev/nbd0", *(f"fs:{number}" for number in ("254:0", "0:61", "8:77", "0:62", "0:63"))}
    assert targets == (written if reclaims else set())


def test_the_kernels_workers_and_the_dead_do_not_count() -> None:
    """io_uring workers and dead threads need no state of their own here."""
    worker = Thread(90, "iou-wrk-5", "S", 0x400010)
    dead = Thread(91, "x", "Z", 0)
    process = daemon(5, covered=2)
    process = replace(process, threads=(*process.threads, worker, dead))
    graph = storage_graph(machine((nbd(0),), processes=(process,)), (serves(5, "nbd0"),))
    (node,) = (node for node in graph.nodes if node.pid == 5)
    assert node.process is not None
    coverage = node.process.coverage
    assert (len(coverage.threads), coverage.covered, coverage.complete) == (2, 2, True)
    assert ("pid:5", "RECLAIM", "reclaim") not in brief(graph)


def test_swapped_memory() -> None:
    """Memory that is not locked may be in swap; not so in a group that may not swap."""
    unlocked = daemon(5, covered=2, locked=False)
    group = MemoryLimit("/x", 2, None, None, 0, 1)
    for process, swapped in (
        (unlocked, True),
        (daemon(5, covered=2), False),
        (replace(unlocked, cgroups=(group,)), False),
    ):
        snapshot = machine((nbd(0),), swaps=(swap_on(nbd(0)),), processes=(process,))
        found = edges_of(snapshot, serves(5, "nbd0"))
        assert (("pid:5", "SWAPPED", "swapped") in found) is swapped


def test_peers() -> None:
    """A daemon waits for the servers that it speaks with, and they for theirs; never for its clients."""
    snapshot = machine(
        (nbd(0),),
        processes=(
            daemon(5),
            daemon(6, "store"),
            daemon(7, "disk"),
            daemon(8, "client"),
            daemon(9, "journald"),
        ),
        talks=(
            talk(5, 6, "127.0.0.1:9000"),
            talk(6, 7, "/run/disk.sock"),
            talk(8, 5, "/run/nbd.sock"),
            talk(5, 9, "/run/systemd/journal/stdout"),
        ),
    )
    graph = storage_graph(snapshot, (serves(5, "nbd0"),))
    peers = {edge for edge in brief(graph) if edge[1] in ("PEER", "LOGGER")}
    assert peers == {
        ("pid:5", "PEER", "pid:6"),
        ("pid:6", "PEER", "pid:7"),
        ("pid:5", "LOGGER", "pid:9"),
    }
    assert "pid:8" not in {node.id for node in graph.nodes}
    assert all(edge.need is Need.START for edge in graph.edges if edge.reason is Reason.LOGGER)


def test_remote_servers() -> None:
    """A daemon waits for the machines that it went to, not for those that came to it."""
    listener = Listener(Family.TCP, SocketEnd(1, "0.0.0.0:10809", (5,)))
    went = Remote(SocketEnd(2, "10.0.0.1:40000", (5,)), "10.0.0.2:3260")
    came = Remote(SocketEnd(3, "10.0.0.1:10809", (5,)), "10.0.0.3:5000")
    snapshot = replace(
        machine((nbd(0),), processes=(daemon(5),)), listeners=(listener,), remotes=(went, came)
    )
    found = edges_of(snapshot, serves(5, "nbd0"))
    assert {edge for edge in found if edge[1] == "REMOTE"} == {("pid:5", "REMOTE", "remote:10.0.0.2:3260")}


def test_sockets_of_many_and_of_nobody() -> None:
    """Many holders share one node; a socket that the kernel alone holds is a server in the kernel."""
    many = tuple(range(100, 120))
    shared = Connection(Family.UNIX, (SocketEnd(1, "", (5,)), SocketEnd(2, "/run/pool.sock", many)))
    nfsd = Connection(Family.TCP, (SocketEnd(3, "127.0.0.1:700", (5,)), SocketEnd(4, "127.0.0.1:2049", ())))
    snapshot = replace(
        machine((nbd(0),), processes=(daemon(5), *(daemon(pid, "pool") for pid in many))),
        connections=(shared, nfsd),
        listeners=(Listener(Family.TCP, SocketEnd(9, "0.0.0.0:2049", ())),),
    )
    found = edges_of(snapshot, serves(5, "nbd0"))
    assert ("pid:5", "PEER", "socket:2") in found
    assert {target for source, _, target in found if source == "socket:2"} == {f"pid:{pid}" for pid in many}
    assert ("pid:5", "PEER", "kernel:127.0.0.1:2049") in found


def test_dangling_references_are_unknown() -> None:
    """What is named and not there has a node of its own; so has the server of an nbd device."""
    broken = (
        device("dm-0", "253:0", DeviceKind.DM, slaves=("nowhere",)),
        device("sda1", "8:1", DeviceKind.PARTITION, parent="sda"),
        device("loop0", "7:0", DeviceKind.LOOP, backing_file="relative"),
        nbd(3),
    )
    snapshot = machine(
        broken,
        (mount(30, "8:77", "/lost", "/dev/lost"), mount(31, "0:90", "/f", "x", "fuse.x")),
        (Swap("nonsense", False, None, 0, 0, 0),),
    )
    graph = storage_graph(snapshot, (serves(1, "0:123", StorageRole.FUSE_SERVER),))
    assert set(unknown(graph)) == {
        "nowhere",
        "sda",
        "relative",
        "/dev/lost",
        "a FUSE daemon",
        "nonsense",
        "server of nbd3",
        "0:123",
        "process 1",
    }


def test_cyclic_tables_are_no_daemons_cycle() -> None:
    """Devices that stand on each other, or a file system on itself, are drawn as they are said to be."""
    rings = (
        device("dm-0", "253:0", DeviceKind.DM, slaves=("dm-1",)),
        device("dm-1", "253:1", DeviceKind.DM, slaves=("dm-0",)),
        device("dm-2", "253:2", DeviceKind.DM, slaves=("dm-2",)),
        device("loop0", "7:0", DeviceKind.LOOP, backing_file="/self/file"),
    )
    graph = storage_graph(machine(rings, (mount(30, "7:0", "/self", "/dev/loop0"),)), ())
    assert brief(graph) >= {("dev:dm-2", "DM", "dev:dm-2"), ("dev:loop0", "LOOP", "fs:7:0")}
    assert graph.cycles == ()


def test_it_is_the_same_from_a_file() -> None:
    """The graph of a snapshot that was written and read back is the same."""
    again = load_snapshot(dump_snapshot(SWAP_ON_NBD))
    assert storage_graph(again, (serves(812, "nbd0"),)) == storage_graph(SWAP_ON_NBD, (serves(812, "nbd0"),))


def test_ten_thousand_of_everything() -> None:
    """A machine with 10,000 mounts, devices and daemons has a graph of that size, and one large cycle."""
    size = 10_000
    devices = tuple(nbd(n) for n in range(size))
    mounts = tuple(mount(100 + n, f"43:{n}", f"/m/{n}", f"/dev/nbd{n}") for n in range(size))
    logs = [FileUse(f"/m/{n}/log", FileKind.LOG, f"43:{n}") for n in range(size)]
    processes = tuple(daemon(10_000 + 10 * n, "d", logs[n]) for n in range(size))
    snapshot = machine(devices, mounts, (swap_on(nbd(0)),), processes)
    graph = storage_graph(snapshot, tuple(serves(10_000 + 10 * n, f"nbd{n}") for n in range(size)))
    (cycle,) = graph.cycles
    assert len(cycle.daemons) == size
    assert len(cycle.witness) == 3
    assert len(graph.nodes) < 5 * size
    assert len(graph.edges) < 7 * size


def test_root_is_where_it_is() -> None:
    """The machine's own root mount leads to its disk."""
    assert edges_of(machine()) == {
        (f"mount:{ROOT.mount_id}", "MOUNT", "fs:254:0"),
        ("fs:254:0", "LIES_ON", "dev:vda"),
    }
