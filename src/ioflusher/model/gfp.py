"""What an allocation may do: GFP flags, include/linux/gfp_types.h (include/linux/gfp.h before 6.0).

A Python class cannot have a name that begins with two underscores, so `Gfp.IO` is the kernel's __GFP_IO; the
combinations are called what the kernel calls them. All are plain integers: what a mask allows is asked in the
model's innermost loop, where an enum's `&` would cost fifty times as much. The bits are those of Linux 5.6 to
7.3 (read in 5.10, 6.1, 6.12 and 7.3); `gfp_text` writes a mask as the kernel's log and trace events do.
"""

from typing import Final

from ioflusher.kernel.task_flags import NEWEST, PF_MEMALLOC_NOFS, PF_MEMALLOC_NOIO, Version
from ioflusher.model.versions import holds

PF_MEMALLOC_NORECLAIM = 0x00800000  # 6.9 to 6.11 alone
PF_MEMALLOC_NOWARN = 0x01000000  # 6.9 to 6.11 alone
PF_MEMALLOC_PIN = 0x10000000  # since 5.13; before, PF_MEMALLOC_NOCMA, which is about CMA alone


class Gfp:
    """One bit each, `Gfp.IO` for __GFP_IO; include/linux/gfp_types.h."""

    DMA: Final = 0x01
    HIGHMEM: Final = 0x02
    DMA32: Final = 0x04
    MOVABLE: Final = 0x08
    RECLAIMABLE: Final = 0x10
    HIGH: Final = 0x20  # may use part of the reserve below the min watermark
    IO: Final = 0x40  # can start physical I/O
    FS: Final = 0x80  # can call down to the file system
    ZERO: Final = 0x100
    # 2973d8229b78 "mm: discard __GFP_ATOMIC" (6.3): before, part of GFP_ATOMIC
    ATOMIC: Final = 0x200
    DIRECT_RECLAIM: Final = 0x400  # the caller may reclaim, and so sleep
    KSWAPD_RECLAIM: Final = 0x800  # kswapd is woken below the low watermark
    WRITE: Final = 0x1000
    NOWARN: Final = 0x2000
    RETRY_MAYFAIL: Final = 0x4000
    NOFAIL: Final = 0x8000
    NORETRY: Final = 0x10000
    MEMALLOC: Final = 0x20000  # may use all memory
    COMP: Final = 0x40000
    NOMEMALLOC: Final = 0x80000  # may not use the reserves, whatever MEMALLOC and PF_MEMALLOC say
    HARDWALL: Final = 0x100000
    THISNODE: Final = 0x200000
    ACCOUNT: Final = 0x400000  # charged to the memory control group
    RECLAIM: Final = DIRECT_RECLAIM | KSWAPD_RECLAIM


GFP_ATOMIC: Final = Gfp.HIGH | Gfp.KSWAPD_RECLAIM
GFP_KERNEL: Final = Gfp.RECLAIM | Gfp.IO | Gfp.FS
GFP_KERNEL_ACCOUNT: Final = GFP_KERNEL | Gfp.ACCOUNT
# 16f5dfbc851b "gfp: include __GFP_NOWARN in GFP_NOWAIT" (6.8): before, without NOWARN
GFP_NOWAIT: Final = Gfp.KSWAPD_RECLAIM | Gfp.NOWARN
GFP_NOIO: Final = Gfp.RECLAIM
GFP_NOFS: Final = Gfp.RECLAIM | Gfp.IO
GFP_USER: Final = Gfp.RECLAIM | Gfp.IO | Gfp.FS | Gfp.HARDWALL
GFP_HIGHUSER: Final = GFP_USER | Gfp.HIGHMEM
GFP_HIGHUSER_MOVABLE: Final = GFP_HIGHUSER | Gfp.MOVABLE
GFP_TRANSHUGE_LIGHT: Final = (GFP_HIGHUSER_MOVABLE | Gfp.COMP | Gfp.NOMEMALLOC | Gfp.NOWARN) & ~Gfp.RECLAIM
GFP_TRANSHUGE: Final = GFP_TRANSHUGE_LIGHT | Gfp.DIRECT_RECLAIM

# include/trace/events/mmflags.h, __def_gfpflag_names: the first name that fits takes its bits
_NAMES: Final = (
    (GFP_TRANSHUGE, "GFP_TRANSHUGE"),
    (GFP_TRANSHUGE_LIGHT, "GFP_TRANSHUGE_LIGHT"),
    (GFP_HIGHUSER_MOVABLE, "GFP_HIGHUSER_MOVABLE"),
    (GFP_HIGHUSER, "GFP_HIGHUSER"),
    (GFP_USER, "GFP_USER"),
    (GFP_KERNEL_ACCOUNT, "GFP_KERNEL_ACCOUNT"),
    (GFP_KERNEL, "GFP_KERNEL"),
    (GFP_NOFS, "GFP_NOFS"),
    (GFP_ATOMIC, "GFP_ATOMIC"),
    (GFP_NOIO, "GFP_NOIO"),
    (GFP_NOWAIT, "GFP_NOWAIT"),
    (Gfp.DMA, "GFP_DMA"),
    (Gfp.HIGHMEM, "__GFP_HIGHMEM"),
    (Gfp.DMA32, "GFP_DMA32"),
    (Gfp.HIGH, "__GFP_HIGH"),
    (Gfp.ATOMIC, "__GFP_ATOMIC"),
    (Gfp.IO, "__GFP_IO"),
    (Gfp.FS, "__GFP_FS"),
    (Gfp.NOWARN, "__GFP_NOWARN"),
    (Gfp.RETRY_MAYFAIL, "__GFP_RETRY_MAYFAIL"),
    (Gfp.NOFAIL, "__GFP_NOFAIL"),
    (Gfp.NORETRY, "__GFP_NORETRY"),
    (Gfp.COMP, "__GFP_COMP"),
    (Gfp.ZERO, "__GFP_ZERO"),
    (Gfp.NOMEMALLOC, "__GFP_NOMEMALLOC"),
    (Gfp.MEMALLOC, "__GFP_MEMALLOC"),
    (Gfp.HARDWALL, "__GFP_HARDWALL"),
    (Gfp.THISNODE, "__GFP_THISNODE"),
    (Gfp.RECLAIMABLE, "__GFP_RECLAIMABLE"),
    (Gfp.MOVABLE, "__GFP_MOVABLE"),
    (Gfp.ACCOUNT, "__GFP_ACCOUNT"),
    (Gfp.WRITE, "__GFP_WRITE"),
    (Gfp.RECLAIM, "__GFP_RECLAIM"),
    (Gfp.DIRECT_RECLAIM, "__GFP_DIRECT_RECLAIM"),
    (Gfp.KSWAPD_RECLAIM, "__GFP_KSWAPD_RECLAIM"),
)


def current_gfp_context(flags: int, gfp: int, version: Version = NEWEST) -> int:
    """What is left of an allocation's mask in a task with these PF_ flags.

    The page allocator does this to every allocation (__alloc_pages, mm/page_alloc.c).

    Args:
        flags: task->flags.
        gfp: the mask as the caller gave it.
        version: of Linux.

    include/linux/sched/mm.h.
    """
    scoped = holds("memalloc_noreclaim_flags", version)
    if scoped and flags & PF_MEMALLOC_NORECLAIM:
        gfp &= ~Gfp.DIRECT_RECLAIM
    elif flags & PF_MEMALLOC_NOIO:
        gfp &= ~(Gfp.IO | Gfp.FS)
    elif flags & PF_MEMALLOC_NOFS:
        gfp &= ~Gfp.FS
    if scoped and flags & PF_MEMALLOC_NOWARN:
        gfp |= Gfp.NOWARN
    if flags & PF_MEMALLOC_PIN and holds("memalloc_pin", version):
        gfp &= ~Gfp.MOVABLE
    return gfp


def gfpflags_allow_blocking(gfp: int) -> bool:
    """Whether the caller may sleep; include/linux/gfp.h."""
    return bool(gfp & Gfp.DIRECT_RECLAIM)


def gfp_text(gfp: int) -> str:
    """A mask as the kernel writes it: "GFP_NOIO|__GFP_ZERO"; "none" for 0.

    include/trace/events/mmflags.h, show_gfp_flags.
    """
    found = []
    for bits, name in _NAMES:
        if gfp & bits == bits:
            found.append(name)
            gfp &= ~bits
    if gfp:
        found.append(f"{gfp:#x}")
    return "|".join(found) or "none"
