"""Snapshots of any content: the graph is made, its edges have both ends, its cycles are cycles."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.machine.graphs import SYSTEM
from tests.machine.test_cycles import assert_is_a_way

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
from ioflusher.machine.process import FileKind, FileUse, Process
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.snapshot import Memory, Snapshot
from ioflusher.machine.storage import BlockDevice, DeviceKind, DeviceMapper, Mount, Swap

# few different values, so that things meet; some of them hostile
NAMES = st.sampled_from(["nbd0", "dm-0", "sda", "", "a\n\x1b[31m", '"]};<b>', "uio0"])
NUMBERS = st.sampled_from(["43:0", "8:0", "0:40", "0:41", "", "x:y"])
PATHS = st.sampled_from(
    ["/", "/mnt", "/mnt/a", "/dev/nbd0", "/dev/mapper/x", "a b", "", "//", "/mnt (deleted)"]
)
PIDS = st.integers(1, 6)
SMALL = st.integers(0, 3)
MAYBE = st.none() | PATHS

DEVICES = st.builds(
    BlockDevice,
    name=NAMES,
    number=NUMBERS,
    size=SMALL,
    kind=st.sampled_from(DeviceKind),
    parent=st.none() | NAMES,
    slaves=st.lists(NAMES, max_size=3).map(tuple),
    backing_file=MAYBE,
    serving_pid=st.none() | PIDS,
    dm=st.none() | st.builds(DeviceMapper, name=NAMES, uuid=NAMES),
    read_only=st.booleans(),
)
OPTIONS = st.lists(
    st.tuples(st.sampled_from(["rw", "ro", "lowerdir", "upperdir", "workdir", "addr"]), PATHS), max_size=4
).map(tuple)
MOUNTS = st.builds(
    Mount,
    mount_id=SMALL,
    parent_id=SMALL,
    number=NUMBERS,
    root=PATHS,
    point=PATHS,
    fstype=st.sampled_from(
        ["ext4", "overlay", "btrfs", "tmpfs", "nfs", "9p", "cifs", "fuse.x", "", "fuseblk"]
    ),
    source=PATHS,
    options=OPTIONS,
    namespace=st.none() | SMALL,
    devices=st.lists(NAMES, max_size=2).map(tuple),
)
SWAPS = st.builds(
    Swap,
    path=PATHS,
    is_file=st.booleans(),
    number=st.none() | NUMBERS,
    size=SMALL,
    used=SMALL,
    priority=SMALL,
)
FILES = st.builds(
    FileUse, path=PATHS, kind=st.sampled_from(FileKind), device=NUMBERS, mount_id=st.none() | SMALL
)
THREADS = st.builds(
    Thread, tid=PIDS, comm=NAMES, state=st.sampled_from("SZ"), flags=st.sampled_from([0, 0x180000, 0x80000])
)
PROCESSES = st.builds(
    Process,
    pid=PIDS,
    ppid=PIDS,
    comm=NAMES,
    uid=st.none(),
    threads=st.lists(THREADS, max_size=3).map(tuple),
    locked_kib=st.none() | SMALL,
    resident_kib=st.none() | SMALL,
    exe=MAYBE,
    files=st.none() | st.lists(FILES, max_size=4).map(tuple),
    mount_namespace=st.none() | SMALL,
)
ENDS = st.builds(
    SocketEnd,
    inode=SMALL,
    address=st.sampled_from(["", "/s", "@x", "127.0.0.1:1", "[::1]:1", "odd"]),
    pids=st.lists(PIDS, max_size=2).map(tuple),
)
FAMILIES = st.sampled_from(Family)
SERVICES = st.builds(
    StorageService,
    pid=st.none() | PIDS,
    role=st.sampled_from(StorageRole),
    kind=st.sampled_from(TargetKind),
    target=NAMES | NUMBERS,
    evidence=NAMES,
    certain=st.booleans(),
    kernel=st.booleans(),
    essential=st.booleans(),
)


def several(what: st.SearchStrategy[object], most: int = 4) -> st.SearchStrategy[tuple[object, ...]]:
    """A tuple of some."""
    return st.lists(what, max_size=most).map(tuple)


SNAPSHOTS = st.builds(
    Snapshot,
    system=st.booleans().map(lambda privileged: replace(SYSTEM, privileged=privileged)),
    memory=st.just(Memory()),
    processes=several(PROCESSES),
    devices=several(DEVICES),
    mounts=several(MOUNTS),
    swaps=several(SWAPS, 2),
    connections=several(st.builds(Connection, family=FAMILIES, ends=st.tuples(ENDS, ENDS))),
    remotes=several(st.builds(Remote, end=ENDS, peer=st.sampled_from(["1.2.3.4:5", "[::2]:1", ""])), 2),
    listeners=several(st.builds(Listener, family=FAMILIES, end=ENDS), 2),
    iscsi=several(
        st.builds(
            IscsiSession,
            name=NAMES,
            target=NAMES,
            state=NAMES,
            addresses=several(NUMBERS, 2),
            devices=several(NAMES, 2),
        ),
        1,
    ),
    tcmu=several(st.builds(TcmuDevice, uio=NAMES, name=NAMES), 1),
)


@settings(max_examples=100, deadline=None)
@given(snapshot=SNAPSHOTS, services=st.none() | several(SERVICES, 5))
def test_any_snapshot_has_a_graph(snapshot: Snapshot, services: tuple[StorageService, ...] | None) -> None:
    """Whatever it holds, with services given or inferred: no error, no edge without ends, real cycles."""
    graph = storage_graph(snapshot, services)
    nodes = [node.id for node in graph.nodes]
    assert len(set(nodes)) == len(nodes)
    assert len({(edge.source, edge.target, edge.reason) for edge in graph.edges}) == len(graph.edges)
    for edge in graph.edges:
        assert edge.source in nodes
        assert edge.target in nodes
        assert edge.evidence
    members = [node for cycle in graph.cycles for node in cycle.nodes]
    assert len(set(members)) == len(members)
    for cycle in graph.cycles:
        assert_is_a_way(cycle, graph.edges)
