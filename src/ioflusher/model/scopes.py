"""Scopes in which the kernel allocates otherwise: memalloc_*_save and _restore, include/linux/sched/mm.h.

What user space sets by PR_SET_IO_FLUSHER is the same bit as a NOIO scope's, so a scope within it must leave
it set. Both forms that there were do so where scopes are nested as they should be; they differ where one that
began first ends first:

- until 6.8, save answers with the bits that were set, and restore puts exactly those back;
- since 6.9 (3f6d5e6a468d "mm: introduce memalloc_flags_{save,restore}"), save answers with the bits that it
  has set itself, and restore clears those.
"""

from ioflusher.kernel.task_flags import NEWEST, PF_MEMALLOC, PF_MEMALLOC_NOFS, PF_MEMALLOC_NOIO, Version
from ioflusher.model.tasks import TaskStruct
from ioflusher.model.versions import holds


def memalloc_flags_save(current: TaskStruct, flags: int, version: Version = NEWEST) -> int:
    """Begin a scope; the answer is for `memalloc_flags_restore`."""
    found = current.flags & flags
    current.flags |= flags
    return flags & ~found if holds("memalloc_flags_save", version) else found


def memalloc_flags_restore(current: TaskStruct, flags: int, saved: int, version: Version = NEWEST) -> None:
    """End the scope of these flags that answered `saved`."""
    if holds("memalloc_flags_save", version):
        current.flags &= ~saved
    else:
        current.flags = current.flags & ~flags | saved


def memalloc_noio_save(current: TaskStruct, version: Version = NEWEST) -> int:
    """Begin a scope whose allocations are all GFP_NOIO."""
    return memalloc_flags_save(current, PF_MEMALLOC_NOIO, version)


def memalloc_noio_restore(current: TaskStruct, saved: int, version: Version = NEWEST) -> None:
    """End it."""
    memalloc_flags_restore(current, PF_MEMALLOC_NOIO, saved, version)


def memalloc_nofs_save(current: TaskStruct, version: Version = NEWEST) -> int:
    """Begin a scope whose allocations are all GFP_NOFS, such as a transaction of ext4 or xfs."""
    return memalloc_flags_save(current, PF_MEMALLOC_NOFS, version)


def memalloc_nofs_restore(current: TaskStruct, saved: int, version: Version = NEWEST) -> None:
    """End it."""
    memalloc_flags_restore(current, PF_MEMALLOC_NOFS, saved, version)


def memalloc_noreclaim_save(current: TaskStruct, version: Version = NEWEST) -> int:
    """Begin a scope that may use all reserves and does not reclaim: reclaim itself, or nbd's sending."""
    return memalloc_flags_save(current, PF_MEMALLOC, version)


def memalloc_noreclaim_restore(current: TaskStruct, saved: int, version: Version = NEWEST) -> None:
    """End it."""
    memalloc_flags_restore(current, PF_MEMALLOC, saved, version)
