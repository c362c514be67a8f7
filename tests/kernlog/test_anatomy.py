"""Stacks taken apart: where reclaim begins, what stands inside and outside it, and what is waited for."""

import pytest
from tests.kernlog.stacks import log

from ioflusher.kernlog.reading.console import task_reports
from ioflusher.kernlog.reading.frames import Frame
from ioflusher.kernlog.stacks.anatomy import Anatomy, Reclaim, Step, Wait, dissect


def anatomy(names: str, comm: str = "dd") -> Anatomy:
    (report,) = task_reports(log(comm, names))
    return dissect(report.frames, comm)


def words(steps: tuple[Step, ...]) -> str:
    return " ".join(step.frame.name for step in steps)


def test_an_inode_that_an_allocation_frees_is_not_the_one_for_which_it_allocates() -> None:
    """Both are evicted; reclaim, whose functions are not shown, freed the inner one."""
    outer = "ext4_mark_inode_dirty ext4_evict_inode evict do_unlinkat do_syscall_64"
    inner = "schedule jbd2_log_wait_commit ext4_evict_inode evict"
    body = anatomy(f"{inner} kmem_cache_alloc {outer}")
    assert (body.reclaim, body.supposed) == (Reclaim.DIRECT, True)
    assert (words(body.inner), words(body.outer)) == (inner, outer)
    # nobody asked for memory
    assert anatomy(f"{inner} {outer}").reclaim is None


@pytest.mark.parametrize(
    ("outer", "reclaim"),
    [
        ("out_of_memory do_syscall_64", Reclaim.DIRECT),
        ("__alloc_pages_slowpath do_syscall_64", Reclaim.DIRECT),
        ("drop_caches_sysctl_handler do_syscall_64", Reclaim.FORCED),
    ],
)
def test_slabs_that_an_allocation_drops_are_reclaimed_for_it(outer: str, reclaim: Reclaim) -> None:
    """Some vendors' kernels do so before they kill; else somebody asked for it."""
    assert anatomy(f"shrink_slab drop_slab_node {outer}").reclaim is reclaim


def test_a_stack_that_begins_with_a_system_call_is_turned() -> None:
    """People write stacks down as they think of them, and one function is enough to see it."""
    assert words(anatomy("sys_fsync ext4_sync_file schedule").steps) == "schedule ext4_sync_file sys_fsync"


@pytest.mark.parametrize(
    ("names", "wait"),
    [
        ("schedule __mutex_lock preempt_schedule_irq frob_run[frob] kthread", Wait.LOCK),
        ("schedule frob_wait[frob] preempt_schedule_irq frob_run[frob] kthread", Wait.SUBSYSTEM),
        ("schedule preempt_schedule_irq frob_run[frob] kthread", Wait.RUNNING),
    ],
)
def test_who_sleeps_inside_the_function_that_lost_the_processor_was_given_it_back(
    names: str, wait: Wait
) -> None:
    """A lock, or a function that no table has, says that it sleeps since; else it waits for its turn."""
    assert anatomy(names).wait is wait


def doubtful(names: str) -> tuple[Frame, ...]:
    return tuple(Frame(name, 1, 2, None, False) for name in names.split())


def test_allocators_in_doubt_count_where_a_stack_is_cut_in_one() -> None:
    """Each once, up to the first other function."""
    sure = Frame("__alloc_pages_slowpath", 1, 2, None, True)
    body = dissect((sure, *doubtful("__alloc_pages alloc_pages ext4_sync_file alloc_pages")))
    assert words(body.steps) == "__alloc_pages_slowpath __alloc_pages alloc_pages"


def test_a_spin_lock_in_doubt_runs_where_nothing_says_that_it_sleeps() -> None:
    """Whoever goes to sleep takes one, too."""
    assert dissect(doubtful("_raw_spin_lock frob_run")).wait is Wait.RUNNING
    assert dissect(doubtful("_raw_spin_lock __mutex_lock frob_run")).wait is Wait.LOCK


@pytest.mark.parametrize(
    ("names", "wait"),
    [
        ("cache_alloc_refill __down __down_failed md_write_start", Wait.LOCK),
        ("default_wake_function cache_alloc_refill __down md_write_start", Wait.LOCK),
        ("default_wake_function cache_alloc_refill md_write_start", Wait.RUNNING),
    ],
)
def test_an_allocators_frame_before_a_locks_was_left_over(names: str, wait: Wait) -> None:
    """Old kernels print all that lies on a stack; who waits for a lock asks for no memory."""
    swaps = "generic_make_request submit_bio swap_writepage shrink_zone try_to_free_pages __alloc_pages"
    assert anatomy(f"{names} {swaps} sys_read").wait is wait
