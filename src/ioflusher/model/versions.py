"""What of the mechanism changed in which release of Linux: one table, and the question whether a thing holds.

    >>> holds("xfs_reclaim_waits", "5.8.0-63-generic")
    True
    >>> holds("xfs_reclaim_waits", "6.12.117")
    False

A release is mainline's, but where the newest stable kernels of a series are known to differ from it: then
`stable` has the series, and `holds` speaks of those. Distributions move changes, too: a caller who needs to
be sure probes the kernel. docs/model.md has the table as text; `tools/model-versions` writes it.
"""

import re
from dataclasses import dataclass

from ioflusher.kernel.task_flags import Version
from ioflusher.model.errors import ModelError
from ioflusher.support.text import did_you_mean


@dataclass(frozen=True, slots=True)
class KernelCommit:
    """A commit of mainline Linux: the beginning of its hash, and its subject."""

    hash: str
    subject: str


@dataclass(frozen=True, slots=True)
class KernelChange:
    """A thing that holds in some releases of Linux and not in others.

    Attributes:
        name: what code calls it.
        what: what holds, one sentence.
        source: the file of the kernel where it shows.
        commits: those that brought it about or took it away.
        since: the first release where it holds; None: from the beginning.
        before: the first release where it no longer holds; None: it still does.
        verified: how far it was looked up: "source" where the commit was found and the code was read in a
            kernel before and one after; "commit" where commit and release were found; "" where neither was.
        stable: series whose newest stable kernels have the change though mainline's release did not.
    """

    name: str
    what: str
    source: str
    commits: tuple[KernelCommit, ...]
    since: Version | None = None
    before: Version | None = None
    verified: str = "source"
    stable: tuple[Version, ...] = ()

    def holds(self, version: Version) -> bool:
        """Whether it holds in that release, or in the newest stable kernels of its series."""
        mainline = (self.since or (0, 0)) <= version and (self.before is None or version < self.before)
        return mainline != (version in self.stable)


def parse_version(text: str) -> Version:
    """The release that a kernel is of: (6, 12) of "6.12.117" and "6.12.12+bpo-cloud-amd64"; of "5.8", (5, 8).

    Raises:
        ModelError: for a text that does not begin with two numbers.
    """
    found = re.match(r"(?:v|Linux )?(\d{1,3})\.(\d{1,3})(?!\d)", text)
    if found is None:
        raise ModelError(
            f"{text[:60]!r} is no release of Linux",
            hint='expected its number as `uname -r` has it, such as "6.12" or "5.8.0-63-generic"',
        )
    return int(found[1]), int(found[2])


def change(name: str) -> KernelChange:
    """The row of that name.

    Raises:
        ModelError: there is none.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        message = f"the table of kernel versions has no change {name[:60]!r}"
        raise ModelError(message, hint=did_you_mean(name, _BY_NAME)) from None


def holds(name: str, version: str | Version) -> bool:
    """Whether a thing holds in a release, given as text or as a pair of numbers.

    Raises:
        ModelError: for a name that the table does not have, or a text that is no release.
    """
    return change(name).holds(parse_version(version) if isinstance(version, str) else version)


CHANGES: tuple[KernelChange, ...] = (
    # ---- the call and the task's flags
    KernelChange(
        "prctl_io_flusher",
        "prctl(2) knows PR_SET_IO_FLUSHER and PR_GET_IO_FLUSHER; without it both are EINVAL.",
        "kernel/sys.c",
        (KernelCommit("8d19f1c8e193", "prctl: PR_{G,S}ET_IO_FLUSHER to support controlling memory reclaim"),),
        since=(5, 6),
        verified="commit",
    ),
    KernelChange(
        "local_throttle",
        "PF_LOCAL_THROTTLE: a task is not throttled while the device that it writes to is under its free-run "
        "ceiling. Before, the same bit was PF_LESS_THROTTLE and gave a quarter more of the global limits.",
        "mm/page-writeback.c",
        (KernelCommit("a37b0715ddf3", "mm/writeback: replace PF_LESS_THROTTLE with PF_LOCAL_THROTTLE"),),
        since=(5, 8),
        verified="commit",
    ),
    KernelChange(
        "memalloc_flags_save",
        "A memalloc scope ends by clearing the flags that it has set itself; before, by putting back those "
        "that it had found.",
        "include/linux/sched/mm.h",
        (KernelCommit("3f6d5e6a468d", "mm: introduce memalloc_flags_{save,restore}"),),
        since=(6, 9),
    ),
    KernelChange(
        "memalloc_noreclaim_flags",
        "PF_MEMALLOC_NORECLAIM and PF_MEMALLOC_NOWARN take part in current_gfp_context.",
        "include/linux/sched/mm.h",
        (
            KernelCommit("eab0af905bfc", "mm: introduce PF_MEMALLOC_NORECLAIM, PF_MEMALLOC_NOWARN"),
            KernelCommit("9a8da05d7ad6", 'Revert "mm: introduce PF_MEMALLOC_NORECLAIM, PF_MEMALLOC_NOWARN"'),
        ),
        since=(6, 9),
        before=(6, 12),
        verified="commit",
    ),
    KernelChange(
        "memalloc_pin",
        "PF_MEMALLOC_PIN takes __GFP_MOVABLE from a task's allocations.",
        "include/linux/sched/mm.h",
        (KernelCommit("1a08ae36cf8b", "mm cma: rename PF_MEMALLOC_NOCMA to PF_MEMALLOC_PIN"),),
        since=(5, 13),
    ),
    KernelChange(
        "io_workers_inherit",
        "An io_uring worker is a thread of the task that made it and has its IO_FLUSHER state of that "
        "moment; before, it was a kernel thread.",
        "io_uring/io-wq.c",
        (KernelCommit("3bfe6106693b", "io-wq: fork worker threads from original task"),),
        since=(5, 12),
        verified="commit",
    ),
    KernelChange(
        "exec_compares_effective_user",
        "execve keeps the ambient capabilities of a task whose real and effective users differ.",
        "security/commoncap.c",
        (KernelCommit("337490f0007f", "exec: Correct the permission check for unsafe exec"),),
        since=(6, 17),
    ),
    KernelChange(
        "setresuid_asks_when_needed",
        "setresuid asks for CAP_SETUID where it needs it; before, always, which leaves PF_SUPERPRIV behind.",
        "kernel/sys.c",
        (KernelCommit("659c0ce1cb9e", "kernel/sys.c: fix and improve control flow in __sys_setres[ug]id()"),),
        since=(6, 3),
        stable=((5, 10), (5, 15), (6, 1)),
    ),
    # ---- allocation
    KernelChange(
        "gfp_atomic_flag",
        "__GFP_ATOMIC exists and is part of GFP_ATOMIC.",
        "include/linux/gfp_types.h",
        (KernelCommit("2973d8229b78", "mm: discard __GFP_ATOMIC"),),
        before=(6, 3),
    ),
    KernelChange(
        "gfp_nowait_nowarn",
        "GFP_NOWAIT includes __GFP_NOWARN.",
        "include/linux/gfp_types.h",
        (KernelCommit("16f5dfbc851b", "gfp: include __GFP_NOWARN in GFP_NOWAIT"),),
        since=(6, 8),
    ),
    KernelChange(
        "rt_half_reserve",
        "A real-time task may go down to a half of the min watermark; before, to three quarters of it.",
        "mm/page_alloc.c",
        (
            KernelCommit("524c48072e56", "mm/page_alloc: rename ALLOC_HIGH to ALLOC_MIN_RESERVE"),
            KernelCommit("c988dcbecf3f", "mm/page_alloc: treat RT tasks similar to __GFP_HIGH"),
            KernelCommit(
                "1ebbb21811b7",
                "mm/page_alloc: explicitly define how __GFP_HIGH non-blocking allocations accesses reserves",
            ),
        ),
        since=(6, 3),
        stable=((6, 1),),
    ),
    # ---- reclaim
    KernelChange(
        "direct_reclaim_writes_file_pages",
        "Direct reclaim writes dirty pages of files; since then kswapd alone did.",
        "mm/vmscan.c",
        (KernelCommit("ee72886d8ed5", "mm: vmscan: do not writeback filesystem pages in direct reclaim"),),
        before=(3, 2),
        verified="commit",
    ),
    KernelChange(
        "reclaim_writes_file_pages",
        "kswapd writes dirty pages of files, where the file system still lets it (->writepage).",
        "mm/vmscan.c",
        (KernelCommit("6b0dfabb3555", "fs: Remove aops->writepage"),),
        before=(6, 16),
    ),
    KernelChange(
        "xfs_reclaim_writes_file_pages",
        "XFS lets reclaim write a dirty page of a file (xfs_vm_writepage).",
        "fs/xfs/xfs_aops.c",
        (KernelCommit("21b4ee7029c9", "xfs: drop ->writepage completely"),),
        before=(6, 0),
    ),
    KernelChange(
        "ext4_reclaim_writes_file_pages",
        "ext4 lets reclaim write a dirty page of a file (ext4_writepage).",
        "fs/ext4/inode.c",
        (KernelCommit("dae999602eeb", "ext4: stop providing .writepage hook"),),
        before=(6, 3),
    ),
    KernelChange(
        "xfs_reclaim_waits",
        "Reclaim of XFS inodes waits for the log (xfs_iunpin_wait) and writes inode buffers (xfs_bwrite): "
        "SPEC.txt's trace, whoever reclaims.",
        "fs/xfs/xfs_icache.c",
        (
            KernelCommit("993f951f501c", "xfs: make inode reclaim almost non-blocking"),
            KernelCommit("617825fe3489", "xfs: remove IO submission from xfs_reclaim_inode()"),
            KernelCommit("4d0bab3a4468", "xfs: remove SYNC_WAIT from xfs_reclaim_inodes()"),
        ),
        before=(5, 9),
        verified="commit",
    ),
    KernelChange(
        "reclaim_throttle",
        "Reclaim that makes no progress waits in reclaim_throttle() for pages to be written; before, in "
        "congestion_wait() for a congested device or a tenth of a second.",
        "mm/vmscan.c",
        (
            KernelCommit(
                "8cd7c588decf", "mm/vmscan: throttle reclaim until some writeback completes if congested"
            ),
            KernelCommit("1b4e3f26f9f7", "mm: vmscan: Reduce throttling due to a failure to make progress"),
        ),
        since=(5, 16),
    ),
    KernelChange(
        "congested_bdi_throttles",
        "current_may_throttle() throttles an IO_FLUSHER, too, whose current->backing_dev_info is unset or "
        "congested, which is nearly always.",
        "mm/vmscan.c",
        (KernelCommit("b9b1335e6403", "remove bdi_congested() and wb_congested() and related functions"),),
        before=(5, 18),
    ),
    KernelChange(
        "swappiness_200",
        "vm.swappiness goes up to 200; before, up to 100.",
        "mm/vmscan.c",
        (
            KernelCommit(
                "c843966c556d", "mm: allow swappiness that prefers reclaiming anon over the file workingset"
            ),
        ),
        since=(5, 8),
        verified="commit",
    ),
    KernelChange(
        "mglru",
        "The multi-generational LRU can be switched on; then NOIO reclaim leaves dirty and unswapped "
        "anonymous pages where they are, without isolating them.",
        "mm/vmscan.c",
        (KernelCommit("ac35a4902374", "mm: multi-gen LRU: minimal implementation"),),
        since=(6, 1),
    ),
    KernelChange(
        "memcg_v1_optional",
        "Memory control groups of version 1 can be left out of a kernel, and Debian leaves them out.",
        "mm/memcontrol-v1.c",
        (KernelCommit("e93d4166b40a", "mm: memcg: put cgroup v1-specific code under a config option"),),
        since=(6, 11),
    ),
    # ---- swap
    KernelChange(
        "swap_fs_ops_need_fs",
        "Reclaim writes to swap on a file system that does its own I/O (NFS) with __GFP_FS alone.",
        "mm/vmscan.c",
        (KernelCommit("d791ea676b66", "mm: reclaim mustn't enter FS for SWP_FS_OPS swap-space"),),
        since=(5, 19),
    ),
    KernelChange(
        "swap_zeromap",
        "A page of zeros is swapped out without I/O.",
        "mm/page_io.c",
        (KernelCommit("0ca0c24e3211", "mm: store zero pages to be swapped out in a bitmap"),),
        since=(6, 12),
    ),
    # ---- writeback
    KernelChange(
        "wb_thresh_floor",
        "A backing device's dirty limit is at least an eighth of what is left of the global one (a hundredth "
        "for strictlimit), also while the device completes nothing.",
        "mm/page-writeback.c",
        (
            KernelCommit(
                "39ac99852fca",
                "mm/page-writeback: raise wb_thresh to prevent write blocking with strictlimit",
            ),
        ),
        since=(6, 14),
    ),
    KernelChange(
        "fuse_temp_pages",
        "FUSE writes copies of dirty pages: the page itself is clean at once, nobody waits for the server.",
        "fs/fuse/file.c",
        (KernelCommit("0c58a97f919c", "fuse: remove tmp folio for writebacks and internal rb tree"),),
        before=(6, 16),
    ),
    KernelChange(
        "reclaim_leaves_fuse_writeback",
        "Reclaim does not wait for writeback of a mapping that may need the reclaimer itself "
        "(AS_WRITEBACK_MAY_DEADLOCK_ON_RECLAIM).",
        "mm/vmscan.c",
        (
            KernelCommit(
                "0c4f8ed498ce",
                "mm: skip folio reclaim in legacy memcg contexts for deadlockable mappings",
            ),
        ),
        since=(6, 16),
    ),
    KernelChange(
        "block_device_writes_by_iomap",
        "Buffered writes to a block device itself go through iomap.",
        "block/fops.c",
        (KernelCommit("487c607df790", "block: use iomap for writes to block devices"),),
        since=(6, 6),
    ),
    # ---- devices
    KernelChange(
        "ublk",
        "There is ublk, a block device served through io_uring.",
        "drivers/block/ublk_drv.c",
        (KernelCommit("71f28f3136af", "ublk_drv: add io_uring based userspace block driver"),),
        since=(6, 0),
    ),
    KernelChange(
        "nbd_tcp_or_unix_only",
        "nbd takes TCP and Unix stream sockets alone.",
        "drivers/block/nbd.c",
        (KernelCommit("9f7c02e03157", "nbd: restrict sockets to TCP and UDP"),),
        since=(6, 18),
        stable=((6, 1), (6, 6), (6, 12), (6, 16), (6, 17)),
    ),
    KernelChange(
        "nbd_replaces_one_connection",
        "nbd keeps requests for another connection where it has a single one and a time-out; before, they "
        "end with an error.",
        "drivers/block/nbd.c",
        (
            KernelCommit("d970958b2d24", "nbd: enable replace socket if only one connection is configured"),
            KernelCommit("2c272542baee", "nbd: requeue command if the soecket is changed"),
        ),
        since=(5, 7),
    ),
    KernelChange(
        "nbd_large_requests",
        "A request to nbd may have 1,280 KiB; before, 128 KiB, which lie whole in a Unix socket.",
        "drivers/block/nbd.c",
        (KernelCommit("a23634644afc", "block: take io_opt and io_min into account for max_sectors"),),
        since=(6, 11),
    ),
    KernelChange(
        "nbd_clears_when_killed",
        "A server killed in NBD_DO_IT ends what is in flight with an error; before, only what comes later.",
        "drivers/block/nbd.c",
        (KernelCommit("09dadb598502", "nbd: fix io hung while disconnecting device"),),
        since=(5, 19),
        stable=((5, 10), (5, 15)),
    ),
    KernelChange(
        "ublk_cancels_commands",
        "A ublk server that ends is noticed at once, as its commands are cancelled; before, by a look every "
        "five seconds.",
        "drivers/block/ublk_drv.c",
        (KernelCommit("216c8f5ef0f2", "ublk: replace monitor with cancelable uring_cmd"),),
        since=(6, 7),
    ),
    KernelChange(
        "plug_direct_issue",
        "What was plugged goes to the driver from the task that flushes the plug, unless it goes to sleep; "
        "before, through the queue of the processor.",
        "block/blk-mq.c",
        (KernelCommit("dc5fc361d891", "block: attempt direct issue of plug list"),),
        since=(5, 16),
        verified="commit",
    ),
    KernelChange(
        "loop_workqueue",
        "A loop device has a worker of a workqueue for each control group; before, one kernel thread. Both "
        "carry the IO_FLUSHER state.",
        "drivers/block/loop.c",
        (KernelCommit("87579e9b7d8d", "loop: use worker per cgroup instead of kworker"),),
        since=(5, 14),
    ),
)

_BY_NAME = {row.name: row for row in CHANGES}


# the lines of docs/model.md between which the table stands
BEGIN = "<!-- versions: made by tools/model-versions; a test holds it -->"
END = "<!-- versions end -->"


def table_markdown() -> str:
    """The table as docs/model.md has it."""
    lines = ["| name | holds | what | source | commits |", "|---|---|---|---|---|"]
    for row in CHANGES:
        commits = "; ".join(f"{commit.hash} {commit.subject}" for commit in row.commits)
        notes = ""
        if row.stable:
            series = ", ".join(f"{major}.{minor}" for major, minor in row.stable)
            notes = f" Newest stable kernels of {series} have this change as well."
        if row.verified != "source":
            notes += " Release by the commit alone." if row.verified else " Not looked up."
        lines.append(f"| `{row.name}` | {_range(row)} | {row.what}{notes} | `{row.source}` | {commits} |")
    return "\n".join(lines) + "\n"


def _range(row: KernelChange) -> str:
    since, before = (None if bound is None else f"{bound[0]}.{bound[1]}" for bound in (row.since, row.before))
    if since and before:
        return f"{since} until before {before}"
    return f"since {since}" if since else f"before {before}"
