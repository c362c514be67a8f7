"""A textbook recursion in forms that only some logs have: the whole answer comes out of each."""

import html
import io
import json
import quopri
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.program import call

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.fleet import Options, diagnose_file
from ioflusher.kernlog.reading.console import read_records, task_reports
from ioflusher.kernlog.reading.scan import relevant_lines
from ioflusher.kernlog.records import EventKind, Source, TaskReport

LOG = Path(__file__).parent / "logs" / "pos_nbd_xfs_inode_write.txt"
LINES = [re.sub(r"^\[ *[\d.]+\] ?", "", line) for line in LOG.read_text("utf-8").splitlines()]
FRAMES = [line.strip() for line in LINES if "+0x" in line]
CERTAIN = [frame for frame in FRAMES if not frame.startswith("?")]
NAMES = [frame.partition("+")[0] for frame in CERTAIN]
HEAD = "INFO: task msgr-worker-1:1026 blocked for more than 120 seconds."
SENTENCE = (
    "its tcp_sendmsg() allocated memory, direct reclaim began to free xfs inodes, "
    "and it waits there for I/O that xfs started"
)


def whole(lines: list[str], prefix: str = "") -> str:
    return "".join(f"{prefix}{line}\n" for line in (HEAD, *LINES, *lines))


def other_task(number: int) -> list[str]:
    """A task that waits for a lock, as long as the other stack is."""
    head = f"bystander       D    0  {number}      1 0x00004000"
    return [head, "Call Trace:", *(f" mutex_lock_{depth}+0x1/0x2" for depth in range(len(LINES) - 2))]


def interleaved(first: str, second: str) -> str:
    return "".join(
        f"{first}{one}\n{second}{other}\n" for one, other in zip(LINES, other_task(77), strict=True)
    )


def numbers(text: str, indent: int | None) -> str:
    """A message with control characters as journalctl writes it."""
    entry = {"MESSAGE": [*f"\x1b[31m{text}".encode()], "PRIORITY": "3"}
    return json.dumps(entry, indent=indent, separators=(None if indent is None else (",", " : "))) + "\n"


FORMS: dict[str, Callable[[], str]] = {
    "a hex dump before the trace": lambda: "\n".join(
        [HEAD, LINES[0], "Stack: 00000000 ffff8801 c0ffee00 Call Trace:", *LINES[2:]]
    ),
    "the first frame behind the trace's announcement": lambda: "\n".join(
        [HEAD, LINES[0], f"Call Trace: [<c01>] {CERTAIN[0]}", *CERTAIN[1:]]
    ),
    "a stack's addresses and names alone": lambda: "\n".join(
        [LINES[0], *(f"08dcfb{depth:02x}:  [<08066f1c>] {name}" for depth, name in enumerate(NAMES))]
    ),
    "crash, addresses cut out": lambda: "\n".join(
        ['PID: 1026   TASK: ffff88  CPU: 5   COMMAND: "msgr-worker-1"']
        + [f" #{depth} [...] {name} at ..." for depth, name in enumerate(NAMES)]
    ),
    "crash, only who it is": lambda: "\n".join(
        ['PID: 1026   COMMAND: "msgr-worker-1"', *(f" #{depth} {name}" for depth, name in enumerate(NAMES))]
    ),
    "debuggers' words above what /proc shows": lambda: "\n".join(
        ["PID: 1026 COMM: msgr-worker-1", *(f"[<0>] {frame}" for frame in CERTAIN)]
    ),
    "a number and a name above what /proc shows": lambda: "\n".join(
        ['[1026]   "msgr-worker-1"', *(f"[<0>] {frame}" for frame in CERTAIN)]
    ),
    "names and nothing else": lambda: "\n".join([HEAD, "Call Trace:", *(f"  {name}" for name in NAMES)]),
    "names as people list them": lambda: "\n".join([HEAD, *(f"  -> {name}()" for name in NAMES)]),
    "bare marks of a mail between the lines": lambda: "".join(f"> {line}\n>\n" for line in (HEAD, *LINES)),
    "a web page's blanks": lambda: "".join(
        html.escape(line).replace(" ", "&nbsp;") + "\n" for line in (HEAD, *LINES)
    ),
    "hard blanks": lambda: whole([]).replace(" ", "\N{NO-BREAK SPACE}"),
    "quoted-printable": lambda: quopri.encodestring(whole([]).encode(), quotetabs=True).decode(),
    "quoted-printable, lines broken for their length alone": lambda: quopri.encodestring(
        "".join(f"[ 1626.609198]{line:>62}\n" for line in (HEAD, *(line.strip() for line in LINES))).encode()
    ).decode(),
    "quoted-printable, every point": lambda: whole([]).replace(".", "=2E").replace("[", "=5B"),
    "lines that a mail broke": lambda: "\n".join(
        piece for line in (HEAD, *LINES) for piece in textwrap.wrap(f"[ 1626.609198] {line}", 48) or [""]
    ),
    "two processors at once, CONFIG_PRINTK_CALLER": lambda: interleaved(
        "[    1.000001][    C0] ", "[    1.000001][    C1] "
    ),
    "two processors at once, by their threads": lambda: interleaved(
        "[    1.000001][ T1026] ", "[    1.000001][   T77] "
    ),
    "two processors at once, a vendor's column": lambda: interleaved("c0    12 ", "c1    13 "),
    "two processors at once, another vendor's": lambda: interleaved(
        "[    1.000001]  I[0:      swapper/0:    0] ", "[    1.000001]  I[1:  khungtaskd:   35] "
    ),
    "two processors at once, a third one's": lambda: interleaved(
        "<4>[    1.000001] (0)[110:khungtaskd]", "<4>[    1.000001]-(1)[0:swapper/1]"
    ),
    "a host and one blank before each line": lambda: "".join(
        f"Nov 25 01:02:03 mybox {line.strip()}\n" for line in (HEAD, *LINES)
    ),
    "a table's cells": lambda: "".join(f'"1","{line}",\n' for line in (HEAD, "", *LINES[1:])),
    "a page's paragraphs": lambda: "".join(f"<p>{line}</p>\n" for line in (HEAD, *LINES[1:])),
    "a collector's json": lambda: "".join(json.dumps({"message": line}) + "\n" for line in (HEAD, *LINES)),
    "a journal's numbers": lambda: "".join(numbers(line, None) for line in (HEAD, *LINES)),
    "a journal's numbers, a line each": lambda: "".join(numbers(line, 8) for line in (HEAD, *LINES)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_whole_answer_comes_out_of_each_form(tmp_path: Path, form: str) -> None:
    """Who, through what, how sure, which way; from a user's file, so that the fast search is tried too."""
    path = tmp_path / "log"
    path.write_text(FORMS[form](), "utf-8")
    result = diagnose_file(str(path), Options())
    assert result.trouble is None
    (episode,) = (one for one in result.diagnosis.episodes if one.tasks[0].comm != "bystander")
    (expected,) = diagnose_log(LOG.read_bytes()).episodes
    assert (episode.tasks[0].comm, episode.tasks[0].tid) == ("msgr-worker-1", 1026)
    assert (episode.kind, episode.recursion, episode.daemon) == (expected.kind, True, "msgr-worker-1")
    assert episode.sentence == SENTENCE
    assert (episode.why, episode.confidence) == (expected.why, expected.confidence)
    # some forms leave the last frame or two to the log's end, none loses one in between
    assert [step.frame.function for step in episode.chain if step.frame.reliable] == NAMES
    if "processors" in form:
        assert result.diagnosis.reports == 2


@pytest.mark.parametrize(
    "prose",
    [
        "This keeps the deadlock from happening again.\ndeadlock from happening\nmessage from server\n",
        "read\nwrite\nthe\ndaemon\nwaits\nforever\n",
        "it hangs in schedule+0x30/0xb0\nand then in shrink_slab (mm/vmscan.c:12)\n",
        "the stack shows schedule+0x30/0xb0\nit was called from xfs_bwrite+0x25/0x60\n",
        "WARNING: at kernel/softirq.c:159 local_bh_enable+0x1/0x2()\n",
        "kernel BUG at mm/filemap.c:332!\n6.1.0 #1 Debian\n",
    ],
)
def test_prose_is_no_stack(prose: str) -> None:
    """Words that only look like frames."""
    assert diagnose_log(prose.encode()).reports == 0


def test_locks_that_are_held_are_no_stack() -> None:
    """Nor is an address that a mail broke off behind "at:"."""
    log = (
        "2 locks held by cat/55:\n"
        " #0:  (sb_writers#4){.+.+.+}, at: [<ffffffff811>] mnt_want_write+0x24/0x50\n"
        " #1: ffff8881 (&sb->s_type->i_mutex_key#9){+.+.}-{3:3}, at: do_truncate+0x2b/0x50\n"
        " #2: ffff8881 (&sb->s_type->i_mutex_key#9){+.+.}-{3:3}, at:\n do_truncate+0x2b/0x50\n"
    )
    assert diagnose_log(log.encode()).reports == 0


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        ("[    1.000000] " + HEAD + "\n", "line 1 announces or shows one: " + HEAD),
        ("hello\nCall Trace:\n something unreadable\n", "line 2 announces or shows one: Call Trace:"),
        ("0000 c0ffee Call trace:\x1b[31m \x07\n", "line 1 announces or shows one: 0000 c0ffee Call trace:"),
        ("it is in schedule+0x30/0xb0\n", "line 1 announces or shows one: it is in schedule+0x30/0xb0"),
        (
            "".join(f"task x:{n} blocked for more than 9 seconds\u202e\n" for n in "123"),
            "2 further lines alike",
        ),
    ],
)
def test_what_was_not_read_is_said_and_shown(tmp_path: Path, log: str, shown: str) -> None:
    """Status 2, with the line, escaped; never "no recursion" and status 0."""
    path = tmp_path / "log"
    path.write_text(log, "utf-8")
    result = call("diagnose", path)
    assert result.status == 2
    assert shown in result.stderr
    assert all(line.isprintable() for line in result.stderr.splitlines())
    assert "no reclaim recursion" not in result.stdout


def test_one_unread_stack_among_others_is_said_too(tmp_path: Path) -> None:
    """The others are shown, and the answer is not "none"; a recursion stays one."""
    unread = "INFO: task late:9 blocked for more than 120 seconds.\nCall Trace:\n ...\n"
    path = tmp_path / "log"
    path.write_text("\n".join(other_task(77)) + "\n" + unread, "utf-8")
    result = call("diagnose", path)
    assert result.status == 2
    assert "task late:9" in result.stderr
    assert "bystander" in result.stdout
    path.write_text(whole([]) + unread, "utf-8")
    result = call("diagnose", path)
    assert result.status == 1
    assert "also: unread-stack, 1 line, first: INFO: task late:9" in result.stdout


@pytest.mark.parametrize("prefix", ["03384 ", "[ts][T110] khungtaskd: ", "c2 701 ", ""])
def test_frames_of_an_interrupt_are_read_though_not_kept(prefix: str) -> None:
    """A trace that only shows an interrupt was read."""
    lines = ("Call Trace:", " <IRQ>", " irq+0x1/0x2", " run+0x1/0x2", " </IRQ>")
    assert diagnose_log("".join(f"{prefix}{line}\n" for line in lines).encode()).events == ()


def test_a_line_may_hold_several_frames() -> None:
    """i386 as of 2.6.16 printed two columns, x86_64 decimal offsets in braces, modules between colons."""
    columns = b"""Call Trace:
 [<c0106303>] schedule+0x64/0xe9  [<c0149797>] down+0x21/0x4e
 <c0136e3c> shrink_slab+0x2f/0x5d  <c013a175> try_to_free_pages+0x28d/0x39d
"""
    braces = b"""Call Trace:<ffffffff80130e8f>{schedule+317} <ffffffff802c1234>{down+12}
       <ffffffff8806ea3d>{:xfs:xfs_iflush+173} <ffffffff80136e3c>{try_to_free_pages+33}
"""
    for data, third, module in ((columns, "shrink_slab", None), (braces, "xfs_iflush", "xfs")):
        (report,) = task_reports(data)
        names = [frame.name for frame in report.frames]
        assert names == ["schedule", "down", third, "try_to_free_pages"]
        assert report.frames[2].module == module


def test_the_kernel_debuggers_stacks() -> None:
    """kdb prints the module before the name and no size; the line below its head has the task's state."""
    data = b"""Stack traceback for pid 16836
0xe00000380bc68000    16836        1  1    6   D  0xe00000380bc68340
0xa000000100524b80 schedule+0x2940
0xa00000020b8e63a0 [xfs]xfs_ireclaim+0x80
"""
    (report,) = task_reports(data)
    assert (report.tid, report.state) == (16836, "D")
    assert [(frame.name, frame.module) for frame in report.frames] == [
        ("schedule", None),
        ("xfs_ireclaim", "xfs"),
    ]


def test_the_registers_of_an_old_oops_name_a_task_that_runs() -> None:
    """Its stack is where it failed; it waits for nothing."""
    data = b"""Process kswapd0 (pid: 127, threadinfo=c2174000 task=c2161030)
Call Trace:
 [<c01a6845>] journal_begin+0x64/0xe9
 [<c0138e8e>] shrink_slab+0x14f/0x1cb
"""
    (report,) = task_reports(data)
    assert (report.comm, report.tid, report.source) == ("kswapd0", 127, Source.DUMP)


def test_a_tree_of_calls_is_a_stack() -> None:
    """Who calls stands above whom it calls; remarks, arguments and lines of a drawing are not names."""
    data = b"""The chain is:

kcompactd
  |- compact_zone(cc)
     +-> migrate_pages    // sync
           |-> folio_lock /* waits here */
"""
    (report,) = task_reports(data)
    assert [frame.name for frame in report.frames] == [
        "folio_lock",
        "migrate_pages",
        "compact_zone",
        "kcompactd",
    ]


@pytest.mark.parametrize(
    "line",
    ["it was blocked for more than an hour", "Call trace: was empty", "a Call Trace was seen last night"],
)
def test_a_text_that_speaks_of_a_stack_and_shows_none_is_not_called_clean(line: str) -> None:
    """Wherever the words stand; beside a stack that was read they are a remark."""
    text = f"hello\n{line}\n"
    (event,) = diagnose_log(text.encode()).events
    assert (event.kind, event.count, event.line) == (EventKind.UNREAD_STACK, 1, 2)
    assert not any(
        event.kind is EventKind.UNREAD_STACK for event in diagnose_log((whole([]) + text).encode()).events
    )


def test_a_drawing_that_is_not_read_is_not_called_clean() -> None:
    """Two columns of calls cannot be read; so many functions of reclaim are no mere prose."""
    data = b"""Task A                                Task B
kmem_cache_alloc(GFP_KERNEL)
  try_to_free_pages()                 mutex_lock(&frob->lock)
    do_try_to_free_pages()            frob_alloc()
      shrink_slab()                     kmalloc()
        super_cache_scan()                ...
          mutex_lock(&frob->lock)       waits for A
"""
    (event,) = diagnose_log(data).events
    assert (event.kind, event.line) == (EventKind.UNREAD_STACK, 3)
    alone = (
        b"CPU0             CPU1\ntry_to_free_pages()\n shrink_node()     nbd_send_cmd()\n  shrink_slab()\n"
    )
    (event,) = diagnose_log(alone + b"   do_shrink_slab()   sk_page_frag_refill()\n").events
    assert (event.kind, event.line) == (EventKind.UNREAD_STACK, 2)
    assert diagnose_log(b"shrink_slab() calls super_cache_scan() and prune_icache_sb()\n").events == ()


KNOWN = ["schedule", "down_read", "ext4_sync_file", "vfs_fsync_range"]
OTHER = ["alpha", "beta", "gamma", "delta"]


@pytest.mark.parametrize(
    ("head", "known", "other", "stack"),
    [
        ("", 4, 0, True),
        ("", 3, 0, False),  # too few for words that stand alone on their lines
        ("", 3, 3, True),
        ("", 2, 2, True),
        ("", 2, 3, False),  # most of them are no functions that a table has
        ("nbd-server      D    0    77      1 0x00000080\n", 2, 0, True),  # a stack is awaited there
        ("nbd-server      D    0    77      1 0x00000080\n", 1, 0, False),
    ],
)
def test_names_alone_are_a_stack_where_half_are_known(head: str, known: int, other: int, stack: bool) -> None:
    """Words that stand alone on lines may be anything."""
    log = head + "".join(f"{name}\n" for name in KNOWN[:known] + OTHER[:other])
    assert [len(report.frames) for report in task_reports(log.encode())] == ([known + other] if stack else [])


def test_names_alone_with_a_journals_fields_between_them_are_one_stack() -> None:
    """`journalctl -o export` writes its own lines around each message."""
    log = "".join(f"_TRANSPORT=kernel\nPRIORITY=4\nMESSAGE={name}\n\n" for name in KNOWN)
    assert [len(report.frames) for report in task_reports(log.encode())] == [4]


DRAWN = """The deadlock is:

  writer A             | kworker              | kswapd
  ---------------------+----------------------+-----------------------
| frob_commit(tp)      |                      |
| frob_allocate_more_than_fits_in_it          |
| kmem_alloc           |                      |
| :                    |                      |
| shrink_inactive_list |                      |
| congestion_wait()    |                      |
| # waiting for kswapd |                      |
|                      | frob_push_work       |
|                      | down_write(ctx_lock) |
|                      |                      | shrink_page_list
|                      |                      | frob_vm_writepage
|                      |                      | xfs_log_commit_cil
|                      |                      | down_read
V(time)                |                      |
  ---------------------+----------------------+-----------------------

and nothing | more(of it)
"""
WRITER = ["congestion_wait", "shrink_inactive_list", "kmem_alloc", *("frob_allocate_more_than_fits_in_it",)]


@pytest.mark.parametrize("before", ["", "> ", "> > "])
def test_tasks_that_are_drawn_side_by_side_are_stacks(before: str) -> None:
    """Each under its name, whom it calls below; a column's words of no function, or too few, are none."""
    reports = task_reports("".join(f"{before}{line}\n" for line in DRAWN.splitlines()).encode())
    assert [(report.comm, [frame.name for frame in report.frames]) for report in reports] == [
        ("writer A", [*WRITER, "frob_commit"]),
        ("kswapd", ["down_read", "xfs_log_commit_cil", "frob_vm_writepage", "shrink_page_list"]),
    ]
    assert {report.line for report in reports} == {4}
    assert {report.source for report in reports} == {Source.BARE}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("writer A             | kworker", "writer A and the     kworker"),  # a name too few
        ("kworker ", "        "),  # no name
        ("+-----------------------\n| frob_commit", "\n| frob_commit"),  # a column too few
    ],
)
def test_a_drawing_whose_columns_have_no_names_is_not_read(old: str, new: str) -> None:
    """Whose calls they are would be guessed; names in the last column stand alone then, as anywhere."""
    assert old in DRAWN
    assert "writer A" not in {report.comm for report in task_reports(DRAWN.replace(old, new, 1).encode())}


def test_a_drawing_is_judged_as_any_stacks() -> None:
    """kswapd waits for a lock that the writer has, the writer for kswapd."""
    data = DRAWN.replace("frob_allocate_more_than_fits_in_it", "xfs_trans_alloc").encode()
    cycles = {episode.cycle for episode in diagnose_log(data).episodes if episode.recursion}
    assert cycles == {("writer A", "kswapd", "writer A"), ("kswapd", "writer A", "kswapd")}


def test_what_follows_a_drawing_is_read_as_ever() -> None:
    """Also where nothing but a frame ends it."""
    for between in (b"", b"\n"):
        reports = task_reports(DRAWN.split("V(time)")[0].encode() + between + whole([]).encode())
        assert len(reports) == 2 + len(task_reports(whole([]).encode()))


def test_the_calls_of_a_drawing_that_are_too_few_are_not_called_clean() -> None:
    """They are told as what could not be read."""
    data = b"""reader              | writer
--------------------+-------------------
 try_to_free_pages  |
 shrink_node        |
                    | shrink_slab()
                    | do_shrink_slab()
"""
    (event,) = diagnose_log(data).events
    assert (event.kind, event.line) == (EventKind.UNREAD_STACK, 3)


def test_stacks_copied_with_a_state_and_a_name_above_them() -> None:
    """A blank before the offset."""
    data = b"D  loop0:\nschedule +0x670\nio_schedule +0x50\nwait_on_page_bit +0xa4/0xb0\nsyscall_exit +0x0\n"
    (report,) = task_reports(data)
    assert (report.comm, report.state) == ("loop0", "D")
    assert [(frame.name, frame.offset, frame.reliable) for frame in report.frames] == [
        ("schedule", 0x670, True),
        ("io_schedule", 0x50, True),
        ("wait_on_page_bit", 0xA4, True),
        ("syscall_exit", 0, True),
    ]
    assert task_reports(b"R  and what follows:\nschedule +0x670\n")[0].comm is None


def test_a_text_of_such_frames_that_is_no_stack_is_not_called_clean() -> None:
    """Something stands before them."""
    (event,) = diagnose_log(b"we saw schedule +0x670 and then io_schedule +0x50\n").events
    assert event.kind is EventKind.UNREAD_STACK


def test_klogd_looked_names_up_itself() -> None:
    """In decimal, several a line, modules before a colon; the first byte of a function is a pointer."""
    data = b"""    kjournald Call Trace:    [sleep_on+75/124] [ext3:journal_commit_transaction+357/4044]
             [commit_timeout+0/12] [kernel_thread+40/56]
"""
    (report,) = task_reports(data)
    assert report.comm == "kjournald"
    assert [(frame.name, frame.module, frame.reliable) for frame in report.frames] == [
        ("sleep_on", None, True),
        ("journal_commit_transaction", "ext3", True),
        ("commit_timeout", None, False),
        ("kernel_thread", None, True),
    ]


def test_a_daemons_name_that_is_none_is_not_taken_from_before_a_stack() -> None:
    """Before "Call Trace:" prose may stand."""
    (report,) = task_reports(b"full Call Trace:    [sleep_on+75/124] [kernel_thread+40/56]\n")
    assert report.comm is None


def test_red_hats_old_kernels_print_the_module_before_the_offset() -> None:
    """Which may be "kernel"; remarks stand behind it."""
    data = b"""kswapd        D DC0094A0  4128     7      1             8     6 (L-TLB)
Call Trace: [<c0118ecb>] sleep_on [kernel] 0x4b <--- locked by pid 197
[<e083e225>] start_this_handle [jbd] 0xc5
[<c0160134>] .text.lock.dquot [kernel] 0x2d
[<c0136080>] kswapd [kernel] 0x0
"""
    (report,) = task_reports(data)
    assert (report.comm, report.state) == ("kswapd", "D")
    assert [(frame.name, frame.module, frame.reliable) for frame in report.frames] == [
        ("sleep_on", None, True),
        ("start_this_handle", "jbd", True),
        ("dquot_lock", None, True),
        ("kswapd", None, False),
    ]


KSYMOOPS = b""">>EIP; c0111657 <flush_tlb_others+e7/110>   <=====
Trace; c012f4f6 <shrink_cache+306/390>
Trace; c012f981 <[frob]frob_kswapd+a1/c0>
Trace; c012f8e0 <kswapd+0/c0>
"""


@pytest.mark.parametrize(
    ("head", "comm", "source"), [(b"", None, Source.DUMP), (b"Proc;  kswapd\n\n", "kswapd", Source.TASK_LIST)]
)
def test_ksymoops_looks_names_up(head: bytes, comm: str | None, source: Source) -> None:
    """Of an oops, whose task ran, and of a list of all tasks; in hexadecimal."""
    (report,) = task_reports(head + KSYMOOPS)
    assert (report.comm, report.source) == (comm, source)
    assert [(frame.name, frame.module, frame.offset, frame.reliable) for frame in report.frames] == [
        ("flush_tlb_others", None, 0xE7, True),
        ("shrink_cache", None, 0x306, True),
        ("frob_kswapd", "frob", 0xA1, True),
        ("kswapd", None, 0, False),
    ]


def test_a_second_task_of_ksymoops_is_another() -> None:
    """Each has its own instruction pointer."""
    reports = task_reports(b"Proc;  one\n\n" + KSYMOOPS + b"Proc;  two\n\n" + KSYMOOPS)
    assert [(report.comm, len(report.frames), report.source) for report in reports] == [
        ("one", 4, Source.TASK_LIST),
        ("two", 4, Source.TASK_LIST),
    ]


def test_a_script_that_prints_names_behind_paths() -> None:
    """As `tail` prints a file's name, with the task's name and state behind it."""
    data = b"==> /proc/739/task/758/stack <== nbdkit (D)\n[<0>] balance_dirty_pages+0x2c7/0xec0\n"
    (report,) = task_reports(data)
    assert (report.pid, report.tid, report.comm, report.state) == (739, 758, "nbdkit", "D")
    (plain,) = task_reports(data.replace(b" <== nbdkit (D)", b" <=="))
    assert (plain.pid, plain.tid, plain.comm, plain.state) == (739, 758, None, None)


CALLS = ("schedule", "blk_mq_get_tag", "swap_writepage", "try_to_free_pages", "sock_sendmsg")
FTRACE = "          nbdkit-1234    [001] d..3.   100.123456: "
PERF = "nbdkit  1234 [001]  100.123456: sched:sched_switch: prev_pid=1234 prev_state=D ==> next\n"
TRACED = {
    "ftrace": f"{FTRACE}<stack trace>\n" + "".join(f" => {call}\n" for call in CALLS),
    "trace-cmd": f"{FTRACE}kernel_stack:         <stack trace >\n"
    + "".join(f"=> {call} (ffffffff81a00010)\n" for call in CALLS),
    "perf script": PERF
    + "".join(f"        ffffffff81a00010 {call}+0x1f ([kernel.kallsyms])\n" for call in CALLS)
    + "            7ffff7b744c7 __libc_sendmsg+0x17 (/usr/lib/libc.so.6)\n",
    "perf script without offsets": PERF
    + "".join(f"        ffffffff81a00010 {call} ([kernel.kallsyms])\n" for call in CALLS),
    "bpftrace": "@[nbdkit, 1234,\n" + "".join(f"    {call}+31\n" for call in CALLS) + "]: 1\n",
    "offcputime": "".join(f"    {call}\n" for call in CALLS)
    + "    -                nbdkit (1234)\n        254\n",
    "kdb": "Stack traceback for pid 1234\n0xffff88003d3f8000   1234   1 0 1 D 0xffff88003d3f8540 nbdkit\n"
    + "".join(f" [<ffffffff81a00010>] {call}+0x1f/0x40\n" for call in CALLS),
}


@pytest.mark.parametrize(
    ("tracer", "before"),
    # names alone are read at a log's beginning only
    [
        *((tracer, 0) for tracer in TRACED),
        *((tracer, 100_000) for tracer in TRACED if tracer != "offcputime"),
    ],
)
def test_tracers_stacks_have_their_tasks(tracer: str, before: int) -> None:
    """Above the stack or below it; of several tasks each its own, also behind much else."""
    filler = "    other-77      [000] d..2.   100.000001: sched_waking: comm=x pid=7 prio=120\n"
    stream = io.BytesIO((filler * (before // len(filler)) + 2 * TRACED[tracer]).encode())
    reports = [one for one in read_records(relevant_lines(stream)) if isinstance(one, TaskReport)]
    assert [(one.comm, one.tid, [frame.name for frame in one.frames]) for one in reports] == [
        ("nbdkit", 1234, list(CALLS))
    ] * 2
    assert {one.state for one in reports} <= {None, "D"}


def test_a_module_in_perfs_parentheses_is_one() -> None:
    """The kernel's own name there is none."""
    frames = b" ffffffffc0a12345 nbd_queue_rq+0x1f ([nbd])\n ffffffff81a00010 kthread ([kernel.kallsyms])\n"
    data = PERF.encode() + frames
    (report,) = task_reports(data)
    assert [(frame.name, frame.module) for frame in report.frames] == [
        ("nbd_queue_rq", "nbd"),
        ("kthread", None),
    ]


def test_a_name_below_a_stack_that_has_one_is_not_its() -> None:
    """What follows a head's stack is something else."""
    head = b"nbd-server      D    0    77      1 0x00000080\n"
    (report,) = task_reports(head + b" schedule+0x1/0x2\n vfs_read+0x1/0x2\n    -      other (5)\n")
    assert (report.comm, report.tid) == ("nbd-server", 77)
