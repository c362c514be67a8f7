"""Stacks of daemons that froze in experiments, on kernels 5.8, 6.1 and 6.12, and what they say."""

import pytest

from ioflusher.kernlog.reading.frames import Frame
from ioflusher.kernlog.stacks.waits import StackKind, explain_stack

RECLAIM = (
    "shrink_folio_list shrink_lruvec shrink_node do_try_to_free_pages try_to_free_pages "
    "__alloc_pages_slowpath.constprop.0 "
)
SEND = (
    RECLAIM
    + "__alloc_pages alloc_pages skb_page_frag_refill sk_page_frag_refill tcp_sendmsg_locked tcp_sendmsg "
    "sock_write_iter vfs_write ksys_write do_syscall_64 entry_SYSCALL_64_after_hwframe"
)
# down to where 5.8 frees an inode of XFS for that
INODE = (
    "xfs_reclaim_inode xfs_reclaim_inodes_ag xfs_reclaim_inodes_nr xfs_fs_free_cached_objects "
    "super_cache_scan do_shrink_slab shrink_slab " + SEND
)
FAULT = (
    RECLAIM + "__alloc_pages vma_alloc_folio do_anonymous_page __handle_mm_fault handle_mm_fault "
    "do_user_addr_fault exc_page_fault asm_exc_page_fault"
)


def stack(names: str) -> tuple[Frame, ...]:
    return tuple(Frame(name, 1, 2, None, True) for name in names.split())


CASES = {
    "buffered store throttled": (
        "balance_dirty_pages balance_dirty_pages_ratelimited_flags generic_perform_write "
        "ext4_buffered_write_iter vfs_write __x64_sys_pwrite64 do_syscall_64",
        StackKind.DIRTY_THROTTLED,
        "its write in ext4_buffered_write_iter() was stopped by the kernel "
        "until other dirty pages have been written",
    ),
    "store on a bare device throttled": (
        "balance_dirty_pages balance_dirty_pages_ratelimited_flags generic_perform_write "
        "blkdev_write_iter vfs_write",
        StackKind.DIRTY_THROTTLED,
        "its write in generic_perform_write() was stopped by the kernel "
        "until other dirty pages have been written",
    ),
    "swap, the reserve of requests is empty": (
        "mempool_alloc bio_alloc_bioset swap_writepage pageout " + SEND,
        StackKind.RECLAIM_IO,
        "its tcp_sendmsg() allocated memory, direct reclaim began to swap a page out to a block device, "
        "and it waits there for reserved memory that only a finished write gives back",
    ),
    "swap, below a page fault": (
        "mempool_alloc bio_alloc_bioset swap_writepage pageout " + FAULT,
        StackKind.RECLAIM_IO,
        "its page fault (do_anonymous_page()) needed memory, direct reclaim began to swap a page out "
        "to a block device, and it waits there for reserved memory that only a finished write gives back",
    ),
    "the plug is flushed into nbd": (
        "nbd_queue_rq blk_mq_dispatch_rq_list blk_mq_flush_plug_list blk_finish_plug " + SEND,
        StackKind.RECLAIM_IO,
        "its tcp_sendmsg() allocated memory, direct reclaim sent the pages that it had queued for writing "
        "to a block device, and it waits there for I/O that nbd started",
    ),
    "it sends the request to itself": (
        "sock_alloc_send_pskb unix_stream_sendmsg sock_sendmsg sock_xmit nbd_send_cmd nbd_queue_rq "
        "blk_mq_dispatch_rq_list blk_finish_plug " + SEND,
        StackKind.RECLAIM_IO,
        "its tcp_sendmsg() allocated memory, direct reclaim sent the pages that it had queued for writing "
        "to a block device, and it waits there for the socket that carries requests",
    ),
    "a page under writeback, memory cgroup version 1": (
        "folio_wait_writeback shrink_folio_list shrink_lruvec do_try_to_free_pages "
        "try_to_free_mem_cgroup_pages try_charge_memcg charge_memcg "
        "__mem_cgroup_charge do_anonymous_page handle_mm_fault exc_page_fault",
        StackKind.RECLAIM_IO,
        "its page fault (do_anonymous_page()) needed memory, direct reclaim looked for pages to free, "
        "and it waits there for a page that is being written",
    ),
    "an inode of XFS is pinned, and its log has yet to be written": (
        "__xfs_iunpin_wait xfs_iunpin_wait " + INODE,
        StackKind.RECLAIM_IO,
        "its tcp_sendmsg() allocated memory, direct reclaim began to free xfs inodes, and it waits there "
        "for xfs to get on (XFS waits until its log has been written)",
    ),
    "the same, the log is written by a work queue": (
        "__flush_work flush_work xlog_cil_force_lsn xfs_log_force_lsn __xfs_iunpin_wait xfs_iunpin_wait "
        + INODE,
        StackKind.RECLAIM_IO,
        "its tcp_sendmsg() allocated memory, direct reclaim began to free xfs inodes, and it waits there "
        "for work that it gave to a kernel work queue (XFS waits until its log has been written)",
    ),
    "a dirty inode of XFS is written": (
        "xfs_buf_iowait __xfs_buf_submit xfs_bwrite " + INODE,
        StackKind.RECLAIM_IO,
        "its tcp_sendmsg() allocated memory, direct reclaim began to free xfs inodes, and it waits there "
        "for I/O that xfs started",
    ),
    "a dirty inode of XFS is being written": (
        "__xfs_iflock " + INODE,
        StackKind.RECLAIM_IO,
        "its tcp_sendmsg() allocated memory, direct reclaim began to free xfs inodes, and it waits there "
        "for xfs to get on (XFS waits until the inode has been written)",
    ),
    "inodes of a file system are given up one by one": (
        "jbd2_log_wait_commit ext4_evict_inode evict dispose_list prune_icache_sb super_cache_scan "
        "do_shrink_slab shrink_slab " + SEND,
        StackKind.RECLAIM_IO,
        "its tcp_sendmsg() allocated memory, direct reclaim began to free ext4 inodes, and it waits there "
        "for jbd2 to get on (ext4 waits for its journal)",
    ),
    "directory entries are given up": (
        "xfs_buf_iowait super_cache_scan do_shrink_slab shrink_slab " + SEND,
        StackKind.RECLAIM_IO,
        "its tcp_sendmsg() allocated memory, direct reclaim began to free xfs objects, and it waits there "
        "for I/O that xfs started",
    ),
    "throttled in reclaim": (
        "schedule_timeout reclaim_throttle shrink_inactive_list " + SEND,
        StackKind.RECLAIM_THROTTLED,
        "its tcp_sendmsg() allocated memory, and direct reclaim made it sleep in reclaim_throttle() "
        "until other writes end",
    ),
    "waits for kswapd": (
        "throttle_direct_reclaim try_to_free_pages __alloc_pages_slowpath __alloc_pages do_anonymous_page "
        "handle_mm_fault exc_page_fault asm_exc_page_fault",
        StackKind.RECLAIM_THROTTLED,
        "its page fault (do_anonymous_page()) needed memory, and direct reclaim made it sleep in "
        "throttle_direct_reclaim() until other writes end",
    ),
    "memory.high of version 2": (
        "schedule_timeout_killable reclaim_high mem_cgroup_handle_over_high do_syscall_64",
        StackKind.RECLAIM_THROTTLED,
        "it is over its memory cgroup's memory.high, and the kernel made it sleep for that",
    ),
    "everything anonymous and the state set": (
        "__cond_resched " + SEND,
        StackKind.RECLAIM_SPINNING,
        "its tcp_sendmsg() allocated memory, and direct reclaim runs without starting I/O: "
        "there is little left that it may free",
    ),
    "waits for requests": (
        "do_poll do_sys_poll __x64_sys_poll do_syscall_64",
        StackKind.IDLE,
        "it waits for work",
    ),
    "receives from a socket": (
        "wait_woken sk_wait_data tcp_recvmsg_locked tcp_recvmsg inet_recvmsg sock_recvmsg __sys_recvfrom",
        StackKind.IDLE,
        "it waits for work",
    ),
    "tgtd, swapped out to the device that it serves": (
        "folio_wait_bit_common __folio_lock_or_retry do_swap_page __handle_mm_fault handle_mm_fault "
        "do_user_addr_fault exc_page_fault asm_exc_page_fault",
        StackKind.OTHER,
        "to have its own memory back from swap, it waits for the lock of a page that somebody reads "
        "or writes",
    ),
    "its own fsync": (
        "folio_wait_writeback __filemap_fdatawait_range file_write_and_wait_range ext4_sync_file do_fsync",
        StackKind.OTHER,
        "it waits for a page that is being written, outside memory reclaim",
    ),
}
SELF = {
    StackKind.RECLAIM_IO,
    StackKind.RECLAIM_THROTTLED,
    StackKind.DIRTY_THROTTLED,
}


@pytest.mark.parametrize("case", CASES)
def test_a_frozen_daemon_is_explained(case: str) -> None:
    """Every stack that was seen gets its kind, its sentence, and whether a server would wait for itself."""
    names, kind, sentence = CASES[case]
    said = explain_stack(stack(names))
    assert said.kind is kind
    assert said.sentence == sentence
    assert said.self_wait is (kind in SELF)


def test_every_frame_stays_and_doubtful_ones_are_unmarked() -> None:
    """What is printed with roles is the whole stack; `?` frames are shown without a role."""
    frames = (Frame("swap_writepage", 1, 2, None, False), *stack("reclaim_throttle " + SEND))
    marked = explain_stack(frames).marked
    assert tuple(m.frame for m in marked) == frames
    assert [m.label for m in marked[:3]] == ["", "reclaim throttle", "reclaim"]


def test_doubtful_frames_do_not_decide() -> None:
    """A left-over swap_writepage() does not make a wait for requests a wait for swap."""
    left_over = tuple(Frame(name, 1, 2, None, False) for name in ("swap_writepage", "try_to_free_pages"))
    assert explain_stack(left_over + stack("ep_poll do_epoll_wait")).kind is StackKind.IDLE


def test_an_empty_stack_is_said_to_be_empty() -> None:
    """A thread that runs in user space has no kernel stack."""
    assert explain_stack(()).sentence == "no stack was read"
