"""Names of tasks in prose above a stack."""

import pytest

from ioflusher.kernlog.reading.console import task_reports
from ioflusher.kernlog.reading.told import told_head
from ioflusher.kernlog.records import Source


@pytest.mark.parametrize(
    ("text", "comm", "tid"),
    [
        ("tcmu-runner call Trace:", "tcmu-runner", None),
        ("  1) the iscsid thread's stack trace:", "iscsid", None),
        ("Backtrace of the 'rclone' daemon:", "rclone", None),
        ("stack of msgr-worker-1:", "msgr-worker-1", None),
        ("tcmu-runner(812) stack:", "tcmu-runner", 812),
        ("Stack of iscsid (pid 77) is:", "iscsid", 77),
    ],
)
def test_a_daemon_named_as_the_stacks_own_is_taken(text: str, comm: str, tid: int | None) -> None:
    """The one whose stack it is, in the ways people write it, perhaps with its number."""
    head = told_head(text)
    assert head is not None
    assert (head.comm, head.tid) == (comm, tid)


@pytest.mark.parametrize(
    "text",
    [
        "Call Trace:",
        "Full call trace:",
        "The stack trace:",
        "stack of a program on rclone's mount:",
        "call trace of a process that waits for tcmu-runner:",
        "nbd_handle_cmd stack:",
        "fuse_dev_do_write call trace:",
        "tcmu-runner wrote a trace",
        "stack backtrace:",
    ],
)
def test_other_words_are_no_name(text: str) -> None:
    """Prose, functions, and daemons that somebody else waits for."""
    assert told_head(text) is None


@pytest.mark.parametrize(
    "line",
    [
        b"Unable to handle kernel NULL pointer dereference at virtual address 0008",
        b"BUG: kernel NULL pointer dereference, address: 0000000000000000",
        b"WARNING: CPU: 0 PID: 382 at fs/iomap/apply.c:54",
        b"kernel BUG at mm/filemap.c:332!",
    ],
)
def test_what_an_oops_prints_ran(line: bytes) -> None:
    """A stack below an oops or a warning waits for nothing, though its registers were cut out."""
    task = b"task:a               state:D stack:0     pid:1     ppid:0\n schedule+0x1/0x2\n"
    trace = b"Call trace:\n submit_bio+0x1/0x2\n swap_writepage+0x1/0x2\n"
    assert [report.source for report in task_reports(task + line + b"\n" + trace)] == [
        Source.TASK_LIST,
        Source.DUMP,
    ]
