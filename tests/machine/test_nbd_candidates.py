"""Which server has which nbd device: a recorded machine, traffic made up, and candidates said once.

snapshots/nbd-loopback-*.json.gz: Linux 6.12.117 and Debian 12 in a guest (guest_loopback.py). nbd0 is
nbd-server's and nbd2 nbdkit's, both by netlink over loopback TCP; nbd1 is qemu-nbd's; rpcbind is connected
with the kernel, because nfsd is registered there. "quiet": nothing was read from the devices; "busy": mkfs on
nbd0, some requests on nbd2, which has two connections.
"""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
from tests.machine.graphs import daemon, mount, serves
from tests.machine.graphs import machine as graph_machine
from tests.machine.graphs import nbd as graph_nbd
from tests.machine.test_serving import EMPTY, process

from ioflusher.audit.run import audit
from ioflusher.machine.codec import load_snapshot
from ioflusher.machine.endpoints import Connection, Family, SocketEnd
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.graph.nodes import NodeKind, Reason
from ioflusher.machine.process import FileKind, FileUse, Process
from ioflusher.machine.serving.candidates import candidate_groups
from ioflusher.machine.serving.infer import services
from ioflusher.machine.serving.nbd_traffic import MOST_HANDSHAKE, matches
from ioflusher.machine.serving.service import Candidate, Confidence
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.storage import BlockDevice, Completed, DeviceKind, Swap
from ioflusher.report.map_text import render_text

SNAPSHOTS = Path(__file__).parent.parent / "audit" / "snapshots"


def recorded(name: str) -> Snapshot:
    """A recorded machine."""
    data = gzip.decompress((SNAPSHOTS / f"nbd-loopback-{name}.json.gz").read_bytes())
    return load_snapshot(data, name)


def servers(snapshot: Snapshot) -> set[tuple[str, str, bool]]:
    """Of each device its NBD servers: device, program, certain."""
    comms = {found.pid: found.comm for found in snapshot.processes}
    return {
        (found.target, comms[found.pid or 0], found.certain)
        for found in services(snapshot)
        if found.role.value == "NBD server"
    }


def test_traffic_says_which_server_has_which_device() -> None:
    """On the busy machine each device is its server's, for sure, and the evidence has the bytes."""
    snapshot = recorded("busy")
    assert servers(snapshot) == {
        ("nbd0", "nbd-server", True),
        ("nbd1", "qemu-nbd", True),
        ("nbd2", "nbdkit", True),
    }
    (found,) = (s for s in services(snapshot) if (s.target, s.role.value) == ("nbd2", "NBD server"))
    assert "201164 bytes came in, and the replies to nbd2 make 201024" in found.evidence


def test_rpcbind_is_no_nbd_server() -> None:
    """The kernel's connection to /run/rpcbind.sock is its RPC client's, whatever the devices are."""
    for name in ("quiet", "busy"):
        snapshot = recorded(name)
        assert any(end.address == "/run/rpcbind.sock" for c in snapshot.connections for end in c.ends)
        assert "rpcbind" not in {comm for _, comm, _ in servers(snapshot)}
        assert "rpcbind" not in {node.name for node in Analysis(snapshot).graph.nodes}
        assert not any("rpcbind" in str(finding) for finding in audit(snapshot).findings)


def test_without_traffic_they_are_candidates_and_said_once() -> None:
    """On the quiet machine both may serve both: one group, one node, one line, one finding, ranked."""
    snapshot = recorded("quiet")
    assert servers(snapshot) == {
        *((device, comm, False) for device in ("nbd0", "nbd2") for comm in ("nbd-server", "nbdkit")),
        ("nbd1", "qemu-nbd", True),
    }
    (group,) = candidate_groups(services(snapshot))
    assert [name for _, name in group.targets] == ["nbd0", "nbd2"]
    first = {
        s.target: snapshot_name(snapshot, s.pid)
        for s in services(snapshot)
        if s.candidate is not None and s.candidate.rank == 1
    }
    assert first == {"nbd0": "nbd-server", "nbd2": "nbdkit"}  # in the order in which they were set up
    graph = Analysis(snapshot).graph
    (several,) = (node for node in graph.nodes if node.kind is NodeKind.CANDIDATES)
    assert (several.name, several.detail) == ("one of 2 processes", "NBD server of nbd0, nbd2")
    assert [edge.source for edge in graph.edges if edge.target == several.id] == ["dev:nbd0", "dev:nbd2"]
    assert not any(edge.certain for edge in graph.edges if several.id in (edge.source, edge.target))
    text = [line.plain for line in render_text(snapshot, graph)]
    assert sum("may be nbdkit" in line for line in text) == 1
    (finding,) = (f for f in audit(snapshot).findings if f.rule == "server-candidates")
    assert "NBD server of /dev/nbd0, /dev/nbd2 is one of nbd-server (209), nbdkit (221)" in finding.summary
    assert "its program is nbd-server" in finding.evidence[0].said
    assert "port 10809" in finding.evidence[1].said


def snapshot_name(snapshot: Snapshot, pid: int | None) -> str:
    """The name of a process."""
    return next(found.comm for found in snapshot.processes if found.pid == pid)


def nbd(name: str, requests: int, read: int, pid: int) -> BlockDevice:
    """A device with counters."""
    number = f"43:{32 * int(name[3:])}"
    done = Completed(requests, read)
    return BlockDevice(name, number, 1 << 20, DeviceKind.NBD, serving_pid=pid, completed=done)


def connection(inode: int, received: int, pid: int, address: str = "127.0.0.1:1234") -> Connection:
    """A connection of the kernel with a process."""
    kernel = SocketEnd(inode, f"127.0.0.1:{40000 + inode}", (), received)
    return Connection(Family.TCP, (kernel, SocketEnd(inode + 1, address, (pid,))))


@pytest.mark.parametrize(
    ("extra", "fits"),
    [(-1, False), (17, False), (18, True), (70, True), (MOST_HANDSHAKE, True), (MOST_HANDSHAKE + 1, False)],
)
def test_what_fits(extra: int, fits: bool) -> None:
    """16 bytes a request, the data read, and a handshake of a plausible length."""
    (pair,) = [connection(10, 16 * 3 + 4096 + extra, 20).ends]
    assert bool(matches(nbd("nbd0", 3, 4096, 9), [pair])) is fits


def machine(*connections: Connection, processes: tuple[Process, ...]) -> Snapshot:
    """Two devices without a client, and these connections of the kernel."""
    return replace(
        EMPTY,
        processes=processes,
        devices=(nbd("nbd0", 10, 40960, 90), nbd("nbd1", 20, 81920, 91)),
        connections=connections,
    )


TWO = (process(20, "store"), process(30, "other"))


def test_two_devices_of_one_server_port() -> None:
    """A server that forks for each connection: each child has its device."""
    first = connection(10, 16 * 10 + 40960 + 100, 20)
    second = connection(12, 16 * 20 + 81920 + 100, 30)
    assert servers(machine(first, second, processes=TWO)) == {
        ("nbd0", "store", True),
        ("nbd1", "other", True),
    }


def test_counters_that_fit_both_decide_nothing() -> None:
    """Where one socket fits two devices, or two servers' sockets fit one device, nothing is certain."""
    same = tuple(replace(nbd(name, 10, 40960, 90)) for name in ("nbd0", "nbd1"))
    bytes_ = 16 * 10 + 40960 + 100
    ends = (connection(10, bytes_, 20, "127.0.0.1:1"), connection(12, bytes_, 30, "127.0.0.1:2"))
    found = servers(replace(machine(*ends, processes=TWO), devices=same))
    assert {certain for _, _, certain in found} == {False}
    assert len(found) == 4


def test_one_socket_that_fits_two_devices_decides_nothing() -> None:
    """Two devices with the same counters, and only one of two sockets has received that much."""
    same = tuple(nbd(name, 10, 40960, 90) for name in ("nbd0", "nbd1"))
    ends = (connection(10, 16 * 10 + 40960 + 100, 20, "127.0.0.1:1"), connection(12, 5, 30, "127.0.0.1:2"))
    assert {certain for *_, certain in servers(replace(machine(*ends, processes=TWO), devices=same))} == {
        False
    }


def test_one_device_that_two_sockets_fit() -> None:
    """Two servers' sockets have received as much as the device: both are candidates."""
    ends = tuple(
        connection(inode, 16 * 10 + 40960 + extra, pid, f"127.0.0.1:{pid}")
        for inode, extra, pid in ((10, 100, 20), (12, 200, 30))
    )
    one = replace(machine(*ends, processes=TWO), devices=(nbd("nbd0", 10, 40960, 90),))
    assert servers(one) == {("nbd0", "store", False), ("nbd0", "other", False)}


@pytest.mark.parametrize(("confidence", "said"), [(Confidence.POSSIBLE, False), (Confidence.LIKELY, True)])
def test_no_cycle_over_a_process_that_is_merely_possible(confidence: Confidence, said: bool) -> None:
    """The audit's rule on cycles goes over candidates that speak NBD, and over no others."""
    first, second = mount(30, "43:0", "/a", "/dev/nbd0"), mount(31, "43:1", "/b", "/dev/nbd1")
    stores = (
        daemon(20, "nbdkit", covered=2),
        daemon(30, "mystery", FileUse("/b/store", FileKind.WRITTEN, "43:1", 31), covered=2),
        daemon(40, "third", FileUse("/a/store", FileKind.WRITTEN, "43:0", 30), covered=2),
    )
    whole = graph_machine((graph_nbd(0), graph_nbd(1)), (first, second), processes=stores)
    services_ = (
        serves(20, "nbd0", certain=False, candidate=Candidate(Confidence.LIKELY, 1, 2, "port")),
        serves(30, "nbd0", certain=False, candidate=Candidate(confidence, 2, 2, "nothing")),
        serves(40, "nbd1"),
    )
    found = {finding.rule for finding in audit(whole, services=services_).findings}
    assert ("cycle" in found) is said


def test_what_is_left_over_is_certain() -> None:
    """One device has its server by traffic: the other has the only server left, on a Unix socket."""
    first = connection(10, 16 * 10 + 40960 + 100, 20)
    unix = Connection(Family.UNIX, (SocketEnd(14, "", ()), SocketEnd(15, "/run/x.sock", (30,))))
    assert servers(machine(first, unix, processes=TWO)) == {("nbd0", "store", True), ("nbd1", "other", True)}


def stranger() -> Snapshot:
    """nbdkit and a process of which nothing says that it speaks NBD, with swap on one of two devices."""
    ends = tuple(
        Connection(Family.UNIX, (SocketEnd(inode, "", ()), SocketEnd(inode + 1, f"/run/{pid}", (pid,))))
        for inode, pid in ((10, 20), (12, 30))
    )
    whole = machine(*ends, processes=(process(20, "nbdkit"), process(30, "mystery")))
    return replace(whole, swaps=(Swap("/dev/nbd0", False, "43:0", 1 << 20, 0, -2),))


def test_no_advice_about_a_stranger() -> None:
    """It is ranked last and named once; no other rule speaks of it, and the map has no remedy for it."""
    found = services(stranger())
    by_pid = {s.pid: s.candidate for s in found if s.target == "nbd0"}
    assert by_pid[20] is not None
    assert by_pid[30] is not None
    assert (by_pid[20].confidence, by_pid[20].rank) == (Confidence.LIKELY, 1)
    assert (by_pid[30].confidence, by_pid[30].rank) == (Confidence.POSSIBLE, 2)
    assert by_pid[30].reason == "nothing says that it speaks NBD"
    about = {f.rule for f in audit(stranger()).findings if "mystery" in f"{f.subject}{f.summary}{f.remedy}"}
    assert about == {"server-candidates"}
    assert any(f.subject.name == "nbdkit" and f.rule == "uncovered" for f in audit(stranger()).findings)
    graph = Analysis(stranger()).graph
    text = "\n".join(line.plain for line in render_text(stranger(), graph))
    assert "ioflusher set 20" in text
    assert "ioflusher set 30" not in text
    assert "mystery (30): find out first whether it serves one of them" in text


def test_a_cycle_through_candidates_begins_at_what_they_serve() -> None:
    """The way round goes from the device over "one of 2 processes" to a candidate; it is not certain."""
    (cycle,) = Analysis(stranger()).graph.cycles
    assert [edge.reason for edge in cycle.witness[:2]] == [Reason.SERVED, Reason.CANDIDATE]
    assert cycle.witness[0].source == "dev:nbd0"
    assert cycle.witness[-1].target == "dev:nbd0"
    assert not cycle.certain
