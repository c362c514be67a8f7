"""Memory control groups: a limit for some tasks, and reclaim for its sake; mm/memcontrol.c, mm/vmscan.c."""

from dataclasses import dataclass

from ioflusher.kernel.task_flags import PF_MEMALLOC
from ioflusher.model.code import Code
from ioflusher.model.gfp import Gfp, current_gfp_context
from ioflusher.model.linux import Linux
from ioflusher.model.oom import mem_cgroup_out_of_memory, retries_ns
from ioflusher.model.reclaim import SCAN_NS
from ioflusher.model.transitions import Expression, total
from ioflusher.model.versions import holds


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A group whose tasks own all anonymous memory, or all pages of files, of the machine.

    Attributes:
        limit: memory.max, or memory.limit_in_bytes of version 1, in units.
        version: 1 or 2.
        files: whether it is pages of files that are its; else anonymous memory.
    """

    limit: int
    version: int
    files: bool

    def charged(self, linux: Linux) -> Expression:
        """What counts against the limit; what is being written to swap still does."""
        zone = linux.zone
        if self.files:
            return total([zone.clean, *(backing.unwritten for backing in linux.domain.backing)])
        swap = linux.swap
        if swap is None:
            return zone.anonymous
        charged = zone.anonymous + swap.writeback
        return charged + swap.back.reading + swap.back.cached if swap.back is not None else charged


def mem_cgroup_charge(code: Code, linux: Linux, gfp: int) -> None:
    """A unit is charged to the task's group, if it has one: try_charge_memcg().

    Above the limit the group is reclaimed: anonymous memory by writing it to swap, which needs __GFP_IO;
    clean pages of files; nothing else. For a group of version 1 a task waits for pages that are being
    written, unless its mask is without __GFP_FS (shrink_folio_list(), may_enter_fs()): then it looks again
    and again. Neither writes pages of files: the flushers are told to.
    """
    group = linux.groups.get(code.group)
    if group is None or code.flags & PF_MEMALLOC:
        return
    gfp = current_gfp_context(code.flags, gfp, linux.version)
    below = group.charged(linux) < group.limit
    with code.call("__mem_cgroup_charge", "try_charge_memcg"), code.loop(), code.choice() as ways:
        with ways.way(when=below):
            code.leave()
        with ways.otherwise():
            calls = ("try_to_free_mem_cgroup_pages", "do_try_to_free_pages", "shrink_node")
            with code.call(*calls), code.with_flags(PF_MEMALLOC):
                if group.files:
                    _reclaim_files(code, linux, group, gfp)
                else:
                    _reclaim_anonymous(code, linux, gfp)


def _reclaim_anonymous(code: Code, linux: Linux, gfp: int) -> None:
    swap, group = linux.swap, linux.groups[code.group]
    below = group.charged(linux) < group.limit
    waits_for = "memory of its control group that is being written to swap"
    with code.choice() as ways:
        if swap is not None:
            swap.free_cached(ways, linux)
            if gfp & Gfp.IO:
                with ways.way(when=swap.can_take):
                    swap.pageout(code, linux)
        with ways.otherwise(when=below, waits_for=waits_for):
            pass
        if linux.kills:
            lost = swap.writeback.is_(0) if swap is not None else None
            with ways.otherwise("reclaims in vain again and again", when=lost, takes_ns=retries_ns(linux)):
                mem_cgroup_out_of_memory(code)


def _reclaim_files(code: Code, linux: Linux, group: MemoryGroup, gfp: int) -> None:
    zone = linux.zone
    below = group.charged(linux) < group.limit
    with code.call("shrink_lruvec", "shrink_inactive_list"), code.choice() as ways:
        with ways.way(
            "a clean page of the group is freed",
            {zone.clean: zone.clean - 1, zone.free: zone.free + 1},
            when=zone.clean > 0,
            takes_ns=SCAN_NS,
        ):
            pass
        with ways.otherwise(
            "flushers are told", {each.sync_wanted: 1 for each in linux.domain.backing}, takes_ns=SCAN_NS
        ):
            if group.version == 1 and gfp & Gfp.FS:
                with code.call("shrink_folio_list", "folio_wait_writeback"):
                    code.wait((zone.clean > 0) | below, "a page that is being written")
            else:
                sleeps = ("reclaim_throttle",) if holds("reclaim_throttle", linux.version) else ()
                with code.call(*sleeps):
                    code.wait((zone.clean > 0) | below, "memory of its control group without I/O")
