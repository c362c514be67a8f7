"""Lines of tracers to events: each form in which a tracer prints them, and what is none."""

import pytest

from ioflusher.kernel.trace_text import (
    Allocated,
    CallBegins,
    CallEnds,
    FaultedInUserSpace,
    RequestBegins,
    RequestEnds,
    TracedAction,
    TracedEvent,
    TraceText,
)


def read(*lines: str) -> tuple[TraceText, list[TracedEvent]]:
    """What is read of the lines."""
    text = TraceText()
    return text, list(text.read(lines))


@pytest.mark.parametrize(
    "line",
    [
        # trace-cmd 3.1.6, `report`
        "  nbdkit-166   [000]    65.378739: sys_enter:            NR 202 (5, 189, 10000, 0, 0, 7f)",
        # tracefs's trace, 6.12, without and with the option record-tgid
        "  nbdkit-166     [000] .N...    65.378739: sys_enter: NR 202 (5, 189, 10000, 0, 0, 7f)",
        "  nbdkit-166     (    160) [000] d..1.    65.378739: sys_enter: NR 202 (5, 189, 0, 0, 0, 7f)",
        "  nbdkit-166     (-------) [000] d..1    65.378739: sys_enter: NR 202 (5, 189, 0, 0, 0, 7f)",
        # perf 6.1, `script`, and with -F +pid and --ns
        "  nbdkit   166 [000]    65.378739:     raw_syscalls:sys_enter: NR 202 (5, 189, 0, 0, 0, 7f)",
        "  nbdkit   160/166   [000]    65.378739000: raw_syscalls:sys_enter: NR 202 (5, 189, 0, 0, 0, 0)",
    ],
)
def test_the_same_event_of_each_tracer(line: str) -> None:
    """Who, when and what; the process where it stands there."""
    _, (event,) = read(line)
    assert (event.tid, event.comm, event.time_ns) == (166, "nbdkit", 65_378_739_000)
    assert event.action == CallBegins(202, 0x189)
    assert event.pid == (160 if "160" in line else None)


def test_names_of_threads_may_have_anything() -> None:
    """Spaces, hyphens and digits; a thread's number stands before the processor's."""
    lines = (
        "  a b-7 9-1-12   [003]    1.000001: page_fault_user: address=0x7f ip=0x7f error_code=0x14",
        "  a b-7 9-1   12 [003]    1.000001: exceptions:page_fault_user: address=0x7f ip=0x7f",
    )
    _, events = read(*lines)
    assert [(event.comm, event.tid) for event in events] == [("a b-7 9-1", 12)] * 2


@pytest.mark.parametrize(
    ("details", "action"),
    [
        ("sys_exit: NR 0 = 28", CallEnds()),
        ("sys_exit: NR 257 = -2", CallEnds()),
        # of the system syscalls: tracefs, trace-cmd, perf
        ("sys_pwrite64(fd: 3, buf: 7f12, count: 1000, pos: 0)", CallBegins("pwrite64", 0x7F12)),
        ("sys_pwrite64 -> 0x1000", CallEnds()),
        ("sys_enter_futex:  uaddr: 0x7f, op: 0x00000189, val: 0x0", CallBegins("futex", 0x189)),
        ("syscalls:sys_exit_futex: 0x0", CallEnds()),
        (
            "kmalloc: (f+0x1) call_site=f+0x1 ptr=0xffff88 bytes_req=10 bytes_alloc=16"
            " gfp_flags=GFP_NOIO|__GFP_ZERO node=-1 accounted=false",
            Allocated("kmalloc", 16, "GFP_NOIO|__GFP_ZERO"),
        ),
        (  # before 6.3 there were events of their own for a node
            "kmem_cache_alloc_node: call_site=f ptr=0xff bytes_req=256 bytes_alloc=256"
            " gfp_flags=GFP_KERNEL node=0",
            Allocated("kmem_cache_alloc", 256, "GFP_KERNEL"),
        ),
        (
            "mm_page_alloc: page=0xff pfn=0x58cc order=3 migratetype=0 gfp_flags=GFP_KERNEL",
            Allocated("mm_page_alloc", 3, "GFP_KERNEL"),
        ),
        ("page_fault_user: address=0x7fff ip=0x7fff error_code=0x14", FaultedInUserSpace()),
        ("block_rq_issue: 43,0 W 65536 () 2048 + 128 be,0,4 [dd]", RequestBegins((43, 0), "W", 2048, 128)),
        ("block_rq_issue: 43,0 WFS 4096 () 8 + 8 [dd]", RequestBegins((43, 0), "WFS", 8, 8)),
        ("block_rq_complete: 43,0 W () 2048 + 128 0x2,0,4 [0]", RequestEnds((43, 0), "W", 2048, 128)),
    ],
)
def test_each_event(details: str, action: TracedAction) -> None:
    """Those of kernels from 5.6 on."""
    _, (event,) = read(f"  nbdkit-166   [000]    65.378739: {details}")
    assert event.action == action


def test_what_is_no_event() -> None:
    """Headers say what they are about, lost events are counted, other events passed over; the rest is."""
    text, events = read(
        "# os release : 6.12.117",
        "# arch : x86_64",
        "# event : name = raw_syscalls:sys_exit, read_format = ID|LOST",
        "cpus=1",
        "CPU 1 is empty",
        "",
        "CPU:0 [LOST 13 EVENTS]",
        "CPU 0: 7 events lost",
        "  sh-1   [000]    1.000000: sched_switch: prev_comm=sh",
        "Hello\n",
        "again",
    )
    assert not events
    assert (text.release, text.machine, text.lost) == ("6.12.117", "x86_64", 2)
    assert text.kinds == {"sched_switch"}
    assert (text.unknown, text.first_unknown) == (2, (10, "Hello"))


def test_strace() -> None:
    """A call in a line, one in two of them, threads' ends; what futex() is asked; past midnight."""
    text, events = read(
        '170   23:59:59.900000 read(5, "%", 28) = 28 <2.5>',
        "170   23:59:59.950000 futex(0, FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME, 0 <unfinished ...>",
        "[pid   171] 00:00:01.000000 futex(0x7f, FUTEX_WAKE_PRIVATE, 1) = 1 <0.000001>",
        "170   00:00:01.100000 <... futex resumed>) = 0 <1.000000>",
        "171   00:00:01.200000 +++ exited with 0 +++",
        "171   00:00:01.200000 --- SIGTERM {si_signo=SIGTERM} ---",
    )
    day = 86_400_000_000_000
    base = day - 100_000_000
    assert [(event.tid, event.time_ns - base, event.action) for event in events] == [
        (170, 0, CallBegins("read", 0)),
        (170, 2_500_000_000, CallEnds()),
        (170, 50_000_000, CallBegins("futex", 9)),
        (171, 1_100_000_000, CallBegins("futex", 1)),
        (171, 1_100_001_000, CallEnds()),
        (170, 1_050_000_000, CallEnds()),
    ]
    assert (text.kinds, text.unknown) == ({"strace"}, 0)


def test_strace_since_1970() -> None:
    """The times of -ttt, without -o and threads; what no -T has ends at once."""
    _, events = read("1764540886.973745 fsync(6) = 0")
    assert [(event.tid, event.time_ns) for event in events] == [(0, 1_764_540_886_973_745_000)] * 2


@pytest.mark.parametrize(
    "line",
    [
        "a" + " " * 100_000,
        "a-1 " + " " * 100_000,
        "a-1 [000] 1.0: block_rq_issue: 1,1 W " + "1" * 100_000,
        "1 12:00:00.1 " + "<1" * 50_000,
        "a-" * 50_000,
    ],
)
def test_no_line_takes_long(line: str) -> None:
    """Without bounds some of these take minutes."""
    _, events = read(line)
    assert not events
