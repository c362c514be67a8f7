"""Rules on a daemon's memory and on where its files lie, each with a neighbour that is let be."""

from dataclasses import replace
from typing import Any

import pytest

from ioflusher.audit.config import Config
from ioflusher.audit.finding import AuditFinding
from ioflusher.audit.thresholds import Thresholds
from ioflusher.kernel.capability import CapabilitySets
from ioflusher.kernel.lock_plan import mib
from ioflusher.machine.process import DeviceHandle, FileKind, FileUse, MemoryLimit
from ioflusher.machine.serving.service import StorageRole, StorageService
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.storage import BlockDevice, DeviceKind, DeviceMapper, Mount, Swap
from tests.audit.machines import (
    BARE,
    DAEMON,
    FUSE,
    NBD,
    ROOT,
    ROOT_MOUNT,
    SERVER,
    SSHFS,
    SWAP_ELSEWHERE,
    SWAP_ON_NBD,
    SWAP_ON_ZRAM,
    WELL,
    found,
    judged,
    machine,
    severities,
    threads,
)

UNLOCKED = {"locked_kib": 0}
HOLDER = replace(SERVER, role=StorageRole.NBD_CLIENT, essential=False)


@pytest.mark.parametrize(
    ("swap", "severity"),
    [(SWAP_ON_NBD, "error"), (SWAP_ELSEWHERE, "warning"), (SWAP_ON_ZRAM, "note")],
)
def test_unlocked_memory(swap: Swap, severity: str) -> None:
    """Worst where the swap is the daemon's own, least where it is compressed memory."""
    finding = found(machine(UNLOCKED, swaps=(swap,)))["memory-not-locked"]
    assert finding.severity.value == severity
    assert finding.summary.endswith("there is swap on what it serves") is (swap is SWAP_ON_NBD)
    assert finding.summary.endswith("there is swap") is (swap is not SWAP_ON_NBD)


def test_memory_that_cannot_be_swapped() -> None:
    """Without swap, locked but for a little, or kept out of swap by its control group."""
    kept_out = MemoryLimit("/daemon", 2, None, None, swap_max=0, current=None)
    assert not found(machine(UNLOCKED))
    for daemon in ({"locked_kib": 7000}, {**UNLOCKED, "cgroups": (kept_out,)}):
        assert not found(machine(daemon, swaps=(SWAP_ON_NBD,)))
    partly = machine({"locked_kib": 6000}, swaps=(SWAP_ELSEWHERE,))
    assert severities(partly) == {"memory-not-locked": "warning"}
    assert not found(partly, config=Config(thresholds=Thresholds(unlocked_kib=2000)))
    assert not found(machine(UNLOCKED, swaps=(SWAP_ELSEWHERE,)), HOLDER)
    assert not found(machine(UNLOCKED, swaps=(SWAP_ELSEWHERE,), mounts=(ROOT_MOUNT, FUSE)), SSHFS)


def test_locking_needs_a_limit_without_the_capability() -> None:
    """The remedy lifts RLIMIT_MEMLOCK first where the daemon has no CAP_IPC_LOCK."""
    poor = {
        **UNLOCKED,
        "capabilities": CapabilitySets(effective=1 << 24, permitted=1 << 24, bounding=1 << 24),
    }
    snapshot = machine(poor, swaps=(SWAP_ELSEWHERE,))
    assert found(snapshot)["memory-not-locked"].remedy.commands == (
        "prlimit --pid 7 --memlock=unlimited",
        "ioflusher set --lock-memory 7",
    )
    rich = machine(UNLOCKED, swaps=(SWAP_ELSEWHERE,))
    assert found(rich)["memory-not-locked"].remedy.commands == ("ioflusher set --lock-memory 7",)


@pytest.mark.parametrize(
    ("daemon", "memory", "commands"),
    [
        # 12000 KiB are absent at most; an eighth of 64 MiB is 8192 KiB
        ({}, {"total_kib": 65536, "available_kib": 24000}, True),
        ({}, {"total_kib": 65536, "available_kib": 23999}, False),
        ({}, {"total_kib": 65536, "available_kib": 30000, "dirty_kib": 3000, "writeback_kib": 3000}, True),
        ({}, {"total_kib": 65536, "available_kib": 30000, "dirty_kib": 3000, "writeback_kib": 3001}, False),
        (
            {},
            {"total_kib": 1 << 20, "available_kib": 100000},
            False,
        ),  # an eighth of the machine would not stay
        (
            {"virtual_kib": 1 << 20, "resident_kib": 350 << 10},
            {"available_kib": 235 << 10},
            False,
        ),  # as it froze
        ({"cgroups": (MemoryLimit("/d", 2, 1 << 30, None, None, 0),)}, {}, True),
        ({"cgroups": (MemoryLimit("/d", 2, 1 << 30, None, None, 600 << 20),)}, {}, False),
        ({"cgroups": (MemoryLimit("/d", 1, 1 << 30, 1, None, 0),)}, {}, True),  # a soft limit
        ({"cgroups": (MemoryLimit("/d", 2, None, 20 << 20, None, 0),)}, {}, False),
        ({"cgroups": (MemoryLimit("/d", 2, 1 << 40, None, None, None),)}, {}, False),  # use unknown
        ({"virtual_kib": None}, {}, False),
        ({"resident_kib": None, "locked_kib": 0}, {}, False),
        ({"swapped_kib": None}, {}, False),
        ({}, {"available_kib": None}, False),
        ({}, {"total_kib": None}, False),
    ],
)
def test_memory_is_locked_only_where_the_figures_allow_it(
    daemon: dict[str, Any], memory: dict[str, Any], commands: bool
) -> None:
    """By a command only where what mlockall may take is known and small beside what is available."""
    snapshot = machine({**UNLOCKED, **daemon}, swaps=(SWAP_ELSEWHERE,), memory=replace(WELL.memory, **memory))
    remedy = found(snapshot)["memory-not-locked"].remedy
    assert remedy.commands == (("ioflusher set --lock-memory 7",) if commands else ())
    assert remedy.unit == ("LimitMEMLOCK=infinity", "MemorySwapMax=0")
    assert remedy.words.startswith("Lock its memory: " if commands else "Lock its memory when it starts, ")


def test_the_figures_are_given() -> None:
    """Where it is done and where it is not; what is in swap on its own device is not brought back so."""
    fine = found(machine(UNLOCKED, swaps=(SWAP_ON_NBD,)))["memory-not-locked"].remedy
    assert fine.words == f"Lock its memory: mlockall would populate {mib(12000)}, 2048 MiB are available."
    tight = replace(WELL.memory, available_kib=20000)
    words = found(machine(UNLOCKED, swaps=(SWAP_ON_NBD,), memory=tight))["memory-not-locked"].remedy.words
    assert f"when it starts, not as it runs: mlockall would populate {mib(12000)}, more than half" in words
    to_write = replace(WELL.memory, available_kib=100, dirty_kib=100, writeback_kib=60)
    words = found(machine(UNLOCKED, swaps=(SWAP_ON_NBD,), memory=to_write))["memory-not-locked"].remedy.words
    assert words.endswith(" 0 KiB are available."), "pages that wait to be written are not free"
    group = {"cgroups": (MemoryLimit("/d", 2, 1 << 40, None, None, None),)}
    words = found(machine({**UNLOCKED, **group}, swaps=(SWAP_ON_NBD,)))["memory-not-locked"].remedy.words
    assert words.endswith(" 0 KiB are available."), "of a group whose use is unknown"
    for kib in (1, 40):
        inside = machine({**UNLOCKED, "swapped_kib": kib}, swaps=(SWAP_ON_NBD,))
        for rule in ("memory-not-locked", "swapped-out"):
            remedy = found(inside)[rule].remedy
            assert remedy.commands == ()
            assert f"not as it runs: {kib} KiB of it in swap that it serves itself" in remedy.words
    elsewhere = found(machine({**UNLOCKED, "swapped_kib": 40}, swaps=(SWAP_ELSEWHERE,)))["swapped-out"]
    assert elsewhere.remedy.commands == ("ioflusher set --lock-memory 7",)


def test_a_daemon_with_a_thread_that_cannot_be_stopped_is_not_locked_by_command() -> None:
    """`ioflusher set` ends with 1 for it, though it locks: that is said in words."""
    held = {**UNLOCKED, "threads": threads(BARE), "handles": (DeviceHandle("/dev/nbd0", NBD),)}
    remedy = found(machine(held, swaps=(SWAP_ELSEWHERE,)))["memory-not-locked"].remedy
    assert remedy.commands == ()
    assert "ends with status 1 because it cannot put the state on all of it" in remedy.words


def test_what_is_not_known_is_not_called_zero() -> None:
    """In the evidence, and where locked memory is known and resident memory is not."""
    unknown = machine({"locked_kib": None}, swaps=(SWAP_ON_NBD,))
    facts = {fact.source: fact.said for fact in found(unknown)["swap-on-served"].evidence}
    assert facts["/proc/7/status VmLck"] == "unknown"
    assert machine({"resident_kib": None}).processes[1].memory_locked is None
    assert machine({"locked_kib": 0}).processes[1].memory_locked is False
    assert machine({"locked_kib": 0, "resident_kib": 0}).processes[1].memory_locked is True


def test_swapped_out_now() -> None:
    """Any part of it, unless the configuration allows some."""
    snapshot = machine({"swapped_kib": 40}, swaps=(SWAP_ELSEWHERE,))
    assert severities(snapshot) == {"swapped-out": "warning"}
    assert not found(snapshot, config=Config(thresholds=Thresholds(swapped_kib=40)))
    assert not found(machine({"swapped_kib": 0}, swaps=(SWAP_ELSEWHERE,)))
    assert severities(machine({"swapped_kib": 1}, swaps=(SWAP_ON_NBD,))) == {"swapped-out": "error"}


def test_swap_on_the_served_device() -> None:
    """An error until the daemon is fit to carry it, which takes both the state and locked memory."""
    swaps = (SWAP_ON_NBD,)
    helpless = {
        "threads": threads(BARE),
        "capabilities": CapabilitySets(effective=0, permitted=0, bounding=0),
    }
    for daemon, command in (
        ({"threads": threads(BARE)}, "ioflusher set 7"),  # its memory is locked: the state is all it lacks
        ({"threads": threads(BARE), **UNLOCKED}, "ioflusher set --lock-memory 7"),  # this does both
        (UNLOCKED, "ioflusher set --lock-memory 7"),
        ({**UNLOCKED, "virtual_kib": None}, "swapoff /dev/nbd0"),
        (helpless, "swapoff /dev/nbd0"),
    ):
        finding = found(machine(daemon, swaps=swaps))["swap-on-served"]
        assert (finding.severity.value, finding.subject.name) == ("error", "/dev/nbd0")
        assert finding.remedy.commands == (command,)
        figures = f"(mlockall would populate {mib(12000)}, 2048 MiB are available)"
        assert (figures in finding.remedy.words) is ("--lock-memory" in command)
    assert not found(machine(swaps=swaps))
    assert "swap-on-served" not in found(machine(UNLOCKED, swaps=(SWAP_ELSEWHERE,)))
    assert "swap-on-served" not in found(machine(UNLOCKED, swaps=swaps), HOLDER)


@pytest.mark.parametrize(
    ("file", "found_it"),
    [
        (FileUse("/srv/image", FileKind.WRITTEN, ROOT, 1), True),
        (FileUse("/srv/image", FileKind.WRITTEN, ROOT, 1, direct=True), False),
        (FileUse("/srv/image", FileKind.READ, ROOT, 1), False),
        (FileUse("/srv/log", FileKind.LOG, ROOT, 1), False),
        (FileUse("/dev/sda", FileKind.DEVICE, ROOT), False),
        (FileUse("/run/pid", FileKind.WRITTEN, "0:25", 25), False),
        (FileUse("/srv/image", FileKind.WRITTEN, "9:9"), False),  # nobody knows where it lies
    ],
)
def test_swap_that_is_stored_in_a_buffered_file(file: FileUse, found_it: bool) -> None:
    """The flusher writes only what is dirty in a page cache with a disk below it."""
    memory = Mount(25, 1, "0:25", "/", "/run", "tmpfs", "tmpfs")
    snapshot = machine({"files": (file,)}, swaps=(SWAP_ON_NBD,))
    snapshot = replace(snapshot, mounts=(*snapshot.mounts, memory))
    assert ("swap-stored-in-file" in found(snapshot)) is found_it
    elsewhere = replace(snapshot, swaps=(SWAP_ELSEWHERE,))
    assert "swap-stored-in-file" not in found(elsewhere)
    assert "swap-stored-in-file" not in found(snapshot, HOLDER)


def swap_findings(snapshot: Snapshot, *services: StorageService) -> list[AuditFinding]:
    return [one for one in judged(snapshot, *services).findings if one.rule == "swap-on-served"]


def test_one_swap_area_is_one_finding() -> None:
    """Whoever serves it: candidates behind a loopback connection, or a client and its server."""
    second = replace(DAEMON, pid=8, comm="other", locked_kib=0)
    snapshot = machine(UNLOCKED, swaps=(SWAP_ON_NBD,))
    snapshot = replace(snapshot, processes=(*snapshot.processes, second))
    services = (
        replace(SERVER, pid=8, certain=False),
        replace(SERVER, role=StorageRole.NBD_CLIENT),
        SERVER,
    )
    (finding,) = swap_findings(snapshot, *services)
    assert (finding.severity.value, finding.group) == ("error", "server (7)")
    assert finding.summary == (
        "swap (/dev/nbd0) lies on /dev/nbd0, and server (7) lacks locked memory; "
        "other (8) (one of several candidates) lacks locked memory"
    )
    assert [fact.source for fact in finding.evidence if "VmLck" in fact.source] == [
        "/proc/7/status VmLck",
        "/proc/8/status VmLck",
    ]
    fit = replace(snapshot, processes=(*snapshot.processes[:2], replace(second, locked_kib=9000)))
    (finding,) = swap_findings(fit, *services)
    assert "other" not in finding.summary


def test_two_swap_areas_on_one_device_are_one_finding() -> None:
    """And on two devices they are two."""
    part = replace(SWAP_ON_NBD, path="/dev/nbd0p2", used=0)
    unknown = {**UNLOCKED, "virtual_kib": None}
    (finding,) = swap_findings(machine(unknown, swaps=(SWAP_ON_NBD, part)))
    assert finding.remedy.commands == ("swapoff /dev/nbd0", "swapoff /dev/nbd0p2")
    second = BlockDevice("nbd1", "43:16", 1 << 30, DeviceKind.NBD)
    there = replace(SWAP_ON_NBD, path="/dev/nbd1", number="43:16")
    snapshot = machine(UNLOCKED, swaps=(SWAP_ON_NBD, there), devices=(*WELL.devices, second))
    two = swap_findings(snapshot, SERVER, replace(SERVER, target="nbd1"))
    assert [finding.subject.name for finding in two] == ["/dev/nbd0", "/dev/nbd1"]


def test_swap_in_layers_on_the_served_device() -> None:
    """A swap file in a file system on a mapped device on the served one counts; its name is quoted."""
    mapped = BlockDevice(
        "dm-0", "254:0", 1 << 29, DeviceKind.DM, slaves=("nbd0",), dm=DeviceMapper("safe", "")
    )
    mount = Mount(9, 1, "254:0", "/", "/safe", "ext4", "/dev/mapper/safe", (("rw", ""),))
    swap = Swap("/safe/a swap; rm", True, "254:0", 1 << 20, 0, -2)
    unknown = {**UNLOCKED, "virtual_kib": None}
    snapshot = machine(unknown, devices=(*WELL.devices, mapped), mounts=(ROOT_MOUNT, mount), swaps=(swap,))
    assert found(snapshot)["swap-on-served"].remedy.commands == ("swapoff '/safe/a swap; rm'",)


def with_file(kind: FileKind, **changes: object) -> dict[str, object]:
    """The daemon with one more file, on the device that it serves."""
    return {"files": (*(DAEMON.files or ()), FileUse("/data/x", kind, NBD, 2)), **changes}


@pytest.mark.parametrize(
    ("kind", "rule", "severity"),
    [
        (FileKind.EXECUTABLE, "executable-on-served", "error"),
        (FileKind.LIBRARY, "library-on-served", "error"),
        (FileKind.LOG, "log-on-served", "error"),
        (FileKind.WRITTEN, "file-on-served", "error"),
        (FileKind.READ, "file-on-served", "warning"),
        (FileKind.MAPPED, "file-on-served", "error"),
    ],
)
def test_files_on_the_served_device(kind: FileKind, rule: str, severity: str) -> None:
    """Each kind of file has its rule; one on another device is let be, as all of the other tests show."""
    assert severities(machine(with_file(kind, **UNLOCKED))) == {rule: severity}
    locked = severities(machine(with_file(kind)))
    mapped = kind in (FileKind.EXECUTABLE, FileKind.LIBRARY, FileKind.MAPPED)
    assert locked == ({} if mapped else {rule: severity}), "what is mapped and locked is not read again"
    recovery = replace(SERVER, role=StorageRole.MULTIPATH, essential=False)
    weight = {"error": "warning", "warning": "note"}[severity]
    assert severities(machine(with_file(kind, **UNLOCKED)), recovery) == {rule: weight}


@pytest.mark.parametrize(
    ("number", "said"), [(1, "/data/0)"), (2, "/data/0 and 1 file more)"), (3, "/data/0 and 2 files more)")]
)
def test_files_of_a_kind_are_counted(number: int, said: str) -> None:
    """The first is named, and how many there are beside it."""
    files = tuple(FileUse(f"/data/{n}", FileKind.LOG, NBD, 2) for n in range(number))
    finding = found(machine({"files": files}))["log-on-served"]
    assert f"({said} lies on /dev/nbd0, which it serves" in finding.summary
    assert [fact.said for fact in finding.evidence[:number]] == [
        f"/data/{n} on device {NBD}" for n in range(number)
    ]


def test_a_store_on_top_of_the_served_device() -> None:
    """A device that lies on the served one is a file on it; the served one itself is held to control it."""
    part = BlockDevice("nbd0p1", "43:1", 1 << 20, DeviceKind.PARTITION, parent="nbd0")
    own = FileUse("/dev/nbd0p1", FileKind.DEVICE, "43:1")
    snapshot = machine({"files": (own,)}, devices=(*WELL.devices, part))
    assert severities(snapshot) == {"file-on-served": "error"}
    assert not found(machine({"files": (FileUse("/dev/nbd0", FileKind.DEVICE, NBD),)}))


def test_a_fuse_daemon_in_its_own_mount() -> None:
    """Its number says so, whatever the path looks like."""
    snapshot = machine(
        {"files": (FileUse("/elsewhere/log", FileKind.LOG, "0:50"),)}, mounts=(ROOT_MOUNT, FUSE)
    )
    assert severities(snapshot, SSHFS) == {"log-on-served": "error"}
    beside = machine({"files": (FileUse("/photos/log", FileKind.LOG, ROOT),)}, mounts=(ROOT_MOUNT, FUSE))
    assert not found(beside, SSHFS)
