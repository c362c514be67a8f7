"""Reclaim: what direct reclaim and kswapd may free, and on what they wait; mm/vmscan.c.

A round frees one unit, SWAP_CLUSTER_MAX pages in a run. What may be freed is decided by the mask of the
allocation behind it:

- clean pages of files by everybody;
- anonymous pages, by writing them to the swap area, with __GFP_IO alone (shrink_folio_list() keeps those
  that are not in the swap cache);
- clean pages of the swap cache by everybody;
- caches of file systems with __GFP_FS alone (super_cache_scan() returns SHRINK_STOP);
- dirty pages of files by nobody but kswapd, where the file system lets it (`BackingDevice.reclaim_writes`)
  and no page is clean: until then they are left to the flusher (PGDAT_DIRTY, in shrink_node()).

Neither waits for writeback (that is for limits of control groups of version 1). They wait on the way down:
for an element of the bio pool, a tag, a lock of the driver, room in its socket.
"""

from typing import TYPE_CHECKING

from ioflusher.kernel.task_flags import PF_KSWAPD, PF_KTHREAD, PF_MEMALLOC
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_KERNEL, Gfp
from ioflusher.model.linux import Linux
from ioflusher.model.plug import blk_plug
from ioflusher.model.transitions import Expression, all_of

if TYPE_CHECKING:
    from ioflusher.model.block import BlockDriver

# HZ, in throttle_direct_reclaim()
THROTTLED_NS = 1_000_000_000
# isolating a unit of pages, and freeing them or taking them from those who map them
SCAN_NS = 30_000


def reclaimable(linux: Linux, gfp: int) -> Expression:
    """Whether there is something that an allocation of this mask can begin to reclaim."""
    zone = linux.zone
    found = zone.clean > 0
    swap = linux.swap
    if swap is not None and gfp & Gfp.IO:
        found = found | swap.can_take
    if swap is not None and swap.back is not None:
        found = found | (swap.back.cached > 0)
    if gfp & Gfp.FS:
        for shrinker in linux.shrinkers:
            found = found | shrinker.can_free()
    return found


def can_be_throttled(linux: Linux, flags: int) -> bool:
    """Whether a task stands in throttle_direct_reclaim() at all: kernel threads do not.

    Half of the min watermark has to be there and has to be used by somebody, which real-time tasks do.
    """
    return linux.realtime and linux.zone.wmark_min > 1 and not flags & PF_KTHREAD


def allow_direct_reclaim(linux: Linux) -> Expression:
    """Whether half of the min watermark is free, or kswapd, which finds nothing, has given up."""
    zone = linux.zone
    return (zone.free > zone.wmark_min // 2) | reclaimable(linux, GFP_KERNEL).negated()


def throttle_direct_reclaim(code: Code, linux: Linux, gfp: int) -> None:
    """A task that would reclaim waits for kswapd, which needs what is left: mm/vmscan.c.

    Without __GFP_FS for a second at most, in state S, and then it reclaims; with it for as long as it takes.
    """
    allowed = allow_direct_reclaim(linux)
    calls = ("__alloc_pages_direct_reclaim", "try_to_free_pages", "throttle_direct_reclaim")
    interruptible = not gfp & Gfp.FS
    with code.choice() as ways:
        what = "kswapd to free memory"
        with code.call(*calls), ways.way(when=allowed, waits_for=what, interruptible=interruptible):
            pass
        if interruptible:
            with ways.way("was throttled for a second", after_ns=THROTTLED_NS):
                try_to_free_pages(code, linux, gfp)


def try_to_free_pages(code: Code, linux: Linux, gfp: int) -> None:
    """One round of direct reclaim: __alloc_pages_direct_reclaim() and what it calls."""
    with (
        code.call(
            "__alloc_pages_direct_reclaim", "try_to_free_pages", "do_try_to_free_pages", "shrink_zones"
        ),
        code.with_flags(PF_MEMALLOC),
    ):
        shrink_node(code, linux, gfp)


def shrink_node(code: Code, linux: Linux, gfp: int) -> None:
    """shrink_node(): a unit of what the mask allows; how often of which, as get_scan_count() has it.

    vm.swappiness is what I/O to the swap area is thought to cost against reading a file again, of 200.
    """
    zone, swap = linux.zone, linux.swap
    with code.call("shrink_node"), code.choice() as ways:
        with ways.way(
            "a clean page is freed",
            {zone.clean: zone.clean - 1, zone.free: zone.free + 1},
            when=zone.clean > 0,
            takes_ns=SCAN_NS,
            weight=200 - (swap.swappiness if swap else 0),
        ):
            pass
        if swap is not None and swap.swappiness:
            files_first = swap.lru_gen and swap.swappiness < 200
            turn = zone.clean.is_(0) if files_first else None
            swap.free_cached(ways, linux, when=turn)
            if gfp & Gfp.IO:
                with ways.way(when=all_of(swap.can_take, turn), weight=swap.swappiness):
                    swap.pageout(code, linux)
        if gfp & Gfp.FS:
            for shrinker in linux.shrinkers:
                shrinker.scan(code, ways)
        for backing in linux.domain.written_by_kswapd if code.flags & PF_KSWAPD else ():
            with ways.way(when=zone.clean.is_(0) & (backing.dirty > 0)):
                backing.pageout(code)
        with ways.otherwise("nothing to reclaim"):
            pass


def written_by_reclaim(linux: Linux) -> list[tuple["BlockDriver", str]]:
    """The requests that reclaim may submit, by device and kind.

    A round of direct reclaim is one of them, so that its own plug keeps nothing back; within the plug of who
    reclaims it goes into that.
    """
    swap = [(linux.swap.device, "swap")] if linux.swap is not None else []
    return [*swap, *((backing.device, "write") for backing in linux.domain.written_by_kswapd)]


def add_kswapd(linux: Linux) -> None:
    """kswapd(): from the low watermark, or when it is woken, to the high one."""
    zone = linux.zone
    code = Code(flags=PF_MEMALLOC | PF_KSWAPD)
    with code.call("kswapd"), code.loop():
        code.rest()
        code.wait(zone.kswapd_awake > 0, "somebody who needs memory", interruptible=True)
        with code.call("balance_pgdat"), code.loop(), code.choice() as ways:
            with ways.way("sleeps", {zone.kswapd_awake: 0}, when=zone.free >= zone.wmark_high):
                code.leave()
            found = reclaimable(linux, GFP_KERNEL)
            for backing in linux.domain.written_by_kswapd:
                found = found | (backing.dirty > 0)
            with ways.otherwise(when=found, waits_for="memory that can be reclaimed"):
                if linux.plugs:
                    _shrink_plugged(code, linux, found)
                else:
                    shrink_node(code, linux, GFP_KERNEL)
    linux.add(code, "kswapd0")


def _shrink_plugged(code: Code, linux: Linux, found: Expression) -> None:
    """The plug of shrink_lruvec(): some units, as many as get_scan_count() and the priority have it."""
    with blk_plug(code, linux, *written_by_reclaim(linux)), code.loop():
        shrink_node(code, linux, GFP_KERNEL)
        with code.choice() as ways:
            with ways.way():
                code.leave()
            with ways.way(when=found):
                pass
