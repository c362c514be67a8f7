"""Who a log does not show: a worker, a killed task; and what a thread brings about while it is throttled."""

import pytest
from tests.kernlog.stacks import DEFINED, frames, log
from tests.kernlog.test_cycles import SLEEP, WORKER, cycles, edges
from tests.kernlog.test_unlisted import ALLOCATES, EVICTS, FILE_LOCK, ISOLATED, THREAD_WAITS

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.judging.facts import Facts
from ioflusher.kernlog.judging.findings import Case
from ioflusher.kernlog.judging.unshown import unshown
from ioflusher.kernlog.reading.console import task_reports
from ioflusher.kernlog.stacks.anatomy import dissect
from ioflusher.kernlog.stacks.askers import asker_of

FAULT = DEFINED["FAULT"]
DRAIN = f"{SLEEP} wait_for_completion flush_work drain_all_pages __alloc_pages_slowpath {FAULT}"
PENDING = b"    pending: vmstat_update, drain_local_pages_wq BAR(100)\n"
FULL = f"{SLEEP} mem_cgroup_handle_oom mem_cgroup_cache_charge add_to_page_cache_lru find_or_create_page"


@pytest.mark.parametrize(
    ("says", "waits", "recursion"),
    [
        (PENDING, DRAIN, True),
        (b"BUG: workqueue lockup - pool cpus=2 node=0 flags=0x0 nice=0 stuck for 272s!\n", DRAIN, True),
        (b"    pending: vmstat_update, drain_local_pages_wq\n", DRAIN, False),
        (b"    in-flight: 5:drain_local_pages_wq BAR(100)\n", DRAIN, False),
        (PENDING, f"{SLEEP} wait_for_completion flush_work lru_add_drain_all sys_mlock", False),
    ],
)
def test_work_of_an_allocation_that_no_worker_begins(says: bytes, waits: str, recursion: bool) -> None:
    """The kernel says that nobody is free for it; those who might be may want memory themselves."""
    found = [one for one in diagnose_log(says + log("app", waits)).episodes if one.recursion]
    assert [edges(one) for one in found] == (
        [[("app", "work", "a", "probable"), ("a", "reclaim", "app", "possible")]] if recursion else []
    )
    assert all("the stacks of the workers, or of who makes them" in str(one.missing) for one in found)


@pytest.mark.parametrize(
    ("below", "recursion"),
    [
        ("frob_find d_alloc_and_lookup do_lookup path_lookupat", True),
        ("frob_find real_lookup do_lookup path_lookupat", True),
        ("frob_find lookup_real __lookup_hash path_lookupat", True),
        ("frob_find frob_statfs", False),
    ],
)
def test_a_killed_task_may_wait_for_the_directory_of_who_waits_for_its_memory(
    below: str, recursion: bool
) -> None:
    """Before Linux 3.12 a charge to a full memory cgroup waited with all locks in hand."""
    waits = log("ls", f"{FULL} {below} sys_newlstat")
    found = [one for one in diagnose_log(waits).episodes if one.recursion]
    expected = [("ls", "oom-victim", "the", "probable"), ("the", "inode-lock", "ls", "possible")]
    assert [edges(one) for one in found] == ([expected] if recursion else [])
    assert all("the stack of the task that was killed" in str(one.missing) for one in found)
    # what it waits for, if its stack is there
    kill = b"Memory cgroup out of memory: Kill process 200 (b) score 1\n"
    shown = log("b", f"{SLEEP} io_schedule submit_bio_wait frob_read vfs_read").replace(
        b"   100 ", b"   200 "
    )
    assert not diagnose_log(kill + waits + shown).recursion


@pytest.mark.parametrize(("does", "recursion"), [("xfs_end_bio_unwritten", True), ("xfs_frob_worker", False)])
def test_who_ends_io_sleeps_in_reclaim_until_io_has_ended(does: str, recursion: bool) -> None:
    """Pages under writeback, which reclaim's sleep is for, end with this worker's work alone."""
    names = (
        f"{SLEEP} io_schedule_timeout congestion_wait throttle_vm_writeout shrink_zone try_to_free_pages"
        f" __alloc_pages_internal kmem_cache_alloc kmem_zone_alloc xfs_trans_alloc {does} {WORKER}"
    )
    found = cycles(("xfsdatad/0", names))
    assert [edges(one) for one in found] == (
        [[("xfsdatad/0", "io", "xfsdatad/0", "possible")]] if recursion else []
    )


@pytest.mark.parametrize(("writes", "recursion"), [("balance_dirty_pages", True), ("frob_write", False)])
def test_a_throttled_daemon_that_writes_its_own_file_systems_pages_back(writes: str, recursion: bool) -> None:
    """What a throttled writer writes back is others'; a program that uses such a file system serves none."""
    names = (
        f"{SLEEP} fuse_get_req_wp fuse_writepage __writepage do_writepages writeback_inodes {writes}"
        " generic_file_buffered_write ext3_file_write vfs_write sys_pwrite64"
    )
    found = cycles(("fusexmp_fh", names))
    assert [edges(one) for one in found] == (
        [[("fusexmp_fh", "answer", "fusexmp_fh", "probable")]] if recursion else []
    )


@pytest.mark.parametrize(
    ("below", "recursion"),
    [
        ("p9_client_flush p9_client_rpc", True),
        ("p9_client_write", False),
        # block devices that stand on one another have a reserve each
        ("submit_bio_noacct frob_map submit_bio_noacct", False),
    ],
)
def test_a_reserve_of_which_the_task_has_some_already(below: str, recursion: bool) -> None:
    """The request that is to be called off stands in the way of the one that calls it off."""
    names = f"{SLEEP} mempool_alloc p9_fcall_init p9_client_rpc[9pnet] {below} v9fs_file_write_iter {WORKER}"
    found = cycles(("iou-wrk-100", names))
    assert [edges(one) for one in found] == (
        [[("iou-wrk-100", "held", "iou-wrk-100", "probable")]] if recursion else []
    )
    assert all(one.missing == "whether it is the same reserve" for one in found)
    assert all("asks for reserved memory with some of it in hand" in one.remedies[0] for one in found)


@pytest.mark.parametrize(("comm", "recursion"), [("zfs", True), ("cp", False)])
def test_a_cut_stack_of_a_program_called_after_the_file_system(comm: str, recursion: bool) -> None:
    """It is at that file system's work; any other program's may be anybody's allocation."""
    names = f"{SLEEP} rwsem_down_read_slowpath down_read zfs_inactive[zfs] evict dispose_list prune_icache_sb"
    found = cycles((comm, f"{names} super_cache_scan"))
    assert [edges(one) for one in found] == ([[("zfs", "held", "zfs", "possible")]] if recursion else [])


COMMIT = f"{SLEEP} {{}} jbd2_journal_commit_transaction kjournald2 kthread ret_from_fork"
RECLAIMS = "preempt_schedule_irq shrink_lruvec shrink_node do_try_to_free_pages try_to_free_pages {} kmalloc"
WRITER = "io_schedule_timeout balance_dirty_pages generic_perform_write ext4_file_write_iter vfs_write"


@pytest.mark.parametrize(
    ("inside", "commit", "writer", "recursion"),
    [
        ("ext4_free_blocks", "", "writer", True),
        ("ext4_free_blocks", "io_schedule submit_bio_wait", "writer", False),
        ("ext4_free_blocks", "", None, False),
        ("ext4_readdir", "", "writer", False),
    ],
)
def test_who_reclaims_inside_a_transaction_that_is_to_be_committed_before_pages_are_written(
    inside: str, commit: str, writer: str | None, recursion: bool
) -> None:
    """It runs, and gets nothing as long as pages stay dirty, for which writers wait as well."""
    text = log("jbd2/sda1-8", COMMIT.format(commit)) + log(
        "kworker/0:1", f"{RECLAIMS.format('__alloc_pages_slowpath')} {inside} ext4_frob {WORKER}"
    )
    text += log("dd", f"{SLEEP} {WRITER}") if writer else b""
    found = [edges(one) for one in diagnose_log(text).episodes if one.recursion]
    assert found[:1] == (
        [
            [
                ("jbd2/sda1-8", "transaction", "kworker/0:1", "probable"),
                ("kworker/0:1", "transaction", "jbd2/sda1-8", "possible"),
            ]
        ]
        if recursion
        else []
    )


@pytest.mark.parametrize(
    ("outside", "others", "recursion"),
    [("do_exit", "do_exit", True), ("do_unlinkat", "do_exit", False), ("do_exit", "do_unlinkat", False)],
)
def test_a_task_that_ends_and_reclaims_while_another_waits_for_its_lock(
    outside: str, others: str, recursion: bool
) -> None:
    """It may take what is left of memory, and still reclaims: it needs what another that ends would give."""
    asks = f"shrink_slab try_to_free_pages __alloc_pages frob_truncate frob_release {outside}"
    runs = log("a", asks).replace(b" D ", b" R ")
    waits = log("b", f"{SLEEP} mutex_lock frob_lock frob_release __fput {others}")
    found = [edges(one) for one in diagnose_log(runs + waits).episodes if one.recursion]
    expected = [("a", "oom-victim", "b", "possible"), ("b", "held", "a", "probable")]
    assert found == ([expected, expected[::-1]] if recursion else [])


HUNG = b"INFO: task kswapd0:100 blocked for more than 120 seconds.\n"
KSWAPD = "dispose_list prune_icache_sb shrink_slab balance_pgdat kswapd kthread ret_from_fork"
TROUBLE = b"blk_update_request: I/O error, dev sda, sector 2048\n"
QUEUES = log("mv", f"{SLEEP} jbd2_log_wait_commit frob_rename vfs_rename sys_rename")
AT_WORK = log("frob-commit", f"{SLEEP} io_schedule wait_on_page_bit frob_commit kthread ret_from_fork")


@pytest.mark.parametrize(
    ("says", "waits", "others", "recursion"),
    [
        (HUNG, "__mutex_lock mutex_lock frob_evict_inode evict", b"", True),
        (HUNG, "jbd2_log_wait_commit frob_evict_inode evict", b"", True),
        (b"", "__mutex_lock mutex_lock frob_evict_inode evict", b"", False),
        (TROUBLE + HUNG, "__mutex_lock mutex_lock frob_evict_inode evict", b"", False),
        (HUNG, "__mutex_lock mutex_lock frob_evict_inode evict", AT_WORK, False),
        (HUNG, "__mutex_lock mutex_lock frob_evict_inode evict", QUEUES, True),
        (HUNG, "io_schedule submit_bio_wait frob_evict_inode evict", b"", False),
    ],
)
def test_kswapd_that_hangs_behind_somebody_whom_the_log_does_not_show(
    says: bytes, waits: str, others: bytes, recursion: bool
) -> None:
    """It has none of a file system's locks itself; who has this one does not get on for minutes either."""
    hung = says + log("kswapd0", f"{SLEEP} {waits} {KSWAPD}")
    found = [one for one in diagnose_log(hung + others).episodes if one.recursion]
    expected = [[("a", "reclaim", "kswapd0", "possible")]]
    assert [edges(one)[1:] for one in found] == (expected if recursion else [])
    assert all("the stack of who holds what is waited for" in str(one.missing) for one in found)


@pytest.mark.parametrize(
    ("says", "below", "recursion"),
    [
        (HUNG, "try_to_release_page shrink_page_list balance_pgdat kswapd", True),
        (b"", "try_to_release_page shrink_page_list balance_pgdat kswapd", False),
        (
            b"nfs: server box not responding, still trying\n" + HUNG,
            "try_to_release_page shrink_page_list balance_pgdat kswapd",
            False,
        ),
        (HUNG, f"evict {KSWAPD}", False),
    ],
)
def test_kswapd_that_hangs_with_a_page_that_a_server_is_to_have(
    says: bytes, below: str, recursion: bool
) -> None:
    """Whoever sends the page, or takes the answer in, needs memory, which kswapd is to free."""
    waits = f"{SLEEP} io_schedule nfs_wait_bit_killable __wait_on_bit nfs_wait_on_request nfs_wb_page {below}"
    found = [one for one in diagnose_log(says + log("kswapd0", waits)).episodes if one.recursion]
    expected = [("kswapd0", "answer", "a", "probable"), ("a", "reclaim", "kswapd0", "possible")]
    assert [edges(one) for one in found] == ([expected] if recursion else [])
    assert all("whether the server answers" in str(one.missing) for one in found)


@pytest.mark.parametrize(("within", "recursion"), [("frob_inactive", True), ("frob_shrink", False)])
def test_a_cut_stack_of_kswapd_shows_a_file_system_that_no_table_has(within: str, recursion: bool) -> None:
    """What gives an inode up is a file system's; another subsystem's lock may be its own affair."""
    waits = log("kswapd0", f"{SLEEP} __mutex_lock mutex_lock frob_rele {within}[frob]")
    found = [one for one in diagnose_log(HUNG + waits).episodes if one.recursion]
    expected = [("kswapd0", "held", "a", "probable"), ("a", "reclaim", "kswapd0", "possible")]
    assert [edges(one) for one in found] == ([expected] if recursion else [])


def supposed(*stacks: tuple[str, str]) -> list[str]:
    """Who is supposed to be there besides these tasks."""
    facts = Facts()
    cases = []
    for comm, names in stacks:
        (report,) = task_reports(log(comm, names))
        body = dissect(report.frames, comm)
        cases.append(Case(report, body, asker_of(report, body)))
        facts.learn_case(cases[-1])
    return [str(case.report.comm).partition(",")[0] for case, _, _ in unshown(cases, facts)]


def test_kthreadd_is_supposed_where_somebody_waits_for_a_thread() -> None:
    """It may reclaim as another one is seen to; where nobody needs it, its wait would tell nothing."""
    assert "kthreadd" in supposed(THREAD_WAITS, EVICTS)
    assert "kthreadd" not in supposed(EVICTS)


def test_kswapd_is_supposed_where_a_file_systems_task_waits_for_its_pages() -> None:
    """Neither for who waits in a page fault, nor for a file system's task that waits for something else."""
    assert "kswapd" in supposed(FILE_LOCK, ALLOCATES)
    assert "kswapd" not in supposed(FILE_LOCK, ("app", f"{ISOLATED} {FAULT}"))
    assert "kswapd" not in supposed(
        FILE_LOCK, ("exits", f"shrink_slab {ALLOCATES[1].partition(ISOLATED)[2]}")
    )


@pytest.mark.parametrize(("innermost", "recursion"), [("dmu_tx_assign", True), ("zfs_rmnode", False)])
def test_a_stack_that_is_cut_where_the_table_knows_what_is_waited_for(
    innermost: str, recursion: bool
) -> None:
    """A function that waits for a transaction is no mere place at which a lock may be waited for."""
    names = f"{innermost} zfs_inactive zpl_evict_inode evict dispose_list prune_icache_sb shrink_slab"
    text = frames(
        f"{names} shrink_zone do_try_to_free_pages try_to_free_pages __alloc_pages_nodemask new_slab"
    )
    assert diagnose_log(text).recursion is recursion
