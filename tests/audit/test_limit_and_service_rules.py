"""Rules on limits of the machine and its control groups, and on the services, each with a neighbour."""

from dataclasses import replace
from typing import Any

import pytest

from ioflusher.audit.config import Config
from ioflusher.audit.finding import AuditFinding
from ioflusher.audit.thresholds import Thresholds
from ioflusher.kernel.task import Thread
from ioflusher.machine.process import FileKind, FileUse, MemoryLimit
from ioflusher.machine.serving.service import Candidate, Confidence, StorageRole, TargetKind
from ioflusher.machine.snapshot import Memory, Snapshot, Unreadable
from ioflusher.machine.storage import BlockDevice, DeviceKind, Queue
from tests.audit.machines import (
    BARE,
    COVERED,
    DAEMON,
    DEVICE,
    FILES_ON_NBD,
    FUSE,
    QUEUE,
    ROOT,
    ROOT_MOUNT,
    SERVER,
    SSHFS,
    SWAP_ON_NBD,
    WELL,
    found,
    judged,
    machine,
    severities,
    threads,
)


@pytest.mark.parametrize(
    ("score", "severity"), [(0, "warning"), (-899, "warning"), (-900, None), (-1000, None)]
)
def test_the_oom_killer(score: int, severity: str | None) -> None:
    """From -900 down a daemon of ordinary size is not taken."""
    assert severities(machine({"oom_score_adj": score})).get("oom-killable") == severity


def test_the_oom_killer_and_who_is_needed() -> None:
    """A client that holds the device takes it along; a recovery daemon and FUSE weigh less."""
    mortal = machine({"oom_score_adj": 0})
    holder = replace(SERVER, role=StorageRole.NBD_CLIENT, essential=False)
    assert severities(mortal, holder) == {"oom-killable": "warning"}
    recovery = replace(SERVER, role=StorageRole.ISCSI_INITIATOR, essential=False)
    assert severities(mortal, recovery) == {"oom-killable": "note"}
    assert not found(machine({"oom_score_adj": 0}, mounts=(ROOT_MOUNT, FUSE)), SSHFS)
    assert found(mortal)["oom-killable"].remedy.commands == ("choom -n -1000 -p 7",)
    assert not found(mortal, config=Config(thresholds=Thresholds(oom_score_adj=0)))


def in_groups(score: int, *groups: MemoryLimit | None) -> dict[str, Any]:
    """A daemon with this score in these control groups; None: nobody knows its groups."""
    return {"oom_score_adj": score, "cgroups": None if None in groups else groups}


LIMITED = MemoryLimit("/k/pod", 2, 1 << 30, None, None, current=900 << 20, members=(7, 8))
OPEN = MemoryLimit("/k", 2, None, 1 << 30, None, current=0)


def test_a_task_stays_killable_in_a_limited_group() -> None:
    """-1000 is advised only where the daemon is known to be in no control group with a hard limit."""
    for groups, score in (((), -1000), ((OPEN,), -1000), ((LIMITED, OPEN), -999), ((None,), -999)):
        remedy = found(machine(in_groups(0, *groups)))["oom-killable"].remedy
        assert remedy.commands == (f"choom -n {score} -p 7",), groups
        assert remedy.unit == (f"OOMScoreAdjust={score}",)
    above = replace(LIMITED, path="/k", members=None)
    findings = judged(machine(in_groups(0, LIMITED, above))).findings
    (words,) = (finding.remedy.words for finding in findings if finding.rule == "oom-killable")
    assert "its control group /k/pod has a hard limit" in words, "the innermost"


def unkillable(group: MemoryLimit, score: int = -1000, others: int | None = -1000) -> dict[str, str]:
    """What is found of a daemon with one score in a group with a process of another."""
    snapshot = machine(in_groups(score, group))
    other = replace(WELL.processes[0], pid=8, oom_score_adj=others)
    found_there = found(replace(snapshot, processes=(*snapshot.processes, other)))
    return {rule: finding.severity.value for rule, finding in found_there.items() if "kill" in rule}


def test_a_limited_group_in_which_nobody_can_be_killed() -> None:
    """A warning where it is known and the limit is near, a note else; one task to kill is enough."""
    assert unkillable(LIMITED) == {"cgroup-unkillable": "warning"}
    assert unkillable(replace(LIMITED, version=1)) == {"cgroup-unkillable": "warning"}
    assert unkillable(replace(LIMITED, current=1)) == {"cgroup-unkillable": "note"}
    assert unkillable(replace(LIMITED, current=None)) == {"cgroup-unkillable": "warning"}
    assert unkillable(LIMITED, others=None) == {"cgroup-unkillable": "note"}
    assert unkillable(replace(LIMITED, members=None)) == {"cgroup-unkillable": "note"}
    for score in (-999, 0):
        assert unkillable(LIMITED, others=score) == {}
    assert unkillable(LIMITED, score=-999) == {}
    assert unkillable(replace(LIMITED, max=None)) == {}


def test_what_is_said_of_such_a_group() -> None:
    """The group, its limit and the tasks; the remedy makes the daemon the last choice."""
    snapshot = machine(in_groups(-1000, replace(LIMITED, members=(7,))))
    finding = found(snapshot)["cgroup-unkillable"]
    assert "/k/pod has a limit of 1073741824 bytes, and every task in it" in finding.summary
    assert [(fact.source, fact.said) for fact in finding.evidence[:2]] == [
        ("/sys/fs/cgroup/k/pod/memory.max", "1073741824"),
        ("/proc/7/oom_score_adj", "-1000"),
    ]
    assert finding.remedy.commands == ("choom -n -999 -p 7",)
    unknown = found(machine(in_groups(-1000, replace(LIMITED, members=None))))["cgroup-unkillable"]
    assert "as far as is known" in unknown.summary
    fuse = machine(in_groups(-1000, replace(LIMITED, members=(7,))), mounts=(ROOT_MOUNT, FUSE))
    assert "cgroup-unkillable" in found(fuse, SSHFS), "a FUSE daemon was met so"


def test_a_limited_group_is_one_finding() -> None:
    """Two daemons in one group are told of once."""
    second = replace(DAEMON, pid=8, cgroups=(LIMITED,))
    snapshot = machine(in_groups(-1000, LIMITED))
    snapshot = replace(snapshot, processes=(*snapshot.processes, second))
    services = (SERVER, replace(SERVER, pid=8, target="nbd1"))
    findings = [f for f in judged(snapshot, *services).findings if f.rule == "cgroup-unkillable"]
    assert [finding.subject.pid for finding in findings] == [7]
    assert "2 daemons here" in findings[0].remedy.words


def group(**values: int | None) -> dict[str, object]:
    """A daemon in one control group."""
    known = {"version": 2, "max": None, "high": None, "swap_max": None, "current": None, **values}
    limit = MemoryLimit("/a b.slice", members=(1, 7), **known)  # type: ignore[arg-type]
    return {"cgroups": (limit,)}


def test_limits_of_control_groups() -> None:
    """Near the limit a warning, far from it a note; without one, nothing."""
    assert severities(machine(group(max=100, current=51))) == {"memory-max": "warning"}
    assert severities(machine(group(max=100, current=50))) == {"memory-max": "note"}
    assert severities(machine(group(max=100))) == {"memory-max": "warning"}
    assert severities(machine(group(high=100, current=90))) == {"memory-high": "warning"}
    percent = 100 << 10
    for current, severity in ((50 << 10, "note"), ((50 << 10) + 1, "warning")):
        assert severities(machine(group(max=percent, current=current))) == {"memory-max": severity}
    assert not found(machine(group(current=100)))
    assert not found(machine(group(version=1, high=100, current=100)))
    assert severities(machine(group(version=1, max=100, current=100))) == {"memory-max": "warning"}


def test_whose_control_groups_are_judged() -> None:
    """Of daemons of devices, used or not; not of a FUSE mount alone, nor of a client that holds one."""
    limited = group(max=100, current=90)
    assert severities(machine(limited, mounts=(ROOT_MOUNT,))) == {"memory-max": "note"}
    assert not found(machine(limited, mounts=(ROOT_MOUNT, FUSE)), SSHFS)
    holder = replace(SERVER, role=StorageRole.NBD_CLIENT, essential=False)
    assert not found(machine(limited), holder)


def test_a_limit_of_nothing_is_near() -> None:
    """A group that may have no memory at all has none left, though it uses none."""
    assert severities(machine(group(max=0, current=0))) == {"memory-max": "warning"}
    assert severities(machine(group(high=0, current=0))) == {"memory-high": "warning"}


def test_the_files_of_either_version_are_named() -> None:
    """The limit and the use, as the kernel calls them."""
    for version, names in ((2, ("max", "current")), (1, ("limit_in_bytes", "usage_in_bytes"))):
        finding = found(machine(group(version=version, max=100, current=90)))["memory-max"]
        assert [fact.source.rpartition("/memory.")[2] for fact in finding.evidence[:2]] == list(names)
        assert [fact.said for fact in finding.evidence[:2]] == ["100", "90 bytes"]
    unknown = found(machine(group(max=100)))["memory-max"]
    assert unknown.evidence[1].said == "an unknown part"


def test_limits_are_lifted_where_they_stand() -> None:
    """The command names the group's own file, quoted, for either version."""
    first = found(machine(group(max=100)))["memory-max"].remedy
    assert first.commands == ("echo max > '/sys/fs/cgroup/a b.slice/memory.max'",)
    assert first.unit == ("MemoryMax=infinity",)
    old = found(machine(group(version=1, max=100)))["memory-max"].remedy
    assert old.commands == ("echo -1 > '/sys/fs/cgroup/memory/a b.slice/memory.limit_in_bytes'",)


def reserve(kib: int, **changes: Any) -> Snapshot:
    """The machine with so much reserve."""
    return machine(memory=replace(WELL.memory, min_free_kib=kib), **changes)


def test_the_reserve() -> None:
    """Less than 64 KiB a request is little; it weighs more with swap, and 5 percent of memory are enough."""
    assert severities(reserve(8191)) == {"small-reserve": "note"}
    assert not found(reserve(8192))
    swap = found(reserve(4096, swaps=(SWAP_ON_NBD,)))["small-reserve"]
    assert swap.severity.value == "warning"
    assert swap.remedy.commands == ("sysctl -w vm.min_free_kbytes=8192",)
    short = replace(DEVICE, queue=replace(QUEUE, max_sectors_kib=4))
    assert not found(reserve(512, devices=(short,)))
    assert not found(reserve(1), replace(SERVER, essential=False))
    assert not found(reserve(1, mounts=(ROOT_MOUNT,)))


def test_a_reserve_that_would_take_too_much_is_not_advised() -> None:
    """Above 5 percent of memory the figures are given, and no command; with 5 percent it is silent."""
    long = replace(DEVICE, queue=replace(QUEUE, hardware_queues=1000))
    finding = found(reserve(8192, devices=(long,)))["small-reserve"]
    assert finding.remedy.commands == finding.remedy.lasting == ()
    most = (4 << 20) // 20
    for figure in ("8192000 KiB", "195 percent", f"{most} KiB", "set are 8192 KiB", "nr_requests"):
        assert figure in finding.remedy.words
    assert not found(reserve(most, devices=(long,)))


@pytest.mark.parametrize("total_mib", [64, 128, 160, 512, 4096, 1 << 20])
@pytest.mark.parametrize("set_kib", [0, 67, 1024, 8191, 8192, 65536, 1 << 20])
@pytest.mark.parametrize("requests", [4, 128, 1024])
def test_the_reserve_is_never_lowered_and_never_takes_much(
    total_mib: int, set_kib: int, requests: int
) -> None:
    """Whatever the machine: what is advised is more than what is set, and 5 percent of memory at most."""
    device = replace(DEVICE, queue=replace(QUEUE, nr_requests=requests))
    memory = replace(WELL.memory, total_kib=total_mib << 10, min_free_kib=set_kib)
    finding = found(machine(memory=memory, devices=(device,))).get("small-reserve")
    need, most = requests * 64, (total_mib << 10) * 5 // 100
    assert (finding is None) == (set_kib >= min(need, most))
    if finding is not None and need <= most:
        assert finding.remedy.commands == (f"sysctl -w vm.min_free_kbytes={need}",)
        assert finding.remedy.lasting == (
            f"echo vm.min_free_kbytes = {need} > /etc/sysctl.d/60-ioflusher.conf",
        )
        assert set_kib < need <= most
    elif finding is not None:
        assert finding.remedy.commands == finding.remedy.lasting == ()


def dirty(queue: Queue, flags: int = BARE, direct: bool = False, **memory: Any) -> Snapshot:
    """A daemon that stores into a file on another disk, on a machine with these dirty limits."""
    store = FileUse("/var/lib/disk.img", FileKind.WRITTEN, ROOT, 1, direct=direct)
    return machine(
        {"threads": threads(flags), "files": (store,)},
        devices=(replace(DEVICE, queue=queue), *WELL.devices[1:]),
        memory=replace(WELL.memory, **memory),
    )


def test_dirty_limits() -> None:
    """A small limit that one device may fill is a warning; a large one a note."""
    small = dirty(QUEUE, dirty_bytes=8 << 20)
    finding = found(small)["dirty-limits"]
    assert finding.severity.value == "warning"
    assert finding.remedy.commands == ("echo 90 > /sys/block/nbd0/bdi/max_ratio",)
    assert severities(dirty(QUEUE))["dirty-limits"] == "note"
    large = dirty(QUEUE, dirty_bytes=65 << 20)
    assert severities(large)["dirty-limits"] == "note"
    share = found(dirty(QUEUE, available_kib=100 << 20, dirty_ratio=20))["dirty-limits"]
    assert "limit of 20480 MiB" in share.summary, "20 percent of 100 GiB"


@pytest.mark.parametrize(
    "snapshot",
    [
        dirty(replace(QUEUE, max_ratio=99), dirty_bytes=8 << 20),
        dirty(replace(QUEUE, strict_limit=True), dirty_bytes=8 << 20),
        dirty(replace(QUEUE, max_ratio=50, max_bytes=4 << 20), dirty_bytes=8 << 20),
        dirty(replace(QUEUE, max_ratio=None, max_bytes=4 << 20), dirty_bytes=8 << 20),
        dirty(QUEUE, flags=COVERED, dirty_bytes=8 << 20),
        dirty(QUEUE, direct=True, dirty_bytes=8 << 20),
        replace(
            dirty(QUEUE, dirty_bytes=8 << 20), mounts=(replace(ROOT_MOUNT, fstype="tmpfs"), FILES_ON_NBD)
        ),
    ],
)
def test_dirty_limits_that_leave_room(snapshot: Snapshot) -> None:
    """A share below all, the state on the daemon, a store past the page cache or in memory."""
    assert "dirty-limits" not in found(snapshot)


def test_max_bytes_is_a_share_of_the_kernels_own_limit() -> None:
    """With the whole share (100 percent) max_bytes differs from a limit that we compute from a ratio."""
    kernels = 135 << 20  # as a guest showed it where 20 percent of MemAvailable were more
    assert "dirty-limits" in found(dirty(replace(QUEUE, max_ratio=100, max_bytes=kernels)))


@pytest.mark.parametrize(
    ("memory", "known"),
    [
        ({"dirty_bytes": 8 << 20, "dirty_ratio": 0}, True),
        ({"dirty_bytes": 0, "dirty_ratio": 20}, True),
        ({"dirty_bytes": 0, "dirty_ratio": 0}, True),
        ({"dirty_bytes": None, "dirty_ratio": 20}, True),
        ({"dirty_bytes": None, "dirty_ratio": 0}, False),
        ({"dirty_bytes": 0, "dirty_ratio": None}, False),
        ({"dirty_bytes": None, "dirty_ratio": None}, False),
    ],
)
def test_a_dirty_limit_of_zero_and_an_unknown_one(memory: dict[str, Any], known: bool) -> None:
    """A ratio of 0 may mean that dirty_bytes holds: where that was not read, the limit is unknown."""
    got = found(dirty(QUEUE, **memory))
    unknown = {fact.source for fact in got["unreadable"].evidence} if "unreadable" in got else set()
    assert ("/proc/sys/vm/dirty_bytes and dirty_ratio" in unknown) is not known
    assert ("dirty-limits" in got) is known


def test_two_devices_share_a_limit() -> None:
    """Half of the limit each is all of it together, and the remedy divides it."""
    half = replace(QUEUE, max_ratio=50)
    second = BlockDevice("nbd1", "43:1", 1 << 30, DeviceKind.NBD, queue=half)
    snapshot = dirty(half, dirty_bytes=8 << 20)
    snapshot = replace(
        snapshot,
        devices=(*snapshot.devices, second),
        mounts=(ROOT_MOUNT, FILES_ON_NBD, replace(FILES_ON_NBD, mount_id=9, number="43:1", point="/more")),
    )
    assert "dirty-limits" not in found(snapshot)
    both = found(snapshot, SERVER, replace(SERVER, target="nbd1"))["dirty-limits"]
    assert [command.split()[1] for command in both.remedy.commands] == ["45", "45"]
    assert both.group == "server (7)", "one daemon stores for both"
    little = replace(snapshot, devices=(*snapshot.devices[:-1], replace(second, queue=QUEUE)))
    little = replace(
        little, devices=(replace(little.devices[0], queue=replace(QUEUE, max_ratio=20)), *little.devices[1:])
    )
    one = found(little, SERVER, replace(SERVER, target="nbd1"))["dirty-limits"]
    assert one.remedy.commands == ("echo 45 > /sys/block/nbd1/bdi/max_ratio",), "no share is raised"
    assert 'KERNEL=="nbd1"' in one.remedy.lasting[0]


def test_many_devices_share_a_limit() -> None:
    """No share becomes 0, which would let nothing be written: with more than 90 devices each has 1."""
    names = [f"nbd{number}" for number in range(91)]
    devices = tuple(
        BlockDevice(name, f"43:{n}", 1 << 30, DeviceKind.NBD, queue=replace(QUEUE, max_ratio=2))
        for n, name in enumerate(names)
    )
    mounts = tuple(
        replace(FILES_ON_NBD, mount_id=9 + n, number=f"43:{n}", point=f"/data{n}") for n in range(91)
    )
    snapshot = replace(dirty(QUEUE, dirty_bytes=8 << 20), devices=(*devices, *WELL.devices[1:]))
    snapshot = replace(snapshot, mounts=(ROOT_MOUNT, *mounts))
    finding = found(snapshot, *(replace(SERVER, target=name) for name in names))["dirty-limits"]
    assert [command.split()[1] for command in finding.remedy.commands] == ["1"] * 91


def of_candidates(number: int, devices: int) -> AuditFinding:
    """The finding on so many processes, each of which may serve each of so many devices."""
    names = [f"nbd{n}" for n in range(devices)]
    services = [
        replace(
            SERVER,
            pid=7 + n,
            target=name,
            certain=False,
            candidate=Candidate(Confidence.LIKELY, n + 1, number, "nothing"),
        )
        for name in names
        for n in range(number)
    ]
    processes = tuple(replace(DAEMON, pid=7 + n, comm=f"s{n}") for n in range(number))
    made = tuple(BlockDevice(name, f"43:{n}", 1 << 30, DeviceKind.NBD) for n, name in enumerate(names))
    snapshot = replace(WELL, processes=(WELL.processes[0], *processes), devices=made)
    (finding,) = (one for one in judged(snapshot, *services).findings if one.rule == "server-candidates")
    return finding


def test_many_candidates_are_counted() -> None:
    """Of processes, devices and evidence the first eight are there, and the number of the others."""
    finding = of_candidates(10, 11)
    named = ", ".join(f"/dev/nbd{n}" for n in range(8))
    some = ", ".join(f"s{n} ({7 + n})" for n in range(8))
    assert finding.summary == (
        f"the NBD server of {named} and 3 more is one of {some} and 2 more; which one is not certain"
    )
    assert [fact.source for fact in finding.evidence] == [
        *(f"candidate {n} of 10, likely" for n in range(1, 9)),
        "and",
    ]
    assert finding.evidence[-1].said == "2 candidates more"
    every = of_candidates(8, 8)
    assert " more" not in every.summary
    assert len(every.evidence) == 8


def test_what_could_not_be_read_is_counted_once() -> None:
    """A daemon's facts are the daemon's; what is the machine's or of other processes is the machine's."""
    entries = (
        Unreadable("TCP sockets", "x"),
        Unreadable("/proc/7/fd", "x", 7),
        Unreadable("/proc/8/fd", "x", 8),
    )
    snapshot = machine(system=replace(WELL.system, privileged=False), unreadable=entries)
    of_daemon, of_machine = (f for f in judged(snapshot).findings if f.rule == "unreadable")
    assert "1 fact about it" in of_daemon.summary
    assert of_machine.summary.startswith("2 facts could not be read")
    assert [fact.source for fact in of_machine.evidence] == ["the snapshot", "TCP sockets", "/proc/8/fd"]


def test_a_daemon_that_is_gone() -> None:
    """Known to be needed, and nobody there, or dead; the kernel itself is never gone."""
    gone = replace(SERVER, pid=None, evidence="nbd0 is set up, and nobody holds the other end")
    finding = found(WELL, gone)["daemon-gone"]
    assert (finding.severity.value, finding.subject.name) == ("error", "/dev/nbd0")
    assert finding.remedy.commands == ("ioflusher nbd detach /dev/nbd0",)
    assert severities(WELL, replace(gone, pid=99)) == {"daemon-gone": "error"}
    zombie = machine({"threads": (Thread(7, "server", "Z", BARE),)})
    assert severities(zombie) == {"daemon-gone": "error"}
    assert severities(WELL, replace(gone, essential=False)) == {"daemon-gone": "warning"}
    assert severities(machine(mounts=(ROOT_MOUNT,)), gone) == {"daemon-gone": "warning"}
    assert not found(WELL, replace(gone, kernel=True))


def test_a_daemon_that_may_not_have_been_seen() -> None:
    """Without the rights of root, absence is a note."""
    ordinary = replace(WELL.system, privileged=False)
    gone = replace(SERVER, pid=None)
    assert severities(machine(system=ordinary), gone) == {"daemon-gone": "note", "unreadable": "warning"}


@pytest.mark.parametrize(
    ("role", "command"),
    [
        (StorageRole.ISCSI_INITIATOR, "systemctl restart iscsid"),
        (StorageRole.MULTIPATH, "systemctl restart multipathd"),
        (StorageRole.UBLK_SERVER, "ublk recover -n 3"),
    ],
)
def test_how_a_daemon_is_brought_back(role: StorageRole, command: str) -> None:
    """By what it is."""
    device = replace(DEVICE, name="ublkb3")
    gone = replace(SERVER, pid=None, role=role, target="ublkb3")
    assert found(machine(devices=(device,)), gone)["daemon-gone"].remedy.commands == (command,)


def test_a_mount_whose_daemon_is_gone() -> None:
    """It is unmounted, its point quoted."""
    mount = replace(FUSE, point="/a b")
    gone = replace(SSHFS, pid=None)
    finding = found(machine(mounts=(ROOT_MOUNT, mount)), gone)["daemon-gone"]
    assert finding.remedy.commands == ("umount --lazy '/a b'",)


@pytest.mark.parametrize(
    "field",
    ["capabilities", "locked_kib", "resident_kib", "swapped_kib", "oom_score_adj", "cgroups", "files"],
)
def test_facts_of_a_daemon_that_are_missing(field: str) -> None:
    """Each is a finding, and no rule takes the missing fact for a good one or a bad one."""
    unknown = machine({field: None}, swaps=(SWAP_ON_NBD,))
    got = severities(unknown)
    assert got.pop("unreadable") == "warning"
    # swap is not called safe where nobody knows whether memory is locked
    assert got == ({"swap-on-served": "error"} if field in ("locked_kib", "resident_kib") else {})


def test_what_could_not_be_read() -> None:
    """Of a daemon a warning, of the machine a note; of processes that ended meanwhile nothing."""
    reason = "Permission denied"
    of_daemon = machine(unreadable=(Unreadable("/proc/7/maps", reason, 7),))
    assert severities(of_daemon) == {"unreadable": "warning"}
    assert severities(replace(of_daemon, mounts=(ROOT_MOUNT,))) == {"unreadable": "warning"}, "not used yet"
    never_written = replace(of_daemon, mounts=(ROOT_MOUNT, replace(FILES_ON_NBD, options=(("ro", ""),))))
    assert severities(never_written) == {"unreadable": "note"}
    assert severities(machine(unreadable=(Unreadable("TCP sockets", reason),))) == {"unreadable": "note"}
    assert not found(machine(unreadable=(Unreadable("/proc/8/maps", "No such process", 8),)))
    unprivileged = machine(
        system=replace(WELL.system, privileged=False), unreadable=(Unreadable("/proc/8/fd", reason, 8),)
    )
    assert severities(unprivileged) == {"unreadable": "warning"}


def test_facts_of_the_machine_that_are_missing() -> None:
    """Where there are daemons to be judged by them."""
    blank = machine(memory=Memory(), system=replace(WELL.system, release="unknown"))
    evidence = found(blank)["unreadable"].evidence
    assert {fact.source for fact in evidence} == {
        "uname -r",
        "/proc/sys/vm/min_free_kbytes",
        "/proc/meminfo MemTotal",
        "/proc/meminfo MemAvailable",
        "/proc/sys/vm/dirty_bytes and dirty_ratio",
    }
    assert not judged(blank, replace(SERVER, kernel=True, pid=None)).findings
    no_queue = machine(devices=(replace(DEVICE, queue=Queue()),))
    assert {fact.source for fact in found(no_queue)["unreadable"].evidence} == {
        "/sys/block/nbd0/queue",
        "/sys/block/nbd0/bdi",
    }


def test_targets_that_the_snapshot_does_not_hold() -> None:
    """A service of a device or mount that went away meanwhile is judged without a traceback."""
    for kind, name in ((TargetKind.DEVICE, "nbd9"), (TargetKind.MOUNT, "0:99")):
        away = replace(SERVER, kind=kind, target=name)
        assert not found(machine({"threads": threads(BARE)}), away)
    assert DAEMON.covered
