"""Memory against watermarks and dirty limits: the texts of /proc/zoneinfo and /proc/vmstat (mm/vmstat.c)."""

import re
from dataclasses import dataclass

# "        min      18"; per-cpu counts and protection come after and have colons
_MARK = re.compile(rb"^ +(min|low|high) +(\d+)$", re.MULTILINE)
_COUNTER = re.compile(
    rb"^(nr_free_pages|nr_dirty|nr_writeback|nr_dirty_threshold|nr_dirty_background_threshold) (\d+)$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Watermarks:
    """The watermarks of all zones added up, in pages; None where the text has none."""

    min_pages: int | None = None
    low_pages: int | None = None
    high_pages: int | None = None


@dataclass(frozen=True, slots=True)
class VmCounters:
    """A few lines of /proc/vmstat, in pages; None where the kernel does not write one."""

    nr_free_pages: int | None = None
    nr_dirty: int | None = None
    nr_writeback: int | None = None
    nr_dirty_threshold: int | None = None
    nr_dirty_background_threshold: int | None = None


def parse_zoneinfo(text: bytes) -> Watermarks:
    """The sums in the text of /proc/zoneinfo."""
    sums: dict[bytes, int] = {}
    for name, pages in _MARK.findall(text):
        sums[name] = sums.get(name, 0) + int(pages)
    return Watermarks(sums.get(b"min"), sums.get(b"low"), sums.get(b"high"))


def parse_vmstat(text: bytes) -> VmCounters:
    """The record in the text of /proc/vmstat."""
    found = {name.decode("ascii"): int(value) for name, value in _COUNTER.findall(text)}
    return VmCounters(**found)
