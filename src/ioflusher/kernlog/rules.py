"""Judgement on one stack in the light of its log: small rules, tried in order; the first that speaks wins.

The question behind all of them: does an allocation wait, through reclaim, on something that cannot
complete without it? A rule answers for one situation and says why.
"""

from collections.abc import Callable

from ioflusher.kernlog.anatomy import Reclaim, Step, Wait
from ioflusher.kernlog.askers import Service, asking_part, families, family
from ioflusher.kernlog.facts import Facts
from ioflusher.kernlog.findings import Case, Confidence, Finding, Kind
from ioflusher.kernlog.plain import plain_finding
from ioflusher.kernlog.roles import Role

Rule = Callable[[Case, Facts], Finding | None]

_IO = {Wait.IO, Wait.MEMPOOL, Wait.TAG, Wait.WRITEBACK, Wait.PAGE_LOCK, Wait.SOCKET, Wait.COMPLETION}
# what somebody must let go of or bring to an end, rather than a device that works by itself
_HELD = {Wait.LOCK, Wait.COMPLETION, Wait.WORK, Wait.FS, Wait.INODE, Wait.DAEMON, Wait.SERVER, Wait.RCU}
_ANSWERS = {Wait.DAEMON: {"fuse"}, Wait.SERVER: {"nfs", "cluster", "fuse"}}


def judge(case: Case, facts: Facts) -> Finding:
    """What a stack comes to, given everything the log told. Pure."""
    for rule in () if case.ran else RULES:
        finding = rule(case, facts)
        if finding:
            return finding
    return plain_finding(case, facts)


def shrinker_inversion(case: Case, facts: Facts) -> Finding | None:
    """One task waits for every shrinker in the middle of a subsystem's work; a shrinker waits for that."""
    if case.body.wait is Wait.SHRINKERS:
        meeting = next((n for n in _lock_owners(case.body.outer) if n in facts.blocked_shrinkers), None)
        other = facts.blocked_shrinkers.get(meeting) if meeting else None
    elif case.body.reclaim is not None and case.body.wait in _HELD:
        meeting = next((n for n in _lock_owners(case.body.inner) if n in facts.shrinker_waiters), None)
        other = facts.shrinker_waiters.get(meeting) if meeting else None
    else:
        return None
    if other is None:
        return None
    return Finding(
        Kind.SHRINKER_INVERSION,
        True,
        Confidence.CERTAIN,
        f"it and {other.name} wait for each other: one waits in {meeting} until every shrinker has ended, "
        f"the other is in a shrinker and waits for {meeting}",
    )


def _lock_owners(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """The drivers and devices of a stack; an unmount waits for shrinkers, but holds nothing of theirs."""
    return families(tuple(step for step in steps if step.role in (Role.BLOCK, Role.DRIVER)))


def lock_owner_in_reclaim(case: Case, facts: Facts) -> Finding | None:
    """The kernel names the lock's owner, and the owner's reclaim needs the one that waits."""
    owner = case.report.owner
    holder = facts.reclaiming.get(owner[1]) if owner else None
    if holder is None:
        return None
    needed = case.asker.service in (Service.DAEMON, Service.KERNEL)
    shared = set(families(case.body.steps)) & set(families(holder.body.inner))
    if not needed and not shared:
        return None
    what = "completes other threads' I/O" if needed else f"works for {', '.join(sorted(shared))}"
    return Finding(
        Kind.LOCK_HELD_IN_RECLAIM,
        True,
        Confidence.CERTAIN,
        f"it {what} and waits for a lock that {holder.name} holds, while that thread's "
        "allocation waits in reclaim",
    )


def io_thread_in_reclaim(case: Case, facts: Facts) -> Finding | None:
    """A thread that others need for their I/O waits for I/O below its own allocation."""
    body, asker = case.body, case.asker
    if body.reclaim is not Reclaim.DIRECT or asker.service not in (Service.DAEMON, Service.KERNEL):
        return None
    if body.wait not in _IO | _HELD | {Wait.RECLAIM_QUEUE}:
        return None
    inner = families(body.inner)
    if body.wait in _ANSWERS and not _answers_itself(case, inner):
        return None
    if asker.daemon and asker.daemon.name.startswith("msgr-worker") and facts.osd:
        return None
    same = asker.part in inner if asker.part else False
    who = "the kernel's worker for " + (asker.part or "storage")
    if asker.daemon:
        who = f"{asker.daemon.name.rstrip('*-')}: {asker.daemon.about}"
    return Finding(
        recursion_kind(case),
        True,
        Confidence.PROBABLE,
        f"it is needed to complete I/O ({who}), and its own allocation waits in reclaim",
        None if same else "the log does not name the device that reclaim writes to",
    )


def _answers_itself(case: Case, inner: tuple[str, ...]) -> bool:
    """Whether the daemon or worker is of the kind that the file system below its reclaim waits for."""
    if case.asker.daemon:
        return case.asker.daemon.serves in _ANSWERS[case.body.wait]
    return bool(set(inner) & set(families(case.body.outer)))


def file_server_in_own_mount(case: Case, facts: Facts) -> Finding | None:
    """The NFS server's thread waits, in reclaim, for an NFS server; or for others' reclaim that does."""
    body = case.body
    if body.reclaim is not Reclaim.DIRECT or "nfsd" not in families(body.outer):
        return None
    own = "nfs" in families(body.inner)
    others = facts.blocked_reclaim.get("nfs")
    if own:
        why = "its allocation waits in reclaim for an NFS server"
    elif others is not None and body.wait is not Wait.IO:
        why = f"its allocation waits for reclaim, and {others.name} reclaims and waits for an NFS server"
    else:
        return None
    return Finding(
        Kind.NETWORK_FS_RECURSION,
        True,
        Confidence.PROBABLE if own else Confidence.POSSIBLE,
        f"it is a thread of this machine's NFS server, and {why}",
        "the log does not say that the mount is of this machine itself",
    )


def inside_itself(case: Case, facts: Facts) -> Finding | None:
    """A subsystem's own code allocates, and reclaim waits for the same subsystem."""
    body, asker = case.body, case.asker
    if body.reclaim is not Reclaim.DIRECT or not asker.part:
        return None
    if body.wait not in _HELD and not _waits_in_own_code(case):
        return None
    if asker.part not in families(body.inner) and not _same_names(case):
        return None
    return Finding(
        recursion_kind(case),
        True,
        Confidence.PROBABLE,
        f"{asker.part} asked for memory in the middle of its own work, and reclaim came back "
        f"into {asker.part}, "
        f"which waits for something that this thread may hold or has to do",
    )


def _waits_in_own_code(case: Case) -> bool:
    """Whether a device driver itself holds the request back, rather than the hardware below it."""
    speaking = next((step for step in case.body.inner if step.role not in _SILENT), None)
    return speaking is not None and speaking.role is Role.BLOCK and family(speaking.part) == case.asker.part


_SILENT = {None, Role.SCHEDULE, Role.WAIT_BIT, Role.LOCK, Role.COMPLETION, Role.IO_WAIT}


def unlisted_inside_itself(case: Case, facts: Facts) -> Finding | None:
    """As `inside_itself`, for a subsystem that the table does not list: its functions share a first word."""
    body = case.body
    if (
        body.reclaim is not Reclaim.DIRECT
        or body.wait is not Wait.LOCK
        or case.asker.part
        or not _same_names(case)
    ):
        return None
    return Finding(
        Kind.SHRINKER_RECURSION,
        True,
        Confidence.PROBABLE,
        "the code that asked for memory is of the same subsystem as the shrinker that waits for a lock",
    )


def _same_names(case: Case) -> bool:
    """Whether unlisted functions on both sides of reclaim begin with the same word."""
    inner = {_word(s.frame.name) for s in case.body.inner if s.row is None}
    outer = {_word(s.frame.name) for s in case.body.outer[:8] if s.row is None}
    return any(len(word) >= 4 for word in inner & outer)


def _word(name: str) -> str:
    return name.lstrip("_").partition("_")[0]


def queue_frozen_by_itself(case: Case, facts: Facts) -> Finding | None:
    """The block layer allocates while it changes a queue, and reclaim's write waits to enter a queue."""
    body = case.body
    entering = any(step.frame.name in _ENTERS_QUEUE for step in body.inner)
    changing = any(step.role in (Role.BLOCK, Role.TAG_WAIT) for step in body.outer[:8])
    if body.reclaim is not Reclaim.DIRECT or not entering or not changing:
        return None
    return Finding(
        recursion_kind(case),
        True,
        Confidence.PROBABLE,
        "it asked for memory while it changed a block device's queue, and reclaim waits to "
        "enter a queue that is frozen",
        "the log does not show that both are the same queue",
    )


_ENTERS_QUEUE = frozenset({"__bio_queue_enter", "blk_queue_enter", "bio_queue_enter", "blk_mq_queue_enter"})


def page_locked_by_itself(case: Case, facts: Facts) -> Finding | None:
    """Reclaim has locked a page, asks its file system to let go of it, and that waits for a page's lock."""
    body = case.body
    names = [step.frame.name for step in body.inner]
    let_go = any(name.startswith(("try_to_release_page", "filemap_release_folio")) for name in names)
    if body.reclaim is not Reclaim.DIRECT or body.wait is not Wait.PAGE_LOCK or not let_go:
        return None
    return Finding(
        Kind.WRITEBACK_RECURSION,
        True,
        Confidence.PROBABLE,
        "reclaim holds the lock of a page that it wants freed, and below that it waits for the "
        "lock of a page",
    )


def completion_needs_memory(case: Case, facts: Facts) -> Finding | None:
    """A file system's I/O completion gets no memory, while reclaim waits for that file system."""
    body = case.body
    part = asking_part(body)
    waiting = facts.blocked_reclaim.get(part) if part else None
    completes = any(step.frame.name.endswith(("_end_io", "_endio", "_ioend")) for step in body.outer)
    asks = any(step.frame.name == "__alloc_pages_slowpath" for step in body.steps)
    if waiting is None or not completes or not asks or waiting.report.tid == case.report.tid:
        return None
    return Finding(
        Kind.WRITEBACK_RECURSION,
        True,
        Confidence.POSSIBLE,
        f"it has to end {part}'s I/O and gets no memory for that, while {waiting.name} reclaims "
        f"and waits for {part}",
        "whether memory came free later",
    )


def flusher_waits_for_writeback(case: Case, facts: Facts) -> Finding | None:
    """A thread that prepares pages for writing waits, in reclaim, for a page under writeback."""
    body = case.body
    if body.reclaim is not Reclaim.DIRECT or case.asker.service is not Service.FLUSHER:
        return None
    if body.wait not in (Wait.WRITEBACK, Wait.PAGE_LOCK):
        return None
    return Finding(
        Kind.WRITEBACK_RECURSION,
        True,
        Confidence.PROBABLE,
        "it prepares pages for writing, has marked them as under writeback and not sent them off yet, "
        "and its allocation waits in reclaim for a page under writeback",
        "the log does not show which page it waits for",
    )


def reclaimers_behind_an_allocation(case: Case, facts: Facts) -> Finding | None:
    """Reclaimers wait for a subsystem's lock while that subsystem's code waits for reclaim to progress."""
    body, asker = case.body, case.asker
    if body.reclaim is not Reclaim.DIRECT or body.wait not in (Wait.RECLAIM_THROTTLE, Wait.MEMPOOL, Wait.IO):
        return None
    blocked = facts.blocked_shrinkers.get(asker.part) if asker.part else None
    by_lock = any(step.role in (Role.DRIVER, Role.BLOCK) for step in body.outer[:6])
    if blocked is None or not by_lock or blocked.report.tid == case.report.tid:
        return None
    return Finding(
        Kind.SHRINKER_RECURSION,
        True,
        Confidence.PROBABLE,
        f"{asker.part} asked for memory and waits for reclaim, while {blocked.name} reclaims and "
        f"waits for {asker.part}",
    )


def own_daemon_stuck(case: Case, facts: Facts) -> Finding | None:
    """A task waits, in reclaim, for a file system whose daemon on this machine is itself in reclaim."""
    body = case.body
    if body.reclaim is not Reclaim.DIRECT:
        return None
    server = {Wait.DAEMON: facts.fuse_daemon, Wait.SERVER: facts.nfs_server}.get(body.wait)
    if server is None:
        return None
    kind = Kind.USER_FS_RECURSION if body.wait is Wait.DAEMON else Kind.NETWORK_FS_RECURSION
    return Finding(
        kind,
        True,
        Confidence.PROBABLE,
        f"its allocation waits in reclaim for a file system that this machine serves itself, "
        f"and {server.name}, which serves it, is in reclaim too",
    )


def sender_to_a_device_of_ours(case: Case, facts: Facts) -> Finding | None:
    """A program sends, its reclaim waits for I/O, and the machine has a device that some program serves."""
    body = case.body
    sends = any(step.role is Role.NETWORK for step in body.outer)
    served = facts.families & {"nbd", "ublk_drv", "target_core_user"}
    if body.reclaim is not Reclaim.DIRECT or body.wait not in _IO or not sends or not served:
        return None
    return Finding(
        recursion_kind(case),
        True,
        Confidence.POSSIBLE,
        "it sends on a socket, its allocation waits in reclaim for I/O, and this machine uses a "
        "device that a "
        f"program serves ({', '.join(sorted(served))})",
        "whether this program serves that device: name it with --daemon if it does",
    )


def throttled_server(case: Case, facts: Facts) -> Finding | None:
    """A thread that cleans dirty pages is stopped until dirty pages have been cleaned."""
    if case.body.wait is not Wait.DIRTY_THROTTLE or case.asker.service not in (
        Service.DAEMON,
        Service.KERNEL,
    ):
        return None
    return Finding(
        Kind.THROTTLED_DAEMON,
        True,
        Confidence.PROBABLE,
        "it is needed to write dirty pages, and its own write was stopped until dirty pages "
        "have been written",
        "the log does not show whose dirty pages fill the limit",
    )


def throttled_in_reclaim(case: Case, facts: Facts) -> Finding | None:
    """A thread that others need for their I/O sleeps in reclaim until others make progress."""
    body = case.body
    if body.reclaim is not Reclaim.DIRECT or body.wait is not Wait.RECLAIM_THROTTLE:
        return None
    if case.asker.service not in (Service.DAEMON, Service.KERNEL) or facts.stuck == 0 or facts.exhausted:
        return None
    return Finding(
        recursion_kind(case),
        True,
        Confidence.POSSIBLE,
        f"it is needed to complete I/O, sleeps in reclaim until pages have been written, "
        f"and {facts.stuck} tasks wait for I/O",
        "whether the tasks wait for the device that it serves",
    )


RULES: tuple[Rule, ...] = (
    shrinker_inversion,
    lock_owner_in_reclaim,
    file_server_in_own_mount,
    io_thread_in_reclaim,
    inside_itself,
    unlisted_inside_itself,
    queue_frozen_by_itself,
    page_locked_by_itself,
    completion_needs_memory,
    flusher_waits_for_writeback,
    reclaimers_behind_an_allocation,
    own_daemon_stuck,
    sender_to_a_device_of_ours,
    throttled_server,
    throttled_in_reclaim,
)


def recursion_kind(case: Case) -> Kind:
    """Through what reclaim came back: swap, a daemon's file system, writeback, inodes or another shrinker."""
    body = case.body
    roles = {step.role for step in body.inner}
    if Role.SWAP_OUT in roles:
        return Kind.SWAP_RECURSION
    if body.wait is Wait.DAEMON or Role.USER_FS in roles:
        return Kind.USER_FS_RECURSION
    if Role.NETWORK_FS in roles:
        return Kind.NETWORK_FS_RECURSION
    if any(step.frame.name in _INODES for step in body.inner):
        return Kind.INODE_RECURSION
    if Role.SHRINKER in roles:
        return Kind.SHRINKER_RECURSION
    return Kind.WRITEBACK_RECURSION


_INODES = frozenset(
    {"super_cache_scan", "prune_super", "prune_icache_sb", "prune_dcache_sb", "shrink_icache_memory", "evict"}
)


def other_end(case: Case, facts: Facts) -> Case | None:
    """The other task of a cycle that the log proves, None where it proves none."""
    if case.body.wait is Wait.SHRINKERS:
        found = (facts.blocked_shrinkers.get(name) for name in families(case.body.outer))
        return next((other for other in found if other), None)
    owner = case.report.owner
    if owner and owner[1] in facts.reclaiming:
        return facts.reclaiming[owner[1]]
    found = (facts.shrinker_waiters.get(name) for name in families(case.body.inner))
    return next((other for other in found if other), None)
