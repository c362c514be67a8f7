"""What a command would add to a machine, and the cycles that would come of it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.machine.graphs import daemon, machine, mount, nbd, serves, swap_on
from tests.machine.test_graph_fuzz import SNAPSHOTS

from ioflusher.machine.endpoints import Connection, Family, Listener, SocketEnd
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.graph.nodes import Graph
from ioflusher.machine.graph.prediction import Prediction, predict
from ioflusher.machine.hypothetical import (
    HypothesisError,
    WouldAttach,
    WouldLoop,
    WouldMount,
    WouldSwap,
    parse_command,
)
from ioflusher.machine.process import FileKind, FileUse
from ioflusher.machine.serving.service import StorageRole, TargetKind
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.storage import BlockDevice, DeviceKind, Mount, Swap
from ioflusher.report.map_json import map_record
from ioflusher.report.map_text import render_text


def listens(pid: int, address: str) -> Listener:
    """A socket at which a process waits for clients."""
    family = Family.UNIX if address.startswith("/") else Family.TCP
    return Listener(family, SocketEnd(pid * 10 + 1, address, (pid,)))


def predicted(snapshot: Snapshot, *commands: str, served: bool = True) -> Prediction:
    """The machine after the commands; 812 serves nbd0 on it unless said."""
    services = (serves(812, "nbd0"),) if served else ()
    return predict(Analysis(snapshot, services), [parse_command(command) for command in commands])


def new_ways(prediction: Prediction) -> list[set[str]]:
    """Of each new cycle the nodes on its way round."""
    return [{edge.source for edge in c.witness} for c in prediction.graph.cycles if c.hypothetical]


IDLE = machine((nbd(0),), processes=(daemon(812),))
COVERED = machine((nbd(0),), processes=(daemon(812, covered=2),))


def test_mounting_what_an_uncovered_daemon_serves() -> None:
    """Nothing waits yet; mounted writable, reclaim may write there: a cycle that is not there yet."""
    assert Analysis(IDLE, (serves(812, "nbd0"),)).graph.cycles == ()
    after = predicted(IDLE, "mount -t ext4 /dev/nbd0 /srv/data")
    assert new_ways(after) == [{"fs:43:0", "dev:nbd0", "pid:812", "reclaim"}]
    assert {node.id for node in after.graph.nodes if node.hypothetical} == {"fs:43:0", "mount:21"}
    assert not any(node.hypothetical for node in after.graph.nodes if node.id in ("pid:812", "dev:nbd0"))


@pytest.mark.parametrize("command", ["mount -r /dev/nbd0 /srv", "mount -o ro,noatime /dev/nbd0 /srv"])
def test_mounting_it_read_only(command: str) -> None:
    """Nothing is written there: no cycle."""
    assert new_ways(predicted(IDLE, command)) == []


def test_mounting_what_a_covered_daemon_serves() -> None:
    """Its allocations write nothing."""
    assert predicted(COVERED, "mount /dev/nbd0 /srv").graph.cycles == ()


def test_swapon() -> None:
    """Swap on what an uncovered daemon serves is a cycle; a covered, locked one is well."""
    assert new_ways(predicted(IDLE, "swapon -p 5 /dev/nbd0")) == [
        {"swap:/dev/nbd0", "dev:nbd0", "pid:812", "reclaim"}
    ]
    assert predicted(COVERED, "swapon /dev/nbd0").graph.cycles == ()
    unlocked = machine((nbd(0),), processes=(daemon(812, covered=2, locked=False),))
    assert new_ways(predicted(unlocked, "swapon /dev/nbd0")) == [
        {"swap:/dev/nbd0", "dev:nbd0", "pid:812", "swapped"}
    ]


def test_swapon_of_a_file() -> None:
    """A swap file lies on the file system that its path leads to."""
    mounted = replace(COVERED, mounts=(*COVERED.mounts, mount(30, "43:0", "/srv", "/dev/nbd0")))
    unlocked = replace(mounted, processes=(daemon(812, covered=2, locked=False),))
    assert len(new_ways(predicted(unlocked, "swapon /srv/swap"))) == 1
    assert new_ways(predicted(unlocked, "swapon /swap")) == []


def test_losetup() -> None:
    """A daemon that has a loop device open, and a file for that on what the daemon serves."""
    loop = BlockDevice("loop3", "7:3", 0, DeviceKind.LOOP)
    store = FileUse("/dev/loop3", FileKind.DEVICE, "7:3")
    snapshot = machine(
        (nbd(0), loop),
        (mount(30, "43:0", "/srv", "/dev/nbd0"),),
        processes=(daemon(812, "d", store, covered=2),),
    )
    assert new_ways(predicted(snapshot, "losetup /dev/loop3 /srv/disk.img")) == [
        {"dev:loop3", "fs:43:0", "dev:nbd0", "pid:812"}
    ]
    assert new_ways(predicted(snapshot, "losetup /dev/loop3 /var/disk.img")) == []
    assert new_ways(predicted(snapshot, "losetup -f --show /srv/disk.img")) == []


def attachable(*files: FileUse, address: str) -> Snapshot:
    """An nbd device that is not set up, and a server that waits for its client."""
    server = daemon(812, "server", *files)
    free = replace(nbd(0), size=0)
    return replace(machine((free,), processes=(server,)), listeners=(listens(812, address),))


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("127.0.0.1:10809", "attach /dev/nbd0 nbd://127.0.0.1/x"),
        ("0.0.0.0:1234", "ioflusher nbd attach --netlink /dev/nbd0 nbd://localhost:1234"),
        ("/run/nbd.sock", "attach /dev/nbd0 nbd+unix:///x?socket=/run/nbd.sock"),
        ("/run/nbd.sock", "nbd-client -unix /run/nbd.sock /dev/nbd0"),
        ("127.0.0.1:10809", "nbd-client 127.0.0.1 /dev/nbd0 -N x"),
    ],
)
def test_attach_then_mount(address: str, command: str) -> None:
    """The server is who listens at the address; a cycle comes with the mount that follows."""
    snapshot = attachable(address=address)
    assert predicted(snapshot, command, served=False).graph.cycles == ()
    after = predicted(snapshot, command, "mount -t xfs /dev/nbd0 /srv", served=False)
    assert new_ways(after) == [{"fs:43:0", "dev:nbd0", "pid:812", "reclaim"}]


def test_attach_to_another_machine() -> None:
    """Its server is not here."""
    after = predicted(attachable(address="/x"), "attach /dev/nbd0 nbd://10.9.9.9/", served=False)
    assert after.analysis.services == ()


def test_nfs_from_this_machine() -> None:
    """A server in user space that listens here serves what is mounted from it; one elsewhere does not."""
    server = daemon(700, "ganesha.nfsd")
    snapshot = replace(machine(processes=(server,)), listeners=(listens(700, "0.0.0.0:2049"),))
    after = predicted(snapshot, "mount -t nfs4 127.0.0.1:/x /mnt", served=False)
    assert new_ways(after) == [{"fs:0:1", "pid:700", "reclaim"}]
    remote = predicted(snapshot, "mount -t nfs4 10.9.9.9:/x /mnt", served=False)
    assert remote.graph.cycles == ()


def test_a_file_is_mounted_through_a_loop_device() -> None:
    """mount(8) sets one up; the file lies on what the daemon serves."""
    snapshot = replace(IDLE, mounts=(*IDLE.mounts, mount(30, "43:0", "/srv", "/dev/nbd0", ro="")))
    read_only = replace(snapshot.mounts[-1], options=(("ro", ""),))
    snapshot = replace(snapshot, mounts=(snapshot.mounts[0], read_only))
    after = predicted(snapshot, "mount -o loop -t ext4 /srv/disk.img /mnt")
    assert new_ways(after) == [{"fs:7:0", "dev:loop0", "fs:43:0", "dev:nbd0", "pid:812", "reclaim"}]


def test_bind_mounts_add_no_cycle() -> None:
    """The file system waits already; its daemon's files are where they were."""
    snapshot = replace(COVERED, mounts=(*COVERED.mounts, mount(30, "43:0", "/srv", "/dev/nbd0")))
    after = predicted(snapshot, "mount --bind /srv/a /mnt/b")
    assert after.graph.cycles == ()
    added = after.analysis.snapshot.mounts[-1]
    assert (added.number, added.root, added.point) == ("43:0", "/a", "/mnt/b")


def test_a_cycle_that_is_there_already_is_not_new() -> None:
    """New ones come first; the old one stays and does not count."""
    both = machine((nbd(0), nbd(1)), swaps=(swap_on(nbd(1)),), processes=(daemon(812, covered=2), daemon(5)))
    before = Analysis(both, (serves(812, "nbd0"), serves(5, "nbd1")))
    assert len(before.graph.cycles) == 1
    harmless = predict(before, [parse_command("mount /dev/nbd0 /srv")]).graph
    assert [cycle.hypothetical for cycle in harmless.cycles] == [False]


def test_new_cycles_come_first() -> None:
    """An old cycle through a log, and one that the mount makes: the mount's is the first."""
    log = FileUse("/a/log", FileKind.LOG, "43:0", 30)
    later = FileUse("/srv/log", FileKind.LOG, "0:99")  # found by its path: on the root until the mount
    snapshot = machine(
        (nbd(0), nbd(1)),
        (mount(30, "43:0", "/a", "/dev/nbd0"),),
        processes=(daemon(5, "old", log, covered=2), daemon(7, "new", later, covered=2)),
    )
    before = Analysis(snapshot, (serves(5, "nbd0"), serves(7, "nbd1")))
    graph = predict(before, [parse_command("mount /dev/nbd1 /srv")]).graph
    assert [(c.hypothetical, c.daemons) for c in graph.cycles] == [(True, ("pid:7",)), (False, ("pid:5",))]


def test_a_larger_cycle_is_new_and_shows_the_new_way() -> None:
    """A mount that joins a cycle: the way round that is shown goes over the mount."""
    twice = machine((nbd(0), nbd(1)), swaps=(swap_on(nbd(1)),), processes=(daemon(812), daemon(5)))
    before = Analysis(twice, (serves(812, "nbd0"), serves(5, "nbd1")))
    (cycle,) = predict(before, [parse_command("mount /dev/nbd0 /srv")]).graph.cycles
    assert cycle.hypothetical
    assert "fs:43:0" in {edge.source for edge in cycle.witness}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "the command '' is none of these"),
        ("mkfs.ext4 /dev/nbd0", "'mkfs.ext4' is none of these"),
        ("mount '/dev/nbd0", "No closing quotation"),
        ("mount /dev/nbd0", "found 1 words"),
        ("mount /dev/nbd0 srv", "does not begin with /"),
        ("mount --make-shared /dev/nbd0 /srv", "'--make-shared' is not known"),
        ("mount -o remount,rw /dev/nbd0 /srv", "remount changes mounts"),
        ("mount -t fuse.sshfs host:/ /srv", "is not there yet"),
        ("mount -t", "-t needs a value"),
        ("swapon", "one device or file"),
        ("swapon -a", "'-a' is not known"),
        ("losetup /dev/loop0", "a device, or -f, and a file"),
        ("losetup /dev/sda /x", "expected /dev/loop"),
        ("attach /dev/nbd0", "found 1 words"),
        ("attach /dev/nbd0 http://x/", "expected nbd://"),
        ("attach /dev/nbd0 nbd://h:99999/", "Port out of range"),
        ("attach /dev/nbd0 nbd+unix:///x", "names no socket"),
        ("attach /dev/sda nbd://h/", "expected /dev/nbd"),
        ("nbd-client host port /dev/nbd0", "is no port"),
        ("nbd-client", "a host and a device"),
    ],
)
def test_what_is_not_understood(command: str, said: str) -> None:
    """An error that names the command and why, with what is understood as the hint."""
    with pytest.raises(HypothesisError, match="cannot predict") as caught:
        parse_command(command)
    assert said in str(caught.value)
    assert "swapon FILE" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("mount /dev/sdz /srv", "is no block device"),
        ("swapon /dev/sdz", "is no device"),
        ("attach /dev/nbd0 nbd://127.0.0.1/", "is set up already"),
        ("attach /dev/nbd1 nbd://127.0.0.1/", "nobody is seen to listen at 127.0.0.1:10809"),
        ("mount -t nfs localhost:/x /srv", "nobody is seen to listen at localhost:2049"),
    ],
)
def test_what_does_not_fit_the_machine(command: str, said: str) -> None:
    """An error, never a prediction that overlooks something."""
    with pytest.raises(HypothesisError, match="cannot predict") as caught:
        predicted(IDLE, command)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "/sbin/mount -tnfs -oaddr=::1,soft h:/ /m/",
            WouldMount("h:/", "/m", "nfs", (("rw", ""), ("addr", "::1"))),
        ),
        ("mount --types=xfs -- /dev/a /m", WouldMount("/dev/a", "/m", "xfs", (("rw", ""),))),
        ("swapon '/a b'", WouldSwap("/a b")),
        ("losetup -fP /x", WouldLoop("/x")),
        ("attach /dev/nbd7 nbd://[::1]:5/x", WouldAttach("nbd7", "[::1]:5")),
    ],
)
def test_words(command: str, expected: Any) -> None:
    """Options in each of their forms, quoting, whole paths of programs."""
    assert parse_command(command) == expected


def test_reports_mark_what_is_new() -> None:
    """The text tells new cycles before the tree and marks nodes; JSON has a field for both."""
    after = predicted(IDLE, "mount /dev/nbd0 /srv")
    text = [line.plain for line in render_text(after.analysis.snapshot, after.graph)]
    cycle = next(n for n, line in enumerate(text) if line.startswith("cycle 1 (would be new): nbd-server"))
    tree = next(n for n, line in enumerate(text) if line.startswith("/srv (would be new)"))
    assert cycle < tree
    record = map_record(after.analysis.snapshot, after.graph)
    assert {node["id"] for node in record["nodes"] if node.get("hypothetical")} >= {"fs:43:0"}
    assert [found["hypothetical"] for found in record["cycles"]] == [True]


def added(snapshot: Snapshot, command: str) -> Snapshot:
    """The machine's facts after the command."""
    return predicted(snapshot, command, served=False).analysis.snapshot


def test_the_mount_that_is_added() -> None:
    """Its number is the next, its parent is the mount that its point lies on, its namespace the machine's."""
    below = replace(IDLE, mounts=(*IDLE.mounts, mount(30, "254:0", "/srv", "/dev/vda")))
    found = added(below, "mount -t xfs /dev/nbd0 /srv/data").mounts
    assert found[:2] == below.mounts
    assert found[2:] == (
        Mount(31, 30, "43:0", "/", "/srv/data", "xfs", "/dev/nbd0", (("rw", ""),), namespace=1),
    )
    assert added(IDLE, "mount /dev/nbd0 /srv").mounts[-1].fstype == "auto"
    assert added(IDLE, "mount /dev/vda /srv").mounts[-1].fstype == "ext4", "as where it is mounted already"
    elsewhere = replace(mount(40, "8:1", "/", "/dev/sda1"), namespace=2)
    container = replace(IDLE, mounts=(*IDLE.mounts, elsewhere))
    assert added(container, "mount /dev/nbd0 /srv").mounts[-1].namespace == 1, "that of the first mount"
    nothing = replace(IDLE, mounts=())
    first = added(nothing, "mount -t tmpfs none /mnt").mounts
    assert first == (Mount(1, 0, "0:1", "/", "/mnt", "tmpfs", "none", (("rw", ""),), namespace=None),)


def test_the_number_of_a_mount_without_a_device() -> None:
    """One more than any that is anonymous, whatever the numbers of devices are."""
    there = (mount(30, "0:7", "/proc", "proc", "proc"), mount(31, "8:90", "/a", "/dev/sda"))
    odd = mount(32, "0:x", "/b", "x", "tmpfs")
    snapshot = replace(IDLE, mounts=(*IDLE.mounts, *there, odd))
    assert added(snapshot, "mount -t tmpfs none /mnt").mounts[-1].number == "0:8"


@pytest.mark.parametrize(
    ("command", "root", "number"),
    [
        ("mount --bind /srv /x", "/sub", "43:0"),
        ("mount --bind /srv/a/b /x", "/sub/a/b", "43:0"),
        ("mount --bind / /x", "/", "254:0"),
        ("mount --bind /etc /x", "/etc", "254:0"),
    ],
)
def test_a_bind_mount_is_a_part_of_what_is_there(command: str, root: str, number: str) -> None:
    """The same file system from a directory of it, at a new point; all else is as it was."""
    part = replace(mount(30, "43:0", "/srv", "/dev/nbd0", "xfs"), root="/sub")
    snapshot = replace(IDLE, mounts=(*IDLE.mounts, part))
    found = added(snapshot, command).mounts[-1]
    origin = part if number == "43:0" else snapshot.mounts[0]
    assert found == replace(origin, mount_id=31, parent_id=20, root=root, point="/x")
    with pytest.raises(HypothesisError, match="/srv lies on no mount"):
        added(replace(IDLE, mounts=()), "mount --bind /srv /x")


def test_the_swap_area_that_is_added() -> None:
    """A device with its size, a file of which only the place is known; none of it is used yet."""
    assert added(IDLE, "swapon /dev/nbd0").swaps == (Swap("/dev/nbd0", False, "43:0", 256 << 20, 0, -1),)
    twice = replace(IDLE, swaps=(swap_on(nbd(0)),))
    assert added(twice, "swapon /swap").swaps[1:] == (Swap("/swap", True, "254:0", 0, 0, -1),)
    with pytest.raises(HypothesisError, match="/dev/nbd0 is a swap area already"):
        added(twice, "swapon /dev/nbd0")
    with pytest.raises(HypothesisError, match="no device and no file"):
        added(replace(IDLE, mounts=()), "swapon /swap")


def test_the_loop_device_that_is_added() -> None:
    """The first that is free, or the one that is named; it comes last, and the others stay."""
    busy = BlockDevice("loop0", "7:0", 5, DeviceKind.LOOP, backing_file="/a")
    free = BlockDevice("loop2", "7:2", 9, DeviceKind.LOOP)
    snapshot = replace(IDLE, devices=(*IDLE.devices, busy, free))
    assert added(snapshot, "losetup -f /b").devices == (
        *snapshot.devices,
        BlockDevice("loop1", "7:1", 0, DeviceKind.LOOP, backing_file="/b"),
    )
    named = added(snapshot, "losetup /dev/loop2 /b").devices
    assert named == (*IDLE.devices, busy, replace(free, backing_file="/b"))
    every = replace(IDLE, devices=(busy, replace(busy, name="loop1", number="7:1")))
    assert added(every, "losetup -f /b").devices[-1].name == "loop2"
    with pytest.raises(HypothesisError, match="loop0 has the file /a already"):
        added(snapshot, "losetup /dev/loop0 /b")
    with pytest.raises(HypothesisError, match="/b lies on no mount"):
        added(replace(snapshot, mounts=()), "losetup -f /b")


def test_a_file_that_is_mounted_gets_a_loop_device() -> None:
    """The mount is of that device, by its number and name."""
    found = added(IDLE, "mount -o loop -t ext4 /disk.img /mnt")
    assert found.devices[-1].backing_file == "/disk.img"
    assert (found.mounts[-1].number, found.mounts[-1].source) == ("7:0", "/dev/loop0")


def test_the_nbd_device_that_is_attached() -> None:
    """It has a size, which says that it is set up; the others stay; one that is new has nbd's numbers."""
    snapshot = attachable(address="127.0.0.1:10809")
    found = added(snapshot, "attach /dev/nbd0 nbd://127.0.0.1/").devices
    assert found == (snapshot.devices[0], replace(snapshot.devices[1], size=1 << 20))
    found = added(snapshot, "attach /dev/nbd3 nbd://127.0.0.1/").devices
    assert found == (*snapshot.devices, BlockDevice("nbd3", "43:96", 1 << 20, DeviceKind.NBD))
    set_up = replace(snapshot, devices=(replace(nbd(0), size=0, serving_pid=5),))
    with pytest.raises(HypothesisError, match="nbd0 is set up already"):
        added(set_up, "attach /dev/nbd0 nbd://127.0.0.1/")


def test_who_serves_what_is_attached() -> None:
    """Whoever listens at that address, of that family; with two it may be either; what served is gone."""
    snapshot = attachable(address="/run/a.sock")
    others = (listens(813, "/run/b.sock"), listens(814, "0.0.0.0:10809"))
    processes = (*snapshot.processes, daemon(813), daemon(814), daemon(815))
    snapshot = replace(snapshot, processes=processes, listeners=(*snapshot.listeners, *others))
    by_path = "attach /dev/nbd0 nbd+unix:///x?socket=/run/a.sock"
    before = Analysis(snapshot, (serves(815, "nbd0"), serves(813, "nbd1")))
    after = predict(before, [parse_command(by_path)]).analysis.services
    assert [(s.pid, s.target, s.role, s.kind, s.certain) for s in after] == [
        (813, "nbd1", StorageRole.NBD_SERVER, TargetKind.DEVICE, True),
        (812, "nbd0", StorageRole.NBD_SERVER, TargetKind.DEVICE, True),
    ]
    assert after[1].evidence == "812 (server) listens at /run/a.sock"
    family = Listener(Family.TCP, SocketEnd(1, "/run/a.sock", (814,)))
    strange = predicted(replace(snapshot, listeners=(*snapshot.listeners, family)), by_path, served=False)
    assert [service.pid for service in strange.analysis.services] == [812]
    shared = Listener(Family.UNIX, SocketEnd(2, "/run/a.sock", (815, 812)))
    either = predicted(replace(snapshot, listeners=(shared,)), by_path, served=False).analysis.services
    assert [(service.pid, service.certain) for service in either] == [(812, False), (815, False)]


@pytest.mark.parametrize(
    ("command", "address"),
    [
        ("mount -t nfs4 10.9.9.9:/x /mnt", "10.9.9.9"),
        ("mount -t nfs4 [fd00::1]:/x /mnt", "fd00::1"),
        ("mount -t cifs //10.9.9.8/share/a /mnt", "10.9.9.8"),
        ("mount -t nfs4 -o addr=10.9.9.7 filer:/x /mnt", "10.9.9.7"),
        ("mount -t 9p 10.9.9.6 /mnt", "10.9.9.6"),
    ],
)
def test_the_address_of_a_network_file_system(command: str, address: str) -> None:
    """From the source, without what belongs to the path, or from the option; once."""
    found = added(IDLE, command).mounts[-1]
    assert [value for name, value in found.options if name == "addr"] == [address]


def test_a_server_in_the_kernel_that_is_in_use() -> None:
    """Nobody is seen to listen, but there is a connection whose other end the kernel holds: no error."""
    end = SocketEnd(1, "127.0.0.1:2049", ())
    command = "mount -t nfs4 127.0.0.1:/x /mnt"
    by_kernel = Connection(Family.TCP, (SocketEnd(2, "127.0.0.1:900", ()), end))
    assert added(replace(IDLE, connections=(by_kernel,)), command).mounts[-1].fstype == "nfs4"
    by_process = Connection(Family.TCP, (SocketEnd(2, "127.0.0.1:900", (812,)), end))
    for connections in ((), (by_process,)):
        with pytest.raises(HypothesisError, match=r"nobody is seen to listen at 127\.0\.0\.1:2049") as caught:
            added(replace(IDLE, connections=connections), command)
        assert "predict on the live machine" in (caught.value.hint or "")


COMMANDS = st.sampled_from(
    [
        "mount /dev/nbd0 /mnt",
        "mount --bind /mnt /x",
        "mount -t overlay -o lowerdir=/,upperdir=/mnt overlay /o",
        "mount -t tmpfs none /mnt",
        "swapon /dev/nbd0",
        "swapon /mnt/a",
        "losetup -f /mnt/a",
        "attach /dev/nbd3 nbd://127.0.0.1:1/",
    ]
)


@settings(max_examples=150, deadline=None)
@given(SNAPSHOTS, st.lists(COMMANDS, max_size=3))
def test_any_machine(snapshot: Snapshot, commands: list[str]) -> None:
    """A prediction or an error of its own kind; nothing that was there is new, and new cycles come first."""
    before = Analysis(snapshot)
    try:
        graph: Graph = predict(before, [parse_command(command) for command in commands]).graph
    except HypothesisError:
        return
    old = {node.id for node in before.graph.nodes}
    assert all(node.hypothetical is (node.id not in old) for node in graph.nodes)
    order = [cycle.hypothetical for cycle in graph.cycles]
    assert order == sorted(order, reverse=True)
    if not commands:
        assert graph == before.graph
