"""Each rule by its name: a machine on which it finds something, of whom, in which words, and why."""

from dataclasses import dataclass, replace

import pytest

from ioflusher.audit.table import BY_NAME, RULES
from ioflusher.machine.endpoints import Connection, Family, Listener, SocketEnd
from ioflusher.machine.process import FileKind, FileUse, MemoryLimit
from ioflusher.machine.serving.service import Candidate, Confidence, StorageService
from ioflusher.machine.snapshot import Snapshot, Unreadable
from tests.audit.machines import (
    BARE,
    COVERED,
    DAEMON,
    IO_WORKER,
    LOCAL,
    NBD,
    ROOT,
    SERVER,
    SWAP_ELSEWHERE,
    SWAP_ON_NBD,
    WELL,
    judged,
    machine,
    threads,
)

PROCESS, DEVICE, MACHINE = "server (7)", "/dev/nbd0", "host"
assert DAEMON.capabilities is not None
NONE = replace(DAEMON.capabilities, effective=0, permitted=0, bounding=0)


def group(**limits: int) -> dict[str, tuple[MemoryLimit, ...]]:
    """The daemon's control group, with one of its limits nearly reached."""
    known = {"max": None, "high": None, **limits}
    return {"cgroups": (MemoryLimit("/d", 2, known["max"], known["high"], None, 90, (1, 7)),)}


def on_served(kind: FileKind) -> Snapshot:
    """The daemon with a file on what it serves, its memory not locked."""
    return machine({"files": (FileUse("/data/x", kind, NBD, 2),), "locked_kib": 0})


def forwarding() -> Snapshot:
    """The daemon forwards to a bare process of the same machine."""
    bare = replace(DAEMON.threads[0], tid=20, comm="other", flags=BARE)
    peer = replace(DAEMON, pid=20, comm="other", threads=(bare,), files=(), exe=None)
    return replace(
        WELL,
        processes=(*WELL.processes, peer),
        connections=(
            Connection(Family.UNIX, (SocketEnd(202, "", (7,)), SocketEnd(201, "/run/store", (20,)))),
        ),
        listeners=(Listener(Family.UNIX, SocketEnd(200, "/run/store", (20,))),),
    )


@dataclass(frozen=True, slots=True)
class Case:
    """What one rule finds on a machine.

    Attributes:
        subject, group: of whom, and with whom it belongs.
        words: how the summary goes on behind what the daemon serves.
    """

    rule: str
    snapshot: Snapshot
    subject: str
    words: str
    group: str = PROCESS
    severity: str = "error"
    services: tuple[StorageService, ...] = (SERVER,)


CASES = (
    Case(
        "uncovered", machine({"threads": threads(BARE, BARE)}), PROCESS, "none of 2 threads carries the state"
    ),
    Case(
        "partly-covered",
        machine({"threads": threads(COVERED, BARE)}),
        PROCESS,
        "1 of 2 threads do not carry the state",
    ),
    Case(
        "half-set",
        machine({"threads": threads(COVERED, LOCAL)}),
        PROCESS,
        "1 thread with one of the state's two bits",
    ),
    Case(
        "worker-uncovered",
        machine({"threads": threads(COVERED, IO_WORKER)}),
        PROCESS,
        "1 worker of the kernel without the state",
        severity="note",
    ),
    Case(
        "cannot-set",
        machine({"threads": threads(BARE), "capabilities": NONE}),
        PROCESS,
        "lacks CAP_SYS_RESOURCE in CapEff, CapPrm, CapBnd",
        severity="warning",
    ),
    Case(
        "kernel-too-old",
        machine({"threads": threads(BARE)}, system=replace(WELL.system, release="5.5.19")),
        MACHINE,
        "Linux 5.5.19 is older than 5.6 and serves 1 daemon in the I/O path",
        group=MACHINE,
    ),
    Case(
        "memory-not-locked",
        machine({"locked_kib": 0}, swaps=(SWAP_ELSEWHERE,)),
        PROCESS,
        "0 KiB of its memory are locked, 8000 KiB resident, and there is swap",
        severity="warning",
    ),
    Case(
        "swapped-out",
        machine({"swapped_kib": 12}, swaps=(SWAP_ON_NBD,)),
        PROCESS,
        "12 KiB of its memory are swapped out now",
    ),
    Case(
        "swap-on-served",
        machine({"locked_kib": 0}, swaps=(SWAP_ON_NBD,)),
        DEVICE,
        "swap (/dev/nbd0) lies on /dev/nbd0, and server (7) lacks locked memory",
    ),
    Case(
        "swap-stored-in-file",
        machine({"files": (FileUse("/srv/image", FileKind.WRITTEN, ROOT, 1),)}, swaps=(SWAP_ON_NBD,)),
        PROCESS,
        "there is swap on it, and what it writes to /srv/image is written back by the kernel's flusher",
        severity="warning",
    ),
    Case(
        "executable-on-served",
        on_served(FileKind.EXECUTABLE),
        PROCESS,
        "its executable (/data/x) lies on /dev/nbd0, which it serves",
    ),
    Case(
        "library-on-served",
        on_served(FileKind.LIBRARY),
        PROCESS,
        "a library of it (/data/x) lies on /dev/nbd0, which it serves",
    ),
    Case(
        "log-on-served",
        on_served(FileKind.LOG),
        PROCESS,
        "its log (/data/x) lies on /dev/nbd0, which it serves",
    ),
    Case(
        "file-on-served",
        on_served(FileKind.WRITTEN),
        PROCESS,
        "an open file of it (/data/x) lies on /dev/nbd0, which it serves",
    ),
    Case(
        "cycle",
        forwarding(),
        PROCESS,
        "it waits for itself: nbd0 -> server (7) -> other (20) -> memory reclaim",
        severity="warning",
    ),
    Case(
        "oom-killable",
        machine({"oom_score_adj": -899}),
        PROCESS,
        "its oom_score_adj is -899, so it may be killed when memory is short",
        severity="warning",
    ),
    Case(
        "cgroup-unkillable",
        machine({"cgroups": (MemoryLimit("/d", 2, 100, None, None, 90, (7,)),)}),
        PROCESS,
        "the control group /d has a limit of 100 bytes, and every task in it has an oom_score_adj of -1000",
        severity="warning",
    ),
    Case(
        "memory-max",
        machine(group(max=100)),
        PROCESS,
        "its control group /d has memory.max 100 bytes, 90 bytes of it used",
        severity="warning",
    ),
    Case(
        "memory-high",
        machine(group(high=100)),
        PROCESS,
        "its control group /d has memory.high 100 bytes, 90 bytes of it used",
        severity="warning",
    ),
    Case(
        "small-reserve",
        machine(memory=replace(WELL.memory, min_free_kib=4096)),
        MACHINE,
        "the reserve of 4096 KiB is less than the 8192 KiB that the queues of /dev/nbd0 may take",
        group=MACHINE,
        severity="note",
    ),
    Case(
        "dirty-limits",
        machine(
            {"threads": threads(BARE), "files": (FileUse("/var/disk", FileKind.WRITTEN, ROOT, 1),)},
            memory=replace(WELL.memory, dirty_bytes=8 << 20),
        ),
        MACHINE,
        "pages of /dev/nbd0 alone may fill the machine's dirty limit of 8 MiB, and 1 file",
        severity="warning",
    ),
    Case(
        "daemon-gone",
        WELL,
        DEVICE,
        "the NBD server of /dev/nbd0 is missing: process 99 does not run",
        group=DEVICE,
        services=(replace(SERVER, pid=99),),
    ),
    Case(
        "server-candidates",
        replace(WELL, processes=(*WELL.processes, replace(DAEMON, pid=8, comm="other"))),
        MACHINE,
        "the NBD server of /dev/nbd0 is one of server (7), other (8); which one is not certain",
        group=MACHINE,
        severity="note",
        services=tuple(
            replace(
                SERVER, pid=pid, certain=False, candidate=Candidate(Confidence.LIKELY, rank, 2, "nothing")
            )
            for rank, pid in ((1, 7), (2, 8))
        ),
    ),
    Case(
        "unreadable",
        machine(unreadable=(Unreadable("/proc/7/maps", "Permission denied", 7),)),
        PROCESS,
        "1 fact about it could not be read",
        severity="warning",
    ),
)


def test_every_rule_has_a_case() -> None:
    """In the order of the table."""
    assert [case.rule for case in CASES] == [rule.name for rule in RULES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_what_a_rule_finds(case: Case) -> None:
    """One finding with its subject, group, severity, words and evidence, and the rule's reason."""
    (finding,) = [one for one in judged(case.snapshot, *case.services).findings if one.rule == case.rule]
    assert (finding.subject.words, finding.group) == (case.subject, case.group)
    assert finding.severity.value == case.severity
    assert finding.summary.removeprefix("NBD server of /dev/nbd0: ").startswith(case.words)
    assert finding.reason == BY_NAME[case.rule].reason
    assert finding.evidence
    assert finding.severity.rank <= BY_NAME[case.rule].severity.rank
