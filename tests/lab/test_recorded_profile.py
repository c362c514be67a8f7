"""A profile out of a recorded trace: which requests are whose, what is left out, what real ones printed.

tests/lab/traces has what real ones printed of nbdkit and nbd-server in a guest (its README says how).
"""

import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ioflusher.lab.errors import LabError
from ioflusher.lab.profile import DaemonProfile, WorkProfile
from ioflusher.lab.profile_threads import notes_of_profile, threads_of_profile
from ioflusher.lab.recorded_profile import AllRequests, profile_trace
from ioflusher.model.halves import play_halves
from ioflusher.report.experiment_profile import profile_lines
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from ioflusher.scenario.writer import threads_toml
from tests.cli import program

WRITE, READ, FUTEX = 18, 17, 202


class Recorder:
    """Lines as `trace-cmd report` prints them, of a daemon and its device 43:0."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, at_s: float, text: str, who: str = "daemon-10") -> None:
        """An event."""
        self.lines.append(f"  {who}  [000]  {at_s:.6f}: {text}")

    def call(self, at_s: float, number: int, *allocations: str, who: str = "daemon-10") -> None:
        """A system call of a millisecond, with what is allocated in it."""
        self.say(at_s, f"sys_enter: NR {number} (3, 80, 0, 0, 0, 0)", who)
        for text in allocations:
            self.say(at_s + 0.0005, text, who)
        self.say(at_s + 0.001, f"sys_exit: NR {number} = 1", who)

    def begins(self, at_s: float, rwbs: str, sector: int, sectors: int, device: str = "43,0") -> None:
        """A request goes to the driver, by whoever wants it."""
        self.say(at_s, f"block_rq_issue: {device} {rwbs} 0 () {sector} + {sectors} [dd]", "dd-77")

    def ends(self, at_s: float, rwbs: str, sector: int, sectors: int, device: str = "43,0") -> None:
        """So much of it is done."""
        self.say(at_s, f"block_rq_complete: {device} {rwbs} () {sector} + {sectors} [0]", "kworker/0:1-7")

    def request(self, at_s: float, rwbs: str, sector: int, sectors: int) -> None:
        """One that takes 10 ms, in which the daemon calls pwrite64() once."""
        self.begins(at_s, rwbs, sector, sectors)
        self.call(at_s + 0.002, WRITE, PAGE)
        self.ends(at_s + 0.010, rwbs, sector, sectors)


PAGE = "mm_page_alloc: page=0xf pfn=0x1 order=0 migratetype=0 gfp_flags=GFP_NOIO"


def profile(lines: list[str], *, threads: tuple[str, ...] = ("daemon",), **more: Any) -> DaemonProfile:
    """The profile of the lines."""
    return profile_trace(lines, "t.txt", threads=threads, machine="x86_64", page_bytes=4096, **more)


def works_of(made: DaemonProfile) -> dict[tuple[str, int], WorkProfile]:
    """By what they are."""
    return {(work.work, work.size): work for work in made.works}


def test_stretches_of_one_kind_are_rounds() -> None:
    """Writes, then reads, then writes of another size; what a call is for is seen by its time."""
    record = Recorder()
    for number in range(3):
        record.request(1 + number * 0.02, "W", number * 8, 8)
    for number in range(2):
        record.request(1.1 + number * 0.02, "R", number * 8, 8)
        record.call(1.1 + number * 0.02 + 0.012, READ)
    record.request(1.2, "WS", 128, 128)
    made = works_of(profile(record.lines))
    assert set(made) == {("write", 4096), ("read", 4096), ("write", 65536)}
    write, read = made["write", 4096], made["read", 4096]
    assert (write.requests, write.rounds) == (3, 1)
    assert {call.name: call.calls.mean for call in write.syscalls} == {"pwrite64": 1.0}
    assert {call.name: call.calls.mean for call in read.syscalls} == {"pread64": 1.0, "pwrite64": 1.0}
    (call,) = write.syscalls
    assert (call.allocating.mean, call.pages.mean) == (1.0, 1.0)
    (gfp,) = write.gfp
    assert (gfp.flags, gfp.size.mean) == ("GFP_NOIO", 4096)
    assert write.latency_s is not None
    assert write.latency_s.mean == pytest.approx(0.010)


def test_the_base_line_is_what_is_done_while_nothing_is_asked() -> None:
    """A quarter of a second after the last request is its own; from then on an idle daemon's calls count."""
    record = Recorder()
    record.request(1.0, "W", 0, 8)
    for number in range(100):  # 10 a second, for the 10 s in between, too
        record.call(1.3 + number / 10, READ)
    record.request(11.4, "W", 8, 8)
    record.call(11.6, READ)
    record.say(12.0, "sys_exit: NR 0 = 1")
    (work,) = profile(record.lines).works
    calls = {call.name: call.calls for call in work.syscalls}
    assert (work.requests, work.rounds) == (2, 2)
    assert calls["pwrite64"].mean == 1.0
    # in the second round a call that is no part of a request, less the 2.6 of a quarter of a second
    assert calls["pread64"].mean == 0.0


def test_requests_in_parts_and_once_more() -> None:
    """One that is completed in two steps is one, and so is one that the driver gave back."""
    record = Recorder()
    record.begins(1.0, "W", 0, 16)
    record.begins(1.001, "W", 0, 16)
    record.call(1.002, WRITE)
    record.ends(1.003, "W", 0, 8)
    record.ends(1.004, "W", 8, 8)
    (work,) = profile(record.lines).works
    assert (work.requests, work.size) == (1, 8192)
    assert work.latency_s is not None
    assert work.latency_s.mean == pytest.approx(0.004)


def test_a_flush_is_a_kind_of_its_own() -> None:
    """Its two events do not say the same sector."""
    record = Recorder()
    record.begins(1.0, "FF", 0, 0)
    record.call(1.002, 75)
    record.ends(1.003, "FF", 18446744073709551615, 0)
    record.request(1.1, "FWS", 8, 8)
    made = works_of(profile(record.lines))
    assert [call.name for call in made["flush", 0].syscalls] == ["fdatasync"]
    assert made["write", 4096].requests == 1


def test_what_cannot_be_told_apart_is_left_out() -> None:
    """A read and a write at once; one that began before the trace, and one that does not end in it."""
    record = Recorder()
    record.ends(0.5, "W", 800, 8)
    record.begins(1.0, "W", 0, 8)
    record.begins(1.001, "R", 8, 8)
    record.call(1.002, WRITE)
    record.ends(1.003, "W", 0, 8)
    record.ends(1.004, "R", 8, 8)
    record.request(1.1, "W", 16, 8)
    record.begins(1.2, "W", 24, 8)
    record.lines += ["CPU:0 [LOST 5 EVENTS]", "nonsense"]
    made = profile(record.lines)
    assert made.left_out == (
        "2 requests in flight beside those of another kind",
        "1 request that began before the trace",
        "1 request that did not end in it",
        "1 line that no tracer prints, first line 15: 'nonsense'",
    )
    (work,) = made.works
    assert (work.requests, work.lost) == (1, True)
    text = "\n".join(profile_lines(made))
    assert "in no number below: 2 requests in flight beside those of another kind" in text
    assert "this trace does not have kmem/kmalloc: what it would show is missing below" in text
    assert "Linux of a release that is not told, with or without the IO_FLUSHER state; 43:0, 1 thread" in text


def test_several_sizes_at_once_are_told_by_their_mean() -> None:
    """Writeback has many sizes in flight; what is done for them is for the mean one."""
    record = Recorder()
    record.begins(1.0, "W", 0, 8)
    record.begins(1.001, "W", 100, 56)
    record.call(1.002, WRITE)
    record.call(1.004, WRITE)
    record.ends(1.006, "W", 0, 8)
    record.ends(1.007, "W", 100, 56)
    (work,) = profile(record.lines).works
    assert (work.size, work.requests) == (16384, 2)


def test_all_of_a_trace() -> None:
    """What has no requests of a device is said: how many, of what, and how large."""
    lines = [
        '10 12:00:00.000000 pwrite64(6, ""..., 65536, 0) = 65536 <0.001>',
        "11 12:00:00.100000 futex(0x7f, FUTEX_WAIT_PRIVATE, 2, NULL) = 0 <0.5>",
        '10 12:00:00.200000 pwrite64(6, ""..., 65536, 65536) = 65536 <0.001>',
    ]
    made = profile(lines, threads=(), every=AllRequests(2, "write", 65536))
    (work,) = made.works
    assert (work.requests, work.latency_s) == (2, None)
    assert work.futex_waits.mean == 0.5
    assert work.futex_wait_s.mean == pytest.approx(0.25)
    (thread,) = threads_of_profile(made)
    assert (thread.name, thread.does, thread.count) == ("storage-daemon", ("store",), 2)
    assert "nor whether a call or a page fault takes pages: kmem/mm_page_alloc was not recorded" in (
        notes_of_profile(made)
    )
    assert "not told" in "\n".join(profile_lines(made))


def two_daemons() -> list[str]:
    """A trace in which more than one daemon and device could be meant."""
    record = Recorder()
    record.request(1.0, "W", 0, 8)
    record.call(1.1, READ, who="other-11")
    record.begins(1.2, "W", 0, 8, device="8,16")
    record.ends(1.3, "W", 0, 8, device="8,16")
    return record.lines


@pytest.mark.parametrize(
    ("lines", "more", "what", "hint"),
    [
        ([], {}, "line 1: expected an event", "trace-cmd report"),
        (
            ["\x17\x08Dtracing", "b"],
            {},
            "line 1: expected an event .* found '.x17.x08Dtracing'",
            "perf script",
        ),
        (
            ["  a-1 [000] 1.000000: sched_switch: x"],
            {},
            "expected system calls, found none among sched_switch",
            "-e",
        ),
        (two_daemons(), {"threads": ()}, r"several programs: daemon \(1\), other \(1\)", "--thread NAME"),
        (two_daemons(), {"threads": ("x",)}, "no system calls of x; it has those of daemon", "--thread NAME"),
        (two_daemons(), {}, r"several devices; it has those of 43:0 \(1\), 8:16 \(1\)", "--device"),
        (two_daemons(), {"device": (7, 1)}, r"no requests of 7:1; it has those of 43:0 \(1\)", "--device"),
        (two_daemons()[1:4], {}, "has no requests of a device", "--requests N"),
        (
            two_daemons()[:4],
            {},
            "none of the requests of 43:0 can be told apart: 1 request that did not",
            "only",
        ),
    ],
)
def test_what_is_no_profile(lines: list[str], more: dict[str, Any], what: str, hint: str) -> None:
    """What was expected, what was found, and what to do."""
    with pytest.raises(LabError, match=what) as raised:
        profile(lines, **more)
    assert raised.value.hint is not None
    assert hint in raised.value.hint


def test_threads_by_name_and_number() -> None:
    """A star stands for anything; a thread's number does, too."""
    for name in ("daem*", "10", "daemon"):
        made = profile(two_daemons(), threads=(name,), device=(43, 0))
        assert (made.threads, made.command) == (1, ("daemon",))


# the command line


def test_a_trace_on_standard_input() -> None:
    """The record that --json prints reads back; the form toml is tables of a scenario, with notes."""
    text = "\n".join(two_daemons()).encode()
    words = ("lab", "profile", "--trace", "-", "--thread", "daemon", "--device", "43:0")
    ended = program.call(*words, "--json", stdin=text)
    assert ended.status == 0, ended.stderr
    made = msgspec.json.decode(ended.stdout, type=DaemonProfile)
    assert (made.served, made.io_flusher) == ("daemon, as standard input shows it", None)
    ended = program.call(*words, "--format", "toml", stdin=text)
    assert ended.stdout.startswith("# daemon, as standard input shows it\n")
    assert '[[daemon.thread]]\nname = "daemon"\ndoes = ["store"]' in ended.stdout


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--trace", "-", "swap-on-nbd"], "SCENARIO is about a guest, and goes without --trace"),
        (["--trace", "-", "--kernel", "6.1"], "--kernel is about a guest, and goes without --trace"),
        (["--trace", "-", "--without"], "--with is about a guest, and goes without --trace"),
        (["--trace", "-", "--requests", "9"], "--requests with --trace needs --size SIZE"),
        (["--trace", "-", "--size", "4K"], "--work and --size say what --requests N are"),
        (["--trace", "-", "--device", "nbd0"], "expected the numbers of a device such as 43:0"),
        (["swap-on-nbd", "--thread", "x"], "--thread goes with --trace FILE"),
        (["swap-on-nbd", "--requests", "201"], "expected at most 200 requests of a round, found 201"),
        ([], "give a SCENARIO, or --daemon CMD and --kind KIND, or --trace FILE"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], what: str) -> None:
    """What would have no effect is refused."""
    ended = program.call("lab", "profile", *words)
    assert ended.status == 2
    assert what in ended.stderr


# what real tracers printed

TRACES = Path(__file__).parent / "traces"
NBD_SERVER = ("nbd-server", "pool")


def printed(name: str) -> Iterator[str]:
    """The lines of a trace that is kept."""
    with lzma.open(TRACES / f"{name}.txt.xz", "rt", encoding="utf-8", errors="backslashreplace") as file:
        yield from file


@pytest.mark.parametrize("tracer", ["trace-cmd", "ftrace", "perf"])
def test_nbd_server_as_tracers_of_the_kernel_show_it(tracer: str) -> None:
    """Of its threads one stores, with a pwrite() that takes the pages, and answers with a write()."""
    made = profile(list(printed(f"nbd-server.{tracer}")), threads=NBD_SERVER, device=(43, 0))
    works = works_of(made)
    assert set(works) == {("write", 65536), ("read", 65536), ("write", 4096)}
    assert {work.requests for work in works.values()} == {20}
    assert not made.left_out
    assert not made.missing
    for size, pages in ((65536, 16), (4096, 1)):
        calls = {call.name: call for call in works["write", size].syscalls}
        assert calls["pwrite64"].calls.mean == 1.0
        assert calls["pwrite64"].allocating.mean == 1.0
        assert calls["pwrite64"].pages.mean == pytest.approx(pages, rel=0.15)
        assert calls["write"].calls.mean == 1.0
    reads = {call.name: call.calls.mean for call in works["read", 65536].syscalls}
    assert (reads["pread64"], reads["read"], reads["write"]) == (1.0, 1.0, 2.0)
    assert made.kernel == ("6.12.117+deb12-cloud-amd64" if tracer == "perf" else None)
    (thread,) = threads_of_profile(made)
    assert (thread.name, thread.does) == ("pool", ("store",))


def test_nbd_server_as_strace_shows_it() -> None:
    """The same calls; what they allocate strace does not say, and requests are counted elsewhere."""
    made = profile(list(printed("nbd-server.strace")), threads=(), every=AllRequests(60, "write", 45056))
    (work,) = made.works
    calls = {call.name: call.calls.mean * 60 for call in work.syscalls}
    assert (calls["pwrite64"], calls["pread64"], calls["write"]) == pytest.approx((40, 20, 80))
    assert made.missing[:3] == ("kmem/kmalloc", "kmem/kmem_cache_alloc", "kmem/mm_page_alloc")


@pytest.mark.parametrize("tracer", ["trace-cmd", "perf"])
def test_nbdkit_as_tracers_of_the_kernel_show_it(tracer: str) -> None:
    """As the lab counts it: a pwrite() of 64 KiB takes some 64 objects and 17 pages; sendto() answers."""
    made = profile(list(printed(f"nbdkit.{tracer}")), threads=("nbdkit",), device=(43, 0))
    works = works_of(made)
    assert {key: work.requests for key, work in works.items()} == {
        ("write", 65536): 6,
        ("read", 65536): 6,
        ("write", 4096): 6,
    }
    calls = {call.name: call for call in works["write", 65536].syscalls}
    assert (calls["pwrite64"].calls.mean, calls["sendto"].calls.mean) == (1.0, 1.0)
    assert calls["pwrite64"].objects.mean == pytest.approx(64.25, rel=0.06)
    assert calls["pwrite64"].object_bytes.mean == pytest.approx(6802, rel=0.07)
    assert calls["pwrite64"].pages.mean == pytest.approx(17.6, rel=0.08)
    (thread,) = threads_of_profile(made)
    assert (thread.name, thread.does) == ("nbdkit", ("store",))


def test_many_threads_are_not_all_listed() -> None:
    """strace shows 18 of nbdkit, by number."""
    made = profile(list(printed("nbdkit.strace")), threads=(), every=AllRequests(18, "write", 45056))
    assert made.served.endswith("and 10 more, as t.txt shows it")
    assert made.threads == 18


def test_it_plays_in_the_model() -> None:
    """A daemon that was traced on a machine of its own, in place of the one of a scenario."""
    made = profile(list(printed("nbd-server.trace-cmd")), threads=NBD_SERVER, device=(43, 0))
    text = threads_toml(threads_of_profile(made), head=notes_of_profile(made))
    scenario = parse_scenario(builtin_scenarios()["ext4-on-nbd-throttled"] + text)
    without, with_ = play_halves(scenario, version=(6, 12))
    assert (without.result.outcome.value, with_.result.outcome.value) == ("frozen", "done")
    assert {task.program for task in without.cycle} <= {"pool"}
