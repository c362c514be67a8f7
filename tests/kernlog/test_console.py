"""Console captures to task reports and events."""

import re
from pathlib import Path

import pytest

from ioflusher.kernlog.reading.console import Reader, events, parse_console, read_records, task_reports
from ioflusher.kernlog.reading.scan import RawLine
from ioflusher.kernlog.records import DeviceServer, EventKind, LockdepReport, Source
from ioflusher.kernlog.stacks.anatomy import Reclaim, dissect

LOGS = Path(__file__).parent / "logs"

HUNG = b"""\
[  247.381177] INFO: task kworker/u10:0:47 blocked for more than 120 seconds.
[  247.382644]       Not tainted 4.19.90-dirty #140
[  247.383502] "echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.
[  247.385000] task:kworker/u10:0   state:D stack:0 pid:47 tgid:47 ppid:2 task_flags:0x4208060 flags:0x4000
[  247.385010] Workqueue: writeback wb_workfn (flush-43:0)
[  247.385027] Call Trace:
[  247.385028]  <TASK>
[  247.388384]  schedule+0xb8/0x3c0
[  247.388966]  ? leftover+0x2b4/0x380
[  247.407262]  worker_thread+0x5a9/0x1060
[  247.410918]  ret_from_fork+0x1f/0x30
[  247.410919]  </TASK>
"""


def test_a_hung_task_is_one_report() -> None:
    """The INFO line, the task line and the stack belong together."""
    (report,) = task_reports(HUNG)
    assert (report.comm, report.pid, report.tid, report.state) == ("kworker/u10:0", 47, 47, "D")
    assert report.task_flags == 0x4208060
    assert report.source is Source.HUNG_TASK
    assert report.blocked_seconds == 120
    assert report.kernel == "4.19.90-dirty"
    assert report.workqueue == "writeback wb_workfn (flush-43:0)"
    assert report.seconds == 247.381177
    assert report.line == 1
    assert [frame.function for frame in report.frames] == [
        "schedule",
        "leftover",
        "worker_thread",
        "ret_from_fork",
    ]


def test_a_record_says_where_its_first_line_stands() -> None:
    """By the line's number and its first byte."""
    log = b"one line\n\n" + HUNG + b"\n" + HUNG
    for record in parse_console(log):
        assert not isinstance(record, DeviceServer)
        assert record.line is not None
        assert log[record.offset :].startswith(log.split(b"\n")[record.line - 1])
        assert b" INFO: task" in log.split(b"\n")[record.line - 1]


def test_task_lines_of_old_kernels() -> None:
    """Before 5.9 the line has columns; a name may hold a blank."""
    log = (
        b"msgr-worker-1   D    0  1026      1 0x00004000\nCall Trace:\n schedule+0x1/0x2\n"
        b"Web Content     S ffff88203e5d3680     0 12345      1 0x00000080\nCall Trace:\n"
        b" [<ffffffff8173f405>] ? schedule+0x1/0x2\n"
        b"foo             R  running task        0  1234      1 0x00000008\nCall Trace:\n run+0x1/0x2\n"
    )
    assert [(r.comm, r.tid, r.state) for r in task_reports(log)] == [
        ("msgr-worker-1", 1026, "D"),
        ("Web Content", 12345, "S"),
        ("foo", 1234, "R"),
    ]


def test_a_trace_without_a_head_is_still_a_report() -> None:
    """Whatever was cut off above, the stack counts."""
    (report,) = task_reports(
        b"Workqueue: xfs-inodegc/sda xfs_inodegc_worker\nCall Trace:\n schedule+0x1/0x2\n"
    )
    assert (report.comm, report.source) == (None, Source.BARE)
    assert report.workqueue == "xfs-inodegc/sda xfs_inodegc_worker"


def test_two_headless_stacks_are_two() -> None:
    """A thread's first frame ends a stack; frames after it are another's."""
    one = b"[<0>] a+0x1/0x2\n[<0>] do_syscall_64+0x1/0x2\n[<0>] entry_SYSCALL_64_after_hwframe+0x1/0x2\n"
    assert [len(report.frames) for report in task_reports(one + one)] == [3, 3]


def test_stacks_that_interleave_are_parted_by_their_caller() -> None:
    """With CONFIG_PRINTK_CALLER two processors may print at once."""
    log = b"".join(
        b"[    1.00000%d][    C%d] %s\n" % (i, i % 2, text)
        for i, text in enumerate(
            [
                b"task:a               state:D stack:0     pid:1     ppid:0",
                b"task:b               state:D stack:0     pid:2     ppid:0",
                b" a1+0x1/0x2",
                b" b1+0x1/0x2",
                b" a2+0x1/0x2",
                b" b2+0x1/0x2",
            ]
        )
    )
    assert [(r.comm, [f.function for f in r.frames]) for r in task_reports(log)] == [
        ("a", ["a1", "a2"]),
        ("b", ["b1", "b2"]),
    ]


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        ("<IRQ>", "</IRQ>"),
        ("<NMI>", "</NMI>"),
        ("<SOFTIRQ>", "</SOFTIRQ>"),
        ("<IRQ>", "<TASK>"),
        ("<IRQ>", "<EOI>"),  # before Linux 4.9
        ("<NMI>", "<<EOE>>"),
    ],
)
def test_frames_of_an_interrupt_do_not_count(begins: str, ends: str) -> None:
    """What an interrupt did on top of a task's stack says nothing of the task."""
    head = "task:a state:R stack:0 pid:1\nCall Trace:\n"
    log = f"{head} {begins}\n irq+0x1/0x2\n {ends}\n own+0x1/0x2\n"
    assert [frame.function for frame in task_reports(log.encode())[0].frames] == ["own"]


def test_crash_and_proc_collections_are_read() -> None:
    """`bt -a` of crash and stacks copied from /proc."""
    crash = (
        b'PID: 474    TASK: ffff8813e11f4600  CPU: 10  COMMAND: "kswapd0"\n'
        b" #0 [ffff8813dedfb938] __schedule at ffffffff8173f405\n"
        b" #1 [ffff8813dedfb990] schedule at ffffffff8173fa27\n"
    )
    proc = b"==> /proc/123/task/124/stack <==\n[<0>] do_poll+0x1/0x2\n"
    first, second = task_reports(crash + proc)
    assert (first.comm, first.tid, first.source, len(first.frames)) == ("kswapd0", 474, Source.CRASH, 2)
    assert (second.pid, second.tid, second.source) == (123, 124, Source.PROC)


def test_events_are_read() -> None:
    """Panic, OOM kill, hung task, watermark, device: each with what it names."""
    log = (
        b"[1.000000] Kernel panic - not syncing: hung_task: blocked tasks\n"
        b"Out of memory: Killed process 12 (hog) total-vm:1kB\n"
        b"INFO: task cat:55 blocked for more than 120 seconds.\n"
        b"Node 0 DMA32 free:1000kB boost:0kB min:3000kB low:5kB\n"
        b"blk_update_request: I/O error, dev nbd0, sector 8 op 0x1\n"
        b"nfs: server 10.0.0.1 not responding, still trying\n"
    )
    assert [(e.kind, e.subject, e.number) for e in events(log)] == [
        (EventKind.PANIC, "hung_task: blocked tasks", None),
        (EventKind.OOM_KILL, "hog", 12),
        (EventKind.HUNG_TASK, "cat", 55),
        (EventKind.ZONE, "node 0 DMA32", -2000),
        (EventKind.DEVICE_TROUBLE, "nbd0", None),
        (EventKind.DEVICE_TROUBLE, "10.0.0.1", None),
        (EventKind.UNREAD_STACK, None, None),  # cat's
    ]


def test_lockdeps_report_is_kept_apart() -> None:
    """Its stacks are history, not tasks that wait."""
    log = (
        b"WARNING: possible circular locking dependency detected\n6.1.0 #1 Not tainted\n"
        b"kswapd0/93 is trying to acquire lock:\nffff888 (&ni->mutex){+.+.}-{3:3}, at: evict_it+0x1/0x2\n"
        b"but task is already holding lock:\nffffffff (fs_reclaim){+.+.}-{0:0}, at: balance_pgdat+0x1/0x2\n"
        b"-> #1 (fs_reclaim){+.+.}-{0:0}:\n       fs_reclaim_acquire+0x1/0x2\nstack backtrace:\n"
        b"CPU: 0 PID: 93 Comm: kswapd0 Not tainted 6.1.0 #1\n"
        b"Call Trace:\n <TASK>\n dump_stack+0x1/0x2\n </TASK>\n"
        b"task:a state:D stack:0 pid:1\n own+0x1/0x2\n"
    )
    lockdep, task = parse_console(log)
    assert isinstance(lockdep, LockdepReport)
    assert (lockdep.comm, lockdep.tid, lockdep.reclaim) == ("kswapd0", 93, True)
    assert lockdep.locks == ("&ni->mutex", "fs_reclaim")
    assert task_reports(log) == (task,)


def test_bytes_of_any_content_are_survived() -> None:
    """A binary file holds no records and does no harm."""
    assert parse_console(bytes(range(256)) * 64) == ()


def test_a_log_with_the_newest_line_first_is_read() -> None:
    """Some viewers turn a log around; a stack then begins with the system call."""
    names = (
        "entry_SYSCALL_64 do_syscall_64 tcp_sendmsg __alloc_pages try_to_free_pages pageout "
        "submit_bio schedule"
    )
    (report,) = task_reports("".join(f" {name}+0x1/0x2\n" for name in names.split()).encode())
    assert dissect(report.frames).reclaim is Reclaim.DIRECT


TASK = "task:{:15} state:D stack:0 pid:{} tgid:1 task_flags:{} flags:0x0\nCall Trace:\n f+0x1/0x2\n"
WAITS = TASK.format("a", 1, "0x400000")
B = ("b c", 2)
RW = "rw-semaphore"
OWNS = TASK.format("b c", 2, "0x280000")


@pytest.mark.parametrize(
    ("line", "lock", "mode", "owner", "owner_mode"),
    [
        ("is blocked on a mutex likely owned by task b c:2.", "mutex", None, B, None),
        ("is blocked on a mutex, but the owner is not found.", "mutex", None, None, None),
        ("blocked on a semaphore likely last held by task b c:2", "semaphore", None, B, None),
        (
            "<writer> blocked on an rw-semaphore likely owned by task b c:2 <reader>",
            RW,
            "writer",
            B,
            "reader",
        ),
        (
            "<reader> blocked on an rw-semaphore likely owned by task b c:2 <writer>",
            RW,
            "reader",
            B,
            "writer",
        ),
        ("<reader> blocked on an rw-semaphore,\nbut the owner is not found.", RW, "reader", None, None),
        (
            "<writer> blocked on an rw-semaphore\nlikely owned by task b c:2 <reader>",
            RW,
            "writer",
            B,
            "reader",
        ),
    ],
)
@pytest.mark.parametrize("prefix", ["", "c2 701 ", "[    1.000000] INFO: ", "03384 "])
def test_what_a_task_is_blocked_on(
    prefix: str, line: str, lock: str, mode: str | None, owner: tuple[str, int] | None, owner_mode: str | None
) -> None:
    """hung_task.c's debug_show_blocker(), Linux 6.16, behind the waiter's stack and before the owner's."""
    log = "".join(f"{prefix}{each}\n" for each in f"{WAITS}task a:1 {line}\n{OWNS}".splitlines())
    waits, owns = task_reports(log.encode())
    assert (waits.comm, waits.lock, waits.mode, waits.owner, waits.owner_mode) == (
        "a",
        lock,
        mode,
        owner,
        owner_mode,
    )
    assert (waits.task_flags, owns.task_flags) == (0x400000, 0x280000)
    assert (owns.comm, owns.tid, owns.lock, owns.owner) == ("b c", 2, None, None)


def test_a_task_that_sleeps_for_io_is_told_from_others() -> None:
    """Linux 6.18 says so in the detector's first line."""
    log = b"INFO: task a:1 blocked in I/O wait for more than 122 seconds.\nCall Trace:\n f+0x1/0x2\n"
    log += b"INFO: task b:2 blocked for more than 122 seconds.\nCall Trace:\n f+0x1/0x2\n"
    assert [(task.comm, task.blocked_seconds, task.io_wait) for task in task_reports(log)] == [
        ("a", 122, True),
        ("b", 122, False),
    ]


@pytest.mark.parametrize("name", ["nbd", "Web Content", "kworker/u16:3+fl", "(udev-worker)", "a"])
@pytest.mark.parametrize(
    "prefix", ["", "c2 701 ", "03384 ", "[ts][T110] khungtaskd: ", "I[4: swapper/4: 0] "]
)
def test_an_old_task_line_behind_a_prefix(prefix: str, name: str) -> None:
    """Before 5.9 a name fills 15 columns: what stands before them is none of it."""
    line = f"{prefix}{name[:15]:15} D ffff88203e5d3680     0 12345      1 0x00000080\n"
    (task,) = task_reports(f"{line}{prefix}Call Trace:\n{prefix} f+0x1/0x2\n".encode())
    assert (task.comm, task.tid, task.state) == (name[:15], 12345, "D")


@pytest.mark.parametrize(
    ("head", "first"),
    [
        ("nbd-server      D ffff88203e5d3680     0    77      1 0x00000080", 2),
        ("nbd-server      D ffff88203e5d368a     0    77      1 0x00000080", 2),
        ("nbd-server      D f6a3b2c0     0    77      1 0x00000080", 2),
        ("nbd-server      D    0    77      1 0x00000080", 2),
        ("nbd-server      R  running task        0    77      1 0x00000080", 4),
        ("task:nbd-server state:D stack:0 pid:77 tgid:77 ppid:1 flags:0x0", 1),
        ("INFO: task nbd-server:77 blocked for more than 9 seconds.", 4),
    ],
)
def test_a_head_that_a_mail_broke_is_whole_again(head: str, first: int) -> None:
    """Behind each word; without its first words nothing says that it is a head."""
    for blank in list(re.finditer(" +", head))[first - 1 :]:
        broken = f"[    1.000000] {head[: blank.start()]}\n{head[blank.end() :]}\n"
        (task,) = task_reports(f"{broken}[    1.000001] Call Trace:\n[    1.000002]  f+0x1/0x2\n".encode())
        assert (task.comm, task.tid) == ("nbd-server", 77), broken


def test_a_host_may_stand_before_the_rest_of_a_broken_head() -> None:
    """A syslog wrote it before each piece, and only behind a time stamp is it known for what it is."""
    log = b"[    1.000000] rsync           D\nstorage9     0 19706   5000 0x00000000\n down_read+0x1/0x2\n"
    (task,) = task_reports(log)
    assert (task.comm, task.tid) == ("rsync", 19706)


def test_an_address_behind_a_broken_label_is_no_frame() -> None:
    """A register's, a lock's, a warning's place: in whatever line it stands."""
    for label in (
        "WARNING: CPU: 0 PID: 1 at kernel/dma/direct.c:35",
        "hardirqs last  enabled at (12):",
        "RIP: 0010:",
    ):
        assert task_reports(f"{label}\nreport_addr+0xb4/0xc0\n".encode()) == ()


def test_a_vendors_list_of_tasks_is_read() -> None:
    """Name, state, seconds, pid, then numbers that nobody explains; frames behind bare addresses."""
    log = b"f2fs_gc-253:12  D 226966.808196 572 302561 150976 0x1200840 0x0 572\n237207473347056\n"
    (task,) = task_reports(log + b"<ffffff889d88668c> __switch_to+0x134/0x150\n<ffffff88> f2fs_gc+0x1/0x2\n")
    assert (task.comm, task.tid, task.state, len(task.frames)) == ("f2fs_gc-253:12", 572, "D", 2)


def test_history_is_no_wait() -> None:
    """Where memory was allocated or freed, nobody waits."""
    log = b"Freed by task 9475:\n kfree+0x1/0x2\n schedule+0x1/0x2\nbacktrace:\n foo+0x1/0x2\n"
    assert [report.source for report in task_reports(log)] == [Source.DUMP, Source.DUMP]


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.txt")), ids=lambda path: path.stem)
def test_the_short_way_changes_nothing(path: Path) -> None:
    """Frames taken in one step: the records are those of the long way."""
    reader = Reader()
    lines = [RawLine(line, number, 0) for number, line in enumerate(path.read_bytes().split(b"\n"), 1)]
    long_way = [record for line in lines for record in reader.feed(line)] + list(reader.finish())
    assert list(read_records(lines)) == long_way


@pytest.mark.parametrize("mark", [b"<IRQ>", b"</TASK>"])
def test_a_mark_does_not_hide_the_next_tasks_stack(mark: bytes) -> None:
    """A head's stack is still to come, whatever the lines before it were in."""
    (report,) = task_reports(
        b"[    1.0000] Call Trace:\n[    1.0000]  " + mark + b"\n"
        b"[    9.000000] sane            D    0   777      1 0x00000000\n[    9.000000]  down_read+0x1/0x2\n"
    )
    assert (report.comm, [frame.function for frame in report.frames]) == ("sane", ["down_read"])


@pytest.mark.parametrize("line", [b"what is it that hangs here?", b"[<c0123456>] ?", b"?"])
def test_a_question_makes_no_frame_doubtful(line: bytes) -> None:
    """The kernel's mark of doubt, behind which a mail broke the line, follows an address or nothing."""
    (report,) = task_reports(line + b"\n down_read+0x1/0x2\n schedule+0x1/0x2\n")
    assert [frame.reliable for frame in report.frames] == [b"what" in line, True]


LOCKDEP = (
    b"WARNING: possible circular locking dependency detected\n"
    b"-> #0 (fs_reclaim){+.+.}-{0:0}:\n fs_reclaim_acquire+0x1/0x2\n"
)
PROSE = b"It calls try_to_free_pages, shrink_node, shrink_slab and swap_writepage; Call Trace is cut.\n\n"


@pytest.mark.parametrize("stack", [b"task:a state:D stack:0 pid:1\n schedule+0x1/0x2\n\n", LOCKDEP])
def test_a_log_of_which_a_stack_was_read_is_not_called_unread(stack: bytes) -> None:
    """Whatever a person says of it, above or below."""
    unread = [event for event in events(PROSE) if event.kind is EventKind.UNREAD_STACK]
    assert len(unread) == 1
    for log in (PROSE + stack, stack + PROSE):
        assert [event for event in events(log) if event.kind is EventKind.UNREAD_STACK] == []


@pytest.mark.parametrize(
    "line", ["Code: 48 8b 45", "---[ end trace 0000000000000000 ]---", "Kernel panic - not syncing: it hung"]
)
def test_what_an_oops_ends_with_ends_its_stack(line: str) -> None:
    """Stamped frames behind it are another task's, though no head stands above them."""
    lines = ["Call Trace:", " submit_bio+0x1/0x2", line, " schedule+0x1/0x2"]
    log = "".join(f"[    1.000000] {line}\n" for line in lines)
    assert [[frame.name for frame in report.frames] for report in task_reports(log.encode())] == [
        ["submit_bio"],
        ["schedule"],
    ]
