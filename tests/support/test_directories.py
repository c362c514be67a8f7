"""Listings of numbers."""

from pathlib import Path

from ioflusher.support.directories import numbers_in


def test_numbers_in_order(tmp_path: Path) -> None:
    """As numbers, not as text; other names, also digits of other scripts, are none."""
    for name in ("10", "9", "self", "1a", "\u0661", "-1"):
        (tmp_path / name).touch()
    assert numbers_in(tmp_path) == [9, 10]
