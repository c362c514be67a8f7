"""Page allocation: a zone with its watermarks, and what an allocation goes through; mm/page_alloc.c.

Memory is counted in units. Every unit is free or of one kind: what is clean in the page cache, anonymous,
dirty, under writeback. Who allocates takes a free one, above the watermark that his mask and his task
allow.
"""

from dataclasses import dataclass

from ioflusher.kernel.task_flags import PF_MEMALLOC
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_HIGHUSER_MOVABLE, Gfp, current_gfp_context
from ioflusher.model.linux import Linux
from ioflusher.model.oom import may_kill, out_of_memory, retries_ns
from ioflusher.model.plug import sched_submit_work
from ioflusher.model.reclaim import (
    allow_direct_reclaim,
    can_be_throttled,
    reclaimable,
    throttle_direct_reclaim,
    try_to_free_pages,
)
from ioflusher.model.transitions import Changes, Variable
from ioflusher.model.versions import holds

# objects of a slab of a page, of 256 bytes as the head of a socket buffer is (skbuff_cache)
OBJECTS = 16
# a page fault and the zeroing of a unit's pages, and taking them from the free list
ALLOCATION_NS = 20_000


@dataclass(frozen=True, slots=True)
class MemoryZone:
    """struct zone, include/linux/mmzone.h; all in units.

    Attributes:
        free: NR_FREE_PAGES.
        clean: pages of files that have nothing to be written, NR_FILE_PAGES without the dirty ones.
        anonymous: NR_ANON_MAPPED, of those that may be swapped.
        wmark_min, wmark_low, wmark_high: the watermarks.
        kswapd_awake: whether kswapd was woken and has not reached the high watermark since.
    """

    free: Variable
    clean: Variable
    anonymous: Variable
    wmark_min: int
    wmark_low: int
    wmark_high: int
    kswapd_awake: Variable


def make_zone(linux: Linux, *, size: int, clean: int, min_free: int) -> MemoryZone:
    """The memory of a machine: `size` bytes for what the model has, `clean` of them page cache at the start.

    The distances between the watermarks are those of __setup_per_zone_wmarks() with watermark_scale_factor
    10: a quarter of min, at least a unit here.
    """
    units = linux.units(size)
    cached = linux.units(clean)
    least = linux.units(min_free)
    step = max(least // 4, linux.units(size // 1000))
    zone = MemoryZone(
        free=linux.variable("free", units - cached, units, what="free memory", unit="memory"),
        clean=linux.variable("clean", cached, units, what="clean page cache", unit="memory"),
        anonymous=linux.variable("anonymous", 0, units, what="anonymous memory", unit="memory"),
        wmark_min=least,
        wmark_low=least + step,
        wmark_high=least + 2 * step,
        kswapd_awake=linux.variable("kswapd_awake", 0, 1, what="kswapd is awake"),
    )
    linux.zone = zone
    return zone


def watermark(linux: Linux, gfp: int, flags: int, *, realtime: bool) -> int:
    """The units that have to stay free: __zone_watermark_ok() and gfp_to_alloc_flags(), mm/page_alloc.c.

    PF_MEMALLOC and __GFP_MEMALLOC may have all (ALLOC_NO_WATERMARKS), unless the mask has __GFP_NOMEMALLOC. A
    real-time task may have half of what lies below the min watermark, a quarter before 6.3.
    """
    least = linux.zone.wmark_min
    if not gfp & Gfp.NOMEMALLOC and (flags & PF_MEMALLOC or gfp & Gfp.MEMALLOC):
        return 0
    if gfp & Gfp.HIGH:
        return least - least // 2
    if realtime and gfp & Gfp.DIRECT_RECLAIM:
        return least - (least // 2 if holds("rt_half_reserve", linux.version) else least // 4)
    return least


def alloc_pages(
    code: Code, linux: Linux, gfp: int, gives: Changes, *, realtime: bool = False, label: str = "allocates"
) -> None:
    """A unit of free memory becomes something else: __alloc_pages(), mm/page_alloc.c.

    Args:
        code: the program of the task that allocates.
        linux: the kernel.
        gfp: the mask as the caller gives it.
        gives: what becomes of the unit.
        realtime: whether the task is a real-time task.
        label: for people.
    """
    taken = {linux.zone.free: linux.zone.free - 1, **gives}
    _alloc_pages(code, linux, gfp, taken, realtime=realtime, label=label)


def filemap_alloc_folio(
    code: Code, linux: Linux, label: str, also: Changes | None = None, *, realtime: bool = False
) -> None:
    """A free unit becomes clean page cache; mm/filemap.c. `also` is what changes with it."""
    clean = linux.zone.clean
    gives = {clean: clean + 1, **(also or {})}
    alloc_pages(code, linux, GFP_HIGHUSER_MOVABLE, gives, realtime=realtime, label=label)


def kmem_cache_alloc(
    code: Code, linux: Linux, gfp: int, *, realtime: bool = False, objects: int = OBJECTS
) -> None:
    """An object that is far smaller than a unit: of a slab that has one, else of a new one; mm/slub.c.

    The page for that has to be there as for any other allocation, or reclaim has to find it. That it is
    taken does not show: it is less than a unit, and is soon given back. `objects` are in a slab.
    """
    with code.call("kmem_cache_alloc_node"), code.choice() as ways:
        with ways.way(weight=objects - 1):
            pass
        with ways.way(), code.call("___slab_alloc", "allocate_slab"):
            _alloc_pages(code, linux, gfp, {}, realtime=realtime, label="a slab")


def _alloc_pages(code: Code, linux: Linux, gfp: int, taken: Changes, *, realtime: bool, label: str) -> None:
    zone = linux.zone
    gfp = current_gfp_context(code.flags, gfp, linux.version)
    with code.call("__alloc_pages"), code.choice() as ways:
        with ways.way(label, taken, when=zone.free > zone.wmark_low, takes_ns=ALLOCATION_NS):
            pass
        with ways.otherwise():
            _alloc_pages_slowpath(code, linux, gfp, taken, realtime=realtime, label=label)


def _alloc_pages_slowpath(
    code: Code, linux: Linux, gfp: int, taken: Changes, *, realtime: bool, label: str
) -> None:
    """__alloc_pages_slowpath(): wake kswapd, the min watermark, direct reclaim, again.

    A mask without __GFP_FS never brings the OOM killer (`ioflusher.model.oom`): where it finds nothing to
    reclaim it goes round for ever. The model has that as a wait for what would let it go on.
    """
    zone = linux.zone
    least = watermark(linux, gfp, code.flags, realtime=realtime)
    woken = {zone.kswapd_awake: 1} if gfp & Gfp.KSWAPD_RECLAIM else {}
    reclaims = gfp & Gfp.DIRECT_RECLAIM and not code.flags & PF_MEMALLOC
    with code.call("__alloc_pages_slowpath"), code.loop(), code.choice() as ways:
        with ways.way(
            label,
            {**taken, **woken},
            when=zone.free > least,
            waits_for="" if reclaims else "free memory",
            takes_ns=ALLOCATION_NS,
        ):
            code.leave()
        if reclaims:
            found = reclaimable(linux, gfp)
            if can_be_throttled(linux, code.flags):
                allowed = allow_direct_reclaim(linux)
                with ways.otherwise("", woken, when=found & allowed, waits_for=_lack(gfp)):
                    try_to_free_pages(code, linux, gfp)
                with ways.otherwise("", woken, when=found & allowed.negated()):
                    throttle_direct_reclaim(code, linux, gfp)
            else:
                with ways.otherwise("", woken, when=found, waits_for=_lack(gfp)):
                    try_to_free_pages(code, linux, gfp)
            sched_submit_work(ways, code, linux)  # what it waits in, such as reclaim_throttle()
            if may_kill(linux, gfp):
                with ways.way("looks in vain again and again", woken, after_ns=retries_ns(linux)):
                    out_of_memory(code, linux)


def _lack(gfp: int) -> str:
    """What an allocation waits for that finds nothing to reclaim."""
    if gfp & Gfp.IO:
        return "memory that can be reclaimed"
    return "memory that can be reclaimed without I/O"
