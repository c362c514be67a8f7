"""Hand-built machines for the rules: one that is well, and ways to spoil it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ioflusher.audit.config import Config
from ioflusher.audit.finding import AuditFinding, AuditReport
from ioflusher.audit.run import audit
from ioflusher.kernel.capability import CapabilitySets
from ioflusher.kernel.task import Thread
from ioflusher.machine.endpoints import Connection, Family, SocketEnd
from ioflusher.machine.process import FileKind, FileUse, Process
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.snapshot import Memory, Snapshot, System
from ioflusher.machine.storage import BlockDevice, DeviceKind, Mount, Queue, Swap
from tests.audit.remedies import unlisted

COVERED = 0x00580140  # the state's two bits among others, as a thread of ours shows them
BARE = 0x00400140
NOIO = 0x00480140
LOCAL = 0x00500140
FUSE_STATE = 0x00540140  # NOFS and LOCAL_THROTTLE
IO_WORKER = 0x00400150
ALL_CAPABILITIES = (1 << 41) - 1
ROOT, NBD = "8:1", "43:0"

SWAP_ON_NBD = Swap("/dev/nbd0", False, NBD, 1 << 28, 4096, -2)
SWAP_ELSEWHERE = Swap("/dev/sda2", False, "8:2", 1 << 28, 0, -2)
SWAP_ON_ZRAM = Swap("/dev/zram0", False, "252:0", 1 << 28, 0, 100)
FILES_ON_NBD = Mount(2, 1, NBD, "/", "/data", "ext4", "/dev/nbd0", (("rw", ""),))
FILES_READ_ONLY = replace(FILES_ON_NBD, options=(("ro", ""),))
ROOT_MOUNT = Mount(1, 0, ROOT, "/", "/", "ext4", "/dev/sda1", (("rw", ""),))
FUSE = Mount(3, 1, "0:50", "/", "/photos", "fuse.sshfs", "x", (("rw", ""), ("user_id", "0")))

SERVER = StorageService(
    7, StorageRole.NBD_SERVER, TargetKind.DEVICE, "nbd0", "7 holds the peer of the kernel's socket"
)
SSHFS = StorageService(7, StorageRole.FUSE_SERVER, TargetKind.MOUNT, "0:50", "7 holds the connection")


def threads(*flags: int) -> tuple[Thread, ...]:
    """Threads 7, 8, ... with these flags."""
    return tuple(Thread(7 + number, "server", "S", bits) for number, bits in enumerate(flags))


DAEMON = Process(
    pid=7,
    ppid=1,
    comm="server",
    uid=0,
    threads=threads(COVERED, COVERED),
    capabilities=CapabilitySets(
        effective=ALL_CAPABILITIES, permitted=ALL_CAPABILITIES, bounding=ALL_CAPABILITIES
    ),
    locked_kib=9000,
    swapped_kib=0,
    resident_kib=8000,
    virtual_kib=20000,
    oom_score_adj=-1000,
    cgroups=(),
    exe="/usr/bin/server",
    files=(
        FileUse("/usr/bin/server", FileKind.EXECUTABLE, ROOT, 1),
        FileUse("/usr/lib/libc.so.6", FileKind.LIBRARY, ROOT, 1),
        FileUse("/var/log/server", FileKind.LOG, ROOT, 1),
        FileUse("/var/lib/disk.img", FileKind.WRITTEN, ROOT, 1, direct=True),
        FileUse("/dev/nbd0", FileKind.DEVICE, NBD),
    ),
)
QUEUE = Queue(nr_requests=128, max_sectors_kib=1280, hardware_queues=1, max_ratio=100, strict_limit=False)
DEVICE = BlockDevice("nbd0", NBD, 1 << 30, DeviceKind.NBD, serving_pid=7, queue=QUEUE)
WELL = Snapshot(
    system=System("host", "6.12.0", "x86_64", "2026-11-25T01:00:00Z", privileged=True),
    memory=Memory(
        total_kib=4 << 20,
        available_kib=2 << 20,
        min_free_kib=65536,
        dirty_bytes=0,
        dirty_ratio=20,
        dirty_kib=0,
        writeback_kib=0,
    ),
    processes=(Process(1, 0, "init", 0, (Thread(1, "init", "S", BARE),), oom_score_adj=0), DAEMON),
    devices=(
        DEVICE,
        BlockDevice("sda1", ROOT, 1 << 34, DeviceKind.SCSI),
        BlockDevice("sda2", "8:2", 1 << 30, DeviceKind.SCSI),
        BlockDevice("zram0", "252:0", 1 << 30, DeviceKind.ZRAM),
    ),
    mounts=(ROOT_MOUNT, FILES_ON_NBD),
    connections=(Connection(Family.UNIX, (SocketEnd(100, "", (7,)), SocketEnd(101, "", ()))),),
)


def machine(daemon: Mapping[str, Any] | None = None, **changes: Any) -> Snapshot:
    """The machine that is well, with changes to its daemon and to itself."""
    processes = (WELL.processes[0], replace(DAEMON, **(daemon or {})))
    return replace(WELL, **{"processes": processes, **changes})


def judged(snapshot: Snapshot, *services: StorageService, config: Config | None = None) -> AuditReport:
    """The audit of a machine on which the daemon serves nbd0, or on which these services are given.

    Whatever it finds, its commands are in the table of remedies.
    """
    report = audit(snapshot, config or Config(), services=services or (SERVER,))
    for finding in report.findings:
        assert unlisted(finding) == [], f"{finding.rule}: not in tests/audit/remedies.py"
    return report


def found(
    snapshot: Snapshot, *services: StorageService, config: Config | None = None
) -> dict[str, AuditFinding]:
    """What was found, by rule; a rule that speaks twice fails the test that did not expect it."""
    findings = judged(snapshot, *services, config=config).findings
    assert len({finding.rule for finding in findings}) == len(findings), findings
    return {finding.rule: finding for finding in findings}


def severities(snapshot: Snapshot, *services: StorageService) -> dict[str, str]:
    """The severity of what was found, by rule."""
    return {rule: finding.severity.value for rule, finding in found(snapshot, *services).items()}
