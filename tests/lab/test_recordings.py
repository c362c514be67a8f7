"""The judgement without a virtual machine: recordings of real guests, one for each way that a half can end.

`python -m tests.lab.record` made them; a `RecordedMachine` says again what the guest said, and the real
follower judges it. What is expected here was read off the recordings by hand, not computed.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from ioflusher.kernlog.fleet import Options
from ioflusher.kernlog.judging.findings import Kind
from ioflusher.kernlog.reading.frames import parse_proc_stack
from ioflusher.kernlog.stacks.waits import StackKind
from ioflusher.lab.errors import LabError
from ioflusher.lab.explain import explain_half
from ioflusher.lab.file_systems import FileSystemCheck
from ioflusher.lab.follower import Follower
from ioflusher.lab.memory.evidence import GuestMemory
from ioflusher.lab.messages import (
    DeviceFrozen,
    FileSystemChecked,
    GuestReport,
    Sampled,
    ThreadReport,
    WorkBegan,
    WorkEnded,
    WorkVerified,
)
from ioflusher.lab.near_misses import NearMisses
from ioflusher.lab.outcome import Half, HalfOutcome, Run, half_words
from ioflusher.lab.recording import (
    RecordedMachine,
    Recorder,
    Recording,
    Said,
    read_recording,
    write_recording,
)
from tests.lab.halves import plan
from tests.lab.record import CASES, RECORDINGS

THROTTLED = "ext4_buffered_write_iter() was stopped by the kernel until other dirty pages have been written"


def recording(name: str) -> Recording:
    """One of the recordings."""
    return read_recording(RECORDINGS / f"{name}.json")


def judged(recorded: Recording) -> Half:
    """What the follower makes of it."""
    machine = RecordedMachine(recorded)
    follower = Follower(machine, recorded.scenario, io_flusher=recorded.io_flusher, boot_s=recorded.boot_s)
    return follower.follow()


@dataclass(frozen=True)
class Expected:
    """What one recording has to come to.

    Attributes:
        detail: the sentence, or its beginning.
        requests: completed and in flight.
        when_s: of the last progress, or of the end.
        wrong_chunks: None where nothing was read back.
        lived: whether all came back as written.
        witness: number and kind of the thread that waits for itself.
        states: run states of the daemon's threads, in their order.
        covered: how many of them carry the state.
        console: a line of the console's end that is shown.
    """

    outcome: HalfOutcome
    detail: str
    requests: tuple[int, int]
    when_s: float
    wrong_chunks: int | None = None
    lived: bool = False
    witness: tuple[int, StackKind] | None = None
    states: str = ""
    covered: int = 0
    console: str = ""


EXPECTED = {
    "finished": Expected(
        HalfOutcome.FINISHED,
        "All that was written came back.",
        (207, 0),
        5.92,
        wrong_chunks=0,
        lived=True,
        states="SR",
        covered=2,
    ),
    "finished-swap": Expected(
        HalfOutcome.FINISHED,
        "All that was written came back.",
        (863, 0),
        15.43,
        wrong_chunks=0,
        lived=True,
        states="SR",
        covered=2,
    ),
    "finished-wrong-chunks": Expected(
        HalfOutcome.FINISHED,
        "5 chunks came back wrong.",
        (206, 0),
        6.01,
        wrong_chunks=5,
        states="S" * 18,
        covered=18,
    ),
    "frozen-throttled": Expected(
        HalfOutcome.FROZEN,
        f"The daemon waits for itself: its write in {THROTTLED}.",
        (16, 2),
        1.58,
        witness=(166, StackKind.DIRTY_THROTTLED),
        states="SR",
    ),
    "frozen-nfs": Expected(
        HalfOutcome.FROZEN,
        f"The daemon waits for itself: its write in {THROTTLED}.",
        (2, 12),
        3.38,
        witness=(184, StackKind.DIRTY_THROTTLED),
        states="SSSSSRSSSSSSDSDDDDDDDDDDSS",
    ),
    # 201 is a thread of the kernel; of the three, iscsid alone carries the state
    "frozen-in-the-kernels-target": Expected(
        HalfOutcome.FROZEN,
        f"The daemon waits for itself: its write in {THROTTLED}.",
        (22, 13),
        1.88,
        witness=(201, StackKind.DIRTY_THROTTLED),
        states="SDR",
        covered=1,
    ),
    "frozen-in-reclaim": Expected(
        HalfOutcome.FROZEN,
        "The daemon waits for itself: its tcp_sendmsg() allocated memory, direct reclaim sent the pages that "
        "it had queued for writing to a block device, and it waits there for I/O that nbd started.",
        (0, 5),
        3.56,
        witness=(169, StackKind.RECLAIM_IO),
        states="SD",
    ),
    "frozen-in-inode-reclaim": Expected(
        HalfOutcome.FROZEN,
        "The daemon waits for itself: its tcp_sendmsg() allocated memory, direct reclaim began to free xfs "
        "inodes, and it waits there for xfs to get on (XFS waits until its log has been written).",
        (130, 12),
        7.14,
        witness=(153, StackKind.RECLAIM_IO),
        states="SD",
    ),
    "frozen-no-witness": Expected(
        HalfOutcome.FROZEN,
        "None of the daemon's threads was seen waiting for itself.",
        (39, 6),
        1.65,
        states="T" * 18,
        covered=18,
    ),
    "out-of-memory": Expected(
        HalfOutcome.OUT_OF_MEMORY, "The kernel killed 1 process(es).", (74, 0), 6.33, states="SS", covered=2
    ),
    "panicked": Expected(
        HalfOutcome.PANICKED,
        "The kernel panicked: sysrq triggered crash.",
        (15, 2),
        1.02,
        states="SSSSSSRSSSSSSSSSSS",
        covered=18,
        console="pages hwpoisoned",
    ),
    "lost-machine-ended": Expected(
        HalfOutcome.LOST,
        "The machine ended without a word on its outcome.",
        (24, 5),
        1.01,
        console="sysrq: Resetting",
    ),
    "lost-daemon-killed": Expected(
        HalfOutcome.LOST,
        "The workload ended with status 1 before it had read everything back. Meanwhile `sh -c "
        "(while ! [ -e /mnt/file0 ]; do sleep 0.1; done; sleep 1; kill -KILL $$) & "
        'exec nbdkit -f -U "$1" file "$2" sh /run/lab/nbd.sock /store/image` was killed by signal 9; '
        "it printed nothing.",
        (15, 3),
        2.99,
        console="OSError: [Errno 5] Input/output error",
    ),
    "lost-at-the-deadline": Expected(
        HalfOutcome.LOST,
        "Neither done nor frozen after 40 s.",
        (14, 0),
        9.72,
        states="SS",
        covered=2,
        console="attached /dev/nbd0",
    ),
    "silent-frozen": Expected(
        HalfOutcome.FROZEN,
        f"Even the observer stopped; the panic's stacks show: its write in {THROTTLED}.",
        (21, 9),
        2.54,
        witness=(211, StackKind.DIRTY_THROTTLED),
        states="SSDDDSSSDDDSSSSDDD",
    ),
    "memory-panicked": Expected(
        HalfOutcome.PANICKED,
        "The kernel panicked: sysrq triggered crash.",
        (10, 5),
        1.12,
        states="SRSDSSSRSSSSDSRSSDS",
        covered=19,
        console="pages hwpoisoned",
    ),
    "memory-silent-frozen": Expected(
        HalfOutcome.FROZEN,
        f"Even the observer stopped; the guest's memory shows: its write in {THROTTLED}.",
        (2, 23),  # the second one was completed between the observer's last look and its stop
        0.0,
        witness=(207, StackKind.DIRTY_THROTTLED),
        states="SZSSSDSSSSSS",
    ),
    "memory-silent-cut": Expected(
        HalfOutcome.LOST,
        "Neither done nor frozen after 25 s of silence. By the guest's memory no request of the device was "
        "in flight.",
        (17, 0),
        2.37,
        states="SZ",
        console="I/O error while writing superblock",
    ),
    "silent-no-witness": Expected(
        HalfOutcome.LOST,
        "Neither done nor frozen after 25 s of silence.",
        (8, 2),
        1.55,
        states="T" * 18,
        covered=18,
        console="attached /dev/nbd0",
    ),
}
STAGES = {
    "stage-setting": "No such file or directory: '/proc/sys/vm/no_such_setting'",
    "stage-daemon-exits": "exit 3 sh /run/lab/nbd.sock /store/image` ended with status 3; it printed:\n"
    "no export in /store/image",
    "stage-daemon-never-serves": "nobody listened at nbd+unix:///?socket=/run/lab/nbd.sock after 40 s: "
    "`sh -c exec sleep 1000 sh /run/lab/nbd.sock /store/image`; it printed nothing",
    "stage-daemon-missing": "/no/such/daemon does not start: No such file or directory",
}


def test_every_case_is_expected() -> None:
    """Each case is recorded and judged here, and every outcome has one."""
    assert set(EXPECTED) | set(STAGES) == set(CASES) == {path.stem for path in RECORDINGS.glob("*.json")}
    assert {expected.outcome for expected in EXPECTED.values()} == set(HalfOutcome)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_guest_is_judged_as_it_was(name: str) -> None:
    """Outcome, sentence, numbers, threads and witness are those of the guest."""
    expected, half = EXPECTED[name], judged(recording(name))
    assert half.outcome is expected.outcome
    assert half.detail == expected.detail
    assert (half.completed, half.in_flight) == expected.requests
    assert half.when_s == pytest.approx(expected.when_s, abs=0.006)
    assert half.wrong_chunks == expected.wrong_chunks
    assert half.lived == expected.lived
    assert half.io_flusher == CASES[name][1]
    witness = half.witness
    found = None
    if witness is not None:
        assert witness.explanation is not None
        found = witness.tid, witness.explanation.kind
    assert found == expected.witness
    assert "".join(thread.state for thread in half.threads) == expected.states
    assert sum(thread.io_flusher for thread in half.threads) == expected.covered
    assert expected.console in half.console_tail
    assert bool(half.console_tail) == bool(expected.console)


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_that_cannot_be_built_is_no_outcome(name: str) -> None:
    """A setting that is not there, a daemon that exits, never serves or is missing are told apart."""
    with pytest.raises(LabError) as caught:
        judged(recording(name))
    message, _, console = str(caught.value).partition("\nthe last lines of its console:\n")
    assert message.startswith("the guest could not build the scenario's stage: ")
    assert STAGES[name] in message
    if name == "stage-daemon-exits":
        assert "no export in /store/image" in console, "the daemon's own words are shown"


def test_the_agent_that_fails_is_no_outcome() -> None:
    """A failure of our own agent is said to be that, with its traceback."""
    recorded = recording("finished")
    failed = msgspec.convert({"event": "agent-failed", "traceback": "Traceback: here"}, GuestReport)
    with pytest.raises(LabError, match="the guest's agent failed: Traceback: here"):
        judged(msgspec.structs.replace(recorded, said=(Said(5.0, failed),)))


def test_only_the_real_pair_proves_the_mechanism() -> None:
    """Of all pairs of recordings, frozen with a witness and alive with all chunks right, and no other."""
    halves = {name: judged(recording(name)) for name in EXPECTED}
    alive = halves["finished"]
    without = {name for name, half in halves.items() if Run(half, alive).proved}
    assert without == {
        "frozen-throttled",
        "frozen-in-reclaim",
        "frozen-in-inode-reclaim",
        "frozen-nfs",
        "frozen-in-the-kernels-target",
        "silent-frozen",
        "memory-silent-frozen",
    }
    frozen = halves["frozen-throttled"]
    with_ = {name for name, half in halves.items() if Run(frozen, half).proved}
    assert with_ == {"finished", "finished-swap"}
    assert not Run(frozen, None).proved
    assert not Run(None, halves["finished"]).proved


def test_the_daemon_waits_inside_the_inode_that_its_own_allocation_reclaims() -> None:
    """On 5.8 with XFS, as in the trace of the commit that brought the state; and it is diagnosed as that."""
    half = judged(recording("frozen-in-inode-reclaim"))
    assert half.witness is not None
    assert half.witness.explanation is not None
    inward = [marked.frame.name for marked in reversed(half.witness.explanation.marked)]
    way = ("tcp_sendmsg", "__alloc_pages_slowpath", "try_to_free_pages", "shrink_slab", "super_cache_scan")
    places = [inward.index(name) for name in (*way, "xfs_reclaim_inodes_ag", "xfs_reclaim_inode")]
    assert places == sorted(places)
    assert inward[places[-1] + 1 :] == [
        "xfs_iunpin_wait",
        "__xfs_iunpin_wait",
        "xfs_log_force_lsn",
        "__xfs_log_force_lsn",
    ]
    diagnosis = explain_half(half, plan(), "the recording", Options()).diagnosis
    assert Kind.INODE_RECURSION in {episode.kind for episode in diagnosis.episodes if episode.recursion}


def edited(name: str, edit: dict[type, dict[str, object]]) -> Half:
    """The half of a recording in which fields of some reports are others."""
    recorded = recording(name)
    said = []
    for one in recorded.said:
        report = one.report
        if report is not None and type(report) in edit:
            report = msgspec.structs.replace(report, **edit[type(report)])
        said.append(msgspec.structs.replace(one, report=report))
    return judged(msgspec.structs.replace(recorded, said=tuple(said)))


def test_what_decides_a_finished_half() -> None:
    """Each fact of the last report by itself: kills come before all, then the status, then what was read."""
    assert edited("finished", {WorkEnded: {"oom_kills": 1}}).outcome is HalfOutcome.OUT_OF_MEMORY
    assert edited("finished", {WorkEnded: {"status": 1}}).outcome is HalfOutcome.LOST
    wrong = edited("finished", {WorkVerified: {"wrong_chunks": 1}})
    assert (wrong.outcome, wrong.wrong_chunks, wrong.lived) == (HalfOutcome.FINISHED, 1, False)
    assert wrong.detail == "1 chunks came back wrong."
    assert edited("finished", {WorkVerified: {"verified_bytes": 4096}}).verified_bytes == 4096
    recorded = recording("finished")
    unread = tuple(one for one in recorded.said if not isinstance(one.report, WorkVerified))
    half = judged(msgspec.structs.replace(recorded, said=unread))
    assert half.outcome is HalfOutcome.LOST
    assert half.verified_bytes is None


def test_near_misses_are_those_of_the_last_look() -> None:
    """Of the last report where there is one, of the last sample where the guest fell silent, else unknown."""
    early, late = NearMisses(dirty_pauses=1), NearMisses(dirty_pauses=2)
    for name, last in (("finished", WorkEnded), ("frozen-throttled", DeviceFrozen)):
        edit: dict[type, dict[str, object]] = {Sampled: {"near_misses": early}, last: {"near_misses": late}}
        assert edited(name, edit).near_misses == late
    for name in ("silent-frozen", "panicked", "lost-at-the-deadline"):
        assert edited(name, {Sampled: {"near_misses": early}}).near_misses == early
    assert judged(recording("frozen-throttled")).near_misses is None, (
        "it was recorded before they were counted"
    )


THROTTLED_STACK = """\
[<0>] balance_dirty_pages+0x3e7/0x9d0
[<0>] balance_dirty_pages_ratelimited_flags+0x2a9/0x390
[<0>] generic_perform_write+0x96/0x290
[<0>] ext4_buffered_write_iter+0x6c/0x100
[<0>] vfs_write+0x28c/0x450
[<0>] __x64_sys_pwrite64+0x98/0xd0
"""
# what a guest's memory said after 21 requests of the workload, with 9 in flight
READ = GuestMemory(
    daemon=(
        ThreadReport(166, 166, "python", "S", 0x100, "[<0>] do_epoll_wait+0x6a2/0x850\n"),
        ThreadReport(166, 168, "python", "D", 0x40, THROTTLED_STACK),
    ),
    waiting=(ThreadReport(176, 176, "writer", "D", 0x100, THROTTLED_STACK),),
    memory_kib={"MemFree": 367804},
    completed=121,
    in_flight=9,
)


def with_memory(name: str, *memory: GuestMemory, before: int | None = 100) -> Half:
    """The half of a recording whose guest had completed 100 requests before, and whose memory was read."""
    recorded = recording(name)
    said = []
    for one in recorded.said:
        if isinstance(one.report, WorkBegan):
            report = msgspec.structs.replace(one.report, device="/dev/nbd0", completed_before=before)
            one = msgspec.structs.replace(one, report=report)
        said.append(one)
    return judged(msgspec.structs.replace(recorded, said=tuple(said), memory=memory))


def test_a_silent_guests_memory_is_the_evidence() -> None:
    """Threads with the flags of that moment, other tasks, requests: all from memory, which is said."""
    half = with_memory("silent-frozen", READ)
    assert half.outcome is HalfOutcome.FROZEN
    assert half.detail == f"Even the observer stopped; the guest's memory shows: its write in {THROTTLED}."
    assert [(thread.tid, thread.state, thread.flags) for thread in half.threads] == [
        (166, "S", 0x100),
        (168, "D", 0x40),
    ]
    assert half.witness is not None
    assert (half.witness.tid, half.witness.stack) == (168, THROTTLED_STACK)
    assert [comm for comm, _ in half.waiting] == ["writer"]
    assert (half.completed, half.in_flight) == (21, 9)
    assert half.guest_memory == READ


def test_a_device_that_went_on_is_not_frozen() -> None:
    """A stack is one moment: where requests completed meanwhile, or none is in flight, the half is lost."""
    went_on = with_memory("silent-frozen", replace(READ, completed=124), replace(READ, completed=131))
    assert went_on.witness is not None, "the stack is the same"
    assert (went_on.outcome, went_on.completed) == (HalfOutcome.LOST, 31)
    assert went_on.detail == (
        "Neither done nor frozen after 25 s of silence. By the guest's memory the device went on: "
        "7 requests completed within 8 s."
    )
    idle = with_memory("silent-frozen", replace(READ, in_flight=0), replace(READ, in_flight=0))
    assert idle.outcome is HalfOutcome.LOST
    assert idle.detail.endswith(" By the guest's memory no request of the device was in flight.")


def test_a_device_that_stopped_after_the_observers_last_look_is_frozen() -> None:
    """Three requests completed between the last sample and the stop, which a second look tells."""
    later = replace(READ, completed=124)
    half = with_memory("silent-frozen", later, later)
    assert (half.outcome, half.completed, half.in_flight) == (HalfOutcome.FROZEN, 24, 9)
    assert with_memory("silent-frozen", later).outcome is HalfOutcome.FROZEN, "by the panic's stacks then"


def test_an_observer_that_never_looked_needs_two_looks_at_memory() -> None:
    """Without a sample, what completed since the beginning may have done so at any time."""
    recorded = recording("silent-frozen")
    began = next(one for one in recorded.said if isinstance(one.report, WorkBegan))
    assert isinstance(began.report, WorkBegan)
    report = msgspec.structs.replace(began.report, device="/dev/nbd0", completed_before=100)
    said = (msgspec.structs.replace(began, report=report),)
    for second, outcome in ((READ, HalfOutcome.FROZEN), (replace(READ, completed=122), HalfOutcome.LOST)):
        half = judged(msgspec.structs.replace(recorded, said=said, memory=(READ, second)))
        assert half.outcome is outcome
        assert half.guest_memory == second


def test_requests_that_memory_does_not_tell_are_the_last_samples() -> None:
    """As with the stacks of a panic, which tell none."""
    unknown = with_memory("silent-frozen", replace(READ, completed=None, in_flight=None))
    assert unknown.outcome is HalfOutcome.FROZEN
    assert (unknown.completed, unknown.in_flight) == (21, 9)
    assert with_memory("silent-frozen", replace(READ, completed=999), before=None).completed == 21


def test_the_memory_of_a_panic_is_that_of_its_end() -> None:
    """The machine was held as it restarted, and who panicked it stands in the restart."""
    memory = judged(recording("memory-panicked")).guest_memory
    assert memory is not None
    assert (memory.unreadable, memory.missing) == ("", ())
    (panicked,) = (thread for thread in memory.daemon if thread.comm == "sh")
    names = [frame.name for frame in parse_proc_stack(panicked.stack)]
    assert names.index("acpi_reboot") < names.index("panic") < names.index("write_sysrq_trigger")


def test_memory_that_cannot_be_read_leaves_the_console() -> None:
    """The panic's stacks are the evidence then, and why memory is none is kept."""
    unreadable = GuestMemory(unreadable="no drgn here")
    half = with_memory("silent-frozen", unreadable)
    assert half == replace(judged(recording("silent-frozen")), guest_memory=unreadable)
    assert half.detail.startswith("Even the observer stopped; the panic's stacks show: ")


def test_memory_is_read_wherever_a_guest_is_lost_and_decides_nothing_there() -> None:
    """Panicked, ended, or at its deadline: evidence, with the outcome that it had without."""
    for name in ("panicked", "lost-machine-ended", "lost-at-the-deadline"):
        half, before = with_memory(name, READ), judged(recording(name))
        assert (half.outcome, half.detail) == (before.outcome, before.detail), name
        assert [thread.tid for thread in half.threads] == [166, 168], name
        assert half.guest_memory == READ, name
    for name in ("finished", "frozen-throttled"):
        assert with_memory(name, READ).guest_memory is None, "the guest told all itself"


def with_check(name: str, check: FileSystemCheck, **ended: object) -> Half:
    """The half of a recording in which the file system had been looked through just before the end."""
    recorded = recording(name)
    *before, last = recorded.said
    assert isinstance(last.report, WorkEnded)
    looked = Said(last.elapsed_s, FileSystemChecked(check=check))
    last = msgspec.structs.replace(last, report=msgspec.structs.replace(last.report, **ended))
    return judged(msgspec.structs.replace(recorded, said=(*before, looked, last)))


def test_only_a_clean_file_system_is_alive() -> None:
    """Damaged or not looked through, the work is finished, but nothing lived; a swap device has none."""
    command = "e2fsck -fn /dev/nbd0"
    clean = with_check("finished", FileSystemCheck(command, True, "all is well"))
    assert (clean.lived, half_words(clean)) == (True, "finished")
    assert clean.detail == "All that was written came back. The file system is clean (e2fsck -fn /dev/nbd0)."
    damaged = with_check("finished", FileSystemCheck(command, False, "Pass 1\nInode 7 is in use"))
    assert (damaged.outcome, damaged.lived) == (HalfOutcome.FINISHED, False)
    assert half_words(damaged) == "finished, its file system damaged"
    assert damaged.detail.endswith("The file system is damaged (e2fsck -fn /dev/nbd0): Inode 7 is in use.")
    unknown = with_check("finished", FileSystemCheck(command, None, "e2fsck: No such file or directory"))
    assert (unknown.outcome, unknown.lived) == (HalfOutcome.FINISHED, False)
    assert half_words(unknown) == "finished, its file system not checked"
    assert "not checked (e2fsck -fn /dev/nbd0): e2fsck: No such file" in unknown.detail
    wrong = with_check("finished-wrong-chunks", FileSystemCheck(command, False, ""))
    assert half_words(wrong) == "finished with wrong data", "wrong data are worse"
    assert "The file system is damaged (e2fsck -fn /dev/nbd0): it said nothing." in wrong.detail
    swap = judged(recording("finished-swap"))
    assert (swap.lived, swap.file_system) == (True, None)


def test_a_file_system_that_cannot_be_mounted_again_is_said() -> None:
    """The workload ends before it has read anything back: the reason stands in the sentence."""
    check = FileSystemCheck("e2fsck -fn /dev/nbd0", False, "it cannot be mounted again: wrong type")
    half = with_check("lost-daemon-killed", check, oom_kills=0, status=1, ended=())
    assert half.outcome is HalfOutcome.LOST
    assert half.detail.endswith("damaged (e2fsck -fn /dev/nbd0): it cannot be mounted again: wrong type.")


def test_times_are_the_workloads() -> None:
    """Samples and the end are counted from the workload's beginning, not from the boot."""
    half = judged(recording("finished"))
    recorded = recording("finished")
    began = next(one.report for one in recorded.said if isinstance(one.report, WorkBegan))
    samples = [one.report for one in recorded.said if isinstance(one.report, Sampled)]
    assert began.time_s > 5
    assert [sample.time_s for sample in half.samples] == [
        pytest.approx(sample.time_s - began.time_s) for sample in samples
    ]
    assert [sample.completed for sample in half.samples] == [sample.completed for sample in samples]
    assert half.samples[-1].memory_kib == samples[-1].memory_kib
    assert half.boot_s == recorded.boot_s
    assert half.wall_s == recorded.said[-1].elapsed_s


def test_silence_is_waited_for_only_so_long() -> None:
    """A guest that says nothing is interrupted after 60 s of set-up or 25 s of work, and then given 40 s."""
    recorded = recording("finished")
    nothing = judged(msgspec.structs.replace(recorded, said=(), console=""))
    assert nothing.outcome is HalfOutcome.LOST
    assert nothing.wall_s == pytest.approx(recorded.boot_s + 60 + 40)
    assert (nothing.when_s, nothing.completed, nothing.in_flight) == (0, 0, 0), "nothing was seen"
    assert (nothing.samples, nothing.threads, nothing.console, nothing.console_tail) == ((), (), "", "")
    first = [one for one in recorded.said if isinstance(one.report, WorkBegan | Sampled)][:2]
    working = judged(msgspec.structs.replace(recorded, said=tuple(first), console=""))
    assert working.detail == "Neither done nor frozen after 25 s of silence."
    assert working.wall_s == pytest.approx(first[-1].elapsed_s + 25 + 40)
    assert working.when_s == 0, "no request was seen to complete after the first sample"


def test_time_that_is_up_just_when_the_guest_was_silent_for_long() -> None:
    """Where deadline and silence end at one moment, it was the deadline: nothing is said of a freeze."""
    recorded = recording("silent-frozen")
    scenario = replace(recorded.scenario, deadline_s=60)
    half = judged(msgspec.structs.replace(recorded, scenario=scenario, said=(), boot_s=0.0))
    assert half.detail == "Neither done nor frozen after 60 s."
    assert half.wall_s == 60 + 40


def test_the_interrupt_is_waited_for_until_the_machine_ends() -> None:
    """Reports that come late are passed over; the machine's end, not the 40 s, ends the half."""
    recorded = recording("silent-frozen")
    *before, ended = recorded.said
    assert (ended.report, ended.after_nmi) == (None, True)
    half = judged(recorded)
    assert half.wall_s == ended.elapsed_s < before[-1].elapsed_s + 25 + 40
    late = Said(ended.elapsed_s - 0.1, before[-1].report, after_nmi=True)
    assert judged(msgspec.structs.replace(recorded, said=(*before, late, ended))) == half
    assert len(half.samples) == sum(isinstance(one.report, Sampled) for one in before)
    until_s = before[-1].elapsed_s + 25 + 40
    last = (
        Said(until_s - 0.8, before[-1].report, after_nmi=True),
        Said(until_s - 0.5, status=0, after_nmi=True),
    )
    assert judged(msgspec.structs.replace(recorded, said=(*before, *last))).wall_s == until_s - 0.5


def test_lines_of_the_console_that_are_shown() -> None:
    """25 where the machine ended or fell silent, without what the interrupt printed; 15 after a lost work."""
    for name, many in (("panicked", 25), ("lost-machine-ended", 4), ("lost-daemon-killed", 15)):
        recorded = recording(name)
        lines = [line.rstrip() for line in recorded.console.splitlines()]
        assert judged(recorded).console_tail.splitlines() == lines[-many:]
    recorded = recording("silent-no-witness")
    numbered = "".join(f"line {number}\n" for number in range(100))
    silent = msgspec.structs.replace(
        recorded, console=numbered + recorded.console, console_at_nmi=len(numbered)
    )
    assert judged(silent).console_tail.splitlines() == [f"line {number}" for number in range(75, 100)]
    assert judged(silent).console.endswith(recorded.console[-1000:]), "the stacks are kept all the same"
    stage = msgspec.structs.replace(recording("stage-daemon-exits"), console=numbered)
    with pytest.raises(LabError) as caught:
        judged(stage)
    _, _, shown = str(caught.value).partition("\nthe last lines of its console:\n")
    assert shown.splitlines() == [f"line {number}" for number in range(85, 100)]


def test_a_half_whose_work_never_began() -> None:
    """Its times are counted from the guest's boot, since there is nothing else to count from."""
    for name, last in (("finished", WorkEnded), ("frozen-throttled", DeviceFrozen)):
        recorded = recording(name)
        (end,) = (one.report for one in recorded.said if isinstance(one.report, last))
        unbegun = tuple(one for one in recorded.said if not isinstance(one.report, WorkBegan | Sampled))
        half = judged(msgspec.structs.replace(recorded, said=unbegun))
        stalled_s = end.stalled_s if isinstance(end, DeviceFrozen) else 0.0
        assert half.when_s == pytest.approx(end.time_s - stalled_s)
        assert half.samples == ()


def test_a_witness_at_the_deadline_is_no_freeze() -> None:
    """Stacks taken because time was up do not show a freeze: requests may have gone on until then."""
    recorded = recording("silent-frozen")
    last = max(one.elapsed_s for one in recorded.said if not one.after_nmi)
    soon = replace(recorded.scenario, deadline_s=last + 5)
    half = judged(msgspec.structs.replace(recorded, scenario=soon))
    assert half.outcome is HalfOutcome.LOST
    assert half.witness is not None
    assert half.detail == f"Neither done nor frozen after {last + 5:g} s."


def test_what_the_interrupt_brought_is_said_only_after_one() -> None:
    """A recorded machine that nobody interrupts stays silent where the real one was silent."""
    recorded = recording("silent-frozen")
    machine = RecordedMachine(recorded)
    before = sum(not one.after_nmi for one in recorded.said)
    assert before < len(recorded.said)
    for _ in range(before):
        assert machine.next_report(1000) is not None
    assert machine.next_report(1000) is None
    machine.inject_nmi()
    assert machine.next_report(0) is not None


def test_a_recording_of_a_recording_is_the_same(tmp_path: Path) -> None:
    """The recorder keeps all that a follower used: played again, it comes to the same half."""
    for name in ("finished", "silent-frozen", "panicked"):
        recorded = recording(name)
        recorder = Recorder(RecordedMachine(recorded))
        Follower(recorder, recorded.scenario, io_flusher=recorded.io_flusher, boot_s=recorded.boot_s).follow()
        again = recorder.recording(recorded.scenario, recorded.io_flusher, recorded.boot_s, recorded.kernel)
        assert judged(again) == judged(recorded)
        write_recording(again, tmp_path / "again.json")
        assert read_recording(tmp_path / "again.json") == again


def test_a_file_that_is_no_recording(tmp_path: Path) -> None:
    """What cannot be read is an error that names the file, and the field where there is one."""
    with pytest.raises(LabError, match=r"cannot read the recording .*none\.json: No such file"):
        read_recording(tmp_path / "none.json")
    file = tmp_path / "x.json"
    for text in ("", "[]", '{"scenario": 1}', "\xff"):
        file.write_text(text, encoding="latin-1")
        with pytest.raises(LabError, match=r"x\.json is no recording of a guest"):
            read_recording(file)


@pytest.mark.parametrize("name", ["finished", "frozen-no-witness", "lost-daemon-killed"])
def test_a_daemon_that_ended_meanwhile_is_told(name: str) -> None:
    """How it ended and what it printed stand in one line behind what is said anyway."""
    recorded = recording(name)
    ended = ("`server` ended with status 3; it printed:\nno space\nbye", "`client` was killed by signal 9")
    said = tuple(
        msgspec.structs.replace(one, report=msgspec.structs.replace(one.report, ended=ended))
        if isinstance(one.report, WorkEnded | DeviceFrozen)
        else one
        for one in recorded.said
    )
    before = judged(msgspec.structs.replace(recorded, said=_without_ends(recorded.said))).detail
    assert judged(msgspec.structs.replace(recorded, said=said)).detail == (
        f"{before} Meanwhile `server` ended with status 3; it printed: / no space / bye. "
        "Meanwhile `client` was killed by signal 9."
    )


def _without_ends(said: tuple[Said, ...]) -> tuple[Said, ...]:
    return tuple(
        msgspec.structs.replace(one, report=msgspec.structs.replace(one.report, ended=()))
        if isinstance(one.report, WorkEnded | DeviceFrozen)
        else one
        for one in said
    )
