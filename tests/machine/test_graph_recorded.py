"""The graph of a recorded machine with Debian's storage daemons, and of what is left when some die."""

import gzip
from functools import cache
from pathlib import Path

import pytest

from ioflusher.machine.codec import load_snapshot
from ioflusher.machine.graph.build import storage_graph
from ioflusher.machine.graph.nodes import Graph, Need, NodeKind, Reason
from ioflusher.machine.snapshot import Snapshot
from ioflusher.report.map_dot import render_svg
from ioflusher.report.map_html import render_html
from ioflusher.report.map_text import render_text
from ioflusher.report.map_view import picture

SNAPSHOTS = Path(__file__).parent.parent / "audit" / "snapshots"


@cache
def recorded(name: str) -> tuple[Snapshot, Graph]:
    """The machine and its graph."""
    snapshot = load_snapshot(gzip.decompress((SNAPSHOTS / f"{name}.json.gz").read_bytes()), name)
    return snapshot, storage_graph(snapshot)


def served_by(graph: Graph, need: Need) -> set[tuple[str, str]]:
    """Who serves what: names of devices or mount points, and of processes."""
    names = {node.id: node.name for node in graph.nodes}
    kinds = {node.id: node.kind for node in graph.nodes}
    return {
        (names[edge.source].rpartition(" ")[2], names[edge.target])
        for edge in graph.edges
        if edge.reason is Reason.SERVED and edge.need is need and kinds[edge.target] is NodeKind.PROCESS
    }


def test_every_daemon_has_its_place() -> None:
    """nbd, iSCSI, tcmu, ublk, vduse, FUSE and NFS: each device leads to the process that serves it."""
    _, graph = recorded("debian-daemons")
    assert served_by(graph, Need.WORK) == {
        ("nbd0", "nbdkit"),
        ("nbd1", "nbd-server"),
        ("nbd2", "qemu-nbd"),
        ("nbd3", "python"),
        ("sda", "tcmu-runner"),
        ("sdb", "tgtd"),
        ("sdc", "tcmu-runner"),
        ("ublkb0", "ublk"),
        ("vdb", "qemu-storage-da"),
        ("/run/sshfs-a", "sshfs"),
        ("/run/sshfs-b", "sshfs"),
        ("/run/overlay", "fuse-overlayfs"),
        ("/run/ntfs", "ntfs-3g"),
        ("/run/ganesha-mount", "ganesha.nfsd"),
    }
    assert served_by(graph, Need.RECOVERY) == {
        ("dm-0", "multipathd"),
        ("nbd0", "nbd-client"),
        ("nbd3", "python"),
        ("sdb", "iscsid"),
        ("sdc", "iscsid"),
    }


def test_layers_of_a_real_machine() -> None:
    """Multipath, crypt, linear, btrfs on two disks, and a swap file on a loop device on a tmpfs."""
    _, graph = recorded("debian-daemons")
    found = {(edge.source, edge.reason, edge.target) for edge in graph.edges}
    assert found >= {
        ("dev:dm-0", Reason.DM, "dev:sdd"),
        ("dev:dm-0", Reason.DM, "dev:sde"),
        ("dev:dm-1", Reason.DM, "dev:loop1"),
        ("dev:dm-2", Reason.DM, "dev:dm-1"),
        ("swap:/dev/zram0", Reason.SWAP, "dev:zram0"),
    }
    assert sum(edge.reason is Reason.MEMBER for edge in graph.edges) == 2


def test_its_cycle() -> None:
    """An NFS server whose own mount its reclaim may write to, and no other: no other has pages at risk."""
    _, graph = recorded("debian-daemons")
    (cycle,) = graph.cycles
    names = {node.id: node.name for node in graph.nodes}
    assert [names[daemon] for daemon in cycle.daemons] == ["ganesha.nfsd"]
    assert [edge.reason for edge in cycle.witness] == [Reason.SERVED, Reason.RECLAIM, Reason.RECLAIM]


def test_the_dead_leave_a_gap() -> None:
    """Devices whose daemons were killed lead to something unknown that says who is missing."""
    _, graph = recorded("debian-daemons-killed")
    gone = {node.name for node in graph.nodes if node.id.startswith("unknown:server:")}
    assert gone >= {"no NBD server", "no FUSE daemon", "no multipath daemon"}


@pytest.mark.needs("dot")
@pytest.mark.parametrize("name", ["debian-daemons", "debian-daemons-killed"])
def test_all_pictures(name: str) -> None:
    """Text, SVG and page come out, and no process is left out."""
    snapshot, graph = recorded(name)
    text = "\n".join(line.plain for line in render_text(snapshot, graph))
    processes = [node for node in graph.nodes if node.kind is NodeKind.PROCESS]
    svg, page = render_svg(picture(graph), name), render_html([(snapshot, graph)])
    for process in processes:
        for place in (text, svg, page):
            assert f"({process.pid})" in place
