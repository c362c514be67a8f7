"""Sizes: one grammar for the command line, scenarios and disks, and one way to print them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.support.sizes import SizeError, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("12", 12),
        ("12B", 12),
        ("1K", 1 << 10),
        ("768M", 768 << 20),
        ("64MiB", 64 << 20),
        ("64MB", 64 << 20),
        ("64mib", 64 << 20),
        ("64m", 64 << 20),
        (" 1 GiB ", 1 << 30),
        ("2T", 2 << 40),
    ],
)
def test_what_is_a_size(text: str, size: int) -> None:
    """A whole number with a power of 1024, however the unit is spelt."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "M", "-1M", "1.5G", "1P", "1iB", "1KK", "0x10", "1 0", "\N{SUPERSCRIPT TWO}", "\u0661", "9" * 5000],
)
def test_what_is_none(text: str) -> None:
    """Anything else is refused with the text, cut, and what to write."""
    with pytest.raises(SizeError, match="not a size: '") as caught:
        parse_size(text)
    assert len(str(caught.value)) < 100
    assert "64MiB" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (256 << 20, "256 MiB"),
        (768 << 20, "768 MiB"),
        (100 << 30, "100 GiB"),
        (1 << 64, "16 EiB"),
        (1 << 74, "1.638e+04 EiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    """Four digits and the unit that leaves the smallest number before it."""
    assert format_size(size) == text


@given(st.integers(0, 1023), st.sampled_from("BKMGT"))
def test_what_is_printed_is_read(number: int, prefix: str) -> None:
    """A whole number of a unit comes back."""
    size = number << 10 * "BKMGT".index(prefix)
    assert parse_size(format_size(size)) == size
