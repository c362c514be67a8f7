"""The texts that tell how near a machine is to its limits."""

import contextlib
from pathlib import Path

import pytest

from ioflusher.kernel.block_counts import parse_completed, parse_inflight
from ioflusher.kernel.pressure import PressureLine, PressureTriggers, parse_pressure
from ioflusher.kernel.watermarks import VmCounters, Watermarks, parse_vmstat, parse_zoneinfo

ZONEINFO = b"""Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 357594
  pages free     3840
        boost    0
        min      18
        low      22
        high     26
        promo    30
        spanned  4095
        protection: (0, 3019, 14027, 14027, 14027)
  pagesets
    cpu: 0
              count:    0
              high:  0
              batch: 1
              high_min: 0
Node 0, zone   Normal
  pages free     104200
        min      12000
        low      15000
        high     18000
"""


def test_watermarks_of_all_zones() -> None:
    """Added up; the page sets of processors, which have a high mark too, are not among them."""
    assert parse_zoneinfo(ZONEINFO) == Watermarks(12018, 15022, 18026)
    assert parse_zoneinfo(b"") == Watermarks()


def test_counters_of_memory() -> None:
    """The lines that are wanted, by the whole name; None for those of another kernel."""
    text = b"nr_free_pages 55\nnr_dirty 3\nnr_dirtied 99\nnr_dirty_threshold 1000\n"
    assert parse_vmstat(text) == VmCounters(nr_free_pages=55, nr_dirty=3, nr_dirty_threshold=1000)


def test_pressure() -> None:
    """Both lines; those of cpu before 5.13 are one."""
    text = (
        b"some avg10=1.50 avg60=0.13 avg300=1.00 total=1418351715\n"
        b"full avg10=0.00 avg60=0.03 avg300=0.05 total=206797292\n"
    )
    assert parse_pressure(text) == (
        PressureLine("some", 1.5, 1418351715),
        PressureLine("full", 0.0, 206797292),
    )
    assert parse_pressure(b"") == ()


def test_a_trigger_is_written_with_a_byte_to_spare(tmp_path: Path) -> None:
    """The kernel puts its NUL on the last byte that it is given (psi_write): without one more a window of a
    second becomes one of a tenth, which it refuses."""
    memory = tmp_path / "proc/pressure/memory"
    memory.parent.mkdir(parents=True)
    memory.write_bytes(b"")
    triggers = {"memory": ("some 1 1000000", "some 2 2000000"), "io": ("some 1 1000000",)}
    with contextlib.closing(PressureTriggers(triggers, tmp_path)) as found:
        assert found.watched == ("memory",), "io is not there"
    assert memory.read_bytes() == b"some 1 1000000\0"


def test_requests() -> None:
    """Completed requests of every kind, on old kernels those that are told; in flight both directions."""
    assert parse_completed(b" 1 9 9 9 20 9 9 9 9 9 9 300 9 9 9 4000 9\n") == 4321
    assert parse_completed(b" 1 9 9 9 20 9 9 9 9 9 9\n") == 21
    assert parse_inflight(b"       2        5\n") == 7
    with pytest.raises(ValueError, match="expected 11 numbers"):
        parse_completed(b"1 2 3")
    with pytest.raises(ValueError, match="expected two numbers"):
        parse_inflight(b"")
