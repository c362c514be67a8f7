"""Every node and edge of machines that have one of everything, with its words, as somebody looked at them.

After a change that is meant to change them: `python -m tests.machine.test_graph_golden` writes them anew.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.machine.graphs import daemon, machine, mount, nbd, serves, swap_on, talk

from ioflusher.kernel.task import Thread
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
from ioflusher.machine.graph.nodes import Graph
from ioflusher.machine.process import FileKind, FileUse, MemoryLimit, Process
from ioflusher.machine.serving.service import StorageRole, StorageService
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.storage import BlockDevice, DeviceKind, DeviceMapper, Mount, Swap

GOLDEN = Path(__file__).parent / "golden"
GIB = 1 << 30
RO = (("ro", ""),)
Machine = tuple[Snapshot, tuple[StorageService, ...]]


def storage() -> Machine:
    """Devices, mounts and swap of every kind, known and unknown, and no process."""
    devices = (
        BlockDevice("sda", "8:0", 3 * GIB // 2, DeviceKind.SCSI),
        BlockDevice("sdb", "8:16", 1000, DeviceKind.SCSI, read_only=True),
        BlockDevice("sdc", "8:32", 1 << 50, DeviceKind.SCSI),
        BlockDevice("sda1", "8:1", GIB, DeviceKind.PARTITION, parent="sda"),
        BlockDevice(
            "dm-0",
            "253:0",
            GIB,
            DeviceKind.DM,
            slaves=("sda", "sdb"),
            dm=DeviceMapper("a", "", ("x", "y", "x")),
        ),
        BlockDevice("md0", "9:0", GIB, DeviceKind.MD, slaves=("sda", "gone")),
        BlockDevice("other0", "99:0", GIB, DeviceKind.OTHER, slaves=("sda",)),
        BlockDevice("loop0", "7:0", GIB, DeviceKind.LOOP, backing_file="/mnt/image"),
        BlockDevice("loop1", "7:1", GIB, DeviceKind.LOOP, backing_file="relative"),
        BlockDevice("zram0", "251:0", GIB, DeviceKind.ZRAM, backing_file="none"),
        BlockDevice("zram1", "251:1", GIB, DeviceKind.ZRAM, backing_file="/dev/sdc"),
        BlockDevice("nbd7", "43:7", 0, DeviceKind.NBD),
        nbd(8),
    )
    mounts = (
        mount(30, "8:1", "/mnt", "/dev/sda1"),
        Mount(31, 20, "8:1", "/part", "/bind", "ext4", "/dev/sda1", RO, namespace=1),
        replace(mount(32, "0:40", "/pool", "/dev/sda", "btrfs"), devices=("sda", "gone")),
        mount(33, "0:41", "/single", "/dev/sdc", "btrfs"),
        mount(34, "0:42", "/lost", "tank/data", "zfs"),
        mount(35, "8:99", "/number", "/dev/nowhere"),
        mount(48, "8:99", "/again", "/dev/second"),
        mount(36, "0:43", "/shm", "tmpfs", "tmpfs"),
        mount(37, "0:44", "/proc", "proc", "proc"),
        mount(
            38,
            "0:45",
            "/over",
            "overlay",
            "overlay",
            lowerdir="/mnt/l:relative",
            upperdir="/mnt/u",
            workdir="w",
        ),
        mount(39, "0:46", "/nfs", "filer:/export", "nfs4", addr="10.0.0.5"),
        mount(40, "0:46", "/nfs2", "other:/export", "nfs4"),
        mount(41, "0:47", "/nfs3", "filer:/a:/b", "nfs"),
        mount(42, "0:48", "/cifs", "//filer/share/deep", "cifs"),
        mount(43, "0:49", "/9p", "host", "9p", trans="virtio"),
        mount(44, "0:50", "/virtiofs", "tag", "virtiofs"),
        mount(45, "0:51", "/9p-tcp", "10.0.0.6", "9p"),
        mount(46, "0:52", "/fuse", "host:", "fuse.sshfs"),
        mount(47, "0:53", "/ceph", "", "ceph"),
    )
    swaps = (
        swap_on(nbd(8)),
        Swap("/mnt/swap", True, "8:1", 2 << 20, 0, -3),
        Swap("relative", True, None, 0, 0, -4),
        Swap("/dev/none", False, "77:7", 0, 0, -5),
    )
    session = IscsiSession(
        "session1", "iqn.x", "LOGGED_IN", ("10.0.0.9:3260", "odd"), ("sda", "sda1", "gone")
    )
    other = IscsiSession("session2", "iqn.y", "LOGGED_IN", ("10.0.0.8:3260",), ("sdb", "sdc"))
    kernel = serves(None, "sdb", StorageRole.ISCSI_TARGET, kernel=True)
    return replace(machine(devices, mounts, swaps), iscsi=(session, other)), (kernel,)


def _threads(process: Process, *threads: Thread) -> Process:
    return replace(process, threads=(*process.threads, *threads))


def daemons() -> Machine:
    """Processes that serve and wait: with files, peers and memory known and unknown."""
    many = tuple(range(700, 709))  # more than are drawn each by itself
    few = tuple(range(720, 728))
    log = FileUse("/mnt/log", FileKind.LOG, "8:0", 30)
    files = (
        FileUse("/usr/bin/d", FileKind.EXECUTABLE, "254:0", 20),
        *(FileUse(f"/usr/lib/lib{n}.so", FileKind.LIBRARY, "254:0", 20) for n in range(5)),
        log,
        log,
        FileUse("/mnt/gone", FileKind.READ, "0:98"),
        FileUse("/dev/gone", FileKind.DEVICE, "0:97"),
        FileUse("/dev/nbd0", FileKind.DEVICE, "43:0"),
        FileUse("/dev/nbd1", FileKind.DEVICE, "43:1"),
    )
    processes = (
        _threads(
            daemon(500, "bare", *files, threads=5),
            Thread(590, "iou-wrk-500", "S", 0x400010),
            Thread(591, "dead", "Z", 0),
        ),
        daemon(510, "unlocked", covered=1, locked=False),
        replace(daemon(520, "swapped", covered=2, locked=False), swapped_kib=77, locked_kib=None),
        replace(daemon(530, "unread"), files=None),
        replace(
            daemon(540, "limited", covered=2, locked=False), cgroups=(MemoryLimit("/x", 2, None, None, 0, 1),)
        ),
        replace(daemon(550, "half"), threads=(Thread(550, "half", "S", 0x80000), Thread(551, "x", "X", 0))),
        replace(daemon(560, "nothing", covered=2), files=None, exe=None),
        replace(daemon(570, "ended"), threads=(Thread(570, "ended", "Z", 0),)),
        *(daemon(pid, "one", covered=2) for pid in (*many, *few)),
    )
    end = SocketEnd
    connections = (
        talk(500, 500, "127.0.0.1:81")[0],
        Connection(Family.TCP, (end(1, "127.0.0.1:5", (500,)), end(2, "127.0.0.1:80", many))),
        Connection(Family.UNIX, (end(3, "", (500,)), end(4, "/run/few", few))),
        Connection(Family.TCP, (end(5, "127.0.0.1:6", (500,)), end(6, "127.0.0.1:2049", ()))),
        Connection(Family.UNIX, (end(7, "", (500,)), end(8, "/run/hidden", ()))),
        Connection(Family.UNIX, (end(9, "", (500,)), end(10, "/run/systemd/journal/stdout", ()))),
        Connection(Family.UNIX, (end(11, "", (500,)), end(12, "", (510,)))),  # neither end listens
        talk(530, 510, "/run/systemd/journal/stdout")[0],
        Connection(Family.TCP, (end(15, "127.0.0.1:7", (510,)), end(16, "127.0.0.1:80", many))),
    )
    listeners = (
        Listener(Family.TCP, end(13, "0.0.0.0:80", many)),
        Listener(Family.UNIX, end(14, "/run/few", few)),
        Listener(Family.TCP, end(20, "0.0.0.0:2049", ())),
        Listener(Family.UNIX, end(21, "/run/hidden", ())),
        Listener(Family.UNIX, end(22, "/run/systemd/journal/stdout", ())),
        talk(500, 500, "127.0.0.1:81")[1],
        Listener(Family.TCP, end(23, "10.0.0.1:10809", (500,))),
    )
    remotes = (
        Remote(end(30, "10.0.0.1:40000", (500,)), "10.0.0.2:3260"),
        Remote(end(31, "10.0.0.1:10809", (500,)), "10.0.0.3:5000"),
        Remote(end(32, "10.0.0.1:40001", ()), "10.0.0.4:10809"),
        Remote(end(33, "[fe80::1]:40002", (500,)), "[fe80::2]:24007"),
    )
    snapshot = replace(
        machine(
            (nbd(0), nbd(1), nbd(2), nbd(3), BlockDevice("sda", "8:0", GIB, DeviceKind.SCSI)),
            (
                mount(30, "8:0", "/mnt", "/dev/sda"),
                mount(31, "0:70", "/photos", "host:", "fuse.sshfs"),
                mount(32, "0:71", "/nfs", "localhost:/x", "nfs4"),
                mount(34, "0:72", "/tank", "tank/data", "zfs"),
                Mount(33, 20, "43:3", "/", "/readonly", "ext4", "/dev/nbd3", RO, namespace=1),
            ),
            (swap_on(nbd(0)),),
            processes,
        ),
        connections=connections,
        listeners=listeners,
        remotes=remotes,
        tcmu=(TcmuDevice("uio0", "tcm-user/1/x"), TcmuDevice("nbd1", "not a device of its own")),
    )
    services = (
        serves(500, "nbd0"),
        serves(500, "0:70", StorageRole.FUSE_SERVER),
        serves(510, "nbd1", StorageRole.NBD_CLIENT, essential=False),
        serves(520, "nbd1", certain=False),
        serves(530, "nbd2"),
        serves(540, "uio0", StorageRole.TCMU_HANDLER),
        serves(550, "nbd1"),
        serves(560, "nbd1"),
        serves(570, "nbd1"),
        serves(None, "0:71", StorageRole.FILE_SERVER, kernel=True),
        serves(None, "0:99", StorageRole.FUSE_SERVER),
        serves(99, "uio9", StorageRole.TCMU_HANDLER),
    )
    return snapshot, services


def unprivileged() -> Machine:
    """The same daemon as one who is not root sees it: who holds a socket is not known for sure."""
    connections = (
        Connection(Family.TCP, (SocketEnd(5, "127.0.0.1:6", (5,)), SocketEnd(6, "127.0.0.1:2049", ()))),
        Connection(Family.UNIX, (SocketEnd(7, "", (5,)), SocketEnd(8, "", ()))),
    )
    listeners = (
        Listener(Family.TCP, SocketEnd(20, "127.0.0.1:2049", ())),
        Listener(Family.UNIX, SocketEnd(21, "", ())),
    )
    bare = machine((nbd(0),), processes=(daemon(5),))
    system = replace(bare.system, privileged=False)
    return replace(bare, system=system, connections=connections, listeners=listeners), (serves(5, "nbd0"),)


MACHINES = {"storage": storage, "daemons": daemons, "unprivileged": unprivileged}


def lines(graph: Graph) -> Iterator[str]:
    """All that a graph says, a line each."""
    for node in graph.nodes:
        more = [f"{node.number}"] if node.number else []
        if node.process is not None:
            process, found = node.process, node.process.coverage
            more.append(
                f"Coverage(threads={len(found.threads)}, covered={found.covered}, half_set={found.half_set}, "
                f"locked={process.memory_locked}, locked_kib={process.locked_kib}, "
                f"resident_kib={process.resident_kib}, swapped_kib={process.swapped_kib})"
            )
        yield f"{node.id}: {node.kind.value}, {node.name!r}, {node.detail!r} {' '.join(more)}".rstrip()
    for edge in graph.edges:
        when = edge.need.value + ("" if edge.certain else ", not certain")
        yield f"{edge.source} -> {edge.target}: {edge.reason.value}, {when}: {edge.evidence}"
    for cycle in graph.cycles:
        way = " -> ".join(edge.source for edge in cycle.witness)
        yield f"cycle of {', '.join(cycle.nodes)}"
        yield f"  daemons {', '.join(cycle.daemons)}; {way}; shortest {cycle.shortest}"


def text_of(name: str) -> str:
    """The whole graph of a machine."""
    snapshot, services = MACHINES[name]()
    return "".join(f"{line}\n" for line in lines(storage_graph(snapshot, services)))


@pytest.mark.parametrize("name", MACHINES)
def test_every_node_and_edge(name: str) -> None:
    """With kind, words, evidence, need and certainty, in their order."""
    assert text_of(name) == (GOLDEN / f"{name}.txt").read_text()


if __name__ == "__main__":
    for name in MACHINES:
        (GOLDEN / f"{name}.txt").write_text(text_of(name))
