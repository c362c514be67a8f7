"""Rules on limits of the machine and its control groups, and on the services, each with a neighbour."""

from dataclasses import replace
from typing import Any

import pytest

from ioflusher.audit.config import Config
from ioflusher.audit.thresholds import Thresholds
from ioflusher.machine.process import FileKind, FileUse, MemoryLimit, Thread
from ioflusher.machine.serving.service import StorageRole, TargetKind
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


def group(**values: int | None) -> dict[str, object]:
    """A daemon in one control group."""
    known = {"version": 2, "max": None, "high": None, "swap_max": None, "current": None, **values}
    return {"cgroups": (MemoryLimit("/a b.slice", **known),)}  # type: ignore[arg-type]


def test_limits_of_control_groups() -> None:
    """Near the limit a warning, far from it a note; without one, nothing."""
    assert severities(machine(group(max=100, current=51))) == {"memory-max": "warning"}
    assert severities(machine(group(max=100, current=50))) == {"memory-max": "note"}
    assert severities(machine(group(max=100))) == {"memory-max": "warning"}
    assert severities(machine(group(high=100, current=90))) == {"memory-high": "warning"}
    assert not found(machine(group(current=100)))
    assert not found(machine(group(version=1, high=100, current=100)))
    assert severities(machine(group(version=1, max=100, current=100))) == {"memory-max": "warning"}


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
    long = replace(DEVICE, queue=replace(QUEUE, hardware_queues=1000))
    wide = reserve(8192, devices=(long,))
    most = (4 << 20) // 20
    assert found(wide)["small-reserve"].remedy.commands == (f"sysctl -w vm.min_free_kbytes={most}",)
    short = replace(DEVICE, queue=replace(QUEUE, max_sectors_kib=4))
    assert not found(reserve(512, devices=(short,)))
    assert not found(reserve(1), replace(SERVER, essential=False))
    assert not found(reserve(1, mounts=(ROOT_MOUNT,)))


def dirty(queue: Queue, flags: int = BARE, direct: bool = False, **memory: int) -> Snapshot:
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


@pytest.mark.parametrize(
    "snapshot",
    [
        dirty(replace(QUEUE, max_ratio=99), dirty_bytes=8 << 20),
        dirty(replace(QUEUE, strict_limit=True), dirty_bytes=8 << 20),
        dirty(replace(QUEUE, max_bytes=4 << 20), dirty_bytes=8 << 20),
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
    assert got == ({"swap-on-served": "error"} if field == "locked_kib" else {})


def test_what_could_not_be_read() -> None:
    """Of a daemon a warning, of the machine a note; of processes that ended meanwhile nothing."""
    reason = "Permission denied"
    of_daemon = machine(unreadable=(Unreadable("/proc/7/maps", reason, 7),))
    assert severities(of_daemon) == {"unreadable": "warning"}
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
        "/proc/sys/vm/dirty_bytes and dirty_ratio",
    }
    assert not judged(blank, replace(SERVER, kernel=True, pid=None)).findings
    no_queue = machine(devices=(replace(DEVICE, queue=Queue()),))
    assert found(no_queue)["unreadable"].evidence[0].source == "/sys/block/nbd0/queue"


def test_targets_that_the_snapshot_does_not_hold() -> None:
    """A service of a device or mount that went away meanwhile is judged without a traceback."""
    for kind, name in ((TargetKind.DEVICE, "nbd9"), (TargetKind.MOUNT, "0:99")):
        away = replace(SERVER, kind=kind, target=name)
        assert not found(machine({"threads": threads(BARE)}), away)
    assert DAEMON.covered
