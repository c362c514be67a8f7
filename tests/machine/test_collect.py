"""collect() on recorded machines: what is recorded, what is not, and what happens to what cannot be read."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.machine.recorded import NBD_STATE, NETLINK_HEAD, Recorded

from ioflusher.kernel.task import Policy
from ioflusher.machine.codec import dump_snapshot, load_snapshot
from ioflusher.machine.collect.limits import SnapshotLimits
from ioflusher.machine.collect.machine import collect
from ioflusher.machine.collect.unreadable_notes import Notes
from ioflusher.machine.endpoints import Family, NetlinkUser
from ioflusher.machine.errors import SnapshotError
from ioflusher.machine.process import FileKind, FileUse, MemoryLimit, Process
from ioflusher.machine.snapshot import Snapshot, Unreadable

EVIL = b"nbd) S 1 (\x1b[31m\n"


@pytest.fixture
def machine(tmp_path: Path) -> Recorded:
    """A recorded machine without processes."""
    return Recorded(tmp_path).machine()


def one(snapshot: Snapshot, pid: int) -> Process:
    """The process with this number."""
    (process,) = (process for process in snapshot.processes if process.pid == pid)
    return process


def test_a_process_as_it_was_recorded(machine: Recorded) -> None:
    """Threads with any name, scheduling, owner, memory, capabilities, OOM score."""
    machine.process(
        812,
        EVIL,
        threads={812: EVIL, 815: b"\xffw"},
        flags=NBD_STATE,
        capabilities=1 << 24,
        scheduling=(1, 50, -5),
    )
    process = one(collect(machine.root), 812)
    assert process.comm == EVIL.decode()
    assert [thread.comm for thread in process.threads] == [EVIL.decode(), "\\xffw"]
    assert process.covered
    first = process.threads[0]
    assert (first.policy, first.priority, first.nice) == (Policy.FIFO, 50, -5)
    assert (process.uid, process.locked_kib, process.swapped_kib) == (0, 2048, 12)
    assert (process.resident_kib, process.virtual_kib) == (9000, 20000)
    assert process.capabilities is not None
    assert process.capabilities.effective == 1 << 24
    assert (process.oom_score_adj, process.exe) == (-1000, "/usr/sbin/daemon")
    assert process.mount_namespace == 4026531841


def test_the_machine_itself(machine: Recorded) -> None:
    """Name, kernel, memory; what its kernel does not have is unknown."""
    snapshot = collect(machine.root)
    system = snapshot.system
    assert (system.hostname, system.release, system.machine) == ("store7", "6.12.0", "x86_64")
    assert (snapshot.memory.total_kib, snapshot.memory.min_free_kib) == (1 << 20, 67584)
    assert snapshot.memory.watermark_boost_factor is None
    assert load_snapshot(dump_snapshot(snapshot)) == snapshot


def test_nbd_by_a_loopback_server(machine: Recorded) -> None:
    """Its connection and listener are kept, no others; files are read of who serves, not of bystanders."""
    machine.write("sys/class/block/nbd0/pid", "700\n")
    for pid, name in ((700, b"nbd-client"), (812, b"nbd-server"), (900, b"bystander")):
        machine.process(pid, name)
    machine.tcp(
        ("00000000:2A39", "00000000:0000", 10, 1),
        ("7F000001:2A39", "7F000001:9C40", 1, 2),
        ("7F000001:9C40", "7F000001:2A39", 1, 3),
        ("7F000001:0016", "7F000001:8888", 1, 4),
        ("7F000001:8888", "7F000001:0016", 1, 5),
    )
    machine.descriptor(700, 4, b"socket:[3]")
    for number, inode in enumerate((1, 2)):
        machine.descriptor(812, number, b"socket:[%d]" % inode)
    for number, inode in enumerate((4, 5)):
        machine.descriptor(900, number, b"socket:[%d]" % inode)
    machine.descriptor(812, 7, b"/srv/store.img")
    machine.descriptor(900, 7, b"/srv/other")
    snapshot = collect(machine.root)
    (connection,) = snapshot.connections
    assert connection.family is Family.TCP
    assert {end.pids for end in connection.ends} == {(812,), (700,)}
    assert [listener.end.address for listener in snapshot.listeners] == ["0.0.0.0:10809"]
    assert one(snapshot, 812).files == (FileUse("/srv/store.img", FileKind.WRITTEN, "8:1", 29),)
    assert one(snapshot, 900).files is None


def test_what_a_process_stands_on(machine: Recorded) -> None:
    """Program, library, log, data; devices; not memory, sockets, names or pseudo file systems."""
    machine.process(812, b"daemon")
    machine.write("sys/class/block/sda1/dev", "8:1\n")
    machine.write(
        "proc/812/maps",
        b"1000-2000 r-xp 0 08:01 7  /usr/sbin/daemon\n2000-3000 rw-p 0 08:01 7  /usr/sbin/daemon\n"
        b"3000-4000 r--p 0 08:01 8  /lib/a b.so\n4000-5000 r-xp 0 08:01 8  /lib/a b.so\n"
        b"5000-6000 r--p 0 08:11 9  /usr/share/data\n6000-7000 rw-s 0 00:01 2  /memfd:x (deleted)\n"
        b"7000-8000 rw-p 0 00:00 0  [heap]\n8000-9000 rw-p 0 00:00 0\n",
    )
    machine.descriptor(812, 1, b"/var/log/d\xff.log", b"flags:\t0102001\nmnt_id:\t29\n")
    machine.descriptor(812, 2, b"/etc/d.conf", b"flags:\t0100000\nmnt_id:\t77\n")
    machine.descriptor(812, 3, b"/dev/nbd0", b"flags:\t0%o\nmnt_id:\t24\n" % (2 | os.O_DIRECT))
    machine.descriptor(812, 4, b"/dev/null", b"flags:\t0100002\nmnt_id:\t24\n")
    machine.descriptor(812, 5, b"/srv/name", b"flags:\t010000000\nmnt_id:\t29\n")
    machine.descriptor(812, 6, b"anon_inode:[eventpoll]")
    files = one(collect(machine.root, extra_pids=frozenset({812})), 812).files
    assert files == (
        FileUse("/dev/nbd0", FileKind.DEVICE, "43:0", 24, direct=True),
        FileUse("/etc/d.conf", FileKind.READ, "", 77),
        FileUse("/lib/a b.so", FileKind.LIBRARY, "8:1"),
        FileUse("/usr/sbin/daemon", FileKind.EXECUTABLE, "8:1"),
        FileUse("/usr/share/data", FileKind.MAPPED, "8:17"),
        FileUse("/var/log/d\\xff.log", FileKind.LOG, "8:1", 29),
    )


def test_control_groups(machine: Recorded) -> None:
    """Groups with a limit, from the process's own up to the root."""
    machine.process(812, b"daemon")
    group = "sys/fs/cgroup/system.slice"
    machine.write(f"{group}/cgroup.procs", "813\n")
    machine.write(f"{group}/daemon.service/cgroup.procs", "812\n")
    machine.write(f"{group}/daemon.service/memory.max", "max\n")
    machine.write(f"{group}/daemon.service/memory.high", "max\n")
    machine.write(f"{group}/memory.max", "1048576\n")
    machine.write(f"{group}/memory.high", "max\n")
    machine.write(f"{group}/memory.current", "4096\n")
    process = one(collect(machine.root, extra_pids=frozenset({812})), 812)
    assert process.cgroups == (MemoryLimit("/system.slice", 2, 1 << 20, None, None, 4096, (812, 813)),)


def test_members_of_a_limited_group_that_cannot_be_known(
    machine: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no list of numbers, as in a threaded group, or too many groups: unknown, not empty."""
    machine.process(812, b"daemon")
    group = "sys/fs/cgroup/system.slice/daemon.service"
    machine.write(f"{group}/cgroup.procs", "812\n")
    machine.write(f"{group}/memory.max", "1048576\n")
    machine.write(f"{group}/below/cgroup.procs", "Operation not supported\n")

    def members() -> tuple[int, ...] | None:
        (limit,) = one(collect(machine.root, extra_pids=frozenset({812})), 812).cgroups or ()
        return limit.members

    assert members() is None
    machine.write(f"{group}/below/cgroup.procs", "814\n815\n")
    assert members() == (812, 814, 815)
    monkeypatch.setattr("ioflusher.machine.collect.cgroups.MOST_GROUPS", 1)
    assert members() is None


def test_control_groups_of_version_1(machine: Recorded) -> None:
    """The memory hierarchy counts; its huge number is no limit; a group out of sight is noted."""
    machine.process(812, b"daemon")
    machine.process(813, b"other")
    machine.write("proc/812/cgroup", "9:cpu:/\n4:memory:/a/b\n0::/\n")
    machine.write("proc/813/cgroup", "4:memory:/../elsewhere\n")
    for place in ("", "a/", "a/b/"):
        machine.write(f"sys/fs/cgroup/memory/{place}cgroup.procs", "")
        machine.write(f"sys/fs/cgroup/memory/{place}memory.limit_in_bytes", "9223372036854771712\n")
    machine.write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "65536\n")
    machine.write("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "4096\n")
    snapshot = collect(machine.root, extra_pids=frozenset({812, 813}))
    assert one(snapshot, 812).cgroups == (MemoryLimit("/a/b", 1, 65536, None, None, 4096, ()),)
    assert one(snapshot, 813).cgroups is None
    assert any(item.pid == 813 and "elsewhere" in item.why for item in snapshot.unreadable)


def test_devices_and_mount_points(machine: Recorded) -> None:
    """A FUSE daemon's device, its connection, and the mount point that it names."""
    machine.process(812, b"sshfs", arguments=(b"host:/", b"mnt/a place", b"-o", b"password=hunter2"))
    machine.descriptor(812, 3, b"/dev/fuse", b"flags:\t02\nmnt_id:\t24\nfuse_connection:\t47\n")
    machine.descriptor(812, 4, b"/dev/uio0")
    process = one(collect(machine.root), 812)
    assert [(h.path, h.number, h.connection) for h in process.handles] == [
        ("/dev/fuse", "10:229", 47),
        ("/dev/uio0", "240:0", None),
    ]
    assert process.named_mounts == ("/mnt/a place",)


def test_no_secrets(machine: Recorded) -> None:
    """No environment ever; no command line unless asked."""
    machine.process(812, b"sshfs", arguments=(b"-o", b"password=hunter2"))
    machine.descriptor(812, 3, b"/dev/fuse", b"flags:\t02\nmnt_id:\t24\n")
    plain = dump_snapshot(collect(machine.root, extra_pids=frozenset({812})))
    assert b"hunter2" not in plain
    assert b"in-the-environment" not in plain
    asked = collect(machine.root, arguments=True)
    assert one(asked, 812).arguments == ("/usr/sbin/daemon", "-o", "password=hunter2")
    assert b"in-the-environment" not in dump_snapshot(asked)


def test_netlink_users(machine: Recorded) -> None:
    """Who holds a socket of a storage protocol, no other protocol."""
    machine.process(812, b"iscsid")
    machine.descriptor(812, 3, b"socket:[42]")
    machine.descriptor(812, 4, b"socket:[43]")
    lines = b"".join(b"0 %d 812 0 0 0 0 2 0 %d\n" % pair for pair in ((8, 42), (0, 43), (8, 0)))
    machine.write("proc/net/netlink", NETLINK_HEAD + lines)
    assert collect(machine.root).netlink == (NetlinkUser(812, 8),)


def test_kernel_threads_have_no_program(machine: Recorded) -> None:
    """They are recorded, without memory and without looking for files."""
    machine.process(2, b"kthreadd", kernel=True)
    process = one(collect(machine.root, extra_pids=frozenset({2})), 2)
    assert process.kernel_thread
    assert (process.exe, process.locked_kib, process.files) == (None, None, None)


@pytest.mark.parametrize(
    "gone", ["status", "task/812/stat", "task", "fd", "exe", "ns", "oom_score_adj", "maps"]
)
def test_a_process_that_goes_meanwhile(machine: Recorded, gone: str) -> None:
    """Whatever of it vanishes first, the others are recorded and nothing is raised."""
    machine.process(812, b"daemon")
    machine.process(813, b"other")
    place = machine.root / "proc/812" / gone
    place.rename(machine.root / "moved")
    snapshot = collect(machine.root, extra_pids=frozenset({812}))
    assert one(snapshot, 813).comm == "other"


def test_a_fuse_descriptor_that_is_closed_meanwhile_is_none(machine: Recorded) -> None:
    """Its flags are gone when they are asked for: it is left out, and nothing is noted."""
    machine.process(812, b"daemon")
    machine.link("proc/812/fd/3", b"/dev/fuse")
    snapshot = collect(machine.root)
    assert one(snapshot, 812).handles == ()
    assert not [item for item in snapshot.unreadable if item.pid == 812]


@pytest.mark.parametrize("name", ["status", "task/812/stat", "oom_score_adj", "maps", "cgroup", "fdinfo/3"])
def test_rubbish_is_noted(machine: Recorded, name: str) -> None:
    """Text of another form is noted with the process and the file."""
    machine.process(812, b"daemon")
    machine.descriptor(812, 3, b"/etc/x")
    machine.write(f"proc/812/{name}", b"rubbish\n")
    snapshot = collect(machine.root, extra_pids=frozenset({812}))
    assert any(item.pid == 812 and item.what.startswith("/proc/812/") for item in snapshot.unreadable)


def test_a_locked_memory_map_is_not_waited_for(machine: Recorded) -> None:
    """A file that does not answer is left behind after the limit, and noted."""
    machine.process(812, b"daemon")
    (machine.root / "proc/812/maps").unlink()
    os.mkfifo(machine.root / "proc/812/maps")
    before = threading.active_count()
    snapshot = collect(machine.root, extra_pids=frozenset({812}), limits=SnapshotLimits(answer_seconds=0.1))
    assert Unreadable("/proc/812/maps", "no answer within 0.1 s", 812) in snapshot.unreadable
    assert one(snapshot, 812).files == ()
    with (machine.root / "proc/812/maps").open("wb"):  # let the thread that waits end
        pass
    assert threading.active_count() <= before + 1, "no thread but the one that is just ending"


def test_limits_are_kept_and_said(machine: Recorded) -> None:
    """Threads, descriptors and arguments beyond a limit are left out, and the snapshot says so."""
    machine.process(812, b"daemon", threads={812 + n: b"t" for n in range(5)}, arguments=(b"x" * 50,))
    for number in range(5):
        machine.descriptor(812, number, b"socket:[%d]" % number)
    small = SnapshotLimits(threads=3, descriptors=2, argument_bytes=20)
    snapshot = collect(machine.root, arguments=True, limits=small)
    assert len(one(snapshot, 812).threads) == 3
    said = {item.what: item.why for item in snapshot.unreadable if item.pid == 812}
    assert said["/proc/812/task"] == "5 threads; the first 3 are recorded"
    assert said["/proc/812/fd"] == "5 descriptors; 2 were looked at"
    assert "longer than 20 bytes" in said["/proc/812/cmdline"]


def test_the_deadline_is_kept_and_said(machine: Recorded) -> None:
    """When the time is over, the snapshot says how many processes are not in it."""
    for pid in (812, 813, 814):
        machine.process(pid, b"daemon")
    snapshot = collect(machine.root, limits=SnapshotLimits(seconds=-1))
    assert snapshot.processes == ()
    assert any(item.what == "4 of 4 processes, from process 1 on" for item in snapshot.unreadable)


def test_the_deadline_holds_for_the_second_step_too(machine: Recorded) -> None:
    """Whose files nobody had time to look at is said."""
    for pid in (812, 813):
        machine.process(pid, b"daemon")
        (machine.root / f"proc/{pid}/maps").unlink()
        os.mkfifo(machine.root / f"proc/{pid}/maps")
    limits = SnapshotLimits(seconds=0.5, answer_seconds=0.6)
    snapshot = collect(machine.root, extra_pids=frozenset({812, 813}), limits=limits)
    assert (one(snapshot, 812).files, one(snapshot, 813).files) == ((), None)
    assert any(item.what == "files and control groups of 1 processes" for item in snapshot.unreadable)
    (machine.root / "proc/812/maps").open("wb").close()  # let the thread that waits end


def test_other_network_namespaces(machine: Recorded) -> None:
    """Their connections are read through a process in them; that Unix peers are missing is said."""
    machine.link("proc/1/ns/net", "net:[4026531840]")
    machine.process(812, b"daemon")
    machine.process(900, b"container")
    (machine.root / "proc/900/ns/net").unlink()
    machine.link("proc/900/ns/net", "net:[4026532999]")
    machine.tcp(("7F000001:0016", "0A000007:8888", 1, 4))
    there = (machine.root / "proc/net/tcp").read_bytes()
    machine.tcp()
    machine.write("proc/900/net/tcp", there)
    machine.write("proc/900/net/unix", (machine.root / "proc/net/unix").read_bytes())
    machine.write("proc/900/net/netlink", (machine.root / "proc/net/netlink").read_bytes())
    machine.descriptor(900, 3, b"socket:[4]")
    snapshot = collect(machine.root, extra_pids=frozenset({900}))
    (remote,) = snapshot.remotes
    assert (remote.end.pids, remote.peer) == ((900,), "10.0.0.7:34952")
    assert any("1 other network namespaces" in item.what for item in snapshot.unreadable)


def test_a_root_without_proc_is_an_error(tmp_path: Path) -> None:
    """A wrong directory is told as such."""
    with pytest.raises(SnapshotError, match="cannot list"):
        collect(tmp_path)


def test_equal_kinds_are_noted_once() -> None:
    """One record for many processes, and one apart for each that matters."""
    notes = Notes()
    for pid in range(1, 1001):
        notes.of_process(pid, "fd", PermissionError(13, "Permission denied"))
    notes.of_process(7, "maps", "no answer")
    assert notes.unreadable({5}) == (
        Unreadable("/proc/PID/fd of 999 processes", "Permission denied"),
        Unreadable("/proc/5/fd", "Permission denied", 5),
        Unreadable("/proc/7/maps", "no answer", 7),
    )
    assert notes.refused


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    comm=st.binary(max_size=15).filter(lambda name: b"\0" not in name),
    path=st.binary(max_size=40).filter(lambda name: b"\0" not in name and b"\n" not in name),
)
def test_any_names_survive(tmp_path_factory: pytest.TempPathFactory, comm: bytes, path: bytes) -> None:
    """Names and paths of any bytes are recorded, and the snapshot can be written and read."""
    machine = Recorded(tmp_path_factory.mktemp("root")).machine()
    machine.process(812, comm)
    machine.descriptor(812, 3, b"/" + path)
    snapshot = collect(machine.root, extra_pids=frozenset({812}))
    assert one(snapshot, 812).comm == comm.decode("utf-8", "backslashreplace")
    assert load_snapshot(dump_snapshot(snapshot)) == snapshot
