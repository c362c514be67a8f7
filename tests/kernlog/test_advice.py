"""Remedies fit the log, and the commands in them can be typed."""

import re
import subprocess

import pytest
from tests.kernlog.answers import LOGS
from tests.kernlog.stacks import DEFINED, log

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.diagnosis import Episode
from ioflusher.kernlog.judging import advice

COMMANDS = {name: text for name, text in vars(advice).items() if name.isupper() and isinstance(text, str)}


def first(name: str) -> Episode:
    return diagnose_log((LOGS / f"{name}.txt").read_bytes()).episodes[0]


@pytest.mark.parametrize("name", sorted(name for name in COMMANDS if not name.startswith("_")))
def test_a_command_is_one(name: str) -> None:
    """A shell can read it as it stands, without a word to be replaced."""
    assert subprocess.run(["bash", "-nc", COMMANDS[name]], capture_output=True).stderr == b""
    assert (
        not re.search(r"\b(?:[A-Z]{3,}|N)\b(?!/)", COMMANDS[name].replace("/proc", ""))
        or "awk" in COMMANDS[name]
    )


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("neg_nfs_exit_flush", advice.NFS_STATE),
        ("neg_ceph_msgr_final_iput", "look at the cluster and the network to it"),
        ("neg_fuse_writeback", advice.FUSE_STACKS),
        ("neg_nfs_delegreturn_kswapd_proc", advice.NFS_STATE),
        ("neg_fat_fsync_decoded", advice.REQUESTS),
    ],
)
def test_who_is_looked_at_is_who_does_not_answer(name: str, where: str) -> None:
    """A block device's counters say nothing of a server or a daemon."""
    remedies = " ".join(first(name).remedies)
    assert where in remedies
    assert (advice.REQUESTS in remedies) is (where == advice.REQUESTS)


def test_a_cgroup_is_named_where_there_is_one() -> None:
    """Whoever ran into the machine's limit is not sent to look for a group."""
    assert "/proc/112272/cgroup" in first("neg_memcg_cow_congested_crash").remedies[0]
    for name in ("neg_fault_throttled_4_4", "pos_loop_dm_bufio_crash", "neg_reclaim_scans_lru"):
        assert not any("memory.max" in remedy or "cgroup" in remedy for remedy in first(name).remedies)
    assert any("cgroup" in remedy for remedy in first("pos_memcg_writeback_page_lock").remedies)


def daemon(version: str, flags: str = "") -> Episode:
    head = f"task:nbd-server      state:D stack:0 pid:7 tgid:6 ppid:1 {flags}\nCall Trace:\n"
    text = f"Linux version {version}\n{head}"
    names = (DEFINED["SWAP"] + DEFINED["SEND"]).split()
    return diagnose_log((text + "".join(f" {name}+0x1/0x20\n" for name in names)).encode()).episodes[0]


def test_a_daemon_that_carries_the_state_is_not_told_to_take_it() -> None:
    """Then memory of its own is what is left to do."""
    plain = daemon("6.16.1", "task_flags:0x400000 flags:0x0")
    assert "ioflusher run" in plain.remedies[0]
    assert "ioflusher status 6" in plain.remedies[1]
    carries = daemon("6.16.1", "task_flags:0x580000 flags:0x0")
    assert not any("IO_FLUSHER" in remedy for remedy in carries.remedies)
    assert carries.remedies[0].startswith("lock its memory")


def test_a_kernel_without_the_state_is_said_to_be_too_old() -> None:
    """Before 5.6 there is no such call."""
    assert daemon("4.14.3").remedies[0].startswith("use Linux 5.6 or later")
    assert not daemon("5.8.3").remedies[0].startswith("use Linux")


def test_one_lock_for_all_shrinkers_is_spoken_of_where_somebody_waits_for_it() -> None:
    """A thaw waits for s_umount, which Linux 6.7 left as it was."""
    assert not any("6.7" in remedy for remedy in first("pos_xfs_thaw_kswapd_crash").remedies)
    assert any("6.7" in remedy for remedy in first("pos_nfs_local_shrinkers").remedies)


def test_who_serves_in_a_cycle_is_the_one_to_change() -> None:
    """The flusher that waits for a FUSE daemon is told of the daemon."""
    flusher = next(
        episode
        for episode in diagnose_log((LOGS / "pos_fuse_daemon_splice_crash.txt").read_bytes()).episodes
        if episode.tasks[0].comm != "Thread-21"
    )
    assert "ioflusher run" in flusher.remedies[0]
    assert "17172" in flusher.remedies[1]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("congestion_wait shrink_inactive_list", "direct reclaim made it sleep in congestion_wait()"),
        ("io_schedule_timeout congestion_wait", "direct reclaim made it sleep in congestion_wait()"),
        ("schedule_timeout_killable mem_cgroup_handle_over_high do_syscall_64", "over its memory cgroup's"),
    ],
)
def test_a_sleep_in_reclaim_is_not_memory_high(names: str, says: str) -> None:
    """Only the function that slows a task over memory.high down says so."""
    (episode,) = diagnose_log(log("app", DEFINED["SLEEP"] + " " + names)).episodes
    assert says in episode.sentence


@pytest.mark.parametrize("name", ["pos_xfs_dquot_pin_drop_caches", "pos_xfs_ifree_cluster_drop_caches"])
def test_where_nobody_allocates_no_memory_is_to_be_kept_free(name: str) -> None:
    """Reclaim that somebody asked for is not prevented by free memory, nor by another way to allocate."""
    order, meanwhile = first(name).remedies
    assert order.startswith("this is a lock order fault of the kernel")
    assert meanwhile == "do not write to /proc/sys/vm/drop_caches meanwhile"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("pos_oom_xfs_flusher_kswapd_ilock", None),
        ("pos_memcg_oom_i_mutex", "use Linux 3.12 or later"),
        ("pos_oom_victims_in_dup_mmap", "use Linux 4.6 or later"),
    ],
)
def test_a_kill_that_does_not_end_is_nothing_for_allocation_flags(name: str, advice: str | None) -> None:
    """Who waits for a killed task's memory would wait under any of them."""
    found = [one for one in diagnose_log((LOGS / f"{name}.txt").read_bytes()).episodes if one.recursion]
    for episode in found:
        victim = any(edge.thing == "oom-victim" for edge in episode.edges)
        assert not (victim and any("memalloc_noio" in remedy for remedy in episode.remedies))
    starts = [remedy for one in found for remedy in one.remedies if advice and remedy.startswith(advice)]
    assert bool(starts) is (advice is not None)


def test_who_has_to_allocate_otherwise_is_who_allocates() -> None:
    """Whichever of the two is told of: frob asks for memory with a lock in hand, zork only waits for that."""
    hung = "INFO: task {0}:{1} blocked for more than 122 seconds.\n"
    owner = hung + "INFO: task {0}:{1} is blocked on a mutex likely owned by task {2}:{3}.\n"
    head = "task:{} state:D stack:0 pid:{} tgid:{} ppid:1\nCall Trace:\n"
    reclaims = f"mutex_lock zork_evict_inode evict super_cache_scan {DEFINED['SLAB']} frob_grow frob_mkdir"
    waits = "mutex_lock zork_write zork_ioctl do_syscall_64"
    text = ""
    for one, other, names in ((("app", 1), ("tool", 2), reclaims), (("tool", 2), ("app", 1), waits)):
        text += owner.format(*one, *other) + head.format(*one, one[1])
        text += "".join(f" {name}+0x1/0x20\n" for name in f"{DEFINED['SLEEP']} {names}".split())
    episodes = diagnose_log(text.encode()).episodes
    assert [episode.tasks[0].comm for episode in episodes] == ["app", "tool"]
    assert all("frob has to allocate under" in episode.remedies[0] for episode in episodes)
