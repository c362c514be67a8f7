"""What host and guest say: every record comes out as it went in, and nothing else is taken for one."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.lab import messages
from ioflusher.lab.file_systems import FileSystemCheck
from ioflusher.lab.guest import workloads
from ioflusher.lab.initramfs import BOOTED_FORMAT
from ioflusher.lab.messages import (
    Booted,
    DeviceFrozen,
    Garbled,
    PlayHalf,
    ReportReader,
    RunCommand,
    Sampled,
    SettingUp,
    ThreadReport,
    WorkBegan,
    WorkEnded,
    WorkReady,
    WorkVerified,
    WorkWritten,
    decode_order,
    decode_report,
    encode_order,
    encode_report,
)
from ioflusher.lab.near_misses import NearMisses, ReclaimEntries
from ioflusher.scenario.file import builtin_scenarios, parse_scenario

THREAD = ThreadReport(7, 8, "nbd\\xff", "D", 0x400040, stack="[<0>] balance_dirty_pages+0x1\n")
MEMORY = {"MemFree": 4711, "Active(file)": 12}
REPORTS = [
    Booted(time_s=1.5),
    messages.Hello(time_s=1.6, release="6.12.1"),
    messages.CommandStarted(time_s=1.0),
    messages.CommandEnded(time_s=1.0, status=127, message="no such file"),
    SettingUp(time_s=2.0, step="starting the daemon"),
    messages.ProfileRound(
        time_s=2.0,
        work="write",
        size=4096,
        requests=3,
        duration_s=0.5,
        watched_s=0.75,
        lost=True,
        syscalls=(messages.SyscallUse("read", 3, 1, 2, 64, 1),),
        gfp=(messages.GfpUse("kmalloc", "GFP_KERNEL", 2, 64),),
        faults=1,
        futex_waits=2,
        futex_wait_s=0.25,
        threads=2,
    ),
    messages.Profiled(time_s=2.0, device="/dev/nbd0", threads=2, missing=("kmem/kmalloc",)),
    messages.ShellReady(time_s=2.0, device="/dev/nbd0", daemons=(7, 9)),
    messages.StageFailed(time_s=2.0, message="mkswap exited 1"),
    messages.AgentFailed(time_s=2.0, traceback="Traceback"),
    WorkBegan(time_s=3.0, threads=(THREAD,), memory_kib=MEMORY),
    Sampled(time_s=3.5, completed=9, in_flight=2, memory_kib=MEMORY),
    Sampled(
        time_s=3.5,
        completed=9,
        in_flight=2,
        memory_kib=MEMORY,
        near_misses=NearMisses(reclaim=(ReclaimEntries("GFP_NOIO", False, False, False, 1, 0.5),)),
    ),
    messages.Hardened(time_s=3.4, done=("oom_score_adj -1000 for 166 (nbdkit)",)),
    messages.FaultBegan(time_s=3.5, fault=0, kind="daemon-killed", failed="no such process"),
    messages.FaultEnded(time_s=3.6, fault=1, kind="remote-slow"),
    WorkReady(time_s=3.5),
    WorkWritten(time_s=4.0, written_bytes=4096),
    messages.FileSystemChecked(time_s=4.5, check=FileSystemCheck("e2fsck -fn /dev/nbd0", None, "busy")),
    WorkVerified(time_s=5.0, verified_bytes=4096, wrong_chunks=0),
    DeviceFrozen(
        time_s=9.0,
        stalled_s=8.1,
        completed=9,
        in_flight=2,
        threads=(THREAD,),
        waiting=(THREAD, THREAD),
        memory_kib=MEMORY,
        vm_counters={"oom_kill": 0},
    ),
    WorkEnded(
        time_s=9.0,
        status=1,
        completed=9,
        in_flight=0,
        oom_kills=2,
        threads=(),
        memory_kib=MEMORY,
        vm_counters={"oom_kill": 2},
        ended=("`nbdkit` was killed by signal 9; it printed nothing",),
    ),
]


def test_every_kind_of_report_has_a_case() -> None:
    """The list above holds each report that a guest can send."""
    sent = {type(report) for report in REPORTS}
    assert sent == set(messages.GuestReport.__args__) - {Garbled}


@given(st.lists(st.sampled_from(REPORTS), max_size=12), st.integers(1, 60))
def test_reports_survive_any_cut(said: list[messages.GuestReport], step: int) -> None:
    """Reports come out as they went in, in their order, however the bytes are cut."""
    data = b"".join(encode_report(report) for report in said)
    reader = ReportReader()
    found = [report for at in range(0, len(data), step) for report in reader.feed(data[at : at + step])]
    assert found == said


@given(st.binary(max_size=200))
def test_any_line_is_answered(line: bytes) -> None:
    """A line that is no report becomes `Garbled` with its beginning, never an exception."""
    report = decode_report(line)
    if isinstance(report, Garbled):
        assert report.text == line.decode("utf-8", "backslashreplace")[:800]


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"sampled","time_s":1.0,"completed":1,"in_flight":0}',  # a field is missing
        b'{"event":"sampled","time_s":1.0,"completed":"1","in_flight":0,"memory_kib":{}}',  # a wrong type
        b'{"event":"no-such-report","time_s":1.0}',
        b'{"time_s":1.0}',
        b"[]",
        b"",
    ],
)
def test_what_is_no_report_is_garbled(line: bytes) -> None:
    """Unknown kinds, missing fields and wrong types are not taken for a report."""
    assert decode_report(line) == Garbled(text=line.decode())


def test_a_line_without_end_is_given_up() -> None:
    """What never ends takes no memory without bound, and what follows is read again."""
    reader = ReportReader()
    (report,) = list(reader.feed(b"x" * (messages.LONGEST_LINE_BYTES + 1)))
    assert isinstance(report, Garbled)
    assert "more than" in report.text
    assert list(reader.feed(encode_report(Booted(time_s=1.0)))) == [Booted(time_s=1.0)]


def test_the_init_script_says_a_report() -> None:
    """The first report of a guest is printed by a shell script: it is `Booted` all the same."""
    assert decode_report((BOOTED_FORMAT % "12.34").encode()) == Booted(time_s=12.34)


def test_the_workloads_say_reports(capfd: pytest.CaptureFixture[str]) -> None:
    """The programs in the guest write their reports by hand: each kind that they say is one."""
    with open(workloads.__file__) as file:
        said = set(re.findall(r'say\("([a-z-]+)"', file.read()))
    assert said == {"work-written", "file-system-checked", "work-verified"}
    workloads.say_ready()
    workloads.say("work-written", written_bytes=5)
    workloads.say("work-verified", verified_bytes=5, wrong_chunks=1)
    found = [decode_report(line.encode()) for line in capfd.readouterr().out.splitlines()]
    assert found == [
        WorkReady(),
        WorkWritten(written_bytes=5),
        WorkVerified(verified_bytes=5, wrong_chunks=1),
    ]


@pytest.mark.parametrize(
    "order",
    [
        RunCommand(("a", "b"), "/", {"x": "y"}),
        *(PlayHalf(parse_scenario(text), True, "nbd://h:1") for text in builtin_scenarios().values()),
        messages.ProfileDaemon(
            PlayHalf(parse_scenario(builtin_scenarios()["swap-on-nbd"]), False, ""), 20, 5, (4096, 65536)
        ),
        messages.OpenShell(
            PlayHalf(parse_scenario(builtin_scenarios()["swap-on-nbd"]), False, ""),
            True,
            "/",
            {"x": "y"},
            messages.WindowSize(24, 80),
        ),
    ],
    ids=lambda order: getattr(getattr(order, "scenario", None), "name", type(order).__name__),
)
def test_orders_survive_the_way(order: messages.AnyOrder) -> None:
    """An order read back is the order that was written, the whole scenario with it."""
    assert decode_order(encode_order(order)) == order


def test_an_order_that_is_none_is_refused() -> None:
    """A guest does not guess what it was started for."""
    with pytest.raises(msgspec.ValidationError):
        decode_order(b'{"order":"make-coffee"}')
