"""Pages of the kernel's trace ring buffer, held against what the same kernel printed of the same events.

guest_trace.py recorded both in guests of several kernels; the text is the oracle, its flags' names above all.
"""

import base64
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from ioflusher.kernel.trace_events import (
    EventReader,
    TraceEvent,
    TraceFormat,
    TraceFormatError,
    flags_text,
    parse_trace_format,
)
from ioflusher.lab.guest.near_misses import COMPLETE, DIRTY, ISSUE, RECLAIM, REQUEST, THROTTLED

RECORDED = sorted(Path(__file__).with_name("trace").glob("*.json"))
FIELDS = {
    **{f"block/{name}": REQUEST for name in (ISSUE, COMPLETE)},
    **{f"vmscan/{name}": ("gfp_flags",) for name in RECLAIM},
    **{f"vmscan/{name}": () for name in RECLAIM.values()},
    **{name: ("usec_delayed",) for name in THROTTLED},
    DIRTY: ("pause",),
}
LINE = re.compile(
    r"^\s*(?P<comm>.+)-(?P<tid>\d+)\s+\[\d+\]\s+\S+\s+(?P<time>[\d.]+): (?P<event>\w+): (?P<said>.*)$"
)


def recorded(file: Path, name: str) -> tuple[dict[str, TraceFormat], list[bytes], list[str]]:
    """Formats of the events that the kernel has, pages, and the text of their first events."""
    found: dict[str, Any] = json.loads(file.read_text())[name]
    formats = {event: parse_trace_format(text) for event, text in found["formats"].items() if text}
    pages = [zlib.decompress(base64.b64decode(page)) for page in found["pages"]]
    return formats, pages, found["text"]


def events_of(file: Path, name: str) -> tuple[dict[str, TraceFormat], list[TraceEvent]]:
    """The events in the recorded pages."""
    formats, pages, _ = recorded(file, name)
    reader = EventReader([(found, FIELDS[event]) for event, found in formats.items()])
    return formats, [event for page in pages for event in reader.read(page).events]


def said(event: TraceEvent, text: str, formats: dict[str, TraceFormat]) -> tuple[object, ...]:
    """What the kernel's text says of the fields that were asked for."""
    if event.name in (ISSUE, COMPLETE):
        found = re.match(r"\d+,\d+ (\w+) .*\) (\d+) \+ (\d+) ", text)
        assert found is not None
        return int(found[2]), found[1], int(found[3])
    words = dict(word.split("=") for word in text.replace(": ", " ").split() if "=" in word)
    if event.name in RECLAIM:
        return (words["gfp_flags"],)
    if event.name == "balance_dirty_pages":
        return (int(words["pause"]),)
    if event.name in RECLAIM.values():
        return ()
    return (int(words.get("usect_delayed") or words["usec_delayed"]),)


def read(event: TraceEvent, formats: dict[str, TraceFormat]) -> tuple[object, ...]:
    """What was read of them, in the same form."""
    if event.name in (ISSUE, COMPLETE):
        sector, rwbs, count = event.values
        assert isinstance(rwbs, bytes)
        return sector, rwbs.partition(b"\0")[0].decode(), count
    if event.name in RECLAIM:
        (flags,) = event.values
        assert isinstance(flags, int)
        return (flags_text(flags, formats[f"vmscan/{event.name}"].flag_names["gfp_flags"]),)
    return event.values


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
@pytest.mark.parametrize("name", ["requests", "dirty", "reclaim"])
def test_pages_are_what_the_kernel_printed(file: Path, name: str) -> None:
    """Every event of the pages: its time to the microsecond, thread, name, numbers and flags' names."""
    formats, events = events_of(file, name)
    _, _, text = recorded(file, name)
    assert len(events) >= min(len(text), {"requests": 20, "dirty": 2, "reclaim": 60}[name])
    for event, line in zip(events, text, strict=False):
        found = LINE.match(line)
        assert found is not None, line
        assert event.name == found["event"]
        assert event.tid == int(found["tid"])
        assert round(event.time_ns / 1e9, 6) == pytest.approx(float(found["time"]), abs=1.01e-6)
        assert read(event, formats) == said(event, found["said"], formats), line


def test_what_each_kernel_tells() -> None:
    """The kernels that are recorded, and which of the wanted events each does not have."""
    missing = {}
    for file in RECORDED:
        formats = {**json.loads(file.read_text())["reclaim"]["formats"]}
        missing[file.stem] = {event for event, text in formats.items() if text is None}
    sleeps = {"writeback/writeback_congestion_wait", "writeback/writeback_wait_iff_congested"}
    throttled = {"vmscan/mm_vmscan_throttled"}
    assert missing == {
        "5.6": throttled,
        "5.8": throttled,
        "5.10": throttled,
        "6.1": sleeps,
        "6.12": sleeps,
    }


FORMAT = """name: a_test
ID: 7
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:int number;\toffset:8;\tsize:4;\tsigned:1;
\tfield:char name[4];\toffset:12;\tsize:4;\tsigned:0;
\tfield:unsigned long flags;\toffset:16;\tsize:8;\tsigned:0;

print fmt: "%d %s", REC->number, (REC->flags) ? __print_flags(REC->flags, "|", """
FORMAT += """{(unsigned long)((( gfp_t)0x3u)|0x4UL) & ~(0x1u), "A"}, {( unsigned long)(1UL << (5)), "B"}, """
FORMAT += """{(1 << NAMED), "C"} ) : "none"\n"""


def record(number: int, kind: int = 7) -> bytes:
    """The data of an event of `FORMAT`, in thread 42."""
    return struct.pack("=HBBIi4sQ", kind, 0, 0, 42, number, b"ab\0\0", 0x26)


def entry(delta: int, data: bytes) -> bytes:
    """An event in a page: struct ring_buffer_event with its data."""
    return struct.pack("=I", len(data) // 4 | delta << 5) + data


def page(*entries: bytes, flags: int = 0, time_ns: int = 1000) -> bytes:
    """A page with these entries, and rubbish behind them."""
    data = b"".join(entries)
    return (struct.pack("=QQ", time_ns, len(data) | flags) + data).ljust(4096, b"\xff")


def reader(*names: str) -> EventReader:
    return EventReader([(parse_trace_format(FORMAT), names)])


def test_a_format() -> None:
    """Names, places and types; flags whose value is an expression, and none for one that is not a number."""
    found = parse_trace_format(FORMAT)
    assert (found.name, found.id) == ("a_test", 7)
    assert {name: (field.offset, field.unpacker.format) for name, field in found.fields.items()} == {
        "common_type": (0, "=H"),
        "common_flags": (2, "=B"),
        "common_pid": (4, "=i"),
        "number": (8, "=i"),
        "name": (12, "=4s"),
        "flags": (16, "=Q"),
    }
    assert found.flag_names == {"flags": ((6, "A"), (32, "B"))}
    assert flags_text(0x26, found.flag_names["flags"]) == "A|B"
    assert flags_text(0x2E, found.flag_names["flags"]) == "A|B|0x8"
    assert flags_text(2, found.flag_names["flags"]) == "0x2", "a name stands for all of its bits"
    assert flags_text(0, found.flag_names["flags"]) == "none"
    with pytest.raises(TraceFormatError, match="no format of an event"):
        parse_trace_format("No such file")


def test_fields_that_are_not_there() -> None:
    """A kernel whose event has no such field is told apart before anything is read."""
    with pytest.raises(TraceFormatError, match="a_test has no field pause"):
        reader("number", "pause")


def test_time_in_a_page() -> None:
    """Deltas add up; a long one has an entry of its own; a stamp is absolute; what was taken back counts."""
    found = reader("number", "name").read(
        page(
            entry(5, record(1)),
            struct.pack("=II", 30 | 7 << 5, 2),  # RINGBUF_TYPE_TIME_EXTEND
            entry(0, record(2)),
            struct.pack("=II", 29 | 3 << 5, 12) + b"\1" * 8,  # RINGBUF_TYPE_PADDING: a discarded event
            entry(1, record(3)),
            struct.pack("=II", 31 | 9 << 5, 4),  # RINGBUF_TYPE_TIME_STAMP
            entry(0, record(-4)),
            struct.pack("=I", 29),  # nothing after it
            entry(0, record(5)),
        )
    )
    extended = 1005 + 7 + (2 << 27)
    assert found.events == [
        TraceEvent(1005, "a_test", 42, (1, b"ab\0\0")),
        TraceEvent(extended, "a_test", 42, (2, b"ab\0\0")),
        TraceEvent(extended + 4, "a_test", 42, (3, b"ab\0\0")),
        TraceEvent(9 + (4 << 27), "a_test", 42, (-4, b"ab\0\0")),
    ]


def test_events_that_nobody_asked_for() -> None:
    """They are passed over, also one whose length does not fit into its head, and their time counts."""
    long = struct.pack("=II", 4 << 5, 204) + record(0, kind=8).ljust(200, b"x")
    found = reader("number").read(page(entry(1, record(0, kind=9)), long, entry(2, record(6))))
    assert found.events == [TraceEvent(1007, "a_test", 42, (6,))]
    assert not found.lost


def test_lost_events_are_said() -> None:
    """A page after a gap says so, with the number of them behind its data or without."""
    missed, stored = 1 << 31, 1 << 30
    for flags in (missed, missed | stored):
        found = reader("number").read(page(entry(1, record(1)), flags=flags))
        assert found.lost
        assert len(found.events) == 1


def test_what_is_no_page() -> None:
    """Cut off anywhere, or longer than it is: an error, never an event that was not there."""
    whole = page(entry(1, record(1)), entry(1, record(2)))
    used = 16 + 2 * (4 + len(record(0)))
    assert len(reader("number").read(whole[:used]).events) == 2
    for length in (0, 8, 17, used - 1):
        with pytest.raises(TraceFormatError):
            reader("number").read(whole[:length])
