"""Swap: anonymous pages to a block device; mm/swap_state.c, mm/page_io.c."""

from dataclasses import dataclass

from ioflusher.model.block import SWAP_IN, BioPool, BlockDriver, bio_alloc_bioset, bio_put
from ioflusher.model.code import Code, Ways
from ioflusher.model.gfp import GFP_HIGHUSER_MOVABLE
from ioflusher.model.linux import Linux
from ioflusher.model.memcg import mem_cgroup_charge
from ioflusher.model.memory import alloc_pages
from ioflusher.model.reclaim import SCAN_NS
from ioflusher.model.transitions import Changes, Expression, Number, Variable, all_of, number, where

# a unit of memory that is there
TOUCH_NS = 20_000


@dataclass(frozen=True, slots=True)
class SwapIn:
    """What is on its way back from swap, or is there and in swap as well.

    Attributes:
        reading: units that are being read, or are read and whose waiters have not seen it. read: these.
        cached: units that were read, and not written since: clean pages of the swap cache, whose slots stay.
        broken: reads that ended with an error; None where none does.
    """

    reading: Variable
    read: Variable
    cached: Variable
    broken: Variable | None = None


class SwapArea:
    """A swap area on a block device.

    Attributes:
        slots: units that it still takes. writeback: units that are being written to it; they are freed when
        they are (folio_rotate_reclaimable()). swappiness: vm.swappiness, 0 to 200. back: of what is read from
        it; None where nothing is.
    """

    back: SwapIn | None = None

    def __init__(
        self,
        linux: Linux,
        device: BlockDriver,
        pool: BioPool,
        *,
        size: int,
        swappiness: int = 60,
        lru_gen: bool = False,
    ) -> None:
        units = linux.units(size)
        self.device = device
        self.pool = pool
        self.swappiness = swappiness
        self.lru_gen = lru_gen
        self.slots = linux.variable("swap_slots", units, units, what="free swap slots")
        self.writeback = linux.variable(
            "swap_writeback", 0, units, what="memory being written to swap", unit="memory"
        )
        zone = linux.zone
        device.completions["swap"] = {
            self.writeback: self.writeback - 1,
            zone.free: zone.free + 1,
            **bio_put(pool),
        }
        if device.can_fail:  # __end_swap_bio_write(): the page is dirty again, and stays
            device.failures["swap"] = {
                self.writeback: self.writeback - 1,
                zone.anonymous: zone.anonymous + 1,
                self.slots: self.slots + 1,
                **bio_put(pool),
            }
        if SWAP_IN in device.pending:
            self.back = SwapIn(
                linux.variable("swap_reading", 0, units, what="memory being read from swap", unit="memory"),
                linux.variable("swap_read", 0, units, what="reads from swap that are done"),
                linux.variable("swap_cached", 0, units, what="clean swap cache", unit="memory"),
                linux.variable("swap_broken", 0, units, what="reads from swap that failed")
                if device.can_fail
                else None,
            )
            if self.back.broken is not None:
                device.failures[SWAP_IN] = {self.back.broken: self.back.broken + 1, **bio_put(pool)}
            device.completions[SWAP_IN] = {self.back.read: self.back.read + 1, **bio_put(pool)}
        linux.swap = self

    @property
    def swapped(self) -> Expression:
        """What has to be read before it can be used again."""
        unread = number(self.slots.high) - self.slots - self.writeback
        return unread - self.back.reading - self.back.cached if self.back is not None else unread

    @property
    def full(self) -> Expression:
        """vm_swap_full(): so full that a slot is given back as soon as its page is read."""
        return self.slots * 2 < self.slots.high

    @property
    def can_take(self) -> Expression:
        """Whether there is anonymous memory to swap out, and a slot for it.

        Where all that is written comes back with an error nothing is ever reclaimed so.
        """
        found = (self.slots > 0) & (_anonymous(self) > 0)
        return found if self.device.fails is None else found & self.device.fails.negated()

    def pageout(self, code: Code, linux: Linux) -> None:
        """A unit of anonymous memory to the swap area: add_to_swap(), pageout(), swap_writepage()."""
        zone = linux.zone
        calls = ("shrink_lruvec", "shrink_inactive_list", "shrink_folio_list")
        with code.call(*calls):
            code.step(
                "into the swap cache",
                {
                    self.slots: self.slots - 1,
                    zone.anonymous: zone.anonymous - 1,
                    self.writeback: self.writeback + 1,
                },
                takes_ns=SCAN_NS,
            )
            with code.call("pageout", "swap_writepage", "__swap_writepage"):
                bio_alloc_bioset(code, linux, self.pool)
                self.device.submit(code, "swap")

    def free_cached(self, ways: Ways, linux: Linux, *, when: Expression | None = None) -> None:
        """A way: a clean page of the swap cache is freed, whatever the mask; it is in swap."""
        if self.back is None:
            return
        zone, cached = linux.zone, self.back.cached
        with ways.way(
            "a page of the swap cache is freed",
            {cached: cached - 1, zone.free: zone.free + 1},
            when=all_of(cached > 0, when),
            takes_ns=SCAN_NS,
            weight=self.swappiness,
        ):
            pass

    def touch_again(
        self, code: Code, linux: Linux, also: Changes | None = None, *, writes: bool = True
    ) -> None:
        """Touch memory that was left alone longest: it is in swap if any is."""
        with code.choice() as ways:
            with ways.way(when=self.swapped > 0):
                self.swap_in(code, linux, also or {}, writes=writes)
            with ways.otherwise("touches what is there", also, takes_ns=TOUCH_NS):
                pass

    def swap_in(self, code: Code, linux: Linux, also: Changes, *, writes: bool) -> None:
        """A major fault: do_swap_page(), mm/memory.c.

        The slot is given back where the fault is one of writing, or the area more than half full
        (should_try_to_free_swap()). Else the page stays in the swap cache. `also` changes with the page that
        is allocated.
        """
        assert self.back is not None
        reading, read, cached = self.back.reading, self.back.read, self.back.cached
        anonymous, slots = linux.zone.anonymous, self.slots
        seen: dict[Variable, Number] = {read: read - 1, reading: reading - 1}
        if writes:
            seen |= {anonymous: anonymous + 1, slots: slots + 1}
        else:
            freed = where(self.full, 1, 0)
            seen |= {anonymous: anonymous + freed, slots: slots + freed, cached: cached + 1 - freed}
        with code.call("asm_exc_page_fault", "exc_page_fault", "handle_mm_fault", "do_swap_page"):
            with code.call("swapin_readahead", "__read_swap_cache_async"):
                mem_cgroup_charge(code, linux, GFP_HIGHUSER_MOVABLE)
                alloc_pages(
                    code,
                    linux,
                    GFP_HIGHUSER_MOVABLE,
                    {reading: reading + 1, **also},
                    label="a page for what is in swap",
                )
            with code.call("swapin_readahead", "swap_read_folio"):
                bio_alloc_bioset(code, linux, self.pool)
                self.device.submit(code, SWAP_IN)
            with code.call("folio_wait_bit_common"), code.choice() as ways:
                with ways.way(
                    "is read from swap",
                    seen,
                    when=read > 0,
                    waits_for=f"a read of {self.device.name}",
                ):
                    pass
                if self.back.broken is not None:
                    broken = self.back.broken
                    free = linux.zone.free
                    gone = {broken: broken - 1, reading: reading - 1, free: free + 1}
                    with ways.way("is not to be read", gone, when=broken > 0):
                        # do_swap_page() has VM_FAULT_SIGBUS
                        code.step("dies of SIGBUS", fails="SIGBUS: a page could not be read from swap")
                        code.end()


def _anonymous(swap: SwapArea) -> Expression:
    return swap.device.linux.zone.anonymous
