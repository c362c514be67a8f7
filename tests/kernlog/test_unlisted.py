"""What is reasoned where no table lists a subsystem, and where a log does not show a task."""

import pytest
from tests.kernlog.generality import families_of, hangs, without
from tests.kernlog.stacks import DEFINED, frames, log
from tests.kernlog.test_cycles import BEHIND_KSWAPD, KSWAPD, SLAB, SLEEP, WORKER, cycles, edges

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.reading.console import task_reports
from ioflusher.kernlog.stacks.subsystems import family

EVICT = DEFINED["EVICT"]
ISOLATED = (
    SLEEP + " io_schedule_timeout congestion_wait shrink_inactive_list shrink_node do_try_to_free_pages"
    " try_to_free_pages __alloc_pages_slowpath __alloc_pages "
)
# "a task that the log does not show", by its first word
NOT_SHOWN = "a"
CALL = " do_syscall_64 entry_SYSCALL_64_after_hwframe"


def told(stack: tuple[str, str]) -> tuple[str, ...]:
    """What a task has or has to bring about, in words."""
    (episode,) = diagnose_log(log(*stack)).episodes
    return episode.gives


def test_seven_of_ten_hangs_are_found_without_their_subsystems_rows() -> None:
    """A measure of generality: what nobody had listed is found all the same."""
    logs = [path.read_bytes() for path in hangs([])]
    found = []
    for data in logs:
        with without(set(families_of(data))):
            found.append(diagnose_log(data).recursion)
    assert sum(found) >= 0.7 * len(logs)


def test_a_wait_in_a_function_of_an_unlisted_subsystem_is_for_that_subsystem() -> None:
    """Whoever asked for memory in the middle of it waits for itself."""
    names = (
        f"{SLEEP} frob_wait_room frob_begin frob_evict_inode {EVICT} kmalloc frob_insert frob_mkdir vfs_mkdir"
    )
    (episode,) = cycles(("mkdir", names + CALL))
    assert edges(episode) == [("mkdir", "held", "mkdir", "probable")]
    assert "it waits there for frob to get on" in episode.sentence
    assert episode.why.startswith(
        "its allocation waits in reclaim for frob to get on, and frob asked for memory"
    )


def test_a_printed_module_names_a_subsystem_too() -> None:
    """Modules with one first word are parts of one subsystem, unless the word is a general one."""
    assert (family("frob_core"), family("frob"), family("net_frob")) == ("frob", "frob", "net_frob")
    names = (
        f"{SLEEP} mutex_lock mn_start[frob_dev] try_to_unmap {DEFINED['PAGES']} kmalloc it_polls[frob_chn]"
    )
    (episode,) = cycles(("app", names + CALL))
    assert edges(episode) == [("app", "held", "app", "probable")]


def test_a_lost_processor_long_before_the_sleep_is_left_over() -> None:
    """A stack whose frames all have a mark of doubt shows what was called before, too."""
    names = f"{SLEEP} __down down frob_lock _cond_resched frob_evict_inode evict super_cache_scan"
    (episode,) = diagnose_log(log("kswapd0", names + KSWAPD)).episodes
    assert episode.waits[0] == "held of frob [probable]: a lock of frob"


def test_who_waits_for_an_inode_in_the_middle_of_a_subsystem_may_have_its_lock() -> None:
    """kswapd frees the inode and waits for the lock; who waits for a lock itself has another one, if any."""
    kswapd = ("kswapd0", f"{SLEEP} mutex_lock frob_put_inode iput dispose_list prune_icache_sb" + KSWAPD)
    looks = f"{SLEEP} __wait_on_freeing_inode find_inode_fast iget_locked frob_inode_by_name frob_filldir"
    first, _ = cycles(kswapd, ("updatedb", looks + CALL))
    assert set(edges(first)) == {
        ("kswapd0", "held", "updatedb", "probable"),
        ("updatedb", "inode", "kswapd0", "possible"),
    }
    assert not cycles(kswapd, ("updatedb", f"{SLEEP} mutex_lock frob_iget frob_filldir {CALL}"))


def test_reclaim_has_the_locks_of_a_subsystem_that_it_goes_through() -> None:
    """The shrinker of one file system waits for a transaction of another."""
    asks = (
        "ost",
        f"{SLEEP} mutex_lock frob_cache_shrink {SLAB} kmalloc quux_add_entry quux_create vfs_create",
    )
    through = f"{SLEEP} quux_wait_commit quux_release frob_cache_shrink" + KSWAPD
    first, second = cycles(asks, ("kswapd0", through))
    assert set(edges(first)) == {
        ("ost", "held", "kswapd0", "probable"),
        ("kswapd0", "held", "ost", "probable"),
    }
    assert set(edges(second)) == set(edges(first))


def test_a_kernel_thread_that_does_nothing_else_reclaims_for_all() -> None:
    """A person left kswapd's own functions out."""
    (episode,) = diagnose_log(frames(f"{SLEEP} mutex_lock frob_shrink shrink_slab kthread")).episodes
    assert "in the kernel's own reclaim thread" in episode.sentence


@pytest.mark.parametrize(
    ("carries", "about"),
    [
        ("xfs_file_write_iter frob_store", "io of frob [probable]: it is needed to complete I/O"),
        ("sock_sendmsg frob_transmit", "io of frob [probable]: it is needed to complete I/O"),
        ("batadv_purge", None),
    ],
)
def test_a_kernel_thread_that_writes_to_a_file_or_sends_carries_others_requests(
    carries: str, about: str | None
) -> None:
    """A driver that no table lists; a network's own worker is none."""
    gives = told(("kworker/0:1", f"{ISOLATED} kmalloc {carries} {WORKER}"))
    assert (
        any(one.startswith(about) for one in gives) if about else not any(one[:3] == "io " for one in gives)
    )


@pytest.mark.parametrize("below", ["make_request generic_make_request submit_bio ", ""])
def test_a_reserve_that_is_asked_again_on_the_way_down(below: str) -> None:
    """A stacked driver clones a request from the reserve that the request above came from."""
    names = f"{SLEEP} io_schedule_timeout mempool_alloc bio_clone {below}swap_writepage pageout"
    found = cycles(("app", f"{names} {DEFINED['PAGES']} {DEFINED['FAULT']}"))
    assert [edge.missing for one in found for edge in one.edges] == (
        ["whether the requests that it hands down come from the same reserve"] if below else []
    )


@pytest.mark.parametrize("waits", ["frob_wait_open", "mutex_lock", "io_schedule"])
def test_swap_on_a_device_that_is_software(waits: str) -> None:
    """What it waits for of itself takes memory, and swapping makes memory; locks and disks are no such."""
    names = f"{SLEEP} {waits} frob_commit frob_request submit_bio __swap_writepage pageout {DEFINED['PAGES']}"
    found = cycles(("app", f"{names} {DEFINED['FAULT']}"))
    assert [edge.missing for one in found for edge in one.edges] == (
        ["the stacks of frob's own threads"] if waits == "frob_wait_open" else []
    )


THREAD_WAITS = ("frob_worker", f"{SLEEP} wait_for_completion kthread_create_on_node frob_grow[frob] {WORKER}")
EVICTS = ("app", f"{SLEEP} frob_wait_open[frob] frob_evict_inode[frob] {EVICT} {DEFINED['FAULT']}")


def test_who_waits_for_a_thread_waits_for_kthreadd_which_reclaims() -> None:
    """kthreadd does nothing else; where the log shows it, nothing is supposed of it."""
    (episode,) = cycles(THREAD_WAITS, EVICTS)
    assert edges(episode)[0] == ("frob_worker", "thread", "kthreadd,", "probable")
    assert (episode.confidence.value, episode.missing) == (
        "possible",
        "the stack of kthreadd",
    )
    assert not cycles(THREAD_WAITS, EVICTS, ("kthreadd", f"{SLEEP} kthreadd ret_from_fork"))


FILE_LOCK = (
    "rm",
    f"{SLEEP} __down down xfs_buf_lock xfs_read_agf xfs_free_extent xfs_remove vfs_unlink{CALL}",
)
ALLOCATES = ("exits", f"{ISOLATED} xfs_buf_allocate_memory xfs_free_extent xfs_inactive vfs_unlink{CALL}")


def test_isolated_pages_that_kswapd_may_have_in_hand_in_a_file_system() -> None:
    """The lock that others wait for may keep kswapd, too; not where the log shows kswapd."""
    (episode,) = cycles(FILE_LOCK, ALLOCATES)
    assert episode.tasks[0].comm == "exits"
    assert "the stack of kswapd" in str(episode.missing)
    assert not cycles(FILE_LOCK, ALLOCATES, ("kswapd0", f"{SLEEP} kswapd_try_to_sleep kswapd kthread"))
    assert not cycles(("c", f"{SLEEP} mutex_lock vmw_pan{WORKER}"), ("d", f"{ISOLATED} vmw_flush{WORKER}"))


def test_who_holds_the_lock_that_the_oom_killers_choice_waits_for() -> None:
    """While others reclaim it may be one of them."""
    kill = b"Killed process 100 (a.out) total-vm:2166864kB, anon-rss:1727976kB, file-rss:0kB\n"
    waits = log("a.out", f"{SLEEP} mutex_lock xfs_file_write_iter vfs_write{CALL}")
    reclaims = log("b", f"_cond_resched {SLAB} handle_mm_fault").replace(b"   100 ", b"   200 ")
    episode = diagnose_log(kill + waits + reclaims).episodes[0]
    assert episode.recursion
    assert episode.missing == (
        "whether a task that the log does not show holds what is waited for; the stack of who holds the lock"
    )
    for other in (waits + reclaims, kill + waits):
        assert not diagnose_log(other).recursion


@pytest.mark.parametrize(
    "cut", ["xfs_reclaim_inode xfs_reclaim_inodes_ag", "xfs_fs_free_cached_objects", "frob_shrink_scan"]
)
def test_a_cut_stack_in_what_only_reclaim_calls(cut: str) -> None:
    """loop0's own stack ends where objects are freed: it has gone there through reclaim."""
    (episode,) = cycles(("loop0", f"{SLEEP} wait_for_completion xfs_buf_iowait xfs_bwrite {cut}"))
    assert edges(episode)[0][1] == "io"


def test_what_a_person_left_out_of_a_stack_does_not_end_it() -> None:
    """Names alone, with dots between them and remarks behind arrows; an empty line ends them."""
    text = (
        b"Thread 1:\nmutex_lock -->waits\n lu_cache_shrink\n shrink_slab\n ...\n kmalloc\n ext4_create\n"
        b" vfs_create\n\nThread 2:\nstart_this_handle-->waits\n lu_cache_shrink\n shrink_slab\n kthread\n"
    )
    assert [len(report.frames) for report in task_reports(text)] == [6, 4]


def test_an_unwinder_that_got_stuck_goes_on() -> None:
    """Linux 2.6.18 prints the rest of the stack behind two lines of its own."""
    text = (
        b"kswapd0       D ffff810005dea304     0   163      7           164   162 (L-TLB)\nCall Trace:\n"
        b" [<ffffffff8025e4cf>] __mutex_lock_slowpath+0x5d/0x98\n"
        b"DWARF2 unwinder stuck at .text.lock.mutex+0x5/0x14\nLeftover inexact backtrace:\n"
        b" [<ffffffff80229987>] iput+0x3b/0x84\n [<ffffffff802545e8>] kswapd+0x320/0x424\n"
    )
    (report,) = task_reports(text)
    assert [frame.name for frame in report.frames] == ["__mutex_lock_slowpath", "iput", "kswapd"]


def test_a_kswapd_that_is_behind_gives_back_nothing() -> None:
    """The wait for kswapd itself is none for isolated pages: nothing is supposed of a way through XFS."""
    kswapd = ("kswapd0", f"{SLEEP} down_read xfs_ilock xfs_evict evict super_cache_scan" + KSWAPD)
    fault = "filemap_fault xfs_filemap_fault handle_mm_fault"
    writeout = ISOLATED.replace("congestion_wait", "congestion_wait throttle_vm_writeout")
    without_a_sleep = ISOLATED.replace(" io_schedule_timeout congestion_wait", "")

    def holders(waits: str) -> set[str]:
        found = cycles(kswapd, ("app", f"{waits} {fault}"))
        return {giver for one in found for _, thing, giver, _ in edges(one) if thing == "held"}

    assert holders(ISOLATED) == holders(without_a_sleep) == {"app"}
    assert holders(BEHIND_KSWAPD) == holders(writeout) == {NOT_SHOWN}


NOTIFIES = f"{SLEEP} mutex_lock frob_invalidate try_to_unmap {DEFINED['PAGES']}"


def test_a_process_whose_mmap_lock_and_subsystem_wait_for_one_another() -> None:
    """One thread faults, reclaims and waits for frob; another, in frob, waits for the process's memory."""
    faults = ("app", f"{NOTIFIES} {DEFINED['FAULT']} {CALL}")
    first, second = cycles(
        faults, ("app", f"{SLEEP} down_read do_user_addr_fault exc_page_fault frob_ioctl {CALL}")
    )
    assert set(edges(first)) == set(edges(second))
    assert {(thing, known) for _, thing, _, known in edges(first)} == {
        ("held", "probable"),
        ("mmap-lock", "possible"),
    }
    other = f"{SLEEP} down_read do_user_addr_fault exc_page_fault frob_ioctl {CALL}"
    assert not cycles(faults, ("another", other))


def test_reclaim_has_the_page_locked_that_it_takes_out_of_page_tables() -> None:
    """A driver pins that page with its lock in hand, for which reclaim waits."""
    kswapd = ("kswapd0", f"{SLEEP} mutex_lock frob_invalidate try_to_unmap shrink_page_list" + KSWAPD)
    first, second = cycles(kswapd, ("app", f"{SLEEP} __lock_page get_user_pages frob_pin frob_ioctl {CALL}"))
    for episode in (first, second):
        assert set(edges(episode)) == {
            ("kswapd0", "held", "app", "probable"),
            ("app", "page", "kswapd0", "possible"),
        }


def test_who_sleeps_below_the_oom_killer_waits_for_its_choice() -> None:
    """The choice waits for a lock that this one, or who waits for it, has."""
    kill = b"Killed process 100 (a.out) total-vm:2166864kB, anon-rss:1727976kB, file-rss:0kB\n"
    exits = log("a.out", f"{SLEEP} down_read acct_collect do_exit do_group_exit")
    asks = log("echo", f"{SLEEP} schedule_timeout out_of_memory __alloc_pages new_page frob_migrate{CALL}")
    for text in (kill + exits + asks, kill + asks + exits):
        first, second = diagnose_log(text.replace(b"echo            D    0   100", b"echo  D 0 200")).episodes
        assert (first.recursion, second.recursion) == (True, True)
        assert {edge[:3] for edge in edges(first)} == {
            ("a.out", "held", "echo"),
            ("echo", "oom-victim", "a.out"),
        }
    (alone,) = diagnose_log(asks).episodes
    assert "a process that was killed" in alone.why


def test_a_subsystem_that_has_inodes_freed_by_its_own_decision() -> None:
    """In the middle of its work it waits for its own lock there."""
    names = f"{SLEEP} mutex_lock frob_inactive evict dispose_list prune_icache_sb prune_super frob_adapt"
    (episode,) = cycles(("frob_adapt", f"{names} kthread ret_from_fork"))
    assert edges(episode) == [("frob_adapt", "held", "frob_adapt", "probable")]


def test_a_controller_that_is_reset_waits_for_its_own_requests() -> None:
    """Nothing ends on it before the reset does, which asks for memory."""
    gives = told(("kworker/0:1", f"{DEFINED['SWAP']} kmalloc frob_alloc frob_reset_work {WORKER}"))
    assert any(one.startswith("io of frob [probable]: it is needed to complete I/O") for one in gives)


def test_who_reclaims_alone_while_kswapd_waits_for_its_lock_gets_nowhere() -> None:
    """It runs, in the middle of what kswapd waits for; where kswapd waits for a disk it may get on."""
    runs = log("app", f"_cond_resched {SLAB} kmalloc frob_insert frob_mkdir {CALL}").replace(b" D ", b" R ")
    locked = log("kswapd0", f"{SLEEP} mutex_lock frob_evict_inode evict super_cache_scan" + KSWAPD)
    first, second = diagnose_log(runs + locked).episodes
    assert {edge[:3] for edge in edges(first)} == {("app", "reclaim", "kswapd0"), ("kswapd0", "held", "app")}
    assert (second.recursion, second.missing) == (first.recursion, first.missing)
    assert "whether it gets memory without kswapd" in str(first.missing)
    disk = log(
        "kswapd0", f"{SLEEP} io_schedule submit_bio_wait frob_evict_inode evict super_cache_scan" + KSWAPD
    )
    assert not diagnose_log(runs + disk).recursion


@pytest.mark.parametrize("reads", ["frob_iget", "z_frob_readahead", "frob_file_write_iter"])
def test_a_plain_path_of_an_unlisted_file_system_has_nothing_that_its_reclaim_needs(reads: str) -> None:
    """The end of the name says so, whatever the subsystem; a general word names none."""
    names = f"{SLEEP} mutex_lock frob_evict_inode {EVICT} kmalloc {{}} vfs_read{CALL}"
    inside = ("frob_insert", "shmem_alloc_inode frob_insert")
    givers = {name: edges(cycles(("cat", names.format(name)))[0])[0][2] for name in (reads, *inside)}
    assert givers == {reads: NOT_SHOWN, **dict.fromkeys(inside, "cat")}


@pytest.mark.parametrize(
    ("job", "known"), [("frob_thread", True), ("xen_thread", False), ("khugepaged", False)]
)
def test_a_kernel_thread_whose_own_job_no_table_lists(job: str, known: bool) -> None:
    """The device whose I/O it waits for may need it; not where it works for another one, or for memory."""
    names = (
        f"{SLEEP} io_schedule submit_bio __swap_writepage pageout {DEFINED['PAGES']} kmalloc frob_take {job}"
    )
    found = cycles(("frobd", f"{names} kthread ret_from_fork"))
    assert [one.missing for one in found] == (["whether the device needs frob"] if known else [])


def test_who_waits_in_reclaim_for_a_task_of_a_file_system_that_nothing_shows() -> None:
    """It may ask for memory, too; not where the log shows a task, a fault of the device, or a part alone."""
    names = f"{SLEEP} mutex_lock frob_evict_inode {EVICT} {DEFINED['FAULT']}{CALL}"
    (episode,) = cycles(("app", names))
    assert edges(episode) == [
        ("app", "held", NOT_SHOWN, "probable"),
        (NOT_SHOWN, "reclaim", "app", "possible"),
    ]
    assert episode.confidence.value == "possible"
    assert "the stack of who holds what is waited for" in str(episode.missing)
    assert not cycles(("app", f"{SLEEP} mutex_lock frob_evict_inode {EVICT}"))
    assert not cycles(
        ("app", names), ("rm", f"{SLEEP} io_schedule submit_bio_wait frob_commit vfs_unlink{CALL}")
    )
    assert not cycles(("app", names.replace("mutex_lock", "io_schedule")))
    # objects of something that is no file system
    assert not cycles(("app", f"{SLEEP} mutex_lock frob_shrink_scan {SLAB} {DEFINED['FAULT']}{CALL}"))
    fault = b"Buffer I/O error on device sda1, logical block 0\n"
    assert diagnose_log(b"hello\n" + log("app", names)).recursion
    assert not diagnose_log(fault + log("app", names)).recursion


def test_who_waits_for_a_thread_in_the_middle_of_a_subsystem_may_have_its_lock() -> None:
    """kthreadd, which the log shows, reclaims and waits for that lock."""
    makes = ("kthreadd", f"{SLEEP} mutex_lock frob_evict_inode {EVICT} copy_process kernel_thread kthreadd")
    starts = f"{SLEEP} wait_for_completion kthread_create_on_node frob_start frob_ioctl{CALL}"
    first, second = cycles(makes, ("app", starts))
    for episode in (first, second):
        assert {edge[:3] for edge in edges(episode)} == {
            ("app", "thread", "kthreadd"),
            ("kthreadd", "held", "app"),
        }


LOCKED_PAGE = f"{SLEEP} down_read frob_ilock frob_map_blocks frob_writepage pageout"
BEHIND_A_LOCK = log("kswapd0", LOCKED_PAGE + KSWAPD)
NO_MEMORY = {
    "who sleeps until others have freed memory": log("a", f"{ISOLATED} {DEFINED['FAULT']}{CALL}"),
    "XFS, without a name": b"XFS: possible memory allocation deadlock in kmem_alloc (mode:0x250)\n",
    "the tester's count": b"[   89.960570] MemAlloc-Info: stalling=466 dying=1 exiting=0, victim=0\n",
    "a kill that did not help": b"Killed process 300 (c.out) total-vm:4168kB, anon-rss:88kB, file-rss:4kB\n",
    "the kernel's own warning": b"[  889.1] a.out: shrink_inactive_list() stalls for 10032ms, mode:0x2420\n",
}


@pytest.mark.parametrize("says", NO_MEMORY)
def test_kswapd_behind_a_lock_while_others_get_no_memory(says: str) -> None:
    """Who holds the lock may be one of those, where nobody is shown who waits for anything else there."""
    found = [
        episode for episode in diagnose_log(NO_MEMORY[says] + BEHIND_A_LOCK).episodes if episode.recursion
    ]
    assert [edges(episode) for episode in found] == [
        [("kswapd0", "held", NOT_SHOWN, "probable"), (NOT_SHOWN, "reclaim", "kswapd0", "possible")]
    ]
    assert str(found[0].missing).startswith("the stack of who holds what is waited for; ")


@pytest.mark.parametrize(
    ("besides", "recursion"),
    [
        (NO_MEMORY["the tester's count"].replace(b"466", b"0"), False),
        (NO_MEMORY["the tester's count"] + b"Buffer I/O error on device sda1, logical block 0\n", False),
        (
            NO_MEMORY["the tester's count"] + log("c", f"{SLEEP} io_schedule frob_commit vfs_unlink{CALL}"),
            False,
        ),
        (
            NO_MEMORY["the tester's count"] + log("c", f"{SLEEP} down frob_ilock frob_sync vfs_unlink{CALL}"),
            True,
        ),
        # the memory cgroup of that task is full, not the machine
        (log("a", ISOLATED.replace("try_to_free_pages", "try_to_free_mem_cgroup_pages")), False),
    ],
)
def test_what_tells_against_a_holder_that_asks_for_memory(besides: bytes, recursion: bool) -> None:
    """A faulty disk; a task that waits for it in that file system, not one that waits for the lock, too."""
    assert diagnose_log(besides + BEHIND_A_LOCK).recursion is recursion


def test_a_log_that_kswapd_waits_for_is_written_by_itself() -> None:
    """It is no lock that a task has in hand."""
    waits = log("kswapd0", f"{SLEEP} xlog_wait xfs_log_force_lsn xfs_fs_evict_inode evict" + KSWAPD)
    assert not diagnose_log(NO_MEMORY["the tester's count"] + waits).recursion


CANDIDATE = b"Out of memory: Kill process 200 (b) score 929 or sacrifice child\n"
KILLED = b"Killed process 100 (a) total-vm:5248kB, anon-rss:88kB, file-rss:0kB, shmem-rss:0kB\n"
UNREAPED = b"oom_reaper: unable to reap pid:100 (a)\n"
VICTIM = log("a", f"{SLEEP} down_write frob_link mmap_region vm_mmap_pgoff{CALL}")


@pytest.mark.parametrize("state", [b" D ", b" R "])
def test_a_killed_task_whose_memory_cannot_be_taken_while_it_waits_for_a_lock(state: bytes) -> None:
    """The kernel itself says that others wait; a task that was killed is woken, and sleeps on."""
    stack = VICTIM.replace(b" D ", state)
    (episode,) = (one for one in diagnose_log(KILLED + UNREAPED + stack).episodes if one.recursion)
    assert [edge[:3] for edge in edges(episode)] == [("a", "held", NOT_SHOWN), (NOT_SHOWN, "oom-victim", "a")]
    assert str(episode.missing).endswith("the stack of who holds the lock")
    assert not diagnose_log(KILLED + stack).recursion


def test_who_sleeps_with_the_oom_killers_lock() -> None:
    """It waits for its child, which was killed in its place and waits for that lock."""
    kills = log("b", f"{SLEEP} schedule_timeout out_of_memory __alloc_pages_nodemask {DEFINED['FAULT']}")
    kills = kills.replace(b" D ", b" R ").replace(b"   100 ", b"   200 ")
    dies = log("a", f"{SLEEP} __mutex_lock exit_mmap mmput do_exit do_group_exit{CALL}")
    found = [one for one in diagnose_log(CANDIDATE + KILLED + dies + kills).episodes if one.recursion]
    assert [edges(one) for one in found] == [
        [("a", "held", "b", "possible"), ("b", "oom-victim", "a", "certain")],
        [("b", "oom-victim", "a", "certain"), ("a", "held", "b", "possible")],
    ]
    # a killed task is given memory of the reserve, so it does not wait for itself
    assert not diagnose_log(CANDIDATE + kills).recursion


FROZEN = f"{SLEEP} percpu_rwsem_wait __percpu_down_read frob_trans_alloc frob_evict_inode evict dispose_list"


def test_a_file_system_that_reclaim_keeps_from_being_thawed() -> None:
    """Whoever thaws it takes s_umount; a lock of the same kind that is no file system's is none."""
    (episode,) = cycles(("kswapd0", f"{FROZEN} super_cache_scan" + KSWAPD))
    assert edges(episode) == [
        ("kswapd0", "thaw", NOT_SHOWN, "certain"),
        (NOT_SHOWN, "s_umount", "kswapd0", "probable"),
    ]
    assert (episode.kind.value, episode.missing) == (
        "shrinker-lock-inversion",
        "the stack of who is to thaw it",
    )
    assert not cycles(("kswapd0", FROZEN + KSWAPD))
    assert not cycles(
        ("kswapd0", f"{FROZEN} super_cache_scan{KSWAPD}".replace("frob_trans_alloc", "cpus_read_lock"))
    )
    thaws = ("umount", f"{SLEEP} io_schedule submit_bio_wait frob_sync thaw_super{CALL}")
    assert not cycles(("kswapd0", f"{FROZEN} super_cache_scan" + KSWAPD), thaws)


STAMPED = (
    "[  505.0000] z_wr_iss/0      D ffff8803fedf1790     0   677      2 0x0\n[  505.0001] Call Trace:\n"
    "[  505.0010]  frob_wait+0x1/0x2\n[  505.0011]  frob_putpage+0x1/0x2\n[  505.0012]  frob_write+0x1/0x2\n"
    "{mark}\n[  505.{then}]  sync_thread+0x1/0x2\n[  505.9001]  kthread+0x1/0x2\n"
)


@pytest.mark.parametrize(
    ("mark", "then", "stacks"),
    [("...", "1001", 2), ("(...snipped...)", "1001", 2), ("...", "0030", 1), ("# a remark", "1001", 1)],
)
def test_what_was_left_out_of_a_stamped_log_for_long_hides_other_stacks(
    mark: str, then: str, stacks: int
) -> None:
    """Behind it the stack of another task goes on, if more lines went by than a stack has."""
    text = STAMPED.format(mark=mark, then=then).encode()
    assert [report.comm for report in task_reports(text)] == ["z_wr_iss/0", None][:stacks]


def test_the_end_of_a_quotation_ends_a_stack() -> None:
    """As web pages write it; not before the first frame."""
    text = (
        b"task frobd:7 blocked for more than 120 seconds.\n```\n frob_wait+0x1/0x2\n```\nand\n"
        b"```\n vfs_read+0x1/0x2\n"
    )
    assert [len(report.frames) for report in task_reports(text)] == [1, 1]


@pytest.mark.parametrize(
    ("comm", "cut", "recursion"),
    [
        ("z_wr_iss/3", "dmu_tx_assign zfs_inactive zpl_clear_inode", True),
        ("z_wr_iss/3", "dmu_tx_assign zfs_putpage", True),
        ("loop0", "submit_bio_wait frob_evict_inode", True),
        # it may give up inodes of its own accord, or goes on to where that is decided
        ("z_iput", "dmu_tx_assign zfs_inactive zpl_clear_inode", False),
        ("rm", "dmu_tx_assign zfs_inactive zpl_clear_inode", False),
        ("z_wr_iss/3", "dmu_tx_assign zfs_inactive zpl_clear_inode zfs_rm_worker", False),
    ],
)
def test_a_thread_that_ios_need_frees_inodes_and_single_pages_in_reclaim_alone(
    comm: str, cut: str, recursion: bool
) -> None:
    """Its stack is cut there: which allocation it was is missing."""
    found = cycles((comm, f"{SLEEP} io_schedule cv_wait_common txg_wait_open {cut}"))
    assert len(found) == recursion
    for one in found:
        assert [edge[:3] for edge in edges(one)] == [(comm, "io", comm)]
        assert any(" [probable]" in waits and "cut" not in waits for waits in one.waits)
        assert one.confidence.value == "probable"
        assert not any("[certain]" in waits for waits in one.waits)


def test_an_allocation_frees_inodes_through_reclaim_alone() -> None:
    """A person left reclaim's functions out."""
    names = f"{SLEEP} frob_wait_open frob_evict_inode evict vmalloc frob_grow vfs_mkdir{CALL}"
    (episode,) = cycles(("mkdir", names))
    assert edges(episode) == [("mkdir", "held", "mkdir", "probable")]
    assert episode.missing == "the part of the stack in which reclaim would stand"
    assert not cycles(("rm", names.replace("vmalloc", "iput")))


@pytest.mark.parametrize("allocator", ["spl_kmem_alloc", "kmem_zone_alloc"])
def test_whose_allocator_it_is_asked_for_the_memory(allocator: str) -> None:
    """The rest of the stack is cut."""
    reclaim = f"{SLAB} __get_free_pages {allocator}"
    waits = {"spl_kmem_alloc": "txg_wait_open zfs_inactive", "kmem_zone_alloc": "down xfs_buf_lock"}[
        allocator
    ]
    (episode,) = cycles(("app", f"{SLEEP} {waits} evict super_cache_scan {reclaim}"))
    assert [edge[:3] for edge in edges(episode)] == [("app", "held", "app")]
    others = ("app", f"{SLEEP} {waits} evict super_cache_scan {reclaim.replace(allocator, 'kmalloc')}")
    assert ("app", "held", "app") not in [edge[:3] for edge in all_edges(others)]


def test_kswapd_is_in_reclaim_whatever_its_stack_has_lost() -> None:
    """Its own functions and reclaim's are cut."""
    (episode,) = diagnose_log(log("kswapd0", f"{SLEEP} mutex_lock frob_commit")).episodes
    assert episode.sentence == "it waits for a lock of frob, in the kernel's own reclaim thread"
    assert "reclaim [probable]: it reclaims, and waits itself" in episode.gives


ASKS_AGAIN = f"{SLEEP} schedule_timeout __alloc_pages_nodemask frob_buffer_get frob_iflush"


def test_who_sleeps_for_memory_in_the_middle_of_reclaim() -> None:
    """It may take all that is left, and that is not enough; below the OOM killer's drop_slab, too."""
    frees = f"{ASKS_AGAIN} frob_evict_inode evict super_cache_scan"
    for way in (SLAB, "shrink_slab drop_slab_node drop_slab out_of_memory __alloc_pages_nodemask"):
        (episode,) = cycles(("app", f"{frees} {way} {DEFINED['FAULT']}"))
        assert edges(episode) == [("app", "reclaim", "app", "possible")]
        assert episode.missing == "whether others free memory"
    assert "direct reclaim made it sleep in __alloc_pages_nodemask()" in episode.sentence
    # asked for by somebody, and nothing to free for an allocation of its own
    assert not cycles(("sh", f"{frees} shrink_slab drop_slab_node drop_slab vfs_write{CALL}"))


def test_a_frame_in_doubt_that_spins_is_left_over() -> None:
    """Whoever goes to sleep takes a spin lock on the way."""
    text = log("app", "_raw_spin_lock_irqsave cv_wait_common txg_wait_open zfs_putpage vfs_write")
    (episode,) = diagnose_log(text.replace(b"\n ", b"\n ? ")).episodes
    assert episode.sentence.startswith("it waits for zfs to get on")
    (episode,) = diagnose_log(text).episodes
    assert episode.sentence == "it runs"


# a full memory cgroup's reclaim waits for pages that are being written
CHARGED = (
    f"{SLEEP} io_schedule folio_wait_bit_common folio_wait_writeback shrink_folio_list shrink_lruvec"
    " shrink_node do_try_to_free_pages try_to_free_mem_cgroup_pages try_charge_memcg charge_memcg"
    " __mem_cgroup_charge "
)


@pytest.mark.parametrize(
    ("asks", "thing"),
    [("ext4_mark_inode_dirty ext4_create", "transaction"), ("ntfs3_insert ntfs3_mkdir", "held")],
)
def test_the_flusher_may_need_what_an_allocation_has_while_it_waits_for_pages_to_be_written(
    asks: str, thing: str
) -> None:
    """Nothing else writes them; not where the log shows who does, or a fault of the device."""
    stack = ("app", f"{CHARGED}{asks} vfs_create{CALL}")
    (episode,) = cycles(stack)
    assert [edge[:3] for edge in edges(episode)] == [("app", "writeback", "the"), ("the", thing, "app")]
    assert "the stack of the flusher" in str(episode.missing)
    flusher = f"{SLEEP} io_schedule blk_mq_get_tag frob_writepages writeback_sb_inodes wb_workfn"
    assert not cycles(stack, ("kworker/u8:1", flusher + WORKER))
    assert not diagnose_log(b"Buffer I/O error on device sda1, logical block 0\n" + log(*stack)).recursion
    assert not cycles(("app", f"{CHARGED}{DEFINED['FAULT']}{CALL}"))


def test_a_throttled_writer_that_writes_back_itself() -> None:
    """Before Linux 2.6.37 it did, with its own inode's lock in hand."""
    inside = "iput sync_sb_inodes writeback_inodes balance_dirty_pages"
    writes = f"{SLEEP} __down frob_put_inode {inside} generic_file_aio_write_nolock frob_file_write vfs_write"
    (episode,) = cycles(("cp", writes))
    assert edges(episode) == [("cp", "inode-lock", "cp", "possible")]
    assert episode.missing == "whether it is the same inode"
    assert episode.remedies[-1].startswith("from Linux 2.6.37 on")
    for other in (writes.replace("__down ", ""), writes.replace(" balance_dirty_pages", "")):
        assert not cycles(("cp", other))


CUT_RECLAIM = "zfs_zinactive zfs_inactive zpl_evict_inode evict prune_icache_sb super_cache_scan shrink_slab"
LOOKS_UP = "dmu_zfetch dbuf_read dnode_hold zfs_zget zfs_lookup zpl_lookup lookup_real"


def test_a_reclaimer_whose_asker_is_cut_and_a_task_of_that_file_system_which_waits_for_a_lock() -> None:
    """The file system may have asked; /proc leaves a lock's own functions out, so that is a guess, too."""
    asks = log("rsync", CUT_RECLAIM)
    found = [one for one in diagnose_log(log("find", LOOKS_UP) + asks).episodes if one.recursion]
    assert [edges(one)[0] for one in found] == [
        ("find", "held", "rsync", "possible"),
        ("rsync", "held", "find", "probable"),
    ]
    assert str(found[0].missing).startswith(
        "the part of its stack that shows who asked for memory; whether find"
    )
    # alone, in another file system, for I/O, and where the stack shows that a page fault asked
    assert not diagnose_log(asks).recursion
    for other in ("xfs_iread xfs_lookup", f"io_schedule {LOOKS_UP}"):
        assert not diagnose_log(log("find", other) + asks).recursion
    whole = log("rsync", f"{CUT_RECLAIM} {SLAB.replace('shrink_slab', '')} {DEFINED['FAULT']}{CALL}")
    assert not diagnose_log(log("find", LOOKS_UP) + whole).recursion


def test_kswapd_may_wait_for_what_a_stalled_allocation_has_while_it_has_pages_isolated() -> None:
    """The kernel says that allocations do not end; kswapd is not shown, else it would tell itself."""
    stalls = NO_MEMORY["the tester's count"]
    flushes = (
        f"{ISOLATED} kmalloc xfs_map_blocks xfs_vm_writepages do_writepages wb_writeback wb_workfn{WORKER}"
    )
    found = [one for one in diagnose_log(stalls + log("flusher", flushes)).episodes if one.recursion]
    assert [edges(one)[0] for one in found] == [("flusher", "reclaim", "kswapd,", "probable")]
    assert {edge[:3] for edge in edges(found[0])[1:]} == {("kswapd,", "held", "flusher")}
    assert str(found[0].missing).startswith("the stack of kswapd")
    kswapd = log("kswapd0", f"{SLEEP} kswapd_try_to_sleep kswapd kthread")
    fault = log("app", f"{ISOLATED} {DEFINED['FAULT']}{CALL}")
    for other in (log("flusher", flushes), stalls + kswapd + log("flusher", flushes), stalls + fault):
        assert not diagnose_log(other).recursion


def test_a_part_of_a_stack_that_begins_in_the_middle_of_reclaim() -> None:
    """What it waits for is cut: kswapd, which reclaims as it does, waits for the file system that asked."""
    kswapd = log(
        "kswapd0", f"{SLEEP} mutex_lock zfs_zinactive zpl_evict_inode evict super_cache_scan" + KSWAPD
    )
    part = b"...\n\n" + frames(f"{SLAB} __get_free_pages __vmalloc_area_node")
    asks = b" ? kv_alloc.clone.9+0x3d/0x41 [spl]\n"
    kernel, cut = (one for one in diagnose_log(kswapd + part + asks).episodes if one.recursion)
    assert [edge[1] for edge in edges(kernel)] == ["held", "reclaim"]
    assert edges(cut)[0][1::2] == ("reclaim", "possible")
    assert str(cut.missing).startswith("the inner part of its stack")
    # where nothing tells who asked, where kswapd waits for nobody, and where it is a whole stack
    assert not diagnose_log(kswapd + part).recursion
    assert not diagnose_log(part + asks).recursion
    head = b"app             D  0   200      1 0x00000000\nCall Trace:\n"
    assert not diagnose_log(kswapd + head + part[5:] + asks).recursion


def test_a_thread_that_gives_up_inodes_of_its_own_accord_is_in_no_reclaim() -> None:
    """Nobody's I/O needs it."""
    (episode,) = diagnose_log(log("z_iput", f"{SLEEP} txg_wait_open zfs_inactive zpl_clear_inode")).episodes
    assert episode.sentence.endswith("outside memory reclaim")


def test_a_process_in_whose_place_a_child_was_killed_is_nobodys_choice() -> None:
    """It waits for a lock, and nobody waits for its memory."""
    waits = log("b", f"{SLEEP} down_write frob_link mmap_region{CALL}").replace(b"   100 ", b"   200 ")
    assert diagnose_log(CANDIDATE + UNREAPED.replace(b"100", b"200") + waits).recursion
    assert not diagnose_log(CANDIDATE + KILLED + UNREAPED + waits).recursion


POPULATES = f"{SLEEP} wait_current_trans btrfs_evict_inode {EVICT} pcpu_populate_chunk pcpu_alloc"
SNAPSHOT = f"{SLEEP} mutex_lock pcpu_alloc percpu_counter_init create_pending_snapshot btrfs_ioctl"


def test_a_lock_that_two_tasks_take_in_the_same_function() -> None:
    """One waits for it there, the other has gone on from there and asks for memory."""
    tasks = (("runc", f"{POPULATES} veth_newlink {CALL}"), ("btrfs", SNAPSHOT + CALL))
    (first, second) = cycles(*tasks)
    assert set(edges(first)) == {
        ("runc", "transaction", "btrfs", "probable"),
        ("btrfs", "held", "runc", "probable"),
    }
    assert "the lock that pcpu_alloc() takes" in first.why + second.why
    elsewhere = ("runc", f"{POPULATES.replace('pcpu_alloc', 'quux')} veth_newlink {CALL}")
    assert ("btrfs", "held", "runc", "probable") not in all_edges(elsewhere, tasks[1])


def test_a_lock_of_a_subsystem_is_not_looked_for_by_its_function() -> None:
    """Its own subsystem tells more; nor is one that a file or a program has, of which there are many."""
    for takes in ("frob_grow", "do_user_addr_fault", "tcp_sendmsg", "__text_lock_inode[udf]"):
        waits = told_waits(("app", f"{SLEEP} mutex_lock {takes} iput {CALL}"))
        assert not any("the lock that" in one for one in waits)


def all_edges(*stacks: tuple[str, str]) -> list[tuple[str, str, str, str]]:
    """The edges of all cycles of a log."""
    return [edge for episode in cycles(*stacks) for edge in edges(episode)]


def told_waits(stack: tuple[str, str]) -> tuple[str, ...]:
    """What a task waits for, in words."""
    (episode,) = diagnose_log(log(*stack)).episodes
    return episode.waits


def test_who_waits_for_another_subsystem_may_have_a_lock_of_the_one_around_it() -> None:
    """A writer of one waits for a worker of the other, whose reclaim waits for a lock of the first."""
    writer = ("app", f"{SLEEP} wait_for_completion quux_wait frob_commit frob_fsync {CALL}")
    reclaims = f"{SLEEP} mutex_lock frob_evict_inode {EVICT} kmalloc quux_grow quux_work {WORKER}"
    first, second = cycles(writer, ("kworker/0:1", reclaims))
    assert set(edges(first)) == {
        ("app", "work", "kworker/0:1", "probable"),
        ("kworker/0:1", "held", "app", "probable"),
    }
    assert set(edges(second)) == set(edges(first))
    alone = ("app", f"{SLEEP} wait_for_completion quux_wait quux_fsync {CALL}")
    assert not any(giver == "app" for *_, giver, _ in all_edges(alone, ("kworker/0:1", reclaims)))


def test_who_sleeps_in_a_listed_file_system_waits_for_it_as_in_an_unlisted_one() -> None:
    """Where no tag tells for what; where one does, that is what it waits for."""
    assert "held of ext2 [probable]: ext2 to get on" in told_waits(("app", f"{SLEEP} ext2_sync_fs {CALL}"))
    assert not any(
        one.startswith("held") for one in told_waits(("app", f"{SLEEP} start_this_handle ext4_create {CALL}"))
    )


def test_who_waits_in_a_driver_waits_for_its_requests() -> None:
    """Outside reclaim, too: who completes them may wait in turn."""
    waits = told_waits(("app", f"{SLEEP} io_schedule inc_ap_bio drbd_make_request ext4_writepages {CALL}"))
    assert any(one.startswith("io of drbd [probable]") for one in waits)


def test_a_lock_of_the_whole_machine() -> None:
    """The table says whose lock two functions take; reclaim takes some itself."""
    systemd = (
        f"{SLEEP} rpc_wait_bit_killable nfs_wb_page nfs_release_page {DEFINED['PAGES']} kmalloc cgroup_mkdir"
    )
    gssd = f"{SLEEP} mutex_lock proc_cgroup_show proc_single_show"
    first, _ = cycles(("systemd", systemd + CALL), ("rpc.gssd", gssd + CALL))
    assert set(edges(first)) == {
        ("systemd", "answer", "rpc.gssd", "probable"),
        ("rpc.gssd", "held", "systemd", "probable"),
    }
    shares = f"{SLEEP} mutex_lock try_to_unmap_file {DEFINED['PAGES']} pmd_alloc_one huge_pmd_share"
    (episode,) = cycles(("oracle", f"{shares} {DEFINED['FAULT']}"))
    assert edges(episode) == [("oracle", "held", "oracle", "probable")]
    assert not cycles(("oracle", f"{shares.replace('huge_pmd_share', 'quux')} {DEFINED['FAULT']}"))


FLUSHER = (
    "kworker/u8:5",
    f"{SLEEP} wait_transaction_locked start_this_handle ext4_writepages do_writepages writeback_sb_inodes"
    f" wb_workfn {WORKER}",
)


def test_who_is_throttled_in_a_transaction_that_the_flusher_waits_for() -> None:
    """Reclaim made it sleep until pages have been written; no more than possible, and not outside of it."""
    throttled = f"{SLEEP} schedule_timeout reclaim_throttle {DEFINED['PAGES']} kmalloc"
    first, _ = cycles(("tar", f"{throttled} ext4_append ext4_mkdir {CALL}"), FLUSHER)
    assert set(edges(first)) == {
        ("tar", "writeback", "kworker/u8:5", "possible"),
        ("kworker/u8:5", "transaction", "tar", "probable"),
    }
    assert not cycles(("tar", f"{throttled} ext4_lookup {CALL}"), FLUSHER)
    assert not cycles(("tar", f"{throttled} xfs_create {CALL}"), FLUSHER)


@pytest.mark.parametrize(
    ("waits", "thing"),
    [
        ("schedule_timeout out_of_memory __alloc_pages_may_oom __alloc_pages kmalloc", "oom-victim"),
        ("schedule_timeout io_schedule_timeout balance_dirty_pages", "dirty"),
        ("io_schedule_timeout mempool_alloc", None),
    ],
)
def test_who_waits_for_memory_in_the_middle_of_a_subsystem_may_have_its_lock(
    waits: str, thing: str | None
) -> None:
    """As who reclaims there: the OOM killer's choice, or the flusher, waits for the lock."""
    holder = ("app", f"{SLEEP} {waits} frob_grow frob_ioctl {CALL}")
    gives = told(holder)
    assert any(one.startswith("held of frob [probable]: it is in the middle of frob's work") for one in gives)
    wants = f"{SLEEP} mutex_lock frob_writepages do_writepages writeback_sb_inodes wb_workfn {WORKER}"
    found = all_edges(holder, ("kworker/u8:5", wants))
    assert (("kworker/u8:5", "held", "app", "probable") in found) is (thing == "dirty")


@pytest.mark.parametrize(
    ("comm", "names", "recursion"),
    [
        # a worker of the file system, by what it does
        (
            "",
            f"{SLEEP} schedule_timeout congestion_wait {DEFINED['PAGES']} kmalloc xfs_end_bio_unwritten",
            True,
        ),
        ("", f"{SLEEP} schedule_timeout congestion_wait {DEFINED['PAGES']} kmalloc xfs_vm_writepages", False),
        # a driver of what completes I/O, of which the thread is not shown; a program's part would show more
        ("", f"{DEFINED['SWAP']} sgl_alloc_order transport_generic_new_cmd iscsit_process_scsi_cmd", True),
        (
            "app",
            f"{DEFINED['SWAP']} sgl_alloc_order transport_generic_new_cmd iscsit_process_scsi_cmd",
            False,
        ),
        ("", f"{DEFINED['SWAP']} sgl_alloc_order transport_generic_new_cmd {CALL}", False),
        ("", f"{DEFINED['SWAP']} kmalloc frob_grow", False),
        # a file system's own thread, by its name
        ("l2arc_feed", f"{SLEEP} mutex_lock arc_evict_buf zfs_prune {SLAB}", True),
        ("frob_feed", f"{SLEEP} mutex_lock arc_evict_buf zfs_prune {SLAB}", False),
    ],
)
def test_a_stack_that_is_cut_before_it_shows_whose_it_is(comm: str, names: str, recursion: bool) -> None:
    """What it is in the middle of, or its name, tells."""
    data = log(comm, names) if comm else frames(names)
    assert diagnose_log(data).recursion is recursion


def test_kswapd_is_known_by_its_name() -> None:
    """Its stack is cut in what reclaim calls, and an allocation gets no memory."""
    cut = ("kswapd0", f"{SLEEP} down_write xfs_ilock xfs_inactive evict dispose_list prune_icache_sb")
    throttled = ("app", f"{SLEEP} schedule_timeout reclaim_throttle {DEFINED['PAGES']} {DEFINED['FAULT']}")
    (episode,) = cycles(cut, throttled)
    assert [link.giver.split(",")[0] for link in episode.edges] == [
        "a task that the log does not show",
        "kswapd0 (100)",
    ]


@pytest.mark.parametrize(
    ("waits", "recursion"),
    [("wait_current_trans", True), ("mutex_lock", False), ("io_schedule", False)],
)
def test_whose_allocation_waits_for_a_file_system_need_not_be_shown(waits: str, recursion: bool) -> None:
    """Its progress takes as long for everybody; a lock may be one for which reclaimers queue."""
    cut = log("app", f"{SLEEP} {waits} btrfs_evict_inode {EVICT}")
    (episode,) = diagnose_log(cut).episodes
    assert episode.recursion is recursion
    assert ("the stack of who holds what is waited for" in str(episode.missing)) is recursion
    assert not diagnose_log(log("app", "btrfs_evict_inode evict super_cache_scan")).recursion


SWAPS = DEFINED["SWAP"]
USES_NBD = ("dd", f"{SLEEP} io_schedule nbd_queue_rq submit_bio{CALL}")


def test_a_program_that_sends_may_serve_the_device_whatever_its_name() -> None:
    """Where the machine uses one that a program serves; a daemon's name says so of itself."""
    sends = f"{SWAPS} {DEFINED['SEND']}{CALL}"
    (episode,) = cycles(("frobd", sends), USES_NBD)
    assert episode.missing == "whether this program serves that device (--daemon, --snapshot)"
    assert not cycles(("frobd", sends))
    (episode,) = cycles(("nbd-server", sends), USES_NBD)
    assert not any("sends on a socket" in one for one in episode.gives)


def test_the_outermost_function_of_a_cut_stack_tells_at_whose_work_it_is() -> None:
    """Whose name is lost; what the driver calls may be anybody's."""
    names = f"{SWAPS} kmem_cache_alloc ext4_alloc_io frob_alloc_io kcryptd_crypt"
    (episode,) = diagnose_log(b"Call Trace:\n" + frames(names)).episodes
    assert any("it is at dm's work, which a thread of the kernel does" in one for one in episode.gives)
