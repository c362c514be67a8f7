"""Disks with the contexts that libnbd's tests know from QEMU, for `nbd serve --python FILE:CLASS`."""

from collections.abc import Iterator
from typing import ClassVar

from ioflusher.nbd.backends import Backend, BlockState, Extent
from ioflusher.nbd.protocol.extents import BASE_ALLOCATION

BLOCK = 64 << 10
HOLE = int(BlockState.HOLE | BlockState.ZERO)
Layout = tuple[tuple[int, int], ...]  # lengths and flags, from the beginning to the end


class Mapped(Backend):
    """Zeroes, and what is said of them: `layouts` by context."""

    layouts: ClassVar[dict[str, Layout]]

    @property
    def size(self) -> int:
        return sum(length for length, _ in self.layouts[BASE_ALLOCATION])

    def read_into(self, offset: int, view: memoryview) -> None:
        view[:] = bytes(len(view))

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self.context_extents(BASE_ALLOCATION, offset, length)

    def context_extents(self, context: str, offset: int, length: int) -> Iterator[Extent]:
        end = 0
        for size, flags in self.layouts[context]:
            end += size
            if end > offset:
                yield Extent(min(size, end - offset), flags)


class Large(Mapped):
    """5 GiB: data in the first block alone, the last one dirty in each of two bitmaps."""

    contexts = ("qemu:allocation-depth", "qemu:dirty-bitmap:bitmap0", "qemu:dirty-bitmap:bitmap1")
    _rest = (5 << 30) - BLOCK
    layouts: ClassVar = {
        BASE_ALLOCATION: ((BLOCK, 0), (_rest, HOLE)),
        contexts[0]: ((BLOCK, 1), (_rest, 0)),
        contexts[1]: ((_rest, 0), (BLOCK, 1)),
        contexts[2]: ((_rest, 0), (BLOCK, 1)),
    }


class Dirty(Mapped):
    """1 MiB: data in the first two blocks, of which the second is dirty, as is one in the middle."""

    contexts = ("qemu:dirty-bitmap:bitmap0",)
    layouts: ClassVar = {
        BASE_ALLOCATION: ((2 * BLOCK, 0), (14 * BLOCK, HOLE)),
        contexts[0]: ((BLOCK, 0), (BLOCK, 1), (6 * BLOCK, 0), (BLOCK, 1), (7 * BLOCK, 0)),
    }
