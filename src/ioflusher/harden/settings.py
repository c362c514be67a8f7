"""All hardening that a launcher can do before it starts a daemon, as one record."""

from dataclasses import dataclass

from ioflusher.harden.cgroup import join_cgroup
from ioflusher.harden.errors import HardenError
from ioflusher.harden.memory import set_memory_lock_limit
from ioflusher.harden.oom import set_oom_score_adj
from ioflusher.harden.priority import IoClass, set_io_priority, set_nice
from ioflusher.harden.sched import RealtimePolicy, set_realtime

UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class Settings:
    """What to change; None leaves it as it is.

    Attributes:
        memory_lock_limit: limit of locked memory in bytes, UNLIMITED for none.
        cgroup: control group to join.
        oom_score_adj: -1000 to 1000.
        policy, priority: real-time scheduling, priority 1 to 99; both or neither.
        nice: -20 to 19.
        io_class, io_level: I/O scheduling, level 0 to 7.
    """

    memory_lock_limit: int | None = None
    cgroup: str | None = None
    oom_score_adj: int | None = None
    policy: RealtimePolicy | None = None
    priority: int | None = None
    nice: int | None = None
    io_class: IoClass | None = None
    io_level: int | None = None

    def __post_init__(self) -> None:
        if (self.policy is None) is not (self.priority is None):
            raise HardenError(
                "a scheduling policy and a priority go together, found one of them",
                hint="for example --policy rr --priority 1",
            )
        if self.io_level is not None and self.io_class in (None, IoClass.IDLE):
            raise HardenError("an I/O level needs the real-time or the best-effort class")

    def apply(self) -> None:
        """Do it to the calling thread and process; what is inherited comes to what it starts later.

        Raises:
            HardenError: at the first that is refused.
        """
        if self.memory_lock_limit is not None:
            set_memory_lock_limit(None if self.memory_lock_limit == UNLIMITED else self.memory_lock_limit)
        if self.cgroup is not None:
            join_cgroup(self.cgroup)
        if self.oom_score_adj is not None:
            set_oom_score_adj(self.oom_score_adj)
        if self.nice is not None:
            set_nice(self.nice)
        if self.io_class is not None:
            set_io_priority(self.io_class, 4 if self.io_level is None else self.io_level)
        if self.policy is not None and self.priority is not None:
            set_realtime(self.policy, self.priority)
