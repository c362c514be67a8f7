"""All that is found on spoiled machines, word for word, as somebody looked at it.

After a change that is meant to change them: `python -m tests.audit.test_findings_golden` writes them anew.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ioflusher.audit.finding import AuditReport
from ioflusher.audit.rules.rule import RemedyStep
from ioflusher.kernel.capability import CapabilitySets
from ioflusher.kernel.task import Thread
from ioflusher.machine.endpoints import Connection, Family, Listener, SocketEnd
from ioflusher.machine.process import (
    DeviceHandle,
    FileKind,
    FileUse,
    MemoryLimit,
    Process,
)
from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind
from ioflusher.machine.snapshot import Memory, Snapshot, Unreadable
from ioflusher.machine.storage import BlockDevice, DeviceKind, Swap
from tests.audit.machines import (
    BARE,
    COVERED,
    DAEMON,
    DEVICE,
    FILES_ON_NBD,
    FUSE,
    FUSE_STATE,
    IO_WORKER,
    LOCAL,
    NBD,
    NOIO,
    QUEUE,
    ROOT,
    ROOT_MOUNT,
    SERVER,
    SSHFS,
    SWAP_ELSEWHERE,
    SWAP_ON_NBD,
    SWAP_ON_ZRAM,
    WELL,
    judged,
    machine,
    threads,
)

GOLDEN = Path(__file__).parent / "golden"
Machine = tuple[Snapshot, tuple[StorageService, ...]]
MANY = 11  # more than are named one by one
ROLES = (
    StorageRole.NBD_CLIENT,
    StorageRole.NBD_SERVER,
    StorageRole.UBLK_SERVER,
    StorageRole.TCMU_HANDLER,
    StorageRole.ISCSI_INITIATOR,
    StorageRole.ISCSI_TARGET,
    StorageRole.MULTIPATH,
    StorageRole.VDUSE_SERVER,
    StorageRole.FUSE_SERVER,
    StorageRole.FILE_SERVER,
)
NBD1 = replace(DEVICE, name="nbd1", number="43:1", serving_pid=20)
ON_NBD1 = replace(FILES_ON_NBD, mount_id=9, number="43:1", point="/more", source="/dev/nbd1")
SECOND = StorageService(20, StorageRole.NBD_SERVER, TargetKind.DEVICE, "nbd1", "20 holds the other end")


def _with(snapshot: Snapshot, *processes: Process) -> Snapshot:
    return replace(snapshot, processes=(*snapshot.processes, *processes))


def state() -> Iterator[Machine]:
    """What threads carry, and whether they could carry more."""
    for flags in ((BARE,) * MANY, (COVERED, BARE, BARE), (COVERED, NOIO), (LOCAL, FUSE_STATE)):
        yield machine({"threads": threads(*flags)}), (SERVER,)
    yield machine({"threads": threads(*(BARE,) * 9)}), (SERVER,)
    workers = (*threads(COVERED), *(Thread(70 + n, "iou-wrk", "S", IO_WORKER) for n in range(MANY)))
    yield machine({"threads": workers}), (SERVER,)
    for sets in (
        CapabilitySets(),
        CapabilitySets(permitted=1 << 24, bounding=1 << 24),
        CapabilitySets(effective=1 << 24),
    ):
        yield machine({"threads": threads(BARE), "capabilities": sets}), (SERVER,)
    yield machine({"threads": threads(BARE)}, system=replace(WELL.system, release="5.5.19")), (SERVER, SECOND)
    two = _with(
        machine(
            {"threads": threads(BARE)},
            system=replace(WELL.system, release="4.9"),
            devices=(*WELL.devices, NBD1),
        ),
        replace(DAEMON, pid=20, comm="other", threads=(Thread(20, "other", "S", BARE),)),
    )
    yield two, (replace(SERVER, certain=False), SECOND)
    yield two, (SERVER, SECOND)
    yield machine({"threads": threads(BARE)}, mounts=(ROOT_MOUNT, FUSE)), (SSHFS,)
    held = {"handles": (DeviceHandle("/dev/nbd0", NBD),), "threads": threads(BARE, COVERED)}
    yield machine(held), (SERVER,)
    yield machine({**held, "threads": threads(NOIO, COVERED)}), (SERVER,)
    yield (
        machine({**held, "threads": threads(BARE)}),
        (replace(SERVER, role=StorageRole.NBD_CLIENT, essential=False),),
    )


def memory() -> Iterator[Machine]:
    """Swap, locked memory, the OOM killer and control groups."""
    swaps = (SWAP_ON_NBD, SWAP_ELSEWHERE, SWAP_ON_ZRAM)
    holder = replace(SERVER, role=StorageRole.NBD_CLIENT, essential=False)
    for swap in swaps:
        for changes in (
            {"locked_kib": 0},
            {"locked_kib": 0, "swapped_kib": 12},
            {"locked_kib": None, "resident_kib": None},
            {"locked_kib": 0, "resident_kib": 1025},
            {"locked_kib": 0, "virtual_kib": 64 << 20},
        ):
            yield machine(changes, swaps=(swap,)), (SERVER,)
    file = Swap("/data/swap file", True, NBD, 1 << 28, 4096, -2)
    yield (
        machine({"locked_kib": 0}, swaps=(*swaps, file)),
        (SERVER, replace(SERVER, role=StorageRole.NBD_CLIENT)),
    )
    yield machine({"threads": threads(BARE)}, swaps=(SWAP_ON_NBD,)), (SERVER,)
    for sets in (CapabilitySets(effective=1 << 14), CapabilitySets(effective=1 << 15)):
        yield machine({"locked_kib": 0, "capabilities": sets}, swaps=(SWAP_ELSEWHERE,)), (SERVER,)
    yield machine({"locked_kib": 0, "virtual_kib": 7000}, swaps=(SWAP_ELSEWHERE,)), (SERVER,)
    for priority in (-1, 0, 5):
        some = replace(SWAP_ON_NBD, priority=priority, used=3 << 20)
        yield machine({"locked_kib": 0}, swaps=(some,)), (SERVER,)
    for services in ((SERVER, holder), (holder, SERVER)):
        yield machine({"threads": threads(BARE)}, swaps=(SWAP_ON_NBD,)), services
    yield machine({"oom_score_adj": 0}), (replace(SERVER, certain=False),)
    for version in (1, 2):
        limit = MemoryLimit("/a b", version, 1 << 30, 1 << 29, None, current=1 << 29, members=(7, 8))
        yield _with(machine({"cgroups": (limit,), "oom_score_adj": 3}), replace(DAEMON, pid=8)), (SERVER,)
        far = replace(limit, current=1, members=(7,))
        yield machine({"cgroups": (replace(limit, max=0, current=0),)}), (SERVER,)
        yield machine({"cgroups": (replace(limit, max=1, current=0),)}), (SERVER,)
        yield machine({"cgroups": (limit,)}, mounts=(ROOT_MOUNT,)), (SERVER,)
        yield machine({"cgroups": (limit,)}), (holder,)
        yield machine({"cgroups": (limit,)}, mounts=(ROOT_MOUNT, FUSE)), (SSHFS,)
        yield machine({"cgroups": (far, replace(limit, path="/b", current=None, members=None))}), (SERVER,)
    crowd = MemoryLimit("/crowd", 2, 1000, None, None, current=1000, members=tuple(range(7, 7 + MANY)))
    others = tuple(replace(DAEMON, pid=8 + n, oom_score_adj=None if n else -1000) for n in range(MANY - 1))
    yield _with(machine({"cgroups": (crowd,)}), *others), (SERVER,)


def limits() -> Iterator[Machine]:
    """The reserve and the dirty limits."""
    for kib in (0, 67, 8191):
        yield machine(memory=replace(WELL.memory, min_free_kib=kib), swaps=(SWAP_ON_NBD,)), (SERVER,)
    for known in ({"min_free_kib": None}, {"total_kib": None}, {"min_free_kib": 1, "total_kib": 163840}):
        yield machine(memory=replace(WELL.memory, **known)), (SERVER,)
    for total_kib in (163900, 166166):
        yield machine(memory=replace(WELL.memory, min_free_kib=1, total_kib=total_kib)), (SERVER,)
    long = replace(DEVICE, queue=replace(QUEUE, hardware_queues=1000))
    yield machine(memory=replace(WELL.memory, min_free_kib=67), devices=(long,)), (SERVER,)
    stores = tuple(FileUse(f"/var/lib/disk{n}.img", FileKind.WRITTEN, ROOT, 1) for n in range(MANY))
    for queue in (
        QUEUE,
        replace(QUEUE, max_ratio=None, max_bytes=8 << 20),
        replace(QUEUE, max_ratio=None, max_bytes=1),
    ):
        for dirty in ({"dirty_bytes": 8 << 20}, {"dirty_bytes": 65 << 20}, {}):
            device = replace(DEVICE, queue=queue)
            snapshot = machine(
                {"threads": threads(BARE), "files": stores},
                devices=(device, *WELL.devices[1:]),
                memory=replace(WELL.memory, **dirty),
            )
            yield snapshot, (SERVER,)
            yield snapshot, (replace(SERVER, essential=False),)
    for queue in (replace(QUEUE, hardware_queues=None), replace(QUEUE, hardware_queues=0)):
        device = replace(DEVICE, queue=queue)
        yield machine(devices=(device,), memory=replace(WELL.memory, min_free_kib=67)), (SERVER,)
    nothing = replace(WELL.memory, dirty_ratio=0)
    device = replace(DEVICE, queue=replace(QUEUE, max_ratio=None, max_bytes=8 << 20))
    own = {"threads": threads(BARE), "files": stores[:1]}
    yield machine(own, devices=(device, *WELL.devices[1:]), memory=nothing), (SERVER,)
    little = replace(WELL.memory, dirty_bytes=1, dirty_ratio=None)
    device = replace(DEVICE, queue=replace(QUEUE, max_ratio=None, max_bytes=1))
    yield machine(own, devices=(device, *WELL.devices[1:]), memory=little), (SERVER,)
    device = replace(DEVICE, queue=replace(QUEUE, max_ratio=None, max_bytes=(8 << 20) - 1))
    small = replace(WELL.memory, dirty_bytes=8 << 20)
    yield machine(own, devices=(device, *WELL.devices[1:]), memory=small), (SERVER,)
    exactly = replace(WELL.memory, dirty_bytes=64 << 20)
    yield machine({"threads": threads(BARE), "files": stores[:1]}, memory=exactly), (SERVER,)
    half = replace(QUEUE, max_ratio=50)
    both = machine(
        {"threads": threads(BARE), "files": stores[:1]},
        devices=(replace(DEVICE, queue=half), replace(NBD1, queue=half), *WELL.devices[1:]),
        mounts=(ROOT_MOUNT, FILES_ON_NBD, ON_NBD1),
    )
    yield both, (SERVER, replace(SERVER, target="nbd1"))
    for queue in (replace(QUEUE, max_ratio=45), replace(QUEUE, strict_limit=True)):
        uneven = (replace(DEVICE, queue=queue), NBD1, *WELL.devices[1:])
        yield replace(both, devices=uneven), (SERVER, replace(SERVER, target="nbd1"))


def files() -> Iterator[Machine]:
    """Files of every kind on what their daemon serves, with locked memory and without."""
    for locked in (9000, 0):
        for kind in FileKind:
            own = tuple(
                FileUse(f"/data/{kind.value}-{n}", kind, NBD, 2) for n in range(MANY if locked else 1)
            )
            yield machine({"files": own, "locked_kib": locked}), (SERVER,)
    mixed = (
        FileUse("/data/read", FileKind.READ, NBD, 2),
        FileUse("/data/read-2", FileKind.READ, NBD, 2),
        FileUse("/data/written", FileKind.WRITTEN, NBD, 2),
        FileUse("/elsewhere", FileKind.LOG, ROOT, 1),
        FileUse("/unknown", FileKind.LOG, "99:9"),
        FileUse("/data/log", FileKind.LOG, NBD, 2),
    )
    yield machine({"files": mixed}), (replace(SERVER, certain=False),)
    yield machine({"files": mixed}), (SERVER, replace(SERVER, role=StorageRole.NBD_CLIENT))
    part = BlockDevice("nbd0p1", "43:1", 1 << 20, DeviceKind.PARTITION, parent="nbd0")
    handle = FileUse("/dev/nbd0p1", FileKind.DEVICE, "43:1")
    yield machine({"files": (handle,)}, devices=(*WELL.devices, part)), (SERVER,)


def unseen() -> Iterator[Machine]:
    """What is gone, and what could not be read."""
    gone = replace(SERVER, pid=None, evidence="nobody holds the other end")
    for role in ROLES:
        yield (
            WELL,
            (replace(gone, role=role, target="ublkb3" if role is StorageRole.UBLK_SERVER else "nbd0"),),
        )
    yield WELL, (replace(gone, pid=99),)
    yield replace(WELL, system=replace(WELL.system, privileged=False)), (gone,)
    yield machine(mounts=(ROOT_MOUNT, FUSE)), (replace(SSHFS, pid=None),)
    yield (
        machine(
            {
                "capabilities": None,
                "locked_kib": None,
                "resident_kib": None,
                "swapped_kib": None,
                "oom_score_adj": None,
                "cgroups": None,
                "files": None,
            },
            memory=Memory(),
            system=replace(WELL.system, release="unknown"),
            devices=(replace(DEVICE, queue=replace(QUEUE, nr_requests=None)), *WELL.devices[1:]),
            unreadable=(
                Unreadable("/proc/7/fd", "Permission denied", 7),
                Unreadable("/proc/PID/fd of 3", "x"),
            ),
        ),
        (SERVER,),
    )


def circles() -> Iterator[Machine]:
    """Two daemons, each with its store on what the other serves, one of them by its memory."""
    stores = (*WELL.devices, NBD1), (ROOT_MOUNT, FILES_ON_NBD, ON_NBD1)
    for flags, locked in ((COVERED, 9000), (BARE, 9000), (COVERED, 0)):
        first = {"files": (FileUse("/more/image", FileKind.WRITTEN, "43:1", 9),)}
        second = replace(
            DAEMON,
            pid=20,
            comm="other",
            threads=(Thread(20, "other", "S", flags),),
            files=(FileUse("/data/image", FileKind.WRITTEN, NBD, 2),),
            locked_kib=locked,
        )
        snapshot = machine(first, devices=stores[0], mounts=stores[1], swaps=(SWAP_ON_NBD,))
        yield _with(snapshot, second), (SERVER, SECOND)
        yield _with(snapshot, second), (replace(SERVER, essential=False, role=StorageRole.MULTIPATH), SECOND)


def seconds() -> Iterator[Machine]:
    """A daemon that is well, and a second one that is not: nobody stops at the first."""
    own = (FileUse("/more/log", FileKind.LOG, "43:1", 9), FileUse("/more/x", FileKind.EXECUTABLE, "43:1", 9))
    limit = MemoryLimit("/a", 2, 1000, 900, None, current=1000, members=(20,))
    second = replace(
        DAEMON,
        pid=20,
        comm="other",
        threads=(Thread(20, "other", "S", BARE), Thread(21, "other", "S", IO_WORKER)),
        capabilities=CapabilitySets(),
        locked_kib=0,
        swapped_kib=12,
        oom_score_adj=0,
        cgroups=(limit,),
        files=own,
    )
    unknown = {"capabilities": None, "swapped_kib": None, "oom_score_adj": None, "cgroups": None}
    for first in ({}, unknown):
        snapshot = machine(
            first,
            devices=(*WELL.devices, NBD1),
            mounts=(ROOT_MOUNT, FILES_ON_NBD, ON_NBD1),
            swaps=(SWAP_ELSEWHERE,),
        )
        yield _with(snapshot, second), (SERVER, SECOND)
        covered = replace(second, threads=(Thread(20, "other", "S", COVERED), second.threads[1]))
        yield _with(snapshot, covered), (SERVER, SECOND)


def peers() -> Iterator[Machine]:
    """Circles of processes that speak with each other, and circles that each process closes alone."""
    devices, mounts = (*WELL.devices, NBD1), (ROOT_MOUNT, FILES_ON_NBD, ON_NBD1)
    own = (FileUse("/data/log", FileKind.LOG, NBD, 2),)
    other = replace(DAEMON, pid=20, comm="other", files=own)
    both = _with(machine({"files": own}, devices=devices, mounts=mounts), other)
    yield both, (SERVER, replace(SERVER, pid=20))
    first, second = SocketEnd(201, "/run/7", (7,)), SocketEnd(202, "/run/20", (20,))
    talks = (
        Connection(Family.UNIX, (SocketEnd(203, "", (20,)), first)),
        Connection(Family.UNIX, (SocketEnd(204, "", (7,)), second)),
    )
    listeners = tuple(Listener(Family.UNIX, end) for end in (first, second))
    yield replace(both, connections=talks, listeners=listeners), (SERVER,)
    third = SocketEnd(205, "/run/30", (30,))
    more = (
        Connection(Family.UNIX, (SocketEnd(206, "", (20,)), third)),
        Connection(Family.UNIX, (SocketEnd(207, "", (30,)), second)),
    )
    three = _with(both, replace(other, pid=30, comm="third", files=()))
    listeners = (*listeners, Listener(Family.UNIX, third))
    yield replace(three, connections=(*talks, *more), listeners=listeners), (SERVER,)
    back = Connection(Family.UNIX, (SocketEnd(208, "", (30,)), first))
    yield replace(three, connections=(talks[1], *more, back), listeners=listeners), (SERVER,)
    bare = replace(other, files=(), threads=(Thread(20, "other", "S", BARE),))
    for process in (bare, replace(other, files=(), locked_kib=0)):
        peer = _with(machine({}, devices=devices, mounts=mounts, swaps=(SWAP_ON_NBD,)), process)
        peer = replace(peer, connections=talks[1:], listeners=listeners)
        yield peer, (SERVER,)
        yield peer, (replace(SERVER, certain=False),)
        yield replace(peer, memory=replace(peer.memory, available_kib=None)), (SERVER,)


MACHINES = {
    "state": state,
    "memory": memory,
    "limits": limits,
    "files": files,
    "unseen": unseen,
    "circles": circles,
    "seconds": seconds,
    "peers": peers,
}


def test_remedies_of_one_daemon_have_their_order() -> None:
    """Each step has a place of its own, as `RemedyStep` lists them."""
    assert [step.name for step in sorted(RemedyStep)] == [
        *("LIMIT", "OOM_SCORE", "STATE", "SWAP", "FILES", "MACHINE", "LOOK")
    ]


def lines(report: AuditReport) -> Iterator[str]:
    """All that a report says."""
    for finding in report.findings:
        about = f"{finding.subject.words} [{finding.group}]"
        yield f"{finding.severity.value} {finding.rule}, {about}: {finding.summary}"
        yield from (f"    {fact.source}: {fact.said}" for fact in finding.evidence)
        remedy = finding.remedy
        yield f"  > {remedy.words}"
        for sign, commands in (("$", remedy.commands), ("+", remedy.lasting), ("=", remedy.unit)):
            yield from (f"    {sign} {command}" for command in commands)


def text_of(name: str) -> str:
    """The reports of some machines."""
    parts = []
    for number, (snapshot, services) in enumerate(MACHINES[name]()):
        report = "".join(f"{line}\n" for line in lines(judged(snapshot, *services)))
        parts.append(f"machine {number}\n{report}")
    return "\n".join(parts)


@pytest.mark.parametrize("name", MACHINES)
def test_every_finding(name: str) -> None:
    """Severity, subject, summary, evidence and remedy, in their order."""
    assert text_of(name) == (GOLDEN / f"{name}.txt").read_text()


if __name__ == "__main__":
    for name in MACHINES:
        (GOLDEN / f"{name}.txt").write_text(text_of(name))
