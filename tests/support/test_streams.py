"""A stream is read to its end or to a limit, with memory for what is there alone."""

import io
import tracemalloc

import pytest

from ioflusher.support.streams import PIECE_BYTES, read_at_most


@pytest.mark.parametrize("most", [0, 5, PIECE_BYTES, PIECE_BYTES + 7, 3 * PIECE_BYTES])
def test_no_more_than_was_asked_for(most: int) -> None:
    """Also where that is not a whole number of pieces."""
    data = bytes(range(256)) * (2 * PIECE_BYTES // 256)
    assert read_at_most(io.BytesIO(data), most) == data[:most]


def test_memory_is_for_what_is_there() -> None:
    """A machine with little memory reads a short file whose limit is half a GiB."""
    tracemalloc.start()
    with open(__file__, "rb") as file:
        assert read_at_most(file, 512 << 20).startswith(b'"""A stream')
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
