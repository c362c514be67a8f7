"""lockdep's reports: which locks, in which order, and where a report ends."""

import pytest

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.fleet import LogResult
from ioflusher.kernlog.reading.console import parse_console
from ioflusher.kernlog.reading.lockdep import MAX_LINES, LockdepText, lock_names
from ioflusher.kernlog.records import LockdepReport, TaskReport
from ioflusher.report.diagnosis_html import render_html
from ioflusher.report.diagnosis_text import render_diagnosis

TITLE = "WARNING: possible circular locking dependency detected\n6.1.0 #1 Not tainted\n"
PAIR = (
    "kswapd0/93 is trying to acquire lock:\n"
    "ffff88 (sb_internal#2){.+.+}-{0:0}, at: xfs_trans_alloc+0x1/0x2\n\n"
    "but task is already holding lock:\n"
    "ffffff (fs_reclaim){+.+.}-{0:0}, at: balance_pgdat+0x1/0x2\n\n"
    "which lock already depends on the new lock.\n\n"
)
LINKS = (
    "the existing dependency chain (in reverse order) is:\n"
    "-> #2 (fs_reclaim){+.+.}-{0:0}:\n       fs_reclaim_acquire+0x1/0x2\n       do_syscall_64+0x1/0x2\n"
    "-> #1 (&xfs_nondir_ilock_class){++++}-{3:3}:\n       down_write_nested+0x1/0x2\n"
    "       entry_SYSCALL_64_after_hwframe+0x1/0x2\n"
    "-> #0 (sb_internal#2){.+.+}-{0:0}:\n       __lock_acquire+0x1/0x2\n       ret_from_fork+0x1/0x2\n"
)
CHAIN = "Chain exists of:\n  sb_internal#2 --> &xfs_nondir_ilock_class --> fs_reclaim\n\n"
SCENARIO = (
    " Possible unsafe locking scenario:\n\n       CPU0                    CPU1\n"
    "       ----                    ----\n"
    "  lock(fs_reclaim);\n                               lock(&xfs_nondir_ilock_class);\n"
    "                               lock(fs_reclaim);\n  lock(sb_internal#2);\n\n *** DEADLOCK ***\n\n"
    "2 locks held by kswapd0/93:\n"
    " #0: ffffff (fs_reclaim){+.+.}-{0:0}, at: balance_pgdat+0x1/0x2\n"
    " #1: ffffff (shrinker_rwsem){++++}-{3:3}, at: shrink_slab+0x1/0x2\n\n"
)
BACKTRACE = (
    "stack backtrace:\nCPU: 0 PID: 93 Comm: kswapd0 Not tainted 6.1.0 #1\nCall Trace:\n"
    " dump_stack+0x1/0x2\n kswapd+0x1/0x2\n ret_from_fork+0x1/0x2\n"
)
WHOLE = TITLE + PAIR + LINKS + "other info that might help us debug this:\n\n" + CHAIN + SCENARIO + BACKTRACE
ORDER = ("sb_internal#2", "&xfs_nondir_ilock_class", "fs_reclaim")
NAMES = (
    "schedule xfs_buf_iowait xfs_reclaim_inode super_cache_scan shrink_slab do_try_to_free_pages "
    "__alloc_pages_slowpath lo_rw_aio loop_workfn kthread ret_from_fork"
)
HUNG = "Call Trace:\n" + "".join(f" {name}+0x1/0x2\n" for name in NAMES.split())


def reports(text: str) -> list[LockdepReport]:
    return [record for record in parse_console(text.encode()) if isinstance(record, LockdepReport)]


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        TITLE + PAIR + LINKS,
        LINKS,
        CHAIN,
        CHAIN + SCENARIO,
        LINKS + SCENARIO,
        TITLE + PAIR + CHAIN + BACKTRACE,
    ],
)
def test_locks_come_in_the_order_in_which_they_are_taken(text: str) -> None:
    """Each while the one before it is held, whichever part of the report is left."""
    (report,) = reports(text)
    assert report.locks == ORDER
    assert report.reclaim


def test_a_pair_is_two_locks() -> None:
    """Without links and chain, what is wanted and what is held."""
    (report,) = reports(TITLE + PAIR)
    assert (report.comm, report.tid, report.locks) == ("kswapd0", 93, ("sb_internal#2", "fs_reclaim"))


def test_what_is_held_besides_takes_no_part() -> None:
    """The list of held locks is longer than the cycle."""
    assert "shrinker_rwsem" not in reports(WHOLE)[0].locks


@pytest.mark.parametrize("text", [WHOLE, LINKS, LINKS + SCENARIO])
def test_a_second_report_is_a_second_one(text: str) -> None:
    """Its links are no links of the first one, also where their beginnings are lost."""
    other = text.replace("sb_internal", "other")
    first, second = reports(text + other)
    assert (first.locks, second.locks) == (ORDER, ("other#2", *ORDER[1:]))


def test_a_title_begins_another_report() -> None:
    """Also where the rest of both was cut."""
    first, second = reports(TITLE + PAIR + (TITLE + PAIR).replace("sb_internal", "other"))
    assert (first.locks, second.locks) == (("sb_internal#2", "fs_reclaim"), ("other#2", "fs_reclaim"))


def test_a_report_is_bounded() -> None:
    """What is longer is no report; a log may be lines that belong to one and nothing else."""
    report = LockdepText()
    assert [report.take("so it goes on") for _ in range(MAX_LINES)] == [True] * (MAX_LINES - 1) + [False]


@pytest.mark.parametrize(
    "between", ["", "\n", "and this one hangs for real:\n", "Workqueue: loop0 loop_workfn\n"]
)
@pytest.mark.parametrize("report", [WHOLE, LINKS + SCENARIO, TITLE + PAIR + LINKS])
def test_a_hung_stack_behind_it_counts(report: str, between: str) -> None:
    """The report ends with its own backtrace, or before the next stack where that is cut."""
    diagnosis = diagnose_log((report + between + HUNG).encode())
    assert {episode.kind.value for episode in diagnosis.episodes} == {"lockdep-prediction", "inode-recursion"}
    assert all(episode.recursion for episode in diagnosis.episodes)


def test_a_hung_stack_before_it_counts() -> None:
    """And the other way round."""
    kinds = [type(record) for record in parse_console((HUNG + WHOLE).encode())]
    assert kinds == [TaskReport, LockdepReport]


def test_a_warnings_head_behind_it_is_of_the_next_stack() -> None:
    """It looks as the head of lockdep's own backtrace does, which is whole by then."""
    warning = "CPU: 1 PID: 5 Comm: dd Not tainted 6.1.0 #1\nCall Trace:\n schedule+0x1/0x2\n"
    report, task = parse_console((WHOLE + warning).encode())
    assert isinstance(report, LockdepReport)
    assert isinstance(task, TaskReport)
    assert (report.comm, task.comm, task.tid) == ("kswapd0", "dd", 5)


def test_its_stacks_are_read_and_counted() -> None:
    """Three links and the backtrace; the text shows the order."""
    diagnosis = diagnose_log(WHOLE.encode())
    assert diagnosis.reports == 4
    text = "\n".join(render_diagnosis(diagnosis))
    assert "4 stacks read" in text
    assert "sb_internal#2 -> &xfs_nondir_ilock_class -> fs_reclaim" in text


def test_its_stacks_stand_beside_one_another() -> None:
    """Not one inside the other: each is indented from its own beginning, in text and page."""
    diagnosis = diagnose_log(WHOLE.encode())
    (episode,) = diagnosis.episodes
    outermost = ["do_syscall_64", "entry_SYSCALL_64_after_hwframe", "ret_from_fork", "ret_from_fork"]
    assert [stack[-1].frame.function for stack in episode.stacks] == outermost
    lines = list(render_diagnosis(diagnosis))
    begins = [number for number, line in enumerate(lines) if line.endswith(", from the outside in:")]
    assert [lines[number].split(",")[0] for number in begins] == [f"   stack {n}" for n in (1, 2, 3, 4)]
    assert all(line[23] != " " for line in (lines[number + 1] for number in begins))
    page = render_html((LogResult("a.log", diagnosis),))
    assert page.count('<table class="stack">') == len(outermost) + 1


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("(&sb->s_type->i_lock){+.+.}", ["&sb->s_type->i_lock"]),
        ("((work_completion)(&ctx->work)){+.+.}-{0:0}", ["(work_completion)(&ctx->work)"]),
        ("-> #1 ((wq_completion)events){+.+.}-{0:0}:", ["(wq_completion)events"]),
        ("(&(&ip->i_lock)->mr_lock){++++..}, at: [<c01>] f+0x1/0x2", ["&(&ip->i_lock)->mr_lock"]),
        ("#0: (a){.+.+}, #1: (b){.+.+}", ["a", "b"]),
        ("no lock){", []),
        ("(){+.+.}", []),
        ("){ (", []),
    ],
)
def test_names_may_hold_parentheses(text: str, names: list[str]) -> None:
    """Work items and old lock classes do."""
    assert lock_names(text) == names
