"""The rest of a forward-progress guarantee: locked memory, scheduling, OOM score."""

from ioflusher.harden.errors import HardenError
from ioflusher.harden.memory import lock_memory, set_memory_lock_limit
from ioflusher.harden.oom import set_oom_score_adj
from ioflusher.harden.sched import RealtimePolicy, set_realtime

__all__ = [
    "HardenError",
    "RealtimePolicy",
    "lock_memory",
    "set_memory_lock_limit",
    "set_oom_score_adj",
    "set_realtime",
]
