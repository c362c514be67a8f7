"""Names of tasks from lists of processes and gdb's titles, where a stack itself has none."""

import pytest
from tests.kernlog.stacks import DEFINED

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.reading.console import task_reports
from ioflusher.kernlog.reading.processes import MAX_PROCESSES, ProcessList

PROC = "[<0>] schedule+0x1/0x2\n[<0>] frob_wait+0x1/0x2\n"
GDB = "#0  schedule () at kernel/sched/core.c:1\n#1  0xffffffff81e0f2ca in frob_wait (a=1) at frob.c:3\n"


def named(text: str) -> list[tuple[str | None, int | None, str | None, int]]:
    """The tasks of a log: name, number, state, how many frames."""
    return [
        (report.comm, report.tid, report.state, len(report.frames)) for report in task_reports(text.encode())
    ]


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (
            "root  1234  0.0  0.1  1000  200 ?  Ds   10:00   0:00 /usr/sbin/nbd-server -C /etc/nbd",
            "nbd-server",
        ),
        ("$ ps aux | grep D\nroot 1234 0.0 0.0 0 0 pts/1 D+ Nov30 0:00 [kworker/0:1+xfs]", "kworker/0:1"),
        (" PID STAT WCHAN  COMMAND\n 1234 D    folio_wait nbd-server", "nbd-server"),
        ("UID PID PPID C STIME TTY TIME CMD\nroot 1234 1 0 10:00 ? 00:00:00 /usr/sbin/tgtd -f", "tgtd"),
        ("  PID   LWP S COMM\n 9 1234 D nbd-server: child", "nbd-server"),
    ],
)
def test_a_list_of_processes_names_stacks_with_a_number_alone(rows: str, name: str) -> None:
    """/proc/PID/stack has none; the list may stand far above it."""
    text = f"{rows}\n\nsome remark\n$ cat /proc/1234/stack\n{PROC}$ cat /proc/99/stack\n{PROC}"
    assert [one[:2] for one in named(text)] == [(name, 1234), (None, 99)]


@pytest.mark.parametrize(
    ("rows", "name"),
    [("1235 pool-1", "pool-1"), ("1234 nbdkit", "nbdkit"), ("1234 nbdkit\n1235 pool-1", "pool-1")],
)
def test_a_threads_own_name_comes_before_its_processs(rows: str, name: str) -> None:
    """A list may have one, the other or both."""
    text = f"PID COMMAND\n{rows}\n\n$ cat /proc/1234/task/1235/stack\n{PROC}"
    assert [one[:2] for one in named(text)] == [(name, 1235)]


def test_a_row_of_a_list_right_above_a_stack_is_its_head() -> None:
    """Also where the stack of another task stands right before it."""
    rows = "PID STAT COMMAND\n1234 D nbd-server\n{0}1235 R+ tgtd\n{0}"
    assert named(rows.format(PROC)) == [("nbd-server", 1234, "D", 2), ("tgtd", 1235, "R", 2)]
    assert named(f"PID STAT COMMAND\n1234 D nbd-server\nand then\n{PROC}") == [(None, None, None, 2)]


@pytest.mark.parametrize(
    "line",
    ["PID 12 is the one", "1234 nbd-server", "x D nbd-server", "1234 Q nbd-server", "1234 D"],
)
def test_other_lines_are_no_rows(line: str) -> None:
    """A list ends with the first line that does not fit it."""
    processes = ProcessList()
    assert processes.take("PID STAT COMMAND") is None
    assert processes.take(line) is None
    assert processes.take("1234 D nbd-server") is None
    assert processes.name_of(1234) is None


def test_lists_are_bounded() -> None:
    """A log may be a list of processes and nothing else."""
    processes = ProcessList()
    processes.take("PID COMMAND")
    for number in range(MAX_PROCESSES + 2):
        processes.take(f"{number} app")
    assert (processes.name_of(MAX_PROCESSES - 1), processes.name_of(MAX_PROCESSES)) == ("app", None)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ('Thread 3 (Thread 0x7f01 (LWP 123) "nbd-server"):\n', "nbd-server"),
        ("Thread 3 (LWP 123):\n", None),
        ("Thread 3 (Thread 123 (kswapd0)):\n", "kswapd0"),
        ("[Switching to thread 3 (Thread 123 (kswapd0))]\n", "kswapd0"),
        ("[Switching to thread 3 (Thread 123)]", None),
        ('Thread 3.1 (LWP 123) "nbd-server":\n', "nbd-server"),
    ],
)
def test_titles_of_gdb(title: str, name: str | None) -> None:
    """It may know the name, and may print the first frame on the same line."""
    assert named(f"{title}{GDB}\nThread 2 (LWP 124):\n{GDB}") == [(name, 123, None, 2), (None, 124, None, 2)]


def test_the_name_decides() -> None:
    """A daemon whose stack was copied from /proc: its own allocation waits for the device that it serves."""
    names = (DEFINED["SWAP"] + DEFINED["SEND"]).split()
    stack = "/proc/1234/stack:\n" + "".join(f"[<0>] {name}+0x1/0x20\n" for name in names)
    assert not diagnose_log(stack.encode()).recursion
    ps = "root 1234 0.0 0.1 1000 200 ? Ds 10:00 0:00 /usr/sbin/nbd-server -C x\n"
    assert diagnose_log((ps + stack).encode()).recursion
