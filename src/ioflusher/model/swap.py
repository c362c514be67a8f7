"""Swap: anonymous pages to a block device; mm/swap_state.c, mm/page_io.c."""

from ioflusher.model.block import BioPool, BlockDriver, bio_alloc_bioset, bio_put
from ioflusher.model.code import Code
from ioflusher.model.linux import Linux
from ioflusher.model.reclaim import SCAN_NS
from ioflusher.model.transitions import Expression


class SwapArea:
    """A swap area on a block device.

    Attributes:
        slots: units that it still takes. writeback: units that are being written to it; they are freed when
        they are (folio_rotate_reclaimable()). swappiness: vm.swappiness, 0 to 200.
    """

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
        linux.swap = self

    @property
    def can_take(self) -> Expression:
        """Whether there is anonymous memory to swap out, and a slot for it."""
        return (self.slots > 0) & (_anonymous(self) > 0)

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


def _anonymous(swap: SwapArea) -> Expression:
    return swap.device.linux.zone.anonymous
