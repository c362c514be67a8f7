"""Judgement on one stack in the light of its log: small rules, tried in order; the first that speaks wins.

The question behind all of them: does an allocation wait, through reclaim, on something that cannot
complete without it? A rule answers for one situation and says why.
"""

from collections.abc import Callable

from ioflusher.kernlog.judging.between import (
    HELD,
    compaction_behind_own_server,
    completion_needs_memory,
    file_server_in_own_mount,
    lock_owner_in_reclaim,
    needed_behind_an_allocation,
    own_daemon_stuck,
    own_nfs_server_behind_shrinkers,
    reclaimers_behind_an_allocation,
    shrinker_inversion,
    thaw_behind_reclaim,
    thread_maker_in_reclaim,
)
from ioflusher.kernlog.judging.facts import Facts
from ioflusher.kernlog.judging.findings import Case, Confidence, Finding, Kind
from ioflusher.kernlog.judging.kinds import recursion_kind
from ioflusher.kernlog.judging.oom import victim_behind_the_charger
from ioflusher.kernlog.judging.plain import plain_finding
from ioflusher.kernlog.stacks.anatomy import Reclaim, Wait
from ioflusher.kernlog.stacks.askers import Service, families, family, is_kernel_thread
from ioflusher.kernlog.stacks.roles import Role

Rule = Callable[[Case, Facts], Finding | None]

_IO = {Wait.IO, Wait.MEMPOOL, Wait.TAG, Wait.WRITEBACK, Wait.PAGE_LOCK, Wait.SOCKET, Wait.COMPLETION}
_ANSWERS = {Wait.DAEMON: {"fuse"}, Wait.SERVER: {"nfs", "cluster", "fuse"}}


def judge(case: Case, facts: Facts) -> Finding:
    """What a stack comes to, given everything the log told. Pure."""
    for rule in () if case.runs else RULES:
        finding = rule(case, facts)
        if finding:
            return finding
    return plain_finding(case, facts)


def own_device(case: Case, facts: Facts) -> Finding | None:
    """The kernel's memory shows the device that is waited for, and that this very process serves it."""
    body, device = case.body, case.report.device
    if not any(server.device == device and server.pid == case.report.pid for server in facts.servers):
        return None
    if body.reclaim is Reclaim.DIRECT and body.wait is not Wait.RUNNING:
        kind = recursion_kind(case)
        why = f"its allocation waits in reclaim for {device}, whose requests its own process completes"
    elif body.wait is Wait.DIRTY_THROTTLE:
        kind = Kind.THROTTLED_DAEMON
        why = f"its write was stopped for the dirty pages of {device}, which its own process has to write"
    else:
        return None
    owner = case.report.owner
    if owner:
        why += f"; on its way there, {owner[0]} ({owner[1]}) holds the lock"
    holder = facts.reclaiming.get(owner[1]) if owner else None
    return Finding(kind, True, Confidence.CERTAIN, f"in the kernel's memory: {why}", other=holder)


def anothers_device(case: Case, facts: Facts) -> Finding | None:
    """An allocation waits for a device that its process does not serve: a slow device, to it."""
    device, asker = case.report.device, case.asker
    servers = [server for server in facts.servers if server.device == device]
    own = any(server.pid == case.report.pid for server in servers)
    if not device or own or case.body.reclaim is not Reclaim.DIRECT:
        return None
    # whether another thread's name or work makes it needed is for the other rules to say
    if asker.service not in (Service.DAEMON, Service.ORDINARY) or not (servers or asker.daemon):
        return None
    names = ", ".join(f"{server.comm} ({server.pid})" for server in servers)
    who = f"{names} serves" if servers else "the kernel's own driver serves"
    return Finding(
        Kind.RECLAIM_BEHIND_DEVICE,
        False,
        Confidence.CERTAIN,
        f"its allocation waits in reclaim for {device}, which {who}",
    )


def io_thread_in_reclaim(case: Case, facts: Facts) -> Finding | None:
    """A thread that others need for their I/O waits for I/O below its own allocation."""
    body, asker = case.body, case.asker
    if body.reclaim is not Reclaim.DIRECT or asker.service not in (Service.DAEMON, Service.KERNEL):
        return None
    if body.wait not in _IO | HELD | {Wait.RECLAIM_QUEUE}:
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


def submitter_in_reclaim(case: Case, facts: Facts) -> Finding | None:
    """A request is handed down or ended, and an allocation on that way waits in reclaim for I/O."""
    body = case.body
    if body.reclaim is not Reclaim.DIRECT or body.wait not in _IO | HELD:
        return None
    way = next((step for step in body.outer if step.frame.name.startswith(_REQUESTS)), None)
    if way is None:
        return None
    return Finding(
        recursion_kind(case),
        True,
        Confidence.PROBABLE,
        f"it asked for memory below {way.frame.name}(), where requests of a device wait for it, and its "
        "allocation waits in reclaim",
        "the log does not show that reclaim waits for the same device",
    )


# block/blk-core.c keeps what is submitted below submit_bio() on a list until the outermost one returns
_REQUESTS = (
    *("submit_bio", "__submit_bio", "generic_make_request", "blk_mq_dispatch_rq_list", "__map_bio"),
    *("blk_mq_try_issue", "__blk_mq_issue", "blk_mq_request_issue", "bio_endio", "blk_update_request"),
    *("blk_mq_end_request", "scsi_queue_rq", "nvme_queue_rq", "loop_queue_rq", "nbd_queue_rq"),
)


def inode_freed_by_itself(case: Case, facts: Facts) -> Finding | None:
    """Reclaim has marked inodes as being freed, and on the way to free one it waits for such an inode."""
    body = case.body
    frees = any(step.frame.name == "evict" for step in body.inner)
    if body.reclaim is None or body.wait is not Wait.INODE or not frees:
        return None
    return Finding(
        Kind.INODE_RECURSION,
        True,
        Confidence.PROBABLE,
        "reclaim marks a row of inodes and frees one after another; to free this one it looks for another "
        "and waits until that has been freed",
        "the log does not show that the other inode stands in the same row",
    )


def completer_in_reclaim(case: Case, facts: Facts) -> Finding | None:
    """A file system's worker that ends I/O waits, in reclaim, for that file system or for a page."""
    body = case.body
    ends = any(step.frame.name.endswith(_ENDS_IO) for step in body.outer)
    if body.reclaim is not Reclaim.DIRECT or not ends or not is_kernel_thread(case.report, body):
        return None
    same = set(families(body.inner)) & set(families(body.outer))
    if body.wait not in _IO | HELD or not (same or body.wait in (Wait.WRITEBACK, Wait.PAGE_LOCK)):
        return None
    return Finding(
        recursion_kind(case),
        True,
        Confidence.PROBABLE,
        "it has to end a file system's I/O, and its allocation waits in reclaim for "
        + (", ".join(sorted(same)) if same else "a page that is being written"),
        None if same else "the log does not show whose page it waits for",
    )


_ENDS_IO = ("_end_io", "_endio", "_ioend", "_ioends", "_finish_ordered_io", "_end_io_rsv_work", "_endio_work")


def inside_itself(case: Case, facts: Facts) -> Finding | None:
    """A subsystem's own code allocates, and reclaim waits for the same subsystem."""
    body, asker = case.body, case.asker
    if body.reclaim is not Reclaim.DIRECT or not asker.part:
        return None
    if body.wait not in HELD and not _waits_in_own_code(case):
        return None
    if asker.part not in families(body.inner) and not _same_names(case):
        return None
    if body.wait in _ANSWERS and not _carries_requests(case):
        return None
    return Finding(
        recursion_kind(case),
        True,
        Confidence.PROBABLE,
        f"{asker.part} asked for memory in the middle of its own work, and reclaim came back "
        f"into {asker.part}, "
        f"which waits for something that this thread may hold or has to do",
    )


def _carries_requests(case: Case) -> bool:
    """Whether no answer can come before this thread goes on, since it sends, connects or recovers."""
    sends = any(step.role is Role.NETWORK for step in case.body.outer)
    return sends or is_kernel_thread(case.report, case.body)


def _waits_in_own_code(case: Case) -> bool:
    """Whether a device driver itself holds the request back, rather than the hardware below it."""
    speaking = next((step for step in case.body.inner if step.role not in _SILENT), None)
    return speaking is not None and speaking.role is Role.BLOCK and family(speaking.part) == case.asker.part


_SILENT = {None, Role.SCHEDULE, Role.WAIT_BIT, Role.LOCK, Role.COMPLETION, Role.IO_WAIT}


def unlisted_inside_itself(case: Case, facts: Facts) -> Finding | None:
    """As `inside_itself`, for a subsystem that the table does not list: its functions share a first word."""
    body = case.body
    in_lock = body.reclaim is Reclaim.DIRECT and body.wait is Wait.LOCK
    if not in_lock or case.asker.part or not _same_names(case):
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


def nameless_behind_a_daemon(case: Case, facts: Facts) -> Finding | None:
    """A stack without a name waits, in reclaim, for a FUSE file system: it may be the daemon's own."""
    body = case.body
    waits = body.wait in (Wait.DAEMON, Wait.PAGE_LOCK, Wait.WRITEBACK, Wait.INODE)
    fuse = any(step.role is Role.USER_FS for step in body.inner)
    if body.reclaim is not Reclaim.DIRECT or not waits or not fuse or case.report.comm:
        return None
    return Finding(
        Kind.USER_FS_RECURSION,
        True,
        Confidence.POSSIBLE,
        "its allocation waits in reclaim for a file system in user space, and it may be that file system's "
        "own daemon",
        "the name of the program whose stack this is",
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


_LOOP_IS_LOCAL = (4, 13)


def throttled_server(case: Case, facts: Facts) -> Finding | None:
    """A thread that cleans dirty pages is stopped until dirty pages have been cleaned.

    The kernel's loop workers are stopped for pages of the device below only, which need nothing of theirs:
    since Linux 4.13 they carry PF_LOCAL_THROTTLE (then called PF_LESS_THROTTLE) themselves.
    """
    service, version = case.asker.service, case.kernel_version
    before = service is Service.KERNEL and version is not None and version < _LOOP_IS_LOCAL
    if case.body.wait is not Wait.DIRTY_THROTTLE or not (service is Service.DAEMON or before):
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
    if case.asker.service not in (Service.DAEMON, Service.KERNEL) or facts.exhausted:
        return None
    others = f", and {facts.stuck} tasks wait for I/O" if facts.stuck else ""
    return Finding(
        recursion_kind(case),
        True,
        Confidence.POSSIBLE,
        f"it is needed to complete I/O and sleeps in reclaim until pages have been written{others}",
        "whether those pages are on the device that it serves",
    )


RULES: tuple[Rule, ...] = (
    shrinker_inversion,
    own_nfs_server_behind_shrinkers,
    thaw_behind_reclaim,
    thread_maker_in_reclaim,
    own_device,
    anothers_device,
    lock_owner_in_reclaim,
    needed_behind_an_allocation,
    file_server_in_own_mount,
    compaction_behind_own_server,
    io_thread_in_reclaim,
    submitter_in_reclaim,
    completer_in_reclaim,
    inode_freed_by_itself,
    inside_itself,
    unlisted_inside_itself,
    queue_frozen_by_itself,
    page_locked_by_itself,
    completion_needs_memory,
    flusher_waits_for_writeback,
    reclaimers_behind_an_allocation,
    own_daemon_stuck,
    nameless_behind_a_daemon,
    sender_to_a_device_of_ours,
    throttled_server,
    throttled_in_reclaim,
    victim_behind_the_charger,
)
