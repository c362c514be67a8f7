"""The rule on a full memory cgroup whose OOM killer waits for the very thread that waits for it."""

from ioflusher.kernlog.judging.facts import Facts, takes_inode_lock
from ioflusher.kernlog.judging.findings import Case, Confidence, Finding, Kind
from ioflusher.kernlog.stacks.anatomy import Wait


def victim_behind_the_charger(case: Case, facts: Facts) -> Finding | None:
    """A writer holds an inode's lock until the killed task is gone; a task waits for an inode's lock.

    From Linux 3.12 on a charge that fails lets go of its locks first (3812c8c8f395, "mm: memcg: do not trap
    chargers with full callstack on OOM"); from 4.6 on the OOM reaper frees what cannot exit.
    """
    body = case.body
    other = facts.inode_waiter
    version = case.kernel_version
    if body.wait is not Wait.OOM or not takes_inode_lock(body) or other is None:
        return None
    if version is not None and version >= (3, 12):
        return None
    return Finding(
        Kind.LOCK_HELD_IN_RECLAIM,
        True,
        Confidence.POSSIBLE,
        "its memory cgroup is full, and with an inode's lock in hand it waits until the OOM killer's choice "
        f"is gone, while {other.name} waits for an inode's lock",
        "whether that task is the one that was killed, and the inode the same",
        other,
    )
