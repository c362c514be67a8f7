"""Histogram triggers of the kernel's tracer: the text of events/SYSTEM/EVENT/hist.

kernel/trace/trace_events_hist.c, hist_trigger_show; Documentation/trace/histogram.rst. Keys and values are
numbers here: no modifier such as .sym or .execname is asked for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_ENTRY = re.compile(
    rb"^\{ (?P<keys>[^}]*) \} hitcount: +(?P<hits>\d+)(?: +[^:\n]+: +(?P<sum>-?\d+))?", re.MULTILINE
)
_DROPPED = re.compile(rb"^ +Dropped: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class HistogramEntry:
    """Events with one key.

    Attributes:
        hits: how many.
        sum: of the value that the trigger adds up, modulo 2**64; 0 where it has none.
    """

    hits: int
    sum: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """One trigger's.

    Attributes:
        entries: by key, a tuple of numbers in the trigger's order.
        dropped: events that had no place in it.
    """

    entries: Mapping[tuple[int, ...], HistogramEntry]
    dropped: int


def parse_histogram(text: bytes) -> Histogram:
    """The histogram in such a file, of its first trigger.

    Raises:
        ValueError: where a key is no number.
    """
    entries = {}
    for found in _ENTRY.finditer(text):
        key = tuple(int(part.rpartition(b":")[2]) for part in found["keys"].split(b","))
        entries[key] = HistogramEntry(int(found["hits"]), int(found["sum"] or 0) % (1 << 64))
    dropped = _DROPPED.search(text)
    return Histogram(entries, int(dropped[1]) if dropped else 0)
