"""Findings by daemon: what belongs together, which comes first, and in which order remedies are executed."""

from dataclasses import replace

from ioflusher.audit.finding import Remedy, joined
from ioflusher.machine.process import MemoryLimit
from tests.audit.machines import (
    BARE,
    DAEMON,
    SERVER,
    SWAP_ON_NBD,
    WELL,
    judged,
    machine,
    threads,
)

LIMITED = MemoryLimit("/d", 2, 1 << 30, None, None, current=100 << 20, members=(7,))
CARELESS = machine(
    {"threads": threads(BARE), "locked_kib": 0, "oom_score_adj": 0, "cgroups": (LIMITED,)},
    swaps=(SWAP_ON_NBD,),
    memory=replace(WELL.memory, min_free_kib=1024),
)


def test_findings_of_one_daemon_are_one_group() -> None:
    """Swap on its device belongs with it; the machine's own findings stand by themselves."""
    report = judged(CARELESS)
    assert [(group.name, len(group.findings)) for group in report.groups] == [("server (7)", 6), ("host", 1)]
    assert {finding.rule for finding in report.groups[0].findings} == {
        *("uncovered", "memory-not-locked", "swap-on-served", "oom-killable", "memory-max", "dirty-limits")
    }
    assert report.groups[0].serves == "NBD server of /dev/nbd0"
    assert [fact.said for fact in report.groups[0].evidence] == [SERVER.evidence]
    assert (report.groups[1].serves, report.groups[1].evidence) == ("", ())


def test_no_finding_is_lost_in_groups() -> None:
    """The groups hold what the list holds, each finding once."""
    report = judged(CARELESS)
    in_groups = [finding for group in report.groups for finding in group.findings]
    assert sorted(map(id, in_groups)) == sorted(map(id, report.findings))


def test_remedies_come_in_an_order_that_can_be_executed() -> None:
    """Limits are lifted before memory is taken, and the state is set before memory is locked."""
    assert judged(CARELESS).groups[0].remedy.commands == (
        "echo max > /sys/fs/cgroup/d/memory.max",
        "choom -n -999 -p 7",
        "ioflusher set 7",
        "ioflusher set --lock-memory 7",
        "echo 90 > /sys/block/nbd0/bdi/max_ratio",
    )


def test_each_line_once() -> None:
    """What two remedies share is executed once, where it stands first."""
    first = Remedy("One.", ("a", "b"), ("for good",), ("U=1",))
    second = Remedy("Two.", ("b", "c", "a"), ("for good",), ("U=2", "U=1"))
    assert joined([first, second, first]) == Remedy(
        "One. Two.", ("a", "b", "c"), ("for good",), ("U=1", "U=2")
    )


def test_the_most_dangerous_group_comes_first() -> None:
    """By errors, then warnings, then notes; not by process number."""
    second = replace(DAEMON, pid=9, comm="worse", threads=threads(BARE), locked_kib=0, oom_score_adj=0)
    third = replace(DAEMON, pid=11, comm="mild", oom_score_adj=0)
    first = replace(DAEMON, threads=threads(BARE), files=())
    snapshot = machine(swaps=(SWAP_ON_NBD,))
    snapshot = replace(snapshot, processes=(snapshot.processes[0], first, second, third))
    report = judged(snapshot, SERVER, replace(SERVER, pid=9), replace(SERVER, pid=11))
    assert [group.name for group in report.groups] == ["worse (9)", "server (7)", "mild (11)"]
    assert [group.danger for group in report.groups] == sorted(
        (group.danger for group in report.groups), reverse=True
    )
