"""Events of the kernel's tracer: their format files, and pages of its ring buffer as events.

Pure: the text of tracefs's events/SYSTEM/EVENT/format and what a read of per_cpu/cpuN/trace_pipe_raw gives
(Documentation/trace/ring-buffer-map.rst, include/linux/ring_buffer.h, kernel/trace/ring_buffer.c). Only what
is asked for is unpacked: whoever reads these pages has little time and must not allocate much.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# header of a page on a 64-bit machine, events/header_page: u64 timestamp, local_t commit
_PAGE_HEADER = struct.Struct("=QQ")
_WORD = struct.Struct("=I")
_TYPE_AND_PID = struct.Struct("=HxxI")  # common_type, common_flags, common_preempt_count, common_pid
# enum ring_buffer_type; a smaller type_len is the data's length in words, 0: it stands in the next word
_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31
_DELTA_BITS = 27
# in `commit`, kernel/trace/ring_buffer.c: events were lost before this page; their number follows the data
_MISSED_EVENTS, _MISSED_STORED = 1 << 31, 1 << 30

_NAME = re.compile(r"^name: (\S+)$", re.MULTILINE)
_ID = re.compile(r"^ID: (\d+)$", re.MULTILINE)
_FIELD = re.compile(
    r"^\tfield:(?P<declaration>[^;]+);\toffset:(?P<offset>\d+);\tsize:(?P<size>\d+);\tsigned:(?P<signed>[01]);",
    re.MULTILINE,
)
_FIELD_NAME = re.compile(r"(\w+)(?:\[[^\]]*\])?$")
_INTEGER_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}


class TraceFormatError(ValueError):
    """A format file, or a page, is not what the kernel documents."""


@dataclass(frozen=True, slots=True)
class TraceField:
    """A field of an event; `unpacker` takes it out of a record, as a number or, for an array, as bytes."""

    name: str
    offset: int
    unpacker: struct.Struct


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """What a format file says of an event.

    Attributes:
        name: the event's.
        id: its number in this boot of this kernel.
        fields: by name.
        flag_names: for each field that the kernel prints as flags, (bits, name) in the kernel's order.
    """

    name: str
    id: int
    fields: Mapping[str, TraceField]
    flag_names: Mapping[str, tuple[tuple[int, str], ...]]


class TraceEvent(NamedTuple):
    """An event as it happened; a tuple, because thousands of them are made in a guest under emulation.

    Attributes:
        time_ns: when, by the clock of the instance.
        name: of the event.
        tid: the thread that it happened in.
        values: the fields that were asked for, in that order.
    """

    time_ns: int
    name: str
    tid: int
    values: tuple[int | bytes, ...]


class TracePage(NamedTuple):
    """A page of a ring buffer.

    Attributes:
        events: those that were asked for, in the order of their time.
        lost: whether events before it were overwritten before anybody read them.
    """

    events: list[TraceEvent]
    lost: bool


class EventReader:
    """Which events and fields are wanted, ready to be found in pages.

    Raises TraceFormatError where a format has no such field.
    """

    def __init__(self, wanted: Sequence[tuple[TraceFormat, tuple[str, ...]]]) -> None:
        self._wanted: dict[int, tuple[str, tuple[tuple[int, struct.Struct], ...]]] = {}
        for event, names in wanted:
            missing = [name for name in names if name not in event.fields]
            if missing:
                raise TraceFormatError(f"the event {event.name} has no field {missing[0]}")
            fields = tuple((event.fields[name].offset, event.fields[name].unpacker) for name in names)
            self._wanted[event.id] = event.name, fields

    def read(self, page: bytes | bytearray) -> TracePage:
        """The page's wanted events.

        Raises:
            TraceFormatError: for what is no page.
        """
        events: list[TraceEvent] = []
        try:
            time_ns, commit = _PAGE_HEADER.unpack_from(page)
            at = _PAGE_HEADER.size
            end = at + (commit & (_MISSED_STORED - 1))
            if end > len(page):
                raise TraceFormatError(f"a page of {len(page)} bytes says that it has {end}")
            while at < end:
                (word,) = _WORD.unpack_from(page, at)
                kind, delta = word & 31, word >> 5
                if kind >= _PADDING:
                    if kind == _PADDING and not delta:
                        break  # nothing after it
                    (more,) = _WORD.unpack_from(page, at + 4)
                    if kind == _TIME_STAMP:
                        time_ns = (more << _DELTA_BITS) + delta
                        at += 8
                    elif kind == _TIME_EXTEND:
                        time_ns += (more << _DELTA_BITS) + delta
                        at += 8
                    else:  # an event that was taken back; the time passed all the same
                        time_ns += delta
                        at += 4 + more
                    continue
                time_ns += delta
                record = at + 4
                if kind:
                    at = record + kind * 4
                else:
                    (length,) = _WORD.unpack_from(page, record)
                    record += 4
                    at += 4 + length
                number, tid = _TYPE_AND_PID.unpack_from(page, record)
                wanted = self._wanted.get(number)
                if wanted is not None:
                    name, fields = wanted
                    values = tuple([field.unpack_from(page, record + place)[0] for place, field in fields])
                    events.append(TraceEvent(time_ns, name, tid, values))
        except struct.error as error:
            raise TraceFormatError(f"an event is cut off: {error}") from error
        return TracePage(events, bool(commit & _MISSED_EVENTS))


def parse_trace_format(text: str) -> TraceFormat:
    """The record in a format file; raises TraceFormatError for what is none."""
    name, number = _NAME.search(text), _ID.search(text)
    if name is None or number is None:
        raise TraceFormatError(f"no format of an event: {text[:80]!r}")
    fields = [
        _field(found["declaration"], int(found["offset"]), int(found["size"]), found["signed"] == "1")
        for found in _FIELD.finditer(text)
    ]
    return TraceFormat(
        name=name[1],
        id=int(number[1]),
        fields={field.name: field for field in fields},
        flag_names=_flag_names(text),
    )


def _field(declaration: str, offset: int, size: int, signed: bool) -> TraceField:
    name = _FIELD_NAME.search(declaration.strip())
    if name is None:
        raise TraceFormatError(f"a field without a name: {declaration!r}")
    code = _INTEGER_CODES.get(size)
    if code is None or declaration.endswith("]"):
        code = f"{size}s"
    elif not signed:
        code = code.upper()
    return TraceField(name[1], offset, struct.Struct(f"={code}"))


def flags_text(flags: int, names: Sequence[tuple[int, str]]) -> str:
    """The flags as the kernel prints them: trace_print_flags_seq() of kernel/trace/trace_output.c.

    >>> flags_text(0xCC1, ((0xCC0, "GFP_KERNEL"), (0x1, "GFP_DMA")))
    'GFP_KERNEL|GFP_DMA'
    """
    said = []
    for bits, name in names:
        if bits and flags & bits == bits:
            said.append(name)
            flags &= ~bits
    if flags:
        said.append(f"{flags:#x}")
    return "|".join(said) or "none"


# __print_flags(REC->gfp_flags, "|", {EXPRESSION, "NAME"}, ...); an expression may hold braces of no kind
_PRINT_FLAGS = re.compile(r'__print_flags\(REC->(\w+), "\|", ((?:\{[^{}]*\},? *)+)\)')
_PRINT_FLAG = re.compile(r'\{([^{}]*), "(\w+)"\}')
_CAST = re.compile(r"\(\s*(?:gfp_t|unsigned long|unsigned int|int)\s*\)|\(\s*__force\s+\w+\s*\)")
_SUFFIX = re.compile(r"\b(0[xX][0-9a-fA-F]+|\d+)[uUlL]+\b")
_ARITHMETIC = re.compile(r"[0-9a-fA-FxX()|&~<> ]*")


def _flag_names(text: str) -> dict[str, tuple[tuple[int, str], ...]]:
    """The flags' names in a format's last line, where they are numbers: one that is not is left out."""
    found: dict[str, tuple[tuple[int, str], ...]] = {}
    for field, listing in _PRINT_FLAGS.findall(text):
        pairs = ((_constant(expression), name) for expression, name in _PRINT_FLAG.findall(listing))
        found[field] = tuple((value, name) for value, name in pairs if value is not None)
    return found


def _constant(expression: str) -> int | None:
    """The value of a C expression of numbers; None where it is more than that."""
    plain = _SUFFIX.sub(r"\1", _CAST.sub("", expression))
    if not _ARITHMETIC.fullmatch(plain):
        return None
    try:
        # nothing but digits and operators, as was just seen; C's unsigned long has 64 bits
        value = eval(plain, {"__builtins__": {}})
    except (SyntaxError, TypeError, OverflowError, ValueError):
        return None
    return int(value) & (1 << 64) - 1
