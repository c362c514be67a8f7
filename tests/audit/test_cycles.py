"""The rule on circles through other processes, with neighbours in which the circle is open."""

from dataclasses import replace

from ioflusher.audit.finding import AuditFinding
from ioflusher.kernel.task import Thread
from ioflusher.machine.endpoints import Connection, Family, Listener, SocketEnd
from ioflusher.machine.process import FileKind, FileUse, Process
from ioflusher.machine.serving.service import Candidate, Confidence, StorageRole, StorageService, TargetKind
from ioflusher.machine.snapshot import Snapshot
from tests.audit.machines import (
    BARE,
    COVERED,
    DAEMON,
    DEVICE,
    FILES_ON_NBD,
    ROOT,
    ROOT_MOUNT,
    SERVER,
    SWAP_ELSEWHERE,
    SWAP_ON_NBD,
    WELL,
    found,
    judged,
)

SECOND = StorageService(20, StorageRole.NBD_SERVER, TargetKind.DEVICE, "nbd1", "20 holds the other end")
DEVICES = (*WELL.devices, replace(DEVICE, name="nbd1", number="43:1", serving_pid=20))
MOUNTS = (ROOT_MOUNT, FILES_ON_NBD, replace(FILES_ON_NBD, mount_id=9, number="43:1", point="/more"))
PEER = SocketEnd(201, "/run/store", (20,))


def other(store: str, flags: int = COVERED, **changes: object) -> Process:
    """A second process, covered and locked unless said, with its store on that file system."""
    files = (FileUse("/x/image", FileKind.WRITTEN, store),)
    process = replace(
        DAEMON, pid=20, comm="other", threads=(Thread(20, "other", "S", flags),), files=files, exe=None
    )
    return replace(process, **changes)  # type: ignore[arg-type]


def crosswise(first_store: str, second_store: str) -> dict[str, AuditFinding]:
    """Two daemons, each with a store somewhere."""
    first = replace(DAEMON, files=(FileUse("/y/image", FileKind.WRITTEN, first_store),))
    snapshot = replace(
        WELL, processes=(WELL.processes[0], first, other(second_store)), devices=DEVICES, mounts=MOUNTS
    )
    return found(snapshot, SERVER, SECOND)


def forwarding(peer: Process, listens: bool = True, **changes: object) -> Snapshot:
    """The daemon forwards to another process of the machine over a Unix socket."""
    listener = Listener(Family.UNIX, SocketEnd(200, "/run/store", (20,)))
    return replace(
        WELL,
        processes=(*WELL.processes, peer),
        connections=(Connection(Family.UNIX, (SocketEnd(202, "", (7,)), PEER)),) if listens else (),
        listeners=(listener,),
        **changes,  # type: ignore[arg-type]
    )


def test_two_daemons_that_store_on_each_other() -> None:
    """Neither has a file on its own device, and yet both wait for themselves."""
    finding = crosswise("43:1", "43:0")["cycle"]
    assert finding.severity.value == "error"
    assert "server (7)" in finding.summary
    assert "other (20)" in finding.summary
    assert {fact.said for fact in finding.evidence} >= {"written: /y/image", "written: /x/image"}
    assert not crosswise("43:1", ROOT)
    assert not crosswise(ROOT, "43:0")


def test_what_depends_on_the_first_of_a_circle_weighs() -> None:
    """Of one whose device is used by another daemon alone the circle is a warning, whoever is first."""
    first = replace(DAEMON, files=(FileUse("/dev/nbd1", FileKind.DEVICE, "43:1"),))
    snapshot = replace(
        WELL, processes=(WELL.processes[0], first, other("43:0")), devices=DEVICES, mounts=MOUNTS[:2]
    )
    used, unused = found(snapshot, SERVER, SECOND)["cycle"], found(snapshot, SECOND, SERVER)["cycle"]
    assert (used.subject.pid, used.severity.value) == (7, "error")
    assert (unused.subject.pid, unused.severity.value) == (20, "warning")


def test_a_circle_through_one_of_several_candidates() -> None:
    """It is found where the candidate speaks the protocol, not where it may be a stranger."""
    first = replace(DAEMON, files=(FileUse("/y/image", FileKind.WRITTEN, "43:1"),))
    third = replace(other(ROOT), pid=30, comm="third", threads=(Thread(30, "third", "S", COVERED),))
    processes = (WELL.processes[0], first, other("43:0"), third)
    snapshot = replace(WELL, processes=processes, devices=DEVICES, mounts=MOUNTS)
    for confidence, circle in ((Confidence.LIKELY, True), (Confidence.POSSIBLE, False)):
        several = [
            replace(SECOND, pid=pid, certain=False, candidate=Candidate(confidence, rank, 2, "nothing"))
            for rank, pid in ((1, 20), (2, 30))
        ]
        assert ("cycle" in {f.rule for f in judged(snapshot, SERVER, *several).findings}) is circle


def test_a_local_server_whose_memory_closes_the_circle() -> None:
    """A bare peer falls into reclaim, which writes to the daemon's device; mended by what is printed."""
    finding = found(forwarding(other(ROOT, BARE)))["cycle"]
    assert finding.severity.value == "warning"
    assert finding.remedy.commands == ("ioflusher set 20",)
    assert "memory reclaim" in finding.summary
    assert not found(forwarding(other(ROOT)))
    assert not found(forwarding(other(ROOT, BARE), listens=False))


def test_a_local_server_that_can_be_swapped_out() -> None:
    """Covered, but its pages may lie on the daemon's own device."""
    swappable = other(ROOT, locked_kib=0)
    finding = found(forwarding(swappable, swaps=(SWAP_ON_NBD,)))["cycle"]
    assert finding.severity.value == "warning"
    assert "other (20) -> swapped-out memory" in finding.summary
    assert finding.remedy.commands == ("ioflusher set --lock-memory 20",)
    unknown = found(forwarding(replace(swappable, virtual_kib=None), swaps=(SWAP_ON_NBD,)))["cycle"]
    assert unknown.remedy.commands == (), "memory is not locked where nobody knows what that takes"
    assert "Of other (20): what it would populate, or what is free, is not known." in unknown.remedy.words
    assert "cycle" not in found(forwarding(swappable, swaps=(SWAP_ELSEWHERE,)))


def test_what_a_daemon_does_to_itself_has_other_rules() -> None:
    """A bare daemon whose store lies on its own device is found, and not called a circle."""
    own = replace(
        DAEMON,
        threads=(Thread(7, "server", "S", BARE),),
        files=(FileUse("/data/image", FileKind.WRITTEN, "43:0"),),
    )
    snapshot = replace(WELL, processes=(WELL.processes[0], own))
    assert {"uncovered", "file-on-served"} <= found(snapshot).keys()
    assert "cycle" not in found(snapshot)


def test_a_circle_beside_a_shorter_one_is_told() -> None:
    """Where the peer's circle shares its device with one of the daemon's own, both are found."""
    first = replace(DAEMON, files=(FileUse("/data/image", FileKind.WRITTEN, "43:0"),))
    snapshot = forwarding(other("43:0"))
    snapshot = replace(snapshot, processes=(WELL.processes[0], first, snapshot.processes[2]))
    both = found(snapshot)
    assert both.keys() == {"file-on-served", "cycle"}
    assert "other (20)" in both["cycle"].summary
