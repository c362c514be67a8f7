"""What a back end's author may rely on: defaults, and extents as the protocol wants them."""

import errno
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.nbd.backends import Backend, Extent, MemoryBackend
from ioflusher.nbd.protocol.extents import joined


class Least(Backend):
    """The least that a back end must define."""

    size = 100

    def read_into(self, offset: int, view: memoryview) -> None:
        view[:] = bytes(len(view))


def test_the_least_back_end() -> None:
    """Size and reading are enough: all is data, nothing else works and nothing else is announced."""
    backend = Least()
    assert [*backend.extents(3, 5)] == [Extent(5, 0)]
    assert backend.memory_at(0, 1) is backend.memory_for(0, 1) is None
    assert not any(
        getattr(backend, name) for name in dir(Backend) if name.startswith("can_") and "multi" not in name
    )
    with pytest.raises(OSError, match="read-only") as caught:
        backend.write_through(0, memoryview(b"x"))
    assert caught.value.errno == errno.EPERM


def test_through_is_a_write_and_a_flush() -> None:
    """Who does not define `write_through` gets it made of two."""

    class Log(Least):
        log = ""

        def write(self, offset: int, view: memoryview) -> None:
            self.log += "w"

        def flush(self) -> None:
            self.log += "f"

    backend = Log()
    backend.write_through(0, memoryview(b"x"))
    assert backend.log == "wf"


def test_a_subclass_is_not_passed_by() -> None:
    """Memory is reached without `write`, but not that of a class whose `write` does something else."""

    class Watched(MemoryBackend):
        def write(self, offset: int, view: memoryview) -> None:
            raise AssertionError

    class Below(Watched):
        pass

    plain = MemoryBackend(8192)
    room = plain.memory_for(10, 2)
    assert room is not None
    room[:] = b"hi"
    assert bytes(plain.memory_at(9, 4)) == b"\0hi\0"
    for kind in (Watched, Below):
        watched = kind(8192)
        assert watched.memory_for(10, 2) is None
        assert watched.memory_at(10, 2) is not None  # reading is as it was


@given(st.lists(st.builds(Extent, st.integers(-1, 9), st.integers(0, 3))), st.integers(0, 40))
def test_joined_says_the_same_of_every_byte(extents: list[Extent], limit: int) -> None:
    """Neighbours differ, none is empty, none goes beyond the limit, and each byte keeps its flags."""
    result = [*joined(extents, limit)]
    before = [extent.flags for extent in extents for _ in range(extent.length)]
    assert [extent.flags for extent in result for _ in range(extent.length)] == before[:limit]
    assert all(one.flags != two.flags for one, two in pairwise(result))
    assert all(extent.length > 0 for extent in result)
