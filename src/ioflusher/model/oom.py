"""The OOM killer: when it may act, and whom it takes; mm/oom_kill.c, mm/page_alloc.c.

It is asked when an allocation found nothing to reclaim MAX_RECLAIM_RETRIES times in a row
(should_reclaim_retry()), and does nothing for one without __GFP_FS: so a task with the IO_FLUSHER state never
brings it, however little memory there is. It is no part of an exploration: what it alone would end counts
as a freeze there.
"""

from ioflusher.model.code import Code
from ioflusher.model.gfp import Gfp
from ioflusher.model.linux import Linux
from ioflusher.model.transitions import Expression, number
from ioflusher.model.versions import holds

# mm/internal.h
MAX_RECLAIM_RETRIES = 16
# a jiffy of CONFIG_HZ=250 in reclaim_throttle(VMSCAN_THROTTLE_NOPROGRESS); before, HZ/10 in congestion_wait()
JIFFY_NS, CONGESTION_WAIT_NS = 4_000_000, 100_000_000
# include/uapi/linux/oom.h: a task with this one is never taken
OOM_SCORE_ADJ_MIN = -1000


def retries_ns(linux: Linux) -> int:
    """What the rounds in vain take before out_of_memory() is asked."""
    each = JIFFY_NS if holds("reclaim_throttle", linux.version) else CONGESTION_WAIT_NS
    return (MAX_RECLAIM_RETRIES + 1) * each


def may_kill(linux: Linux, gfp: int) -> bool:
    """Whether out_of_memory() looks for somebody on behalf of an allocation of this mask."""
    return linux.kills and bool(gfp & Gfp.FS)


def out_of_memory(code: Code, linux: Linux) -> None:
    """select_bad_process(): whoever has the most memory, swapped or not, by oom_badness().

    There are two to choose from: the workload, whose is all anonymous memory, and the daemon.
    """
    daemon, workload = _daemon_points(linux), _workload_points(linux)
    with code.call("__alloc_pages_may_oom", "out_of_memory", "oom_kill_process"), code.choice() as ways:
        if daemon is not None:
            with ways.way(when=daemon > workload):
                code.step("the OOM killer takes the daemon", kills="the daemon")
        with ways.otherwise():
            code.step("the OOM killer takes the workload", kills="the workload")


def mem_cgroup_out_of_memory(code: Code) -> None:
    """The killer of a group with anonymous memory, which is the workload's; whatever the mask, since 5.4."""
    with code.call("mem_cgroup_out_of_memory", "out_of_memory", "oom_kill_process"):
        code.step("the OOM killer of its control group takes the workload", kills="the workload")


def _daemon_points(linux: Linux) -> Expression | None:
    """oom_badness() of the daemon: its memory and a thousandth of all for each point of oom_score_adj."""
    if linux.daemon_memory is None or linux.oom_score_adj == OOM_SCORE_ADJ_MIN:
        return None
    total = linux.zone.free.high + (linux.swap.slots.high if linux.swap is not None else 0)
    return linux.daemon_memory + total * linux.oom_score_adj // 1000


def _workload_points(linux: Linux) -> Expression:
    if linux.swap is None:
        return linux.zone.anonymous
    return linux.zone.anonymous + (number(linux.swap.slots.high) - linux.swap.slots)
