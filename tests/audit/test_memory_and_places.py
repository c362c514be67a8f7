"""Rules on a daemon's memory and on where its files lie, each with a neighbour that is let be."""

from dataclasses import replace

import pytest

from ioflusher.audit.config import Config
from ioflusher.audit.thresholds import Thresholds
from ioflusher.machine.process import Capabilities, FileKind, FileUse, MemoryLimit
from ioflusher.machine.serving.service import StorageRole
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
    assert severities(machine(UNLOCKED, swaps=(swap,)))["memory-not-locked"] == severity


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
    poor = {**UNLOCKED, "capabilities": Capabilities(1 << 24, 1 << 24, 1 << 24)}
    snapshot = machine(poor, swaps=(SWAP_ELSEWHERE,))
    assert found(snapshot)["memory-not-locked"].remedy.commands == (
        "prlimit --pid 7 --memlock=unlimited",
        "ioflusher set --lock-memory 7",
    )
    rich = machine(UNLOCKED, swaps=(SWAP_ELSEWHERE,))
    assert found(rich)["memory-not-locked"].remedy.commands == ("ioflusher set --lock-memory 7",)


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
    for daemon in ({"threads": threads(BARE)}, UNLOCKED):
        finding = found(machine(daemon, swaps=swaps))["swap-on-served"]
        assert (finding.severity.value, finding.subject.name) == ("error", "/dev/nbd0")
        assert finding.remedy.commands == ("swapoff /dev/nbd0",)
    assert not found(machine(swaps=swaps))
    assert "swap-on-served" not in found(machine(UNLOCKED, swaps=(SWAP_ELSEWHERE,)))
    assert "swap-on-served" not in found(machine(UNLOCKED, swaps=swaps), HOLDER)


def test_swap_in_layers_on_the_served_device() -> None:
    """A swap file in a file system on a mapped device on the served one counts; its name is quoted."""
    mapped = BlockDevice(
        "dm-0", "254:0", 1 << 29, DeviceKind.DM, slaves=("nbd0",), dm=DeviceMapper("safe", "")
    )
    mount = Mount(9, 1, "254:0", "/", "/safe", "ext4", "/dev/mapper/safe", (("rw", ""),))
    swap = Swap("/safe/a swap; rm", True, "254:0", 1 << 20, 0, -2)
    snapshot = machine(UNLOCKED, devices=(*WELL.devices, mapped), mounts=(ROOT_MOUNT, mount), swaps=(swap,))
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
