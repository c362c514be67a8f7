"""Texts of histogram triggers, as a kernel 6.12 wrote them."""

import pytest

from ioflusher.kernel.trace_hist import Histogram, HistogramEntry, parse_histogram

BEGIN = b"""# event histogram
#
# trigger info: hist:keys=common_pid,gfp_flags:vals=hitcount,common_timestamp.usecs:sort=hitcount [active]
#

{ common_pid:        158, gfp_flags:    1051850 } hitcount:         36  common_timestamp:  799219354
{ common_pid:        159, gfp_flags:    1051850 } hitcount:          1  common_timestamp:   99219354

Totals:
    Hits: 37
    Entries: 2
    Dropped: 3
"""
COUNT = b"""# event histogram
#
# trigger info: hist:keys=common_pid,gfp_flags:vals=hitcount:sort=hitcount:size=2048 [active]
#

{ common_pid:        159, gfp_flags:    1314250 } hitcount:          3

Totals:
    Hits: 3
    Entries: 1
    Dropped: 0
"""


def test_two_keys_and_a_sum() -> None:
    """By thread and flags; what had no place is told."""
    assert parse_histogram(BEGIN) == Histogram(
        {(158, 1051850): HistogramEntry(36, 799219354), (159, 1051850): HistogramEntry(1, 99219354)}, 3
    )


def test_hits_alone() -> None:
    """No value: the sum is nothing."""
    assert parse_histogram(COUNT).entries == {(159, 1314250): HistogramEntry(3, 0)}


def test_nothing_yet() -> None:
    """A trigger that has counted nothing, and a file of nothing."""
    assert parse_histogram(b"# event histogram\n\nTotals:\n    Hits: 0\n    Dropped: 0\n") == Histogram({}, 0)
    assert parse_histogram(b"") == Histogram({}, 0)


def test_a_sum_below_nothing() -> None:
    """Signed fields may be printed so; sums are modulo 2**64."""
    text = b"{ common_pid:          1 } hitcount:          1  pause:         -5\n"
    assert parse_histogram(text).entries[1,].sum == 2**64 - 5


def test_a_key_that_is_no_number() -> None:
    """Such a histogram was never asked for."""
    with pytest.raises(ValueError, match="invalid literal"):
        parse_histogram(b"{ common_pid: bash } hitcount:          1\n")
