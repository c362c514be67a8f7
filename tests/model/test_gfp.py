"""GFP masks: the kernel's numbers and names, and what the flags of a task take away."""

import pytest

from ioflusher.kernel.task_flags import PF_IO_FLUSHER, PF_LOCAL_THROTTLE, PF_MEMALLOC_NOFS, PF_MEMALLOC_NOIO
from ioflusher.model import gfp
from ioflusher.model.gfp import (
    GFP_ATOMIC,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    GFP_NOFS,
    GFP_NOIO,
    GFP_USER,
    Gfp,
    current_gfp_context,
    gfp_text,
)
from ioflusher.model.versions import holds

# as kernels printed them: number and text of allocation failures, OOM reports and trace events
PRINTED = {
    0xCC0: "GFP_KERNEL",
    0xC40: "GFP_NOFS",
    0xC00: "GFP_NOIO",
    0x820: "GFP_ATOMIC",
    0x2800: "GFP_NOWAIT",
    0x100CCA: "GFP_HIGHUSER_MOVABLE",
    0x140CCA: "GFP_HIGHUSER_MOVABLE|__GFP_COMP",
    0x400DC0: "GFP_KERNEL_ACCOUNT|__GFP_ZERO",
    0x152C40: "GFP_NOFS|__GFP_NOWARN|__GFP_NORETRY|__GFP_COMP|__GFP_HARDWALL",
    0x800: "__GFP_KSWAPD_RECLAIM",
    0x1C20CA: "GFP_TRANSHUGE_LIGHT",
    0x3D24CA: "GFP_TRANSHUGE|__GFP_NORETRY|__GFP_THISNODE",
    0: "none",
}


@pytest.mark.parametrize(("mask", "text"), PRINTED.items(), ids=PRINTED.values())
def test_masks_are_written_as_the_kernel_writes_them(mask: int, text: str) -> None:
    """Numbers and names belong together as in a kernel's log."""
    assert gfp_text(mask) == text


def test_flags_are_numbered_in_the_kernels_order() -> None:
    """One bit each, from ___GFP_DMA on; include/linux/gfp_types.h."""
    bits = [value for name, value in vars(Gfp).items() if not name.startswith("_") and name != "RECLAIM"]
    assert bits == [1 << place for place in range(23)]


def test_a_bit_without_a_name_is_a_number() -> None:
    """A bit that the table does not have is not left out."""
    assert gfp_text(GFP_KERNEL | 1 << 27) == "GFP_KERNEL|0x8000000"


def test_noio_takes_io_and_fs() -> None:
    """IO_FLUSHER makes GFP_NOIO of GFP_KERNEL, and leaves all other bits alone."""
    assert current_gfp_context(PF_IO_FLUSHER, GFP_KERNEL) == GFP_NOIO
    for mask in (GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_USER | Gfp.NOFAIL, (1 << 23) - 1):
        assert current_gfp_context(PF_IO_FLUSHER, mask) == mask & ~(Gfp.IO | Gfp.FS)


def test_nofs_takes_fs_alone_and_noio_wins() -> None:
    """NOFS keeps __GFP_IO; with NOIO as well, both are gone."""
    assert current_gfp_context(PF_MEMALLOC_NOFS, GFP_KERNEL) == GFP_NOFS
    assert current_gfp_context(PF_MEMALLOC_NOFS | PF_MEMALLOC_NOIO, GFP_KERNEL) == GFP_NOIO


def test_local_throttle_alone_takes_nothing() -> None:
    """The other bit of IO_FLUSHER is about writeback, not about allocation."""
    assert current_gfp_context(PF_LOCAL_THROTTLE, GFP_KERNEL) == GFP_KERNEL
    assert current_gfp_context(0, GFP_KERNEL) == GFP_KERNEL


def test_pinning_scopes() -> None:
    """PF_MEMALLOC_PIN keeps pages out of movable memory, since 5.13."""
    for version in ((5, 13), (6, 12)):
        assert current_gfp_context(gfp.PF_MEMALLOC_PIN, GFP_HIGHUSER_MOVABLE, version) == gfp.GFP_HIGHUSER
    assert current_gfp_context(gfp.PF_MEMALLOC_PIN, GFP_HIGHUSER_MOVABLE, (5, 12)) == GFP_HIGHUSER_MOVABLE


@pytest.mark.parametrize("version", [(6, 8), (6, 9), (6, 11), (6, 12)])
def test_two_flags_of_three_releases(version: tuple[int, int]) -> None:
    """NORECLAIM, stronger than NOIO, and NOWARN came with 6.9 and went with 6.12."""
    both = gfp.PF_MEMALLOC_NORECLAIM | gfp.PF_MEMALLOC_NOWARN | PF_MEMALLOC_NOIO
    there = holds("memalloc_noreclaim_flags", version)
    assert there == (version in ((6, 9), (6, 11)))
    expected = GFP_KERNEL & ~Gfp.DIRECT_RECLAIM | Gfp.NOWARN if there else GFP_NOIO
    assert current_gfp_context(both, GFP_KERNEL, version) == expected
    assert current_gfp_context(0, GFP_KERNEL, version) == GFP_KERNEL


def test_numbers_of_the_two_flags() -> None:
    """Of include/linux/sched.h, 6.9 to 6.11."""
    assert (gfp.PF_MEMALLOC_NORECLAIM, gfp.PF_MEMALLOC_NOWARN) == (1 << 23, 1 << 24)


def test_who_may_sleep() -> None:
    """Whoever may reclaim; an interrupt may wake kswapd at most."""
    masks = (GFP_KERNEL, GFP_NOIO, GFP_ATOMIC, gfp.GFP_NOWAIT)
    assert [gfp.gfpflags_allow_blocking(mask) for mask in masks] == [True, True, False, False]
