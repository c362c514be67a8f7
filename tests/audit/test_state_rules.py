"""Rules on the IO_FLUSHER state: each with a machine that it speaks of, and neighbours that it lets be."""

from dataclasses import replace
from typing import Any

import pytest

from ioflusher.audit.rules.io_flusher_state import parse_release
from ioflusher.kernel.capability import CapabilitySets
from ioflusher.kernel.task import Thread
from ioflusher.machine.process import DeviceHandle
from ioflusher.machine.serving.service import StorageRole
from ioflusher.machine.snapshot import Snapshot
from tests.audit.machines import (
    BARE,
    COVERED,
    DAEMON,
    DEVICE,
    FILES_READ_ONLY,
    FUSE,
    FUSE_STATE,
    IO_WORKER,
    LOCAL,
    NBD,
    NOIO,
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


def bare(*flags: int, daemon: dict[str, Any] | None = None, **changes: Any) -> Snapshot:
    """The machine with a daemon whose threads have these flags."""
    return machine({"threads": threads(*flags or (BARE,)), **(daemon or {})}, **changes)


def test_a_machine_that_is_well_has_no_findings() -> None:
    """The neighbour of all: a covered daemon with locked memory and its files elsewhere."""
    assert judged(WELL).findings == ()
    assert judged(WELL).looked.daemons == ("server (7): NBD server of /dev/nbd0",)


def test_a_machine_without_daemons_has_no_findings() -> None:
    """Bare threads, swap and killable processes are nothing where nobody serves."""
    quiet = machine({"threads": threads(BARE), "oom_score_adj": 0, "locked_kib": 0}, swaps=(SWAP_ON_NBD,))
    assert judged(quiet, replace(SERVER, kernel=True, pid=None)).findings == ()


def test_no_thread_covered() -> None:
    """An error with every bare thread as evidence, and the command that helps."""
    finding = found(bare(BARE, BARE))["uncovered"]
    assert finding.severity.value == "error"
    assert [fact.source for fact in finding.evidence[:2]] == [
        "/proc/7/task/7/stat field 9",
        "/proc/7/task/8/stat field 9",
    ]
    assert finding.evidence[0].said == "0x00400140 server"
    assert finding.remedy.commands == ("ioflusher set 7",)
    assert "partly-covered" not in found(bare(BARE, BARE))


def test_many_threads_are_not_all_named() -> None:
    """The report stays readable with a thousand threads."""
    finding = found(bare(*[BARE] * 1000))["uncovered"]
    assert len(finding.evidence) < 12
    assert "992 threads more" in {fact.said for fact in finding.evidence}


def test_some_threads_covered() -> None:
    """One bare thread among covered ones is its own finding."""
    finding = found(bare(COVERED, BARE))["partly-covered"]
    assert (finding.severity.value, finding.evidence[0].source) == ("error", "/proc/7/task/8/stat field 9")
    assert "uncovered" not in found(bare(COVERED, BARE))


def test_dead_threads_do_not_count() -> None:
    """A zombie without the state endangers nobody."""
    dead = Thread(8, "server", "Z", BARE)
    assert not found(machine({"threads": (*threads(COVERED), dead)}))


@pytest.mark.parametrize(("flags", "severity"), [(LOCAL, "error"), (NOIO, "warning"), (FUSE_STATE, "error")])
def test_one_bit(flags: int, severity: str) -> None:
    """NOIO alone may be the kernel's own doing; NOFS with LOCAL_THROTTLE is no protection of a device."""
    assert severities(bare(COVERED, flags))["half-set"] == severity
    assert found(bare(COVERED, flags)).keys() <= {"half-set", "dirty-limits"}


def test_the_state_made_for_fuse_is_whole_for_fuse() -> None:
    """And LOCAL_THROTTLE alone is not."""
    assert not found(bare(FUSE_STATE, mounts=(ROOT_MOUNT, FUSE)), SSHFS)
    assert "half-set" in found(bare(LOCAL, mounts=(ROOT_MOUNT, FUSE)), SSHFS)


def test_kernel_workers_are_not_judged_like_threads() -> None:
    """A bare io_uring worker of a covered daemon is a note; beside bare threads it is not mentioned."""
    assert severities(bare(COVERED, IO_WORKER)) == {"worker-uncovered": "note"}
    assert not found(bare(COVERED, COVERED | 0x10))
    assert severities(bare(BARE, IO_WORKER)) == {"uncovered": "error", "dirty-limits": "note"}
    remedy = found(bare(BARE, IO_WORKER))["uncovered"].remedy
    assert remedy.commands == (), "`ioflusher set` ends with status 1 for it"
    assert "thread 8 is a worker of the kernel (io_uring, vhost)" in remedy.words
    assert "covers 1 thread, ending with status 1" in remedy.words
    assert found(bare(BARE, COVERED | 0x10))["uncovered"].remedy.commands == ("ioflusher set 7",)


@pytest.mark.parametrize(
    ("stake", "severity"),
    [
        ({"swaps": (SWAP_ON_NBD,)}, "error"),
        ({}, "error"),
        ({"mounts": (ROOT_MOUNT,)}, "warning"),  # not used yet
        ({"mounts": (ROOT_MOUNT, FILES_READ_ONLY)}, None),
        ({"mounts": (ROOT_MOUNT,), "devices": (replace(DEVICE, read_only=True),)}, None),
    ],
)
def test_what_depends_on_it_weighs(stake: dict[str, Any], severity: str | None) -> None:
    """Swap and writable files weigh most; what nobody can write to is passed over."""
    assert severities(bare(**stake)).get("uncovered") == severity


def test_who_is_needed_weighs() -> None:
    """Recovery daemons, uncertain ones and clients that merely hold the device weigh less."""
    services = (
        (replace(SERVER, essential=False, role=StorageRole.MULTIPATH), "warning"),
        (replace(SERVER, certain=False), "warning"),
        (replace(SERVER, essential=False, role=StorageRole.NBD_CLIENT), "note"),
        (replace(SERVER, essential=True, role=StorageRole.NBD_CLIENT), "error"),
    )
    for service, severity in services:
        assert severities(bare(), service)["uncovered"] == severity, service
    holder = found(bare(), services[2][0])["uncovered"]
    assert holder.remedy.commands == (), "a thread inside NBD_DO_IT cannot be made to call"


def in_do_it(*flags: int, serving_tid: int = 8, held: str = NBD) -> Snapshot:
    """The daemon as qemu-nbd is: it holds /dev/nbd0, and one of its threads set the device up by ioctl."""
    return bare(
        *flags,
        devices=(replace(DEVICE, serving_pid=serving_tid), *WELL.devices[1:]),
        daemon={"handles": (DeviceHandle("/dev/nbd0", held),)},
    )


def test_a_thread_that_cannot_be_stopped() -> None:
    """`ioflusher set` would leave it alone: the remedy is to start anew, and says which thread it is."""
    finding = found(in_do_it(BARE, BARE, BARE))["uncovered"]
    assert finding.severity.value == "error"
    assert finding.remedy.commands == ()
    assert finding.remedy.lasting == ('ioflusher unit --install "$(ps -o unit= -p 7)"',)
    assert "cannot put the state on all of it: thread 8 waits in ioctl(NBD_DO_IT)" in finding.remedy.words
    assert "`ioflusher run -- COMMAND`" in finding.remedy.words
    assert "covers 2 threads, ending with status 1" in finding.remedy.words


@pytest.mark.parametrize(("serving_tid", "held"), [(7, "43:16"), (99, NBD), (8, "43:16")])
def test_a_device_that_was_set_up_by_netlink_holds_no_thread(serving_tid: int, held: str) -> None:
    """The pid of sysfs then names who once sent the request; nobody waits in NBD_DO_IT."""
    finding = found(in_do_it(BARE, BARE, serving_tid=serving_tid, held=held))["uncovered"]
    assert finding.remedy.commands == ("ioflusher set 7",)


def test_a_fuse_daemon_of_which_a_part_has_its_state() -> None:
    """libfuse's NOFS and LOCAL_THROTTLE cover a thread of a daemon that serves FUSE alone."""
    fuse = machine({"threads": threads(FUSE_STATE, BARE)}, mounts=(ROOT_MOUNT, FUSE))
    assert found(fuse, SSHFS).keys() == {"partly-covered"}
    assert found(machine({"threads": threads(BARE, BARE)}, mounts=(ROOT_MOUNT, FUSE)), SSHFS).keys() == {
        "uncovered"
    }


def test_a_thread_that_only_waits_in_nbd_do_it() -> None:
    """With all others covered it is a note, and swap may lie there; one more bare thread is an error."""
    swap: dict[str, Any] = {"swaps": (SWAP_ON_NBD,)}
    snapshot = replace(in_do_it(COVERED, BARE), **swap)
    assert severities(snapshot) == {"partly-covered": "note"}
    assert "only wait in ioctl(NBD_DO_IT)" in found(snapshot)["partly-covered"].summary
    covered_there = found(replace(in_do_it(BARE, COVERED), **swap))["partly-covered"]
    assert covered_there.remedy.commands == ("ioflusher set 7",), "the thread in it needs nothing any more"
    other = replace(in_do_it(COVERED, BARE, BARE), **swap)
    got = severities(other)
    assert (got["partly-covered"], got["swap-on-served"]) == ("error", "error")


def test_fuse_mounts_of_ordinary_users_are_let_be() -> None:
    """A desktop has several; one of root is a note; one that carries a swap file weighs whole."""
    users = replace(FUSE, options=(("rw", ""), ("user_id", "1000")))
    assert not found(bare(mounts=(ROOT_MOUNT, users)), SSHFS)
    assert severities(bare(mounts=(ROOT_MOUNT, FUSE)), SSHFS) == {"uncovered": "note"}
    swap = replace(SWAP_ON_NBD, path="/photos/swap", is_file=True, number="0:50")
    assert severities(bare(mounts=(ROOT_MOUNT, users), swaps=(swap,)), SSHFS)["uncovered"] == "error"


NONE = CapabilitySets(effective=0, permitted=0, bounding=0)
EFFECTIVE_ONLY = CapabilitySets(effective=1 << 24, permitted=0, bounding=0)


def test_the_capability_is_missing() -> None:
    """Told with all three sets where the state is missing too, and only then."""
    finding = found(machine({"threads": threads(BARE), "capabilities": NONE}))["cannot-set"]
    assert [fact.source for fact in finding.evidence[:3]] == [
        f"/proc/7/status {name}" for name in ("CapEff", "CapPrm", "CapBnd")
    ]
    assert finding.remedy.unit == (
        "AmbientCapabilities=CAP_SYS_RESOURCE",
        "CapabilityBoundingSet=CAP_SYS_RESOURCE",
    )
    useless = found(machine({"threads": threads(BARE), "capabilities": NONE}))["uncovered"].remedy
    assert useless.commands == (), "what the kernel would refuse is not advised"
    assert useless.lasting == ('ioflusher unit --install "$(ps -o unit= -p 7)"',)
    assert not found(machine({"capabilities": NONE}))
    for enough in (EFFECTIVE_ONLY, DAEMON.capabilities):
        assert "cannot-set" not in found(machine({"threads": threads(BARE), "capabilities": enough}))


def test_an_old_kernel() -> None:
    """Before 5.6, unless somebody carries the state there: distributions bring calls back."""
    old = replace(WELL.system, release="4.18.0-553.el8")
    assert "kernel-too-old" in found(bare(system=old))
    assert "kernel-too-old" not in found(bare(BARE, COVERED, system=old))
    assert "kernel-too-old" not in found(bare(system=replace(old, release="5.6.0")))
    assert not judged(machine(system=old), replace(SERVER, kernel=True, pid=None)).findings


def test_an_old_kernel_is_as_bad_as_its_worst_daemon() -> None:
    """One that only recovery needs weighs less than one that each request needs, whichever comes first."""
    old = bare(system=replace(WELL.system, release="4.18.0"))
    second = replace(DAEMON, pid=9, threads=threads(BARE))
    snapshot = replace(old, processes=(*old.processes, second))
    recovery = replace(SERVER, essential=False, role=StorageRole.MULTIPATH)
    for mild, bad in ((7, 9), (9, 7)):
        got = judged(snapshot, replace(recovery, pid=mild), replace(SERVER, pid=bad)).findings
        assert [f.severity.value for f in got if f.rule == "kernel-too-old"] == ["error"]
    mild_only = judged(old, recovery).findings
    assert [f.severity.value for f in mild_only if f.rule == "kernel-too-old"] == ["warning"]


@pytest.mark.parametrize(
    ("text", "version"),
    [("6.12.0-x", (6, 12)), ("10.2", (10, 2)), ("", None), ("x6.1", None), ("9" * 99, None)],
)
def test_releases(text: str, version: tuple[int, int] | None) -> None:
    """Two numbers at the beginning, else nothing."""
    assert parse_release(text) == version
