"""What who ends a freeze needs itself: it must not wait for what is frozen."""

import gc
from collections.abc import Callable
from functools import partial

from ioflusher.flag import FlagError, set_io_flusher
from ioflusher.harden import HardenError, RealtimePolicy, lock_memory, set_oom_score_adj, set_realtime

PRIORITY = 10  # above everything ordinary; below what others have chosen with care


def protect(priority: int = PRIORITY) -> tuple[str, ...]:
    """The state, locked memory, real time, no OOM kill, for this process; what could not be had, in words."""
    gc.collect()
    gc.disable()  # a collection touches every object, and frees memory that would have to be asked for again
    trouble = []
    actions: tuple[Callable[[], None], ...] = (
        partial(set_io_flusher, True),
        lock_memory,
        partial(set_realtime, RealtimePolicy.RR, priority),
        partial(set_oom_score_adj, -1000),
    )
    for action in actions:
        try:
            action()
        except (FlagError, HardenError) as error:
            trouble.append(str(error))
    return tuple(trouble)
