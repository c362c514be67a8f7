"""`lab profile`: events to counts, counts to numbers for each request, and what a real daemon does."""

import json
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from ioflusher.kernel.syscall_names import syscall_name
from ioflusher.kernel.trace_events import TraceEvent, TraceFormat
from ioflusher.lab import profile
from ioflusher.lab.errors import LabError
from ioflusher.lab.event_counter import EventCounter
from ioflusher.lab.guest import profile as guest_profile
from ioflusher.lab.guest.profile import RingEvents
from ioflusher.lab.messages import GfpUse, ProfileRound, SyscallUse
from ioflusher.lab.profile import DaemonProfile, Spread, without_pressure, work_profiles
from ioflusher.lab.profile_threads import threads_of_profile
from ioflusher.report.experiment_profile import _row, profile_lines
from ioflusher.scenario.file import builtin_scenarios, find_scenario, parse_scenario
from tests.cli import program

if TYPE_CHECKING:
    from ioflusher.lab.stacks.base import Stack

READ, WRITE, FUTEX, SENDMSG = 0, 1, 202, 46
GFP_KERNEL, GFP_NOWAIT = 0xCC0, 0x2000
GFP_NAMES: dict[str, tuple[tuple[int, str], ...]] = {
    "kmalloc": ((GFP_KERNEL, "GFP_KERNEL"), (GFP_NOWAIT, "GFP_NOWAIT"))
}


def arguments(*values: int) -> bytes:
    """The six of a system call, as the event has them."""
    return struct.pack("=6Q", *values, *[0] * (6 - len(values)))


def enter(time_ns: int, tid: int, number: int, *values: int) -> TraceEvent:
    """A system call begins."""
    return TraceEvent(time_ns, "sys_enter", tid, (number, arguments(*values)))


def leave(time_ns: int, tid: int, number: int) -> TraceEvent:
    """It ends."""
    return TraceEvent(time_ns, "sys_exit", tid, (number,))


def count(*events: TraceEvent) -> ProfileRound:
    """What is counted of events on x86-64."""
    counter = RingEvents(EventCounter(4096), "x86_64", GFP_NAMES)
    counter.take(events)
    return counter.take_round()


def test_an_allocation_belongs_to_the_call_of_its_thread() -> None:
    """Two threads at once; a call that allocates twice allocates once, and pages are told from objects."""
    found = count(
        enter(1, 10, SENDMSG),
        enter(2, 11, READ),
        TraceEvent(3, "kmalloc", 10, (512, GFP_KERNEL)),
        TraceEvent(4, "kmem_cache_alloc", 10, (232, GFP_KERNEL)),
        TraceEvent(5, "mm_page_alloc", 10, (3, GFP_KERNEL)),
        leave(6, 11, READ),
        leave(7, 10, SENDMSG),
        enter(8, 10, SENDMSG),
        leave(9, 10, SENDMSG),
        TraceEvent(10, "page_fault_user", 11, ()),
        TraceEvent(11, "mm_page_alloc", 11, (0, GFP_NOWAIT)),
    )
    assert found.syscalls == (
        SyscallUse("outside system calls", 0, 0, 0, 0, 1),
        SyscallUse("read", 1, 0, 0, 0, 0),
        SyscallUse("sendmsg", 2, 1, 2, 744, 8),
    )
    assert GfpUse("kmalloc", "GFP_KERNEL", 1, 512) in found.gfp
    assert {(use.event, use.size) for use in found.gfp} >= {("mm_page_alloc", 32768), ("mm_page_alloc", 4096)}
    assert (found.faults, found.threads) == (1, 2)


def test_locks_are_waits_for_a_futex() -> None:
    """FUTEX_WAIT with its private bit waits, FUTEX_WAKE does not; the time is that of the call."""
    found = count(
        enter(1_000, 10, FUTEX, 0xAA, 0 | 128),
        enter(2_000, 11, FUTEX, 0xAA, 1 | 128),
        leave(2_500, 11, FUTEX),
        leave(501_000, 10, FUTEX),
        enter(502_000, 10, FUTEX, 0xAA, 9 | 128 | 256),
    )
    assert found.futex_waits == 2
    assert found.futex_wait_s == pytest.approx(0.0005)


def test_a_round_begins_anew() -> None:
    """Counts do not run on; a call that one round began and the next one ends is no second call."""
    counter = RingEvents(EventCounter(4096), "x86_64", GFP_NAMES)
    counter.take([enter(1, 10, READ)])
    assert counter.take_round().syscalls[0].calls == 1
    counter.take([TraceEvent(2, "kmalloc", 10, (64, GFP_KERNEL)), leave(3, 10, READ)])
    (use,) = counter.take_round().syscalls
    assert (use.name, use.calls, use.allocating, use.objects) == ("read", 0, 1, 1)


def test_names_of_system_calls() -> None:
    """The processor's own up to 334, everybody's from 424 on; others by their number."""
    assert [syscall_name(number, "x86_64") for number in (0, 17, 202, 334, 425)] == [
        "read",
        "pread64",
        "futex",
        "rseq",
        "io_uring_setup",
    ]
    assert (syscall_name(63, "aarch64"), syscall_name(425, "aarch64")) == ("syscall 63", "io_uring_setup")
    assert syscall_name(400, "x86_64") == "syscall 400"


def played(work: str, requests: int, watched_s: float, calls: int, **more: Any) -> ProfileRound:
    """A round in which read() was called so often."""
    values: dict[str, Any] = {
        "size": 4096 if requests else 0,
        "duration_s": watched_s,
        "lost": False,
        "gfp": (GfpUse("kmalloc", "GFP_KERNEL", calls, calls * 64),),
        "faults": 0,
        "futex_waits": 0,
        "futex_wait_s": 0.0,
        "threads": 2,
        **more,
    }
    uses = (SyscallUse("read", calls, calls, calls, calls * 64, 0),)
    return ProfileRound(work=work, requests=requests, watched_s=watched_s, syscalls=uses, **values)


def test_for_each_request_without_the_base_line() -> None:
    """An idle daemon's 10 calls a second are subtracted, for the time of each round; the spread is told."""
    (work,) = work_profiles(
        [
            played("idle", 0, 2.0, 20),
            played("write", 10, 1.0, 40),  # 30 of them for 10 requests
            played("write", 10, 2.0, 70),  # 50 of them
            played("idle", 0, 1.0, 10),
        ]
    )
    assert (work.work, work.size, work.rounds, work.requests) == ("write", 4096, 2, 20)
    (call,) = work.syscalls
    assert (call.name, call.calls) == ("read", Spread(4.0, 3.0, 5.0))
    assert call.object_bytes == Spread(256.0, 192.0, 320.0)
    (gfp,) = work.gfp
    assert (gfp.flags, gfp.size) == ("GFP_KERNEL", Spread(256.0, 192.0, 320.0))
    assert work.latency_s is not None
    assert (work.latency_s.low, work.latency_s.high, work.threads.mean) == (0.1, 0.2, 2.0)


def test_less_than_the_base_line_is_nothing() -> None:
    """Never a negative number; a round in which the device completed nothing has no say."""
    nothing = played("read", 0, 1.0, 9, size=4096)
    (work,) = work_profiles([played("idle", 0, 1.0, 100), played("read", 1, 1.0, 50), nothing])
    assert work.syscalls[0].calls == Spread(0.0, 0.0, 0.0)
    assert work.requests == 1


def test_nothing_presses_on_it() -> None:
    """The daemon and the machine are the scenario's, its settings and pressure are gone."""
    scenario = find_scenario("swap-on-nbd")
    quiet = without_pressure(scenario)
    assert (quiet.machine, quiet.device, quiet.daemon) == (scenario.machine, scenario.device, scenario.daemon)
    assert (quiet.kernel.sysctl, quiet.pressure.kind, quiet.hardening.lock_memory) == ({}, "none", False)


def test_it_is_printed() -> None:
    """Names with units, means with their spread; lost events and missing ones are said."""
    works = work_profiles([played("write", 10, 1.0, 40, lost=True), played("write", 10, 1.0, 60)])
    lines = list(profile_lines(daemon_profile(works, missing=("exceptions/page_fault_user",))))
    text = "\n".join(lines)
    assert "this kernel does not record exceptions/page_fault_user" in text
    assert "a write of 4 KiB, for each of 20 requests in 2 rounds:" in text
    assert "events were lost: the numbers are too small" in text
    row = next(line for line in lines if line.startswith("  read "))
    assert row.split() == [
        "read",
        *["5", "[4,", "6]"] * 3,
        *["320", "[256,", "384]"],
        "0",
    ]


def test_long_numbers_stand_apart() -> None:
    """Where a column is full, there is still a space between it and the next."""
    row = _row("pwrite64", *["123456 [1.234e+04, 1.234e+05]"] * 2)
    assert row.split() == ["pwrite64", *["123456", "[1.234e+04,", "1.234e+05]"] * 2]


def test_the_observer_is_never_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it reads would be recorded as it reads, and reading would never end: it hung in real guests."""
    followed: list[set[int]] = []

    class NotedInstance:
        """A tracefs instance in which nothing is recorded."""

        def __init__(self, name: str, *, buffer_kib: int) -> None: ...

        def follow(self, tids: set[int]) -> None:
            followed.append(set(tids))

        def want(self, event: str, fields: tuple[str, ...]) -> TraceFormat:
            assert followed, "without anybody to follow the kernel records all threads, this one, too"
            return TraceFormat(event.rpartition("/")[2], 1, {}, {})

        def open(self) -> None: ...

    monkeypatch.setattr(guest_profile, "TraceInstance", NotedInstance)
    monkeypatch.setattr(guest_profile, "_threads", lambda stack: {41, 42})
    guest_profile._tracing(cast("Stack", None))
    assert followed == [{41, 42}]


def daemon_profile(works: Any, *, missing: tuple[str, ...] = ()) -> DaemonProfile:
    """A profile around the works."""
    return DaemonProfile(
        served="it serves",
        kind="nbd",
        command=("server", "{socket}"),
        kernel="6.12.117",
        accelerator="emulated",
        io_flusher=False,
        device="/dev/nbd0",
        threads=2,
        missing=missing,
        works=works,
    )


def test_the_record_reads_back() -> None:
    """What --json prints is the typed record, whole."""
    made = daemon_profile(work_profiles([played("write", 10, 1.0, 40), played("read", 5, 1.0, 6)]))
    assert msgspec.json.decode(msgspec.json.encode(made), type=DaemonProfile) == made


# the command line


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The scenarios that would be profiled."""
    found: list[Any] = []

    def profile_daemon(_: Any, scenario: Any, **options: Any) -> DaemonProfile:
        found.append((scenario, options))
        return daemon_profile(work_profiles([played("write", 10, 1.0, 40)]))

    from tests.cli.test_lab_run import ReadyLab

    monkeypatch.setattr(profile, "profile_daemon", profile_daemon)
    monkeypatch.setattr("ioflusher.lab.session.Lab", ReadyLab)
    monkeypatch.setattr("ioflusher.lab.setup.check_programs", lambda scenario: None)
    return found


def test_any_daemon(asked: list[Any]) -> None:
    """A command of its own, as a shell splits it, on the stage of its kind."""
    ended = program.call(
        "lab",
        "profile",
        "--daemon",
        "server --at {mount} '{directory}'",
        "--kind",
        "fuse",
        "--json",
        "--with",
    )
    assert ended.status == 0, ended.stderr
    ((scenario, options),) = asked
    assert scenario.device.kind == "fuse"
    assert scenario.daemon.command == ("server", "--at", "{mount}", "{directory}")
    assert options["io_flusher"] is True
    assert json.loads(ended.stdout)["works"][0]["syscalls"][0]["calls"]["mean"] == 4.0


def call(name: str, calls: float, pages: float) -> profile.SyscallProfile:
    """A system call that takes so many pages for a request."""
    none = Spread(0.0, 0.0, 0.0)
    return profile.SyscallProfile(
        name, Spread(calls, calls, calls), none, none, none, Spread(pages, pages, pages)
    )


@pytest.mark.parametrize(
    ("calls", "does"),
    [
        # ours, of a kept profile: 64 KiB are 16 pages
        ([call("recvfrom", 2, 0.7), call("pwrite64", 1, 17), call("sendto", 1, 0)], ("store",)),
        ([call("outside system calls", 0, 16), call("pwritev2", 1, 0.2)], ("allocate", "store")),
        ([call("read", 1, 0), call("sendmsg", 1, 16), call("write", 1, 0)], ("send",)),
        ([call("pwrite64", 0.1, 17)], ()),
    ],
)
def test_a_description_for_the_model(calls: list[profile.SyscallProfile], does: tuple[str, ...]) -> None:
    """What takes as much memory as the request; the larger of two sizes counts."""
    (large,) = work_profiles([played("write", 10, 1.0, 40)])
    small = replace(large, size=4096, syscalls=(call("sendto", 1, 1),))
    large = replace(large, size=65536, syscalls=tuple(calls), threads=Spread(3.2, 3.0, 4.0))
    (found,) = threads_of_profile(daemon_profile((small, large)))
    assert (found.name, found.does, found.count) == ("server", does, 3)


def test_a_profile_without_writes() -> None:
    """Nothing can be described."""
    with pytest.raises(LabError, match="no writes"):
        threads_of_profile(daemon_profile(work_profiles([played("read", 10, 1.0, 40)])))


def test_a_description_reads_back(asked: list[Any]) -> None:
    """The form toml is tables that a scenario may have."""
    ended = program.call(
        "lab", "profile", "--daemon", "server {socket} {file}", "--kind", "nbd", "--format", "toml"
    )
    assert ended.status == 0, ended.stderr
    scenario = parse_scenario(builtin_scenarios()["ext4-on-nbd-throttled"] + ended.stdout)
    assert [thread.name for thread in scenario.daemon.thread] == ["server"]


def test_a_daemon_must_be_named(asked: list[Any]) -> None:
    """A scenario, or a command."""
    for words in ([], ["--kind", "nbd"], ["swap-on-nbd", "--kind", "nbd"]):
        ended = program.call("lab", "profile", *words)
        assert ended.status == 2, ended.output
    assert not asked
    assert program.call("lab", "profile", "swap-on-nbd").status == 0


@pytest.mark.vm
def test_a_real_daemon() -> None:
    """Our NBD server receives and answers each request on its socket, and stores a write with pwrite()."""
    ended = program.start("lab", "profile", "ext4-on-nbd-throttled", "--rounds", "2", "--json", timeout=300)
    assert ended.status == 0, ended.stderr
    made = msgspec.json.decode(ended.stdout, type=DaemonProfile)
    works = {(work.work, work.size): work for work in made.works}
    assert set(works) == {(work, size) for work in ("read", "write") for size in (4096, 65536)}
    assert not made.missing
    for work in works.values():
        assert not work.lost
        assert work.requests == 40
    calls = {call.name: call for call in works["write", 65536].syscalls}
    stores = [call for name, call in calls.items() if name.startswith("pwrite")]
    assert sum(call.calls.mean for call in stores) == pytest.approx(1.0, abs=0.2)
    assert any(call.allocating.mean > 0 for call in calls.values())
    assert any("GFP_KERNEL" in use.flags for use in works["write", 65536].gfp)
