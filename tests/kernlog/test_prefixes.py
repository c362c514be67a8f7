"""Whatever stands before the lines, the same stacks are read from them.

The invariant: take any log of tests/kernlog/logs and put a prefix before every line, of a kind that vendors,
consoles, daemons, mails or web pages write: tasks, frames and lock reports stay what they are.
"""

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ioflusher.kernlog.reading.console import parse_console, task_reports
from ioflusher.kernlog.reading.frames import find_frame
from ioflusher.kernlog.reading.prefixes import LearnedPrefix
from ioflusher.kernlog.records import LockdepReport, TaskReport

LOGS = {path.stem: path.read_bytes() for path in sorted((Path(__file__).parent / "logs").glob("*.txt"))}
# forms that have a meaning of their own
KNOWN = (
    "c2 701 ",
    "c2    701 ",
    "I[4: swapper/4: 0] ",
    "[4:      swapper/4:    0] ",
    "(3)[110:khungtaskd]",
    "<4>c3   0 ",
    "> ",
    ">",
    "> > > ",
    "| ",
    "   * ",
    "&nbsp;",
    "&gt; &gt; ",
    "\N{NO-BREAK SPACE}",
    "\N{NARROW NO-BREAK SPACE} ",
    "Nov 25 01:02:03  kernel: ",
    "Nov 25 01:02:03 [10.0.0.1] kernel: ",
    "Nov 25 01:02:03 [] kernel: ",
    "[Wed Nov 25 01:02:03 2026] ",
    "12-25 01:02:03.456 E/KERNEL : ",
    "12-25 01:02:03.456 root  1026  1026 E KERNEL  : ",
)
# of these nobody told anything: they are learned
UNKNOWN = (
    "03384 ",
    "[ts][T110] khungtaskd: ",
    "[box] ",
    "x: ",
    "rack7/u12 ttyS0: ",
    "0001: ",
    "=> ",
    "2026-11-25 serial0| ",
    "(console) 17) ",
)
# a report of lockdep without any frame: nothing teaches its prefix
NO_FRAMES = (
    "pos_lockdep_dm_thin_shrinker_rwsem",
    "pos_erofs_endio_swap",
    "pos_lustre_lu_sites_guard_kswapd_dquot",
    "pos_zfs_vdev_aggregate_kmem_cache_chain",
    "pos_ion_cma_mutex_shrinker_chain",
    "neg_zfs_gang_free_svr_lock_sdb",
    "pos_loop_tmpfs_compaction_page",
)

word = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_/", min_size=1, max_size=8)
ending = st.sampled_from((": ", "] ", "| ", "> ", " 7 ", ") "))
invented = st.tuples(st.lists(word, min_size=1, max_size=3).map(" ".join), ending).map("".join)


def told(data: bytes) -> list[tuple[object, ...]]:
    """What was read, without where it stood and which clock it had."""
    return [
        (record.comm, record.pid, record.tid, record.state, record.workqueue, record.owner, record.frames)
        if isinstance(record, TaskReport)
        else (record.title, record.comm, record.tid, record.locks, record.frames)
        for record in parse_console(data)
        if isinstance(record, TaskReport | LockdepReport)
    ]


def prefixed(prefix: str, log: bytes) -> bytes:
    return b"".join(prefix.encode() + line + b"\n" for line in log.splitlines())


@pytest.mark.parametrize("number", range(len(LOGS)))
def test_a_prefix_changes_nothing_in_a_log(number: int) -> None:
    """A third of the prefixes, before every line of the log: each prefix meets a third of the logs."""
    name = list(LOGS)[number]
    expected = told(LOGS[name])
    for prefix in (KNOWN if name in NO_FRAMES else (*KNOWN, *UNKNOWN))[number % 3 :: 3]:
        if any(name == log and prefix.endswith(end) for log, end in AMBIGUOUS):
            continue
        assert told(prefixed(prefix, LOGS[name])) == expected, prefix
    latin = b"".join(b"\xa0" + line + b"\n" for line in LOGS[name].splitlines())
    assert told(latin) == expected


# log and end of a prefix: a task's name may have blanks, and here it begins the line or a mailer broke it off
AMBIGUOUS = {
    ("pos_uml_fuse_daemon_dirty_throttled", " 7 "),
    ("pos_uml_loop_vm_writeout", " 7 "),
    ("neg_xfs_reclaim_radix_rcu_stall", "> "),
}


@given(st.sampled_from(sorted(LOGS.keys() - set(NO_FRAMES))), invented)
@settings(max_examples=60, deadline=None)
def test_no_more_does_one_that_nobody_has_seen(name: str, prefix: str) -> None:
    """Words that end as prefixes do: with a mark or a number."""
    # "in:" is the label of a place, behind which an address is no frame
    assume(find_frame(f"{prefix}schedule+0x46/0x60") is not None)
    assume(not any(name == log and prefix.endswith(end) for log, end in AMBIGUOUS))
    assert told(prefixed(prefix, LOGS[name])) == told(LOGS[name])


def test_a_prefix_is_known_once_it_was_seen_twice() -> None:
    """Numbers and addresses in it may change, words may not."""
    prefix = LearnedPrefix()
    assert prefix.taken_off("box1 7: hello") is None
    assert not prefix.learn("box1 7:")
    assert prefix.learn("box1 8:")
    assert prefix.taken_off("box1 123:  hello") == " hello"
    assert prefix.taken_off("box1 9:") == ""
    assert prefix.taken_off("rack1 123: hello") is None
    assert not prefix.learn("x" * 500)


def test_one_line_that_is_read_twice_is_no_prefix() -> None:
    """The first lines are looked at ahead: an interrupt's mark before the first frame stands there once."""
    text = (
        b"[    1.000000] drbd_s_r0       R  running task        0 17569      2 0x00000080\n"
        b"[    1.000000]  <IRQ>  [<ffffffffb64d5dc8>] sched_show_task+0xa8/0x110\n"
        b"[    1.000000]  [<ffffffffb64d5eb2>] show_state_filter+0x82/0xd0\n"
        b"[    1.000000]  <EOI>  [<ffffffffb65cba9f>] ? shrink_inactive_list+0x21f/0x5d0\n"
        b"[    1.000000]  [<ffffffffb65cc655>] shrink_lruvec+0x385/0x730\n"
    )
    (report,) = task_reports(text)
    assert [frame.name for frame in report.frames] == ["shrink_inactive_list", "shrink_lruvec"]


@pytest.mark.parametrize(("inner", "seconds"), [("", 5.0), ("[    6.000000] ", 6.0)])
def test_the_clock_behind_a_learned_prefix_is_the_kernels(inner: str, seconds: float) -> None:
    """Where there is none, the one before it counts."""
    frames = (" schedule+0x1/0x2", " do_syscall_64+0x1/0x2")
    texts = (*frames, f"{inner}task:a state:D stack:0 pid:1", f"{inner} down_read+0x1/0x2")
    log = "".join(f"[    5.000000] box1 7| {text}\n" for text in texts)
    last = task_reports(log.encode())[-1]
    assert (last.comm, last.seconds) == ("a", seconds)
