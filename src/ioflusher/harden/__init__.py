"""The rest of a forward-progress guarantee: locked memory, scheduling, OOM score, limits, identity."""

from ioflusher.harden.capability import drop_ambient_capability
from ioflusher.harden.cgroup import join_cgroup
from ioflusher.harden.errors import HardenError
from ioflusher.harden.heap import prefault_heap
from ioflusher.harden.identity import Identity, become, find_identity
from ioflusher.harden.memory import lock_memory, set_memory_lock_limit
from ioflusher.harden.oom import set_oom_score_adj
from ioflusher.harden.priority import IoClass, set_io_priority, set_nice
from ioflusher.harden.reserve import MemoryReserve, ReserveKeeper
from ioflusher.harden.sched import RealtimePolicy, set_realtime
from ioflusher.harden.settings import UNLIMITED, Settings

__all__ = [
    "UNLIMITED",
    "HardenError",
    "Identity",
    "IoClass",
    "MemoryReserve",
    "RealtimePolicy",
    "ReserveKeeper",
    "Settings",
    "become",
    "drop_ambient_capability",
    "find_identity",
    "join_cgroup",
    "lock_memory",
    "prefault_heap",
    "set_io_priority",
    "set_memory_lock_limit",
    "set_nice",
    "set_oom_score_adj",
    "set_realtime",
]
