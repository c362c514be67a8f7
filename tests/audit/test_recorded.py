"""Machines as they were: Debian's own storage daemons in a guest, while they served and after SIGKILL.

snapshots/*.json.gz: Linux 6.12.117 and Debian 12, `collect()` as root in a guest of the lab, with nbdkit,
nbd-server and nbd-client, qemu-nbd, our own daemon, tcmu-runner, tgtd, iscsid, multipathd, sshfs,
fuse-overlayfs, ntfs-3g, nfs-ganesha, qemu-storage-daemon (vduse) and a small ublk server. Paths of the
machine that ran the lab were replaced.
"""

import gzip
from pathlib import Path

import pytest

from ioflusher.audit.finding import AuditReport
from ioflusher.audit.run import audit
from ioflusher.machine.codec import load_snapshot

SNAPSHOTS = Path(__file__).parent / "snapshots"


def judged(name: str) -> AuditReport:
    """The audit of a recorded machine."""
    return audit(load_snapshot(gzip.decompress((SNAPSHOTS / f"{name}.json.gz").read_bytes()), name))


@pytest.fixture(scope="module")
def serving() -> dict[str, dict[str, str]]:
    """What was found on the machine where all daemons serve: severity by rule, by process name."""
    found: dict[str, dict[str, str]] = {}
    for finding in judged("debian-daemons").findings:
        found.setdefault(finding.subject.name, {})[finding.rule] = finding.severity.value
    return found


@pytest.mark.parametrize("comm", ["nbdkit", "qemu-nbd", "tcmu-runner", "tgtd", "qemu-storage-da", "ublk"])
def test_servers_of_devices_that_nobody_uses_yet(serving: dict[str, dict[str, str]], comm: str) -> None:
    """None of them sets the state: a warning each. Swap is in memory or elsewhere: a note."""
    assert serving[comm]["uncovered"] == "warning"
    assert serving[comm]["memory-not-locked"] == "note"
    assert serving[comm].get("oom-killable", "note") == "note"


def test_a_server_of_a_mounted_file_system(serving: dict[str, dict[str, str]]) -> None:
    """ganesha is mounted from the same machine, and gives up the very capability that the state needs."""
    found = serving["ganesha.nfsd"]
    assert found["uncovered"] == "error"
    assert found["cannot-set"] == "warning"
    assert found["memory-not-locked"] == "warning"


def test_daemons_that_only_recovery_needs(serving: dict[str, dict[str, str]]) -> None:
    """multipathd locks its memory and protects itself, but has no state; iscsid has it."""
    assert serving["multipathd"] == {"uncovered": "note"}
    assert serving.get("iscsid", {}).keys() <= {"oom-killable"}


def test_a_client_that_holds_its_device(serving: dict[str, dict[str, str]]) -> None:
    """nbd-client by ioctl sits in the kernel: the state is a note, its memory nobody's concern."""
    assert serving["nbd-client"] == {"uncovered": "note", "oom-killable": "note"}


@pytest.mark.parametrize("comm", ["sshfs", "fuse-overlayfs", "ntfs-3g"])
def test_fuse_daemons_of_root(serving: dict[str, dict[str, str]], comm: str) -> None:
    """A note for the state, and nothing else."""
    assert serving[comm] == {"uncovered": "note"}


def test_nothing_is_imagined(serving: dict[str, dict[str, str]]) -> None:
    """No file of theirs lies on what they serve, no circle, nobody is missing, everything could be read."""
    rules = {rule for found in serving.values() for rule in found}
    assert rules == {"uncovered", "cannot-set", "memory-not-locked", "oom-killable"}


def test_killed_daemons_are_missed() -> None:
    """What they served stays set up, and each device and mount is named."""
    gone = {f.subject.name: f for f in judged("debian-daemons-killed").findings if f.rule == "daemon-gone"}
    assert {"/dev/vdb", "/dev/sda", "/dev/sdb", "/dev/dm-0", "/run/sshfs-a", "/run/sshfs-b"} <= gone.keys()
    assert gone["/dev/vdb"].severity.value == "warning"
    assert gone["/run/sshfs-a"].severity.value == "note"
