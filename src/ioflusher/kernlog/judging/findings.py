"""What a diagnosis says: kinds of episodes, and one task's finding."""

import re
from dataclasses import dataclass
from enum import Enum

from ioflusher.kernlog.records import Source, TaskReport, task_name
from ioflusher.kernlog.stacks.anatomy import Anatomy
from ioflusher.kernlog.stacks.askers import Asker
from ioflusher.kernlog.stacks.roles import Role
from ioflusher.kernlog.stacks.things import Thing


class Kind(Enum):
    """What an episode is. Where `recursion` may be either, the episode's own field says which."""

    SWAP_RECURSION = "swap-recursion"
    INODE_RECURSION = "inode-recursion"
    WRITEBACK_RECURSION = "writeback-recursion"
    SHRINKER_RECURSION = "shrinker-recursion"
    SHRINKER_INVERSION = "shrinker-lock-inversion"
    USER_FS_RECURSION = "user-fs-recursion"
    NETWORK_FS_RECURSION = "network-fs-recursion"
    LOCK_HELD_IN_RECLAIM = "lock-held-in-reclaim"
    THROTTLED_DAEMON = "throttled-daemon"
    LOCKDEP = "lockdep-prediction"
    RECLAIM_BEHIND_DEVICE = "reclaim-behind-device"
    RECLAIM_BEHIND_LOCK = "reclaim-behind-lock"
    RECLAIM_THROTTLED = "reclaim-throttled"
    MEMORY_EXHAUSTION = "memory-exhaustion"
    DIRTY_THROTTLED = "dirty-throttled"
    USER_FS_WAIT = "user-fs-wait"
    NETWORK_FS_WAIT = "network-fs-wait"
    SLOW_STORAGE = "slow-storage"
    FILE_SYSTEM_WAIT = "file-system-wait"
    LOCK_WAIT = "lock-wait"
    WORK_WAIT = "work-wait"
    LOCKUP = "lockup"
    OTHER = "other"


class Confidence(Enum):
    """How sure a finding is."""

    CERTAIN = "certain"  # the log or the memory itself shows both ends
    PROBABLE = "probable"  # one end is shown, the other follows from what the task is known to be
    POSSIBLE = "possible"  # something that would decide it is missing


@dataclass(frozen=True, slots=True)
class Edge:
    """One task waits for what is up to another, or to itself.

    Attributes:
        waiter, giver: the two tasks.
        thing: what is waited for; None for a lock whose owner the kernel names.
        scope: whose it is: a subsystem, a device; None where nothing tells.
        known: how sure the edge is: as sure as the less sure of its ends.
        waits: what the waiter waits for, in words.
        gives: why that is up to the giver, in words that begin with "it" or "its".
        missing: what would make it surer, None for nothing.
    """

    waiter: "Case"
    giver: "Case"
    thing: Thing | None
    scope: str | None
    known: Confidence
    waits: str
    gives: str
    missing: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """What one stack comes to.

    Attributes:
        kind: what it is.
        recursion: an allocation waits, through reclaim, on something that cannot complete without it.
        confidence: how sure that is.
        why: one sentence with the reason for `recursion` being what it is.
        missing: what would have made it surer, None for nothing.
        edges: the cycle, beginning with this task's own edge; empty where there is none.
        other: the task that has to act, where the log shows it and it is not this one; None for none.
    """

    kind: Kind
    recursion: bool
    confidence: Confidence
    why: str
    missing: str | None = None
    edges: tuple[Edge, ...] = ()
    other: "Case | None" = None


@dataclass(frozen=True, slots=True)
class Case:
    """One stack with everything that judging it needs.

    Attributes:
        report: the task and its stack.
        body: the stack taken apart.
        asker: who the task is to others.
    """

    report: TaskReport
    body: Anatomy
    asker: Asker

    @property
    def ran(self) -> bool:
        """Whether the task ran when its stack was printed, so that it waited for nothing."""
        return self.report.source in (Source.LOCKUP, Source.DUMP) and not self._sleeps

    @property
    def runs(self) -> bool:
        """Whether the task ran or was ready to run, whatever printed its stack."""
        return self.ran or (self.report.state == "R" and not self._sleeps)

    @property
    def _sleeps(self) -> bool:
        return bool(self.body.steps) and self.body.steps[0].role is Role.SCHEDULE

    @property
    def kernel_version(self) -> tuple[int, int] | None:
        """The kernel's version and patch level, None where the log does not say."""
        found = re.match(r"(\d+)\.(\d+)", self.report.kernel or "")
        return (int(found[1]), int(found[2])) if found else None

    @property
    def name(self) -> str:
        """The task in words: "msgr-worker-1 (1026)"; a worker without a name is known by its work queue."""
        queue = self.report.workqueue
        comm = self.report.comm or (f"the worker of {queue}" if queue else None)
        return task_name(comm, self.report.tid, self.report.line)
