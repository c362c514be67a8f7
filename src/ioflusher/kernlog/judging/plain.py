"""What a stack is when no recursion can be shown: a hang of another kind, and which."""

from ioflusher.kernlog.judging.facts import Facts
from ioflusher.kernlog.judging.findings import Case, Confidence, Finding, Kind
from ioflusher.kernlog.stacks.anatomy import Reclaim, Wait
from ioflusher.kernlog.stacks.askers import Service
from ioflusher.kernlog.stacks.waits import awaited

_DEVICE = {
    Wait.IO,
    Wait.WRITEBACK,
    Wait.PAGE,
    Wait.MEMPOOL,
    Wait.TAG,
    Wait.PAGE_LOCK,
    Wait.SOCKET,
    Wait.COMPLETION,
    Wait.FS,
}
_BY_KSWAPD = {
    **dict.fromkeys(_DEVICE, Kind.RECLAIM_BEHIND_DEVICE),
    Wait.RECLAIM_THROTTLE: Kind.RECLAIM_THROTTLED,
    Wait.DAEMON: Kind.USER_FS_WAIT,
    Wait.SERVER: Kind.NETWORK_FS_WAIT,
    Wait.IDLE: Kind.OTHER,
    Wait.UNKNOWN: Kind.OTHER,
}
_OUTSIDE = {
    Wait.DIRTY_THROTTLE: Kind.DIRTY_THROTTLED,
    Wait.DAEMON: Kind.USER_FS_WAIT,
    Wait.SERVER: Kind.NETWORK_FS_WAIT,
    Wait.IO: Kind.SLOW_STORAGE,
    Wait.WRITEBACK: Kind.SLOW_STORAGE,
    Wait.PAGE: Kind.SLOW_STORAGE,
    Wait.MEMPOOL: Kind.SLOW_STORAGE,
    Wait.TAG: Kind.SLOW_STORAGE,
    Wait.PAGE_LOCK: Kind.SLOW_STORAGE,
    Wait.FS: Kind.FILE_SYSTEM_WAIT,
    Wait.INODE: Kind.FILE_SYSTEM_WAIT,
    Wait.FROZEN: Kind.FILE_SYSTEM_WAIT,
    Wait.THREAD: Kind.WORK_WAIT,
    Wait.OOM: Kind.MEMORY_EXHAUSTION,
    Wait.LOCK: Kind.LOCK_WAIT,
    Wait.SHRINKERS: Kind.LOCK_WAIT,
    Wait.RECLAIM_QUEUE: Kind.LOCK_WAIT,
    Wait.WORK: Kind.WORK_WAIT,
    Wait.COMPLETION: Kind.WORK_WAIT,
    Wait.RECLAIM_THROTTLE: Kind.RECLAIM_THROTTLED,
}


def plain_finding(case: Case, facts: Facts) -> Finding:
    """The finding for a stack in which no rule saw a recursion; `recursion` is always False."""
    body = case.body
    if case.ran:
        return Finding(
            Kind.LOCKUP, False, Confidence.CERTAIN, "it ran when its stack was printed; it waited for nothing"
        )
    if body.reclaim is Reclaim.DIRECT:
        return _behind_anothers_device(case, facts) or _in_reclaim(case, facts)
    what = awaited(body)
    kind = _OUTSIDE.get(body.wait, Kind.OTHER)
    if body.reclaim is Reclaim.KSWAPD and body.wait is Wait.RUNNING:
        why = "the kernel's reclaim thread runs; it waits for nobody"
        return Finding(Kind.OTHER, False, Confidence.PROBABLE, why)
    if body.reclaim is Reclaim.KSWAPD:
        why = (
            f"the kernel's reclaim thread waits for {what}; it is no allocation and nobody's "
            "I/O needs it to end"
        )
        return Finding(_BY_KSWAPD.get(body.wait, Kind.RECLAIM_BEHIND_LOCK), False, Confidence.PROBABLE, why)
    if body.reclaim is Reclaim.FORCED:
        why = f"it was asked to free memory and waits for {what}; no allocation of its own waits"
        return Finding(kind, False, Confidence.PROBABLE, why)
    if body.wait is Wait.OOM and not any(step.part == "memcg" for step in body.steps):
        why = "nothing could be reclaimed: it waits until a process that was killed has given its memory back"
        return Finding(kind, False, Confidence.PROBABLE, why)
    if body.wait is Wait.OOM:
        why = "its memory cgroup is full, nothing in it could be reclaimed: the OOM killer has to make room"
        return Finding(kind, False, Confidence.PROBABLE, why)
    if body.wait is Wait.DIRTY_THROTTLE and case.asker.service is Service.KERNEL:
        why = "this kernel worker is stopped for dirty pages of the device that it writes to, which is slow"
        return Finding(kind, False, Confidence.PROBABLE, why)
    if body.wait is Wait.DIRTY_THROTTLE:
        why = (
            "its write was stopped until dirty pages have been written, and nothing shows "
            "that it has to write them"
        )
        return Finding(kind, False, Confidence.PROBABLE, why, _SERVES)
    if body.wait is Wait.MEMPOOL:
        why = "its allocation waits, without reclaim, for a reserve that requests under way give back"
        missing = "whether those requests wait for this thread themselves"
        return Finding(kind, False, Confidence.PROBABLE, why, missing)
    if body.wait is Wait.SHRINKERS and facts.in_shrinker is not None:
        other = facts.in_shrinker
        why = f"it waits for {what}, and {other.name} is in one and waits itself"
        return Finding(kind, False, Confidence.PROBABLE, why, other=other)
    if body.wait is Wait.SHRINKERS:
        missing = "the task whose shrinker does not end: its stack is not in the log"
        return Finding(kind, False, Confidence.POSSIBLE, f"it waits for {what}, outside reclaim", missing)
    why = f"it waits for {what}; no allocation of its own is involved"
    owner = case.report.owner
    lacks = f"what {owner[0]} ({owner[1]}), the lock's owner, waits for" if owner else None
    return Finding(kind, False, Confidence.PROBABLE, why, lacks)


def _behind_anothers_device(case: Case, facts: Facts) -> Finding | None:
    """The kernel's memory names the device, and its process does not serve it: a slow device, to it."""
    device, asker = case.report.device, case.asker
    servers = [server for server in facts.servers if server.device == device]
    if not device or asker.service not in (Service.DAEMON, Service.ORDINARY) or not (servers or asker.daemon):
        return None
    names = ", ".join(f"{server.comm} ({server.pid})" for server in servers)
    who = f"{names} serves" if servers else "the kernel's own driver serves"
    why = f"its allocation waits in reclaim for {device}, which {who}"
    return Finding(Kind.RECLAIM_BEHIND_DEVICE, False, Confidence.CERTAIN, why)


_SERVES = (
    "whether the program serves the device that is waited for: name it with --daemon if it does, or give its "
    "machine with --snapshot"
)


def _in_reclaim(case: Case, facts: Facts) -> Finding:
    body = case.body
    what = awaited(body)
    match Wait.RUNNING if case.runs else body.wait:
        case Wait.RUNNING:
            below = (
                f"; a zone is {-(facts.worst_margin or 0)} KiB below its min watermark"
                if facts.exhausted
                else ""
            )
            why = (
                "it reclaims without waiting for anybody: memory that may be freed without "
                f"I/O is short{below}"
            )
            missing = None if facts.exhausted else "the memory state (sysrq-m) would show how short it is"
            return Finding(Kind.MEMORY_EXHAUSTION, False, Confidence.PROBABLE, why, missing)
        case Wait.RECLAIM_THROTTLE:
            why = "reclaim made it sleep; nothing shows that others' I/O needs it"
            return Finding(Kind.RECLAIM_THROTTLED, False, Confidence.PROBABLE, why)
        case Wait.DAEMON:
            why = (
                "its allocation waits in reclaim for a file system's daemon, and nothing "
                "shows that the daemon waits for it"
            )
            missing = "the stacks of the daemon's threads"
            return Finding(Kind.USER_FS_WAIT, False, Confidence.POSSIBLE, why, missing)
        case Wait.SERVER:
            why = (
                "its allocation waits in reclaim for a file server, which does not need this machine's memory"
            )
            return Finding(Kind.NETWORK_FS_WAIT, False, Confidence.PROBABLE, why)
        case wait if wait in _DEVICE:
            why = (
                f"its allocation waits in reclaim for {what}, and nothing shows that this I/O "
                "needs the thread"
            )
            return Finding(Kind.RECLAIM_BEHIND_DEVICE, False, Confidence.PROBABLE, why, _SERVES)
    why = f"its allocation waits in reclaim for {what}, and nothing shows that the holder waits for it"
    return Finding(Kind.RECLAIM_BEHIND_LOCK, False, Confidence.POSSIBLE, why, "the stack of who holds it")
