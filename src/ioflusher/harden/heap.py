"""A heap that is there: what a process allocates later it gets from memory that it has.

malloc(3) asks the kernel for memory in three ways, each of which may wait when memory is short: for large
blocks by mmap, for each new thread by an arena of its own, and by growing its heap, part of which it gives
back when much is free. After `prefault_heap` it has one heap, with so much in it free and touched, and keeps
it.

Python's objects up to 512 bytes come from arenas of their own (Objects/obmalloc.c, since 3.10 of 1 MiB), each
an mmap, which is undone when nothing in it is used. One object in each keeps them.
"""

from ioflusher.harden.errors import HardenError
from ioflusher.kernel.syscalls import (
    M_ARENA_MAX,
    M_MMAP_THRESHOLD,
    M_TOP_PAD,
    M_TRIM_THRESHOLD,
    malloc_touched_and_free,
    mallopt,
)

_MMAP_THRESHOLD = 32 << 20  # bytes; malloc/malloc.c takes no more (HEAP_MAX_SIZE / 2 on 64 bits)
_GROWTH = 1 << 20  # bytes by which the heap grows when it must
_PIECE = 64 << 10  # bytes
_OBJECT = bytes(479)  # 512 bytes with its header: the largest that comes from an arena
_OBJECT_SIZE = 512
_ANCHORS = (256 << 10) // _OBJECT_SIZE  # one of so many is kept: four in an arena of 1 MiB

_kept: list[bytes] = []


def prefault_heap(size: int) -> None:
    """Have `size` bytes of free memory in the process, touched: half for malloc, half for small objects.

    Before other threads exist, and before `lock_memory`, which keeps it in memory. It cannot be undone.

    Raises:
        HardenError: the C library has no such settings (it is not glibc), or there is no memory.
    """
    try:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, -1)  # never
        mallopt(M_TOP_PAD, _GROWTH)
        objects = [bytes(bytearray(_OBJECT)) for _ in range(size // 2 // _OBJECT_SIZE)]
        malloc_touched_and_free(_PIECE, -(-size // 2 // _PIECE))
    except OSError as error:
        raise HardenError(
            f"the C library does not take the heap's settings: {error.strerror}",
            errno=error.errno,
            hint="they are glibc's",
        ) from error
    except MemoryError as error:
        raise HardenError(f"there is no memory for a heap of {size} bytes") from error
    _kept.extend(objects[::_ANCHORS])
