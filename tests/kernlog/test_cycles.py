"""Cycles of several tasks, from stacks written after the kernel's sources: each edge and how it is known."""

import pytest
from tests.kernlog.stacks import DEFINED, log

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.diagnosis import Episode
from ioflusher.kernlog.judging import waitgraph
from ioflusher.kernlog.judging.findings import Confidence, Kind

SLAB, PAGES, SLEEP = DEFINED["SLAB"], DEFINED["PAGES"], DEFINED["SLEEP"]
WORKER, SEND, FAULT = DEFINED["WORKER"], DEFINED["SEND"], DEFINED["FAULT"]
KSWAPD = " shrink_slab shrink_node balance_pgdat kswapd kthread ret_from_fork"
# an allocation that sleeps until kswapd has freed some of the reserve
BEHIND_KSWAPD = SLEEP + " throttle_direct_reclaim try_to_free_pages __alloc_pages_slowpath __alloc_pages "
THROTTLED = SLEEP + " io_schedule_timeout balance_dirty_pages balance_dirty_pages_ratelimited "


def cycles(*stacks: tuple[str, str]) -> list[Episode]:
    """The recursions of a log with these tasks; their numbers are all the same, so names tell them apart."""
    text = b"".join(log(comm, names) for comm, names in stacks)
    return [episode for episode in diagnose_log(text).episodes if episode.recursion]


def edges(episode: Episode) -> list[tuple[str, str, str, str]]:
    """Who waits for which thing of whom, and how that is known."""
    return [
        (link.waiter.split()[0], link.thing, link.giver.split()[0], link.known.value)
        for link in episode.edges
    ]


JOURNAL = (
    "kswapd0",
    SLEEP
    + " wait_transaction_locked start_this_handle jbd2__journal_start ext4_evict_inode evict dispose_list"
    + " prune_icache_sb super_cache_scan do_shrink_slab"
    + KSWAPD,
)
IN_THE_TRANSACTION = (
    "touch",
    BEHIND_KSWAPD
    + "new_slab kmem_cache_alloc ext4_add_entry ext4_create vfs_create do_filp_open do_sys_open",
)


def test_kswapd_behind_a_transaction_whose_task_waits_for_kswapd() -> None:
    """An ordinary program inside ext4's transaction waits for kswapd, which waits for the transaction."""
    first, second = cycles(JOURNAL, IN_THE_TRANSACTION)
    assert {first.kind, second.kind} == {Kind.INODE_RECURSION}
    assert edges(first) == [
        ("kswapd0", "transaction", "touch", "probable"),
        ("touch", "kswapd", "kswapd0", "certain"),
    ]
    assert first.missing == "whether it is the same file system"
    assert first.cycle == ("kswapd0 (100)", "touch (100)", "kswapd0 (100)")


@pytest.mark.parametrize("stack", [JOURNAL, IN_THE_TRANSACTION])
def test_half_of_that_cycle_is_none(stack: tuple[str, str]) -> None:
    """Either task alone waits, and that is all."""
    assert cycles(stack) == []


def test_a_transaction_of_another_file_system_closes_nothing() -> None:
    """kswapd waits for XFS's log; who is inside ext4's transaction has nothing to do with it."""
    xfs = JOURNAL[1].replace("wait_transaction_locked start_this_handle", "xlog_grant_head_wait")
    xfs = xfs.replace("jbd2__journal_start", "xfs_log_reserve").replace("ext4_evict_inode", "xfs_inactive")
    assert cycles(("kswapd0", xfs), IN_THE_TRANSACTION) == []


def test_a_log_lock_by_name() -> None:
    """The same in XFS, where the wait is for room in the log."""
    reserve = " xlog_grant_head_wait xlog_grant_head_check xfs_log_reserve xfs_trans_reserve xfs_inactive"
    waits = SLEEP + reserve + " evict dispose_list prune_icache_sb super_cache_scan do_shrink_slab" + KSWAPD
    inside = BEHIND_KSWAPD + "new_slab kmem_cache_alloc xfs_trans_add_item xfs_create xfs_vn_mknod vfs_create"
    first, _ = cycles(("kswapd0", waits), ("mkdir", inside))
    assert edges(first)[0] == ("kswapd0", "transaction", "mkdir", "probable")


LOOP_ON_FUSE = (
    "loop0",
    THROTTLED
    + "fuse_perform_write fuse_file_write_iter do_iter_write lo_write_bvec loop_process_work"
    + WORKER,
)
STORES = THROTTLED + "generic_perform_write ext4_buffered_write_iter vfs_write ksys_pwrite64"
TAKES = SLEEP + " fuse_dev_do_read fuse_dev_read vfs_read"


def test_loop_and_a_fuse_daemon_throttled_below() -> None:
    """The loop device's worker waits for FUSE's dirty pages, their daemon for those of the loop device."""
    daemon, worker = cycles(("bindfs", STORES), LOOP_ON_FUSE)
    assert {daemon.kind, worker.kind} == {Kind.THROTTLED_DAEMON}
    assert edges(daemon) == [("bindfs", "dirty", "bindfs", "probable")]
    assert edges(worker) == [
        ("loop0", "dirty", "bindfs", "probable"),
        ("bindfs", "dirty", "loop0", "probable"),
    ]


def test_a_daemon_without_a_telling_name_is_known_by_another_thread() -> None:
    """It takes FUSE's requests in one thread, so its throttled thread is a daemon's."""
    assert cycles(("mystore", STORES), LOOP_ON_FUSE) == []
    found = cycles(("mystore", STORES), ("mystore", TAKES), LOOP_ON_FUSE)
    assert [episode.daemon for episode in found if episode.daemon] == ["mystore"]


def test_a_loop_worker_throttled_alone_is_slow() -> None:
    """Nothing shows that what it waits for waits for it."""
    assert cycles(LOOP_ON_FUSE) == []


def test_an_nfs_server_throttled_behind_the_flusher_of_its_own_mount() -> None:
    """knfsd's write waits for fewer dirty pages, the flusher for knfsd."""
    server = (
        THROTTLED
        + "generic_perform_write ext4_file_write_iter vfs_write nfsd_vfs_write nfsd_write nfsd kthread"
    )
    flusher = (
        SLEEP + " rpc_wait_bit_killable nfs_commit_inode nfs_write_inode writeback_sb_inodes wb_writeback"
    )
    first, _ = cycles(("nfsd", server), ("kworker/u8:1", flusher + " wb_workfn" + WORKER))
    assert first.kind is Kind.THROTTLED_DAEMON
    assert ("kworker/u8:1", "answer", "nfsd", "probable") in edges(first)
    assert "the mount is of this machine itself" in (first.missing or "")


@pytest.mark.parametrize(
    ("comm", "cut"),
    [
        ("loop1", "mutex_lock dm_bufio_shrink_scan do_shrink_slab shrink_slab"),
        ("nbd-server", "io_schedule folio_wait_bit_common folio_wait_writeback shrink_folio_list"),
        ("md0_raid1", "io_schedule mempool_alloc bio_alloc_bioset swap_writepage pageout"),
        ("scsi_eh_1", "io_schedule mempool_alloc bio_alloc_bioset swap_writepage pageout"),
        ("dmcrypt_write/2", "io_schedule mempool_alloc bio_alloc_bioset swap_writepage pageout"),
        ("nfsiod", "rpc_wait_bit_killable nfs_wb_folio nfs_release_folio shrink_folio_list"),
    ],
)
def test_a_stack_whose_lower_frames_are_cut(comm: str, cut: str) -> None:
    """The name tells what the outer frames would have: whose allocation it is, and who needs the thread."""
    (episode,) = cycles((comm, SLEEP + cut))
    assert edges(episode)[0][0] == comm
    assert cycles(("make", SLEEP + cut)) == []


def test_two_guesses_are_no_cycle() -> None:
    """A page that may be another one and a device that may be another one show nothing together."""
    reader = (
        SLEEP
        + " io_schedule blk_mq_get_tag submit_bio swap_writepage pageout"
        + PAGES
        + " ext4_mpage_readpages read_pages page_cache_ra_unbounded filemap_read vfs_read"
    )
    worker = SLEEP + " io_schedule __lock_page filemap_read lo_read_simple loop_queue_work" + WORKER
    assert cycles(("cat", reader), ("loop0", worker)) == []


def test_an_inode_being_freed_by_a_reclaimer_that_waits_for_the_finders_transaction() -> None:
    """Who looks for the inode is inside a transaction; who frees it waits for that in reclaim."""
    finder = SLEEP + " __wait_on_freeing_inode find_inode_fast iget_locked ext4_iget ext4_orphan_get"
    finder += " __ext4_new_inode ext4_create vfs_create"
    frees = (
        SLEEP
        + " jbd2_log_wait_commit ext4_evict_inode evict dispose_list prune_icache_sb super_cache_scan"
        + " do_shrink_slab "
        + SLAB
        + FAULT
    )
    first, _ = cycles(("java", frees), ("touch", finder))
    assert first.confidence is Confidence.POSSIBLE
    assert {edge[1] for edge in edges(first)} == {"transaction", "inode"}


def test_a_flood_of_one_sort_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a component that is too large to be searched, each sort of tasks has its turn."""
    monkeypatch.setattr(waitgraph, "MAX_MEMBERS", 3)
    flood = [(f"{letter}touch", IN_THE_TRANSACTION[1]) for letter in "abcdef"]
    found = cycles(*flood, JOURNAL)
    assert [episode.tasks[0].comm for episode in found if episode.tasks[0].comm == "kswapd0"] == ["kswapd0"]
    assert len(found) == 3


def test_an_owner_without_a_stack_is_no_edge() -> None:
    """The kernel names who holds the lock, but the log does not show what that one waits for."""
    text = (
        "INFO: task nbd-server:7 blocked for more than 120 seconds.\n"
        "INFO: task nbd-server:7 is blocked on a mutex likely owned by task hog:9.\n"
        "Call Trace:\n schedule+0x1/0x2\n mutex_lock+0x1/0x2\n nbd_x+0x1/0x2\n do_syscall_64+0x1/0x2\n"
    )
    (episode,) = diagnose_log(text.encode()).episodes
    assert (episode.recursion, episode.edges, episode.needs) == (False, (), "hog (9), which holds the lock")


def test_a_queue_of_reclaimers_is_no_lock_of_whoever_allocates_there() -> None:
    """kswapd queues behind others that free XFS's inodes; a task inside XFS sleeps in reclaim meanwhile."""
    queue = SLEEP + " mutex_lock xfs_reclaim_inodes_ag xfs_reclaim_inodes_nr super_cache_scan do_shrink_slab"
    sleeps = SLEEP + " congestion_wait shrink_inactive_list shrink_node try_to_free_pages"
    allocates = sleeps + " __alloc_pages_slowpath kmalloc xfs_iext_insert xfs_iread_extents xfs_setattr_size"
    assert cycles(("kswapd0", queue + KSWAPD), ("truncate", allocates)) == []


def test_kswapd_behind_a_lock_of_a_driver_that_allocates() -> None:
    """The driver's own code sleeps in reclaim, with the lock in hand that its shrinker waits for."""
    waits = SLEEP + " mutex_lock msm_gem_shrinker_scan do_shrink_slab" + KSWAPD
    allocates = (
        SLEEP + " congestion_wait shrink_inactive_list shrink_node try_to_free_pages __alloc_pages_slowpath"
        " kmalloc msm_gem_new msm_ioctl_gem_new drm_ioctl vfs_ioctl"
    )
    first, _ = cycles(("kswapd0", waits), ("Xorg", allocates))
    assert sorted(edges(first)) == [
        ("Xorg", "reclaim", "kswapd0", "probable"),
        ("kswapd0", "held", "Xorg", "probable"),
    ]
    assert first.kind is Kind.SHRINKER_RECURSION
    assert first.missing == "whether Xorg (100) holds what is waited for"


def test_programs_that_write_write_different_files_unless_they_are_one() -> None:
    """A server's thread waits for a lock that another of its threads has, not for anybody's."""
    lock = SLEEP + " rwsem_down_write_slowpath down_write ext4_file_write_iter vfs_write"
    found = cycles(("nbd-server", STORES), ("nbd-server", lock), ("python", STORES))
    assert [episode.tasks[0].comm for episode in found] == ["nbd-server", "nbd-server"]
    assert ("nbd-server", "inode-lock", "nbd-server", "possible") in edges(found[1])


def test_a_client_outside_reclaim_keeps_nobodys_reclaim() -> None:
    """The daemon sleeps in reclaim; whoever waits for its answer without an allocation has nothing of it."""
    daemon = (
        SLEEP + " schedule_timeout reclaim_throttle" + PAGES + " kmalloc fuse_dev_do_write fuse_dev_write"
    )
    client = SLEEP + " request_wait_answer fuse_simple_request fuse_flush filp_close"
    (episode,) = cycles(("myfuse", daemon), ("app", client))
    assert episode.tasks[0].comm == "myfuse"
    assert [edge[2] for edge in edges(episode)] == ["myfuse"]


@pytest.mark.parametrize(
    ("waits", "known", "missing"),
    [
        ("down_read ext4_map_blocks", "probable", "for how long it waits for that lock"),
        ("ext4_wait_it", "probable", None),
    ],
)
def test_how_sure_it_is_that_kswapd_does_not_get_on(waits: str, known: str, missing: str | None) -> None:
    """A file system that waits for itself keeps it; a lock may be let go, and requests end by themselves."""
    kswapd = SLEEP + f" {waits} ext4_evict_inode evict super_cache_scan do_shrink_slab" + KSWAPD
    sleeps = SLEEP + " congestion_wait shrink_inactive_list shrink_node try_to_free_pages"
    inside = sleeps + " __alloc_pages_slowpath kmalloc ext4_ext_insert_extent ext4_map_blocks ext4_mkdir"
    first, _ = cycles(("kswapd0", kswapd), ("mkdir", inside))
    assert ("mkdir", "reclaim", "kswapd0", known) in edges(first)
    assert [edge.missing for edge in first.edges if edge.thing == "reclaim"] == [missing]


@pytest.mark.parametrize(("log_wait", "known"), [("gfs2_log_flush ", ["probable"]), ("", [])])
def test_io_that_a_log_waits_for_may_not_end_by_itself(log_wait: str, known: list[str]) -> None:
    """kswapd that waits for I/O gets on; where it is a journal's, who is inside a transaction keeps it."""
    io = f"{SLEEP} io_schedule __wait_on_bit out_of_line_wait_on_bit "
    kswapd = io + log_wait + "gfs2_evict_inode evict super_cache_scan do_shrink_slab" + KSWAPD
    sleeps = SLEEP + " congestion_wait shrink_inactive_list shrink_node try_to_free_pages"
    inside = sleeps + " __alloc_pages_slowpath kmalloc gfs2_trans_add_meta gfs2_mkdir"
    found = cycles(("kswapd0", kswapd), ("mkdir", inside))
    reclaim = [edge for episode in found[:1] for edge in edges(episode) if edge[1] == "reclaim"]
    assert [edge[3] for edge in reclaim] == known


def test_a_stack_without_a_name_is_no_daemons_where_no_such_file_system_is() -> None:
    """It may be the daemon of the FUSE file system that reclaim is in; there has to be one."""
    (episode,) = diagnose_log(log("", DEFINED["XFS_WRITE"] + FAULT)[40:]).episodes
    assert not any(text.startswith("answer") for text in episode.gives)


def test_who_prepares_pages_for_writing_waits_for_a_pages_lock_in_reclaim() -> None:
    """Before 4.8 one function waits for both bits of a page, so the lock may be writeback."""
    names = SLEEP + " __lock_page" + PAGES + " kmalloc ext4_writepages do_writepages ksys_sync"
    (episode,) = cycles(("sync", names))
    assert edges(episode) == [("sync", "writeback", "sync", "probable")]


def test_a_machine_without_memory_makes_a_daemon_sleep_too() -> None:
    """Below the min watermark a daemon that sleeps in reclaim shows a shortage, no circle."""
    zone = b"Node 0 Normal free:100kB min:2000kB low:2500kB high:3000kB active_anon:0kB\n"
    names = SLEEP + " schedule_timeout reclaim_throttle" + PAGES + SEND
    assert diagnose_log(log("nbd-server", names)).recursion
    assert not diagnose_log(zone + log("nbd-server", names)).recursion


@pytest.mark.parametrize(("version", "recursion"), [("4.12.9", True), ("4.13.0", False), ("6.1.0", False)])
def test_loops_worker_throttled_for_everybodys_pages(version: str, recursion: bool) -> None:
    """Before 4.13 it waited for the machine's dirty pages, those of its own device among them."""
    names = (
        STORES.replace("vfs_write ksys_pwrite64", "do_iter_write lo_write_bvec loop_process_work") + WORKER
    )
    assert diagnose_log(f"Linux version {version}\n".encode() + log("loop0", names)).recursion is recursion


def test_a_network_file_systems_code_waits_for_its_server_as_anybody() -> None:
    """Unless it sends or recovers, the answer does not need the thread."""
    waits = SLEEP + " rpc_wait_bit_killable nfs_wb_folio nfs_release_folio" + PAGES
    assert cycles(("ls", waits + " kmalloc nfs_readdir_xdr_to_array nfs_readdir iterate_dir")) == []


def test_the_words_name_who_waits_for_whom() -> None:
    """Both tasks by their names, and the one that the sentence began with as that."""
    first, _ = cycles(JOURNAL, IN_THE_TRANSACTION)
    assert first.why == (
        "it reclaims and waits for a journal's transaction, or room in its log (wait_transaction_locked()), "
        "which is up to touch (100): it is in ext4_add_entry() (ext4 makes a name inside a transaction); "
        "touch (100) waits for kswapd to make progress (throttle_direct_reclaim()), which is up to the "
        "first: it is kswapd0: the kernel's reclaim thread"
    )


def test_a_submitter_outside_reclaim_holds_nobodys_request() -> None:
    """Requests wait for a thread that allocates on its way down, not for one that the device holds up."""
    waits = SLEEP + " raid5_get_active_stripe raid5_make_request md_submit_bio submit_bio vfs_write"
    (episode,) = diagnose_log(log("dd", waits)).episodes
    assert not any(text.startswith("io") for text in episode.gives)


def test_what_a_task_gives_is_what_its_stack_shows() -> None:
    """A waiter keeps no driver's lock for being in its code, and pages are no shrinker's."""
    (lock,) = diagnose_log(
        log("dd", SLEEP + " mutex_lock md_handle_request md_submit_bio vfs_write")
    ).episodes
    assert lock.gives == ("oom-victim [probable]: it may be the one that the OOM killer chose",)
    (pages,) = diagnose_log(log("dd", SLEEP + " folio_wait_writeback" + PAGES + FAULT)).episodes
    assert not any(text.startswith("shrinkers") for text in pages.gives)
    (answer,) = diagnose_log(log("ls", SLEEP + " request_wait_answer fuse_readdir iterate_dir")).episodes
    assert answer.waits == ("answer of fuse [certain]: the answer of a file system's daemon",)


@pytest.mark.parametrize(("word", "recursion"), [("frobber", True), ("fro", True), ("get", False)])
def test_a_subsystem_without_rows_is_known_by_its_first_word(word: str, recursion: bool) -> None:
    """Not by a verb, or a word that the whole kernel uses (words.txt)."""
    names = f"{SLEEP} mutex_lock {word}_shrink_scan do_shrink_slab {SLAB} kmalloc {word}_alloc vfs_ioctl"
    assert bool(cycles(("x", names))) is recursion


BLOCKED = (
    "INFO: task nbd-server:7 blocked for more than 120 seconds.\n"
    "task:nbd-server state:D stack:0 pid:7 tgid:7 ppid:1 task_flags:0x400000 flags:0x0\n"
    "Call Trace:\n schedule+0x1/0x2\n {lock}+0x1/0x2\n xfs_x+0x1/0x2\n do_syscall_64+0x1/0x2\n"
    "INFO: task nbd-server:7 {blocked} task hog:9{mode}\n"
)
OWNER = "task:{name} state:D stack:0 pid:{tid} tgid:{tid} ppid:1 flags:0x0\n{frames}"
FAULTS = "".join(
    f" {name}+0x1/0x2\n" for name in (SLEEP + " __swap_writepage pageout" + PAGES + FAULT).split()
)


def owned(lock: str, blocked: str, mode: str, *owners: tuple[str, int]) -> list[Episode]:
    """A daemon that the kernel says is blocked behind hog (9), and tasks that swap out in a page fault."""
    tasks = "".join(OWNER.format(name=name, tid=tid, frames=FAULTS) for name, tid in owners)
    text = BLOCKED.format(lock=lock, blocked=blocked, mode=mode) + tasks
    return [episode for episode in diagnose_log(text.encode()).episodes if episode.recursion]


@pytest.mark.parametrize(
    ("lock", "blocked", "mode", "known", "waits", "missing"),
    [
        ("mutex_lock", "is blocked on a mutex likely owned by", ".", "certain", "a mutex", None),
        (
            *("down_read", "<reader> blocked on an rw-semaphore likely owned by", " <writer>"),
            *("certain", "an rw-semaphore, as a reader", None),
        ),
        (
            *("down_write", "<writer> blocked on an rw-semaphore likely owned by", " <reader>"),
            *("probable", "an rw-semaphore, as a writer"),
            "whether hog (9) still has the lock, or another reader",
        ),
        (
            *("down", "blocked on a semaphore likely last held by", ""),
            *("probable", "a semaphore"),
            "whether hog (9), which had the semaphore last, still has it",
        ),
    ],
)
def test_an_edge_to_an_owner_is_as_sure_as_the_kernel_is(
    lock: str, blocked: str, mode: str, known: str, waits: str, missing: str | None
) -> None:
    """A mutex and a writer have one owner; of readers, and of a semaphore, the kernel knows the last one."""
    first, _ = owned(lock, blocked, mode, ("hog", 9))
    edge = next(link for link in first.edges if link.thing == "owned-lock")
    assert (edge.waiter, edge.giver, edge.known.value) == ("nbd-server (7)", "hog (9)", known)
    assert (edge.waits, edge.gives) == (waits, "the kernel names it as the lock's owner")
    assert edge.missing == missing


def test_an_owner_among_tasks_that_are_alike_is_found() -> None:
    """Tasks with the same stack are one episode; the owner may be any of them."""
    found = owned("mutex_lock", "is blocked on a mutex likely owned by", ".", ("hog", 8), ("hog", 9))
    assert {link.thing for episode in found for link in episode.edges} == {"owned-lock", "io"}


def test_where_the_owner_is_named_nobody_else_is_guessed() -> None:
    """kswapd behind a driver's lock, and a task that allocates in that driver: the kernel says who has it."""
    waits = log("kswapd0", SLEEP + " mutex_lock msm_gem_shrinker_scan do_shrink_slab" + KSWAPD)
    allocates = SLEEP + " congestion_wait shrink_inactive_list shrink_node try_to_free_pages"
    allocates += " __alloc_pages_slowpath kmalloc msm_gem_new msm_ioctl_gem_new drm_ioctl vfs_ioctl"
    blocked = b"INFO: task kswapd0:100 is blocked on a mutex, but the owner is not found.\n"
    named = b"INFO: task kswapd0:100 is blocked on a mutex likely owned by task bash:5.\n"
    found = [diagnose_log(waits + line + log("Xorg", allocates)).recursion for line in (blocked, named)]
    assert found == [True, False]


def test_tasks_behind_different_owners_are_told_apart() -> None:
    """The same stack twice, behind two locks: only one of the owners waits for the daemon."""
    second = BLOCKED.replace("nbd-server", "nbd-other").replace(":7", ":6").replace("pid:7", "pid:6")
    words = {"lock": "mutex_lock", "blocked": "is blocked on a mutex likely owned by", "mode": "."}
    text = BLOCKED.format(**words) + OWNER.format(name="hog", tid=9, frames=FAULTS)
    text += second.format(**words).replace("hog:9", "bash:5")
    (waits,) = (e for e in diagnose_log(text.encode()).episodes if e.tasks[0].comm == "nbd-other")
    assert not any(link.thing == "owned-lock" for link in waits.edges)


def test_a_sleep_that_the_kernel_calls_io_is_io() -> None:
    """ "blocked in I/O wait" (Linux 6.18) says more than a function that no table has."""
    text = (
        "INFO: task cp:7 blocked{} for more than 120 seconds.\n"
        "task:cp state:D stack:0 pid:7 tgid:7 ppid:1 flags:0x0\n"
        "Call Trace:\n schedule+0x1/0x2\n some_driver_waits+0x1/0x2 [some]\n do_syscall_64+0x1/0x2\n"
    )
    kinds = [diagnose_log(text.format(io).encode()).episodes[0].kind for io in ("", " in I/O wait")]
    assert kinds == [Kind.OTHER, Kind.SLOW_STORAGE]


def ends(comm: str, names: str) -> tuple[str, ...]:
    """What a task holds or has to bring about, as --explain prints it, without the reasons."""
    (episode,) = diagnose_log(log(comm, names)).episodes
    return tuple(gift.partition(" [")[0] for gift in episode.gives)


def test_what_reclaim_does_inside_a_file_system_is_not_what_was_held_before() -> None:
    """A transaction that reclaim itself began is no end of an edge; the inode that it frees is one."""
    inside = SLEEP + " io_schedule __wait_on_buffer ext4_mark_inode_dirty ext4_evict_inode evict dispose_list"
    given = ends("kswapd0", inside + " prune_icache_sb super_cache_scan do_shrink_slab" + KSWAPD)
    assert "inode" in given
    assert "transaction" not in given


def test_who_waits_for_all_shrinkers_in_a_driver_may_hold_its_lock() -> None:
    """A shrinker that waits for that driver then waits for it."""
    waits = SLEEP + " rwsem_down_write_slowpath down_write register_shrinker dm_bufio_client_create"
    given = ends("lvm", waits + " dm_block_manager_create dm_table_add_target dm_ctl_ioctl vfs_ioctl")
    assert "held of dm" in given


def test_a_workers_words_name_what_it_works_for() -> None:
    """The subsystem whose requests it completes, not storage in general."""
    names = SLEEP + " wait_for_completion xfs_buf_iowait xfs_bwrite xfs_reclaim_inode super_cache_scan"
    names += " do_shrink_slab " + SLAB + " kmem_cache_alloc loop_queue_work" + " " + WORKER
    (episode,) = cycles(("kworker/u8:3", names))
    assert "the kernel's worker for loop" in episode.edges[0].gives


def test_a_lock_that_the_task_has_itself_stays_its_own() -> None:
    """The kernel names the waiter as the owner: it waits, below its own allocation, for what it holds."""
    names = SLEEP + " mutex_lock msm_gem_shrinker_scan do_shrink_slab " + SLAB
    text = log("Xorg", names + " kmalloc msm_gem_new msm_ioctl_gem_new drm_ioctl vfs_ioctl")
    line = b"INFO: task Xorg:100 is blocked on a mutex likely owned by task Xorg:100.\n"
    things = [diagnose_log(data).episodes[0].edges[0].thing for data in (text, text + line)]
    assert things == ["held", "held"]


def test_swap_over_a_network_file_system_is_called_swap() -> None:
    """Its own worker reclaims: one task that waits for its own answer is named after what reclaim did."""
    names = (
        SLEEP + " rpc_wait_bit_killable nfs_direct_wait nfs_file_direct_write nfs_swap_rw __swap_writepage"
    )
    names += (
        " pageout" + PAGES + " kmem_cache_alloc rpc_malloc call_allocate __rpc_execute rpc_async_schedule "
    )
    (episode,) = cycles(("kworker/u8:2", names + WORKER))
    assert ([edge.thing for edge in episode.edges], episode.kind) == (["answer"], Kind.SWAP_RECURSION)
