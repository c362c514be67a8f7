"""Rules on two tasks of a log: one of them is in reclaim, the other shows what it waits for."""

from ioflusher.kernlog.judging.facts import MAKES_THREADS, THAWS, Facts, awaits_thaw
from ioflusher.kernlog.judging.findings import Case, Confidence, Finding, Kind
from ioflusher.kernlog.judging.kinds import recursion_kind
from ioflusher.kernlog.stacks.anatomy import Reclaim, Step, Wait
from ioflusher.kernlog.stacks.askers import Service, asking_part, families
from ioflusher.kernlog.stacks.roles import Role

# what somebody must let go of or bring to an end, rather than a device that works by itself
HELD = {Wait.LOCK, Wait.COMPLETION, Wait.WORK, Wait.FS, Wait.INODE, Wait.DAEMON, Wait.SERVER, Wait.RCU}


def shrinker_inversion(case: Case, facts: Facts) -> Finding | None:
    """One task waits for every shrinker in the middle of a subsystem's work; a shrinker waits for that."""
    if case.body.wait is Wait.SHRINKERS:
        meeting = next((n for n in _lock_owners(case.body.outer) if n in facts.blocked_shrinkers), None)
        other = facts.blocked_shrinkers.get(meeting) if meeting else None
    elif case.body.reclaim is not None and case.body.wait in HELD:
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
        other=other,
    )


def own_nfs_server_behind_shrinkers(case: Case, facts: Facts) -> Finding | None:
    """A shrinker waits for an NFS server's answer, and this machine's NFS server for every shrinker."""
    body = case.body
    if body.wait is Wait.SHRINKERS and "nfsd" in families(body.outer):
        other = facts.nfs_shrinker
    elif body.reclaim is not None and body.wait is Wait.SERVER:
        shrinks = any(step.role is Role.SHRINKER for step in body.inner)
        other = facts.shrinker_waiters.get("nfsd") if shrinks else None
    else:
        return None
    if other is None:
        return None
    return Finding(
        Kind.SHRINKER_INVERSION,
        True,
        Confidence.PROBABLE,
        f"it and {other.name} wait for each other: one is in a shrinker and waits for an NFS server, the "
        "other has this machine's NFS server in hand and waits until every shrinker has ended",
        "whether the server that is waited for is this machine's own",
        other,
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
        other=holder,
    )


def needed_behind_an_allocation(case: Case, facts: Facts) -> Finding | None:
    """A thread that completes I/O waits for a subsystem's lock, and that subsystem's code is in reclaim."""
    if case.body.wait is not Wait.LOCK or case.body.reclaim is not None:
        return None
    if case.asker.service not in (Service.DAEMON, Service.KERNEL):
        return None
    part = next((name for name in families(case.body.steps)), None)
    holder = facts.allocating_inside.get(part) if part else None
    if holder is None or holder.body.wait is Wait.RUNNING:
        return None
    return Finding(
        Kind.LOCK_HELD_IN_RECLAIM,
        True,
        Confidence.PROBABLE,
        f"it is needed to complete I/O and waits for a lock of {part}, while {holder.name} works in {part} "
        "and its allocation waits in reclaim",
        f"whether {holder.name} holds that lock",
        holder,
    )


def thaw_behind_reclaim(case: Case, facts: Facts) -> Finding | None:
    """Reclaim holds a file system's s_umount and waits for its thaw; who thaws waits for s_umount."""
    if awaits_thaw(case.body):
        other = facts.thawer
    elif any(step.frame.name in THAWS for step in case.body.steps) and case.body.wait is Wait.LOCK:
        other = facts.frozen_reclaim
    else:
        return None
    if other is None:
        return None
    return Finding(
        Kind.SHRINKER_INVERSION,
        True,
        Confidence.CERTAIN,
        f"it and {other.name} wait for each other: reclaim holds the file system's s_umount and waits until "
        "it is thawed, and whoever thaws it waits for s_umount",
        other=other,
    )


def thread_maker_in_reclaim(case: Case, facts: Facts) -> Finding | None:
    """kthreadd waits, in reclaim, for a subsystem that waits for a thread that kthreadd has to make."""
    body = case.body
    if body.reclaim is Reclaim.DIRECT and any(step.frame.name in MAKES_THREADS for step in body.outer):
        other = next(
            (facts.thread_waiters[n] for n in families(body.inner) if n in facts.thread_waiters), None
        )
    elif body.wait is Wait.THREAD and facts.thread_maker is not None:
        shared = set(families(body.steps)) & set(families(facts.thread_maker.body.inner))
        other = facts.thread_maker if shared else None
    else:
        return None
    if other is None and body.reclaim is Reclaim.DIRECT and body.wait is Wait.WORK:
        return Finding(
            recursion_kind(case),
            True,
            Confidence.POSSIBLE,
            "its allocation waits in reclaim for a work queue's work, and work queues get their threads from "
            "nobody but it",
            "whether that work, or what it waits for, waits for a new thread",
        )
    if other is None:
        return None
    return Finding(
        recursion_kind(case) if body.reclaim is Reclaim.DIRECT else recursion_kind(other),
        True,
        Confidence.CERTAIN,
        f"it and {other.name} wait for each other: kthreadd's allocation waits in reclaim for a subsystem "
        "that waits for a thread from kthreadd",
        other=other,
    )


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
        None if own else others,
    )


def compaction_behind_own_server(case: Case, facts: Facts) -> Finding | None:
    """The kernel's reclaim or compaction waits for an NFS server whose threads on this machine wait too."""
    body = case.body
    if body.reclaim is not Reclaim.KSWAPD or "nfs" not in families(body.inner) or facts.nfsd_waits is None:
        return None
    return Finding(
        Kind.NETWORK_FS_RECURSION,
        True,
        Confidence.POSSIBLE,
        "it holds pages and waits for an NFS server, and this machine's NFS server waits for a page "
        f"({facts.nfsd_waits.name})",
        "the log does not say that the mount is of this machine itself",
        facts.nfsd_waits,
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
        waiting,
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
        other=blocked,
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
        other=server,
    )
