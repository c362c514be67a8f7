"""Real logs come out right: no false alarm, no miss."""

import json

import pytest
from tests.kernlog.answers import ANSWERS, LOGS, answer

from ioflusher.kernlog.diagnose import Diagnoser, diagnose_log
from ioflusher.kernlog.diagnosis import Diagnosis
from ioflusher.kernlog.fleet import Options, diagnose_file
from ioflusher.kernlog.judging.findings import Confidence, Kind
from ioflusher.kernlog.reading.console import parse_console
from ioflusher.kernlog.records import EventKind
from ioflusher.kernlog.stacks.things import Thing

KEPT = json.loads(ANSWERS.read_text("utf-8"))
NAMES = sorted(path.stem for path in LOGS.glob("*.txt"))


def diagnosis(name: str) -> Diagnosis:
    return diagnose_log((LOGS / f"{name}.txt").read_bytes())


def test_every_log_says_where_it_is_from() -> None:
    """A log without an origin proves nothing."""
    index = (LOGS / "INDEX.md").read_text("utf-8")
    assert [name for name in NAMES if f"| {name} |" not in index] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_right(name: str) -> None:
    """Recursion where there is one, none where there is none."""
    assert diagnosis(name).recursion is name.startswith("pos_")


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_answer_is_the_one_that_was_read(name: str) -> None:
    """Not the verdict alone: edges, roles, device, daemon, what is missing (tests/kernlog/answers.py)."""
    assert answer(name) == KEPT.get(name)


def test_all_harmless_logs_together_have_no_cycle() -> None:
    """Tasks of different machines wait for nothing of one another: an edge needs more than two that wait."""
    diagnoser = Diagnoser()
    for name in NAMES:
        for record in parse_console((LOGS / f"{name}.txt").read_bytes()) if name.startswith("neg_") else ():
            diagnoser.take(record)
    assert [episode.why for episode in diagnoser.result().episodes if episode.recursion] == []


def test_every_kind_of_edge_decides_some_log() -> None:
    """A thing that no log or stack needs to be known would be held by nothing."""
    edges = [edge for kept in KEPT.values() for episode in kept for edge in episode["edges"]]
    decided = {edge.split(" -")[1].split("->")[0] for edge in edges}
    # test_cycles.py, test_unlisted.py, stacks.txt
    in_stacks_alone = {Thing.DIRTY, Thing.KSWAPD, Thing.QUEUE, Thing.MMAP_LOCK}
    only_tell = {Thing.FS_IO, Thing.SWAPPED, Thing.WORK, Thing.STACK}  # what a thread is, no end of an edge
    assert {thing.value for thing in set(Thing) - in_stacks_alone - only_tell} <= decided


@pytest.mark.parametrize("name", NAMES)
def test_a_file_gives_the_same_answer(name: str) -> None:
    """What the fast search of long logs passes over is nothing that mattered."""
    path = LOGS / f"{name}.txt"
    result = diagnose_file(str(path), Options())
    assert result.trouble is None
    kinds = [(episode.kind, episode.recursion) for episode in result.diagnosis.episodes]
    assert kinds == [(episode.kind, episode.recursion) for episode in diagnosis(name).episodes]


@pytest.mark.parametrize("name", NAMES)
def test_a_mail_client_and_a_terminal_change_nothing(name: str) -> None:
    """Quoting, carriage returns, colours and web entities are no part of a log."""
    raw = (LOGS / f"{name}.txt").read_bytes()
    mangled = b"".join(b"> \x1b[33m" + line + b"\x1b[0m\r\n" for line in raw.splitlines())
    escaped = mangled.replace(b"<", b"&lt;")
    plain = diagnose_log(raw)
    for variant in (mangled, escaped):
        again = diagnose_log(variant)
        assert [(e.kind, e.recursion, e.sentence) for e in again.episodes] == [
            (e.kind, e.recursion, e.sentence) for e in plain.episodes
        ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("margin", [b"    ", b"\t", b"# ", b" * "])
def test_a_commit_message_and_a_comment_change_nothing(name: str, margin: bytes) -> None:
    """Nor does what `git log`, a script or a C file writes in front of each line."""
    raw = (LOGS / f"{name}.txt").read_bytes()
    again = diagnose_log(b"".join(margin + line + b"\n" for line in raw.splitlines()))
    assert [(e.kind, e.recursion) for e in again.episodes] == [
        (e.kind, e.recursion) for e in diagnose_log(raw).episodes
    ]


def test_lines_with_an_empty_one_behind_each_are_one_stack() -> None:
    """Some web pages and mail programs set logs so; then an empty line parts nothing."""
    raw = (LOGS / "pos_dm_thin_swap_drain_crash.txt").read_bytes()
    assert diagnose_log(raw.replace(b"\n", b"\n\n")).recursion


def test_the_trace_that_brought_the_state_about() -> None:
    """nbd, XFS, msgr-worker-1, the write that reclaim forced."""
    (episode,) = diagnosis("pos_nbd_xfs_inode_write").episodes
    assert episode.kind is Kind.INODE_RECURSION
    assert episode.recursion
    assert episode.daemon == "msgr-worker-1"
    assert [(task.comm, task.tid, task.state) for task in episode.tasks] == [("msgr-worker-1", 1026, "D")]
    assert episode.sentence == (
        "its tcp_sendmsg() allocated memory, direct reclaim began to free xfs inodes, "
        "and it waits there for I/O that xfs started"
    )
    assert any("ioflusher run" in remedy for remedy in episode.remedies)
    roles = [step.role.value for step in reversed(episode.chain) if step.role]
    for role in ("syscall", "network", "allocation", "direct-reclaim", "shrinker", "file-system", "io-wait"):
        assert role in roles


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pos_loop_dm_bufio_crash", Kind.SHRINKER_RECURSION),
        ("pos_loop_xfs_log_force", Kind.INODE_RECURSION),
        ("pos_memcg_xfs_writepages", Kind.WRITEBACK_RECURSION),
        ("pos_lockdep_f2fs_kswapd", Kind.LOCKDEP),
        ("neg_s2disk_dirty_throttled", Kind.DIRTY_THROTTLED),
        ("neg_thp_fault_slow_usb", Kind.RECLAIM_BEHIND_DEVICE),
        ("neg_nfs_exit_flush", Kind.SLOW_STORAGE),
        ("pos_tcmu_ext4_write_begin", Kind.INODE_RECURSION),
        ("pos_zswap_writeback_below_dm", Kind.SWAP_RECURSION),
        ("neg_mlock_blk_congestion_2_6", Kind.RECLAIM_THROTTLED),
        ("neg_reiserfs_dirty_throttled_2_6", Kind.DIRTY_THROTTLED),
        ("neg_mmc_suspend_quoted_printable", Kind.WORK_WAIT),
        ("neg_i915_kswapd_own_lock", Kind.RECLAIM_BEHIND_LOCK),
        ("neg_i915_shrinker_oops", Kind.LOCKUP),
    ],
)
def test_the_first_episode_is_of_its_kind(name: str, kind: Kind) -> None:
    """The most important episode comes first and is called what it is."""
    assert diagnosis(name).episodes[0].kind is kind


def test_a_name_that_a_person_wrote_above_the_stack_counts() -> None:
    """ "tcmu-runner call Trace:" says whose stack it is, and so whose I/O waits."""
    (episode,) = diagnosis("pos_tcmu_ext4_write_begin").episodes
    assert (episode.daemon, episode.recursion) == ("tcmu-runner", True)


def test_a_device_is_named_after_a_file_system_or_not_at_all() -> None:
    """ "The device below block" says nothing."""
    (episode,) = diagnosis("pos_zswap_writeback_below_dm").episodes
    assert episode.device is None


def test_a_thread_that_lost_the_processor_on_its_way_to_sleep_waits() -> None:
    """preempt_schedule_notrace() inside schedule() hides no lock."""
    episodes = {episode.kind: episode for episode in diagnosis("neg_cma_drain_wireless").episodes}
    assert episodes[Kind.LOCK_WAIT].sentence == "it waits for a lock of cfg80211, outside memory reclaim"


def test_who_waits_for_shrinkers_waits_for_the_one_that_the_log_shows() -> None:
    """A mount behind drop_caches, whose stack is there; a mail's remark inside it parts nothing."""
    reclaims, _, mounts = diagnosis("pos_f2fs_thaw_drop_caches").episodes
    assert (reclaims.recursion, mounts.recursion, mounts.missing) == (True, False, None)
    assert mounts.why == (
        "it waits for every shrinker that runs, and the task of line 2 is in one and waits itself"
    )


def test_a_ceph_server_with_a_slow_disk_is_no_recursion() -> None:
    """The same stack, where an OSD's own threads show that the machine serves a disk of its own."""
    osd = (
        b"[ 1626.700000] tp_osd_tp       D    0  1030      1 0x00004000\n[ 1626.700000]  schedule+0x30/0xb0\n"
    )
    raw = (LOGS / "pos_nbd_xfs_inode_write.txt").read_bytes()
    assert not diagnose_log(raw + osd).recursion


def test_a_lock_whose_owner_is_in_reclaim_closes_the_cycle() -> None:
    """Newer kernels name a lock's owner: then both ends are in the log."""
    fault = (
        "reclaim_throttle shrink_node try_to_free_pages __alloc_pages_slowpath handle_mm_fault exc_page_fault"
    )
    log = (
        "INFO: task nbd-server:7 blocked for more than 120 seconds.\n"
        "task:nbd-server state:D stack:0 pid:7 tgid:7 ppid:1 task_flags:0x400000 flags:0x0\n"
        "INFO: task nbd-server:7 is blocked on a mutex likely owned by task hog:9.\n"
        "Call Trace:\n schedule+0x1/0x2\n mutex_lock+0x1/0x2\n nbd_x+0x1/0x2\n do_syscall_64+0x1/0x2\n"
        "task:hog state:D stack:0 pid:9 tgid:9 ppid:1 flags:0x0\n"
        + "".join(f" {name}+0x1/0x2\n" for name in fault.split())
    )
    episode = diagnose_log(log.encode()).episodes[0]
    assert episode.kind is Kind.LOCK_HELD_IN_RECLAIM
    assert episode.cycle == ("nbd-server (7)", "hog (9)", "nbd-server (7)")
    # the kernel names the owner; whose pages the owner waits for, nothing does
    assert [edge.known for edge in episode.edges] == [Confidence.CERTAIN, Confidence.POSSIBLE]
    assert episode.confidence is Confidence.POSSIBLE
    assert episode.missing == "whether the device is the one that is waited for"
    assert episode.tasks[0].io_flusher is False


def test_what_single_lines_report_is_counted() -> None:
    """A log without a stack may still say why the machine stood still."""
    oom = diagnosis("neg_oom_kill")
    assert [(event.kind, event.count) for event in oom.events] == [
        (EventKind.OOM_INVOKED, 1),
        (EventKind.OOM_KILL, 1),
    ]
    assert oom.events[0].first.startswith("allocate invoked oom-killer: gfp_mask=0x14280ca")
    assert oom.events[0].line == 1


def test_a_task_that_is_reported_again_is_one_task() -> None:
    """The hung task detector repeats itself every two minutes."""
    raw = (LOGS / "pos_nbd_xfs_inode_write.txt").read_bytes()
    (episode,) = diagnose_log(raw * 3).episodes
    assert (episode.count, len(episode.tasks)) == (3, 1)
