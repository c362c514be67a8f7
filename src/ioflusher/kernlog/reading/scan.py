"""The parts of a log that can matter, found fast: gigabytes go by, kilobytes are read line by line.

A stack betrays itself by its frames. So what is looked for is anchors, and everything `BEFORE` and `AFTER`
an anchor is read; also the log's beginning, which may be all of it: a mail, whose stacks are names alone.
In the first `THOROUGH` bytes anchors are all of `_ANCHORS` (heads, events, frames of every form). Behind that
only frames as the kernel prints them count ("+0x"), which costs little more than reading the bytes; unless
the beginning held stacks of another form (crash, decoded ones): then the whole log is read thoroughly.
"""

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple, Protocol

# With its context a chunk stays below 128 KiB, from where on malloc() maps memory of its own: reading a
# gigabyte into such a buffer took 0.66 s in the kernel where it was measured, into this one 0.14 s.
CHUNK = 120 << 10
BEGINNING = 16 << 10
THOROUGH = 2 << 20
BEFORE = 1536
AFTER = 512
# what is longer than this is no line of a log; its rest is passed over
MAX_RAW_LINE = 65536

FRAME = b"+0x"
_OTHER_FRAMES = (b" at ffff", b".c:", b".h:", b".S:", b">] ", b">{", b" ([")
_OTHER_HEADS = (
    *(b"COMMAND: ", b"STACK TRACE FOR TASK: ", b'"MESSAGE" : [', b'"MESSAGE": [', b'"MESSAGE":['),
    *(b"<stack trace", b"@["),
)
# behind these a stack of any form may follow, or a message in numbers; a longer context is read
_ANNOUNCEMENTS = (b"Trace:", b"trace:", b"blocked for", b"blocked in I/O", *_OTHER_HEADS)
_ANNOUNCED = 4096
_ANCHORS = (
    *(FRAME, *_OTHER_FRAMES, *_ANNOUNCEMENTS, b"/stack", b"fs_reclaim", b"RECLAIM_FS"),
    *(b"Chain exists", b"invoked oom", b"illed process", b"Kernel panic", b"lockup", b"detected stall"),
    *(b"page allocation", b"allocation deadlock", b"not responding", b"I/O error", b"block nbd", b" min:"),
    *(b"conn error", b"session recovery", b"offline device"),
)
# one of these is in whatever `_OTHER_FORMS` fits
_MARKS_OF_OTHERS = frozenset((*_OTHER_FRAMES, *_OTHER_HEADS))
_OTHER_FORMS = re.compile(
    rb"COMMAND: \"|STACK TRACE FOR TASK: 0x"
    rb"| at ffff[0-9a-f]{12}\b|\.[chS]:\d+(?:\)| \[inline\])|\"MESSAGE\" ?: ?\["
    rb"|\[<[0-9a-f]+>\] \w+$|<stack trace ?>\s*$|\(\[kernel\.kallsyms\]\)|^@\w*\[.{1,15}, \d+,",
    re.M,
)
# more than so many "+" without "0x" in a chunk make the search for "+" alone the slower one
_PATIENCE = 256


class RawLine(NamedTuple):
    """A line of a log before anything was taken off it.

    Attributes:
        data: its bytes without the line's end, at most `MAX_RAW_LINE`.
        line: its number from 1, None behind the part of a long log in which lines are counted.
        offset: of its first byte in the (decompressed) log.
    """

    data: bytes
    line: int | None
    offset: int


class Readable(Protocol):
    """What a log is read from: any binary stream, raw or buffered."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer as far as it goes; 0 at the end."""


def relevant_lines(stream: Readable, progress: Callable[[int], None] | None = None) -> Iterator[RawLine]:
    """The lines that can matter, in their order, in constant memory.

    Args:
        stream: the log, decompressed.
        progress: called with the number of bytes read so far, once a chunk.

    Raises:
        Exception: whatever the stream raises, after the lines before it were given out.
    """
    lines = _Lines()
    # one buffer for the whole log: copying and allocating would take longer than searching
    data = bytearray(BEFORE + CHUNK)
    tail = 0  # bytes kept from the last chunk, not given out: an anchor's context, perhaps
    spill = BEGINNING  # how far an anchor's context reaches into this chunk
    offset = 0  # of the buffer's first byte in the log
    thorough_until = float(THOROUGH)
    marked = False  # whether the last chunk had a mark of another form of stacks
    trouble: Exception | None = None
    while trouble is None:
        size, trouble = _fill(stream, data, tail)
        if size == tail:
            break
        thorough = offset < thorough_until
        # an anchor may lie across the border
        found = _anchors(data, max(0, tail - 32), size, _ANCHORS if thorough else (FRAME,))
        if thorough_until == THOROUGH and thorough:
            before, marked = marked, not _MARKS_OF_OTHERS.isdisjoint(found)
            if (before or marked) and _OTHER_FORMS.search(data, 0, size):
                thorough_until = float("inf")
        given = end = 0
        for begin, end in _intervals(sorted(chain.from_iterable(found.values())), spill):
            # whole lines where they are not longer than the context
            begin = max(given, data.rfind(b"\n", given, max(given, begin)) + 1)
            yield from lines.skip(data, given, begin, thorough)
            given = _line_end(data, min(end, size), size)
            yield from lines.take(bytes(data[begin:given]), offset + begin)
        # a line that goes on in the next chunk is wanted to its end
        spill = max(1, end - size) if given == size and end else 0
        keep = max(given, size - BEFORE)
        yield from lines.skip(data, given, keep, thorough)
        tail = size - keep
        data[:tail] = data[keep:size]
        offset += keep
        if progress:
            progress(offset + tail)
    yield from lines.finish()
    if trouble is not None:
        raise trouble


def _fill(stream: Readable, data: bytearray, size: int) -> tuple[int, Exception | None]:
    """Read on until the buffer is full or the log ends; the new size, and what went wrong behind it."""
    try:
        while size < len(data) and (read := stream.readinto(memoryview(data)[size:])):
            size += read
    except Exception as error:
        # a damaged archive: what was read before is still worth having
        return size, error
    return size, None


def _line_end(data: bytearray, end: int, size: int) -> int:
    """Where the line that `end` cuts is over; `end` itself where the line is longer than a context."""
    newline = data.find(b"\n", max(0, end - 1), min(end + BEFORE, size))
    if newline >= 0:
        return newline + 1
    return size if size - end < BEFORE else end


def _intervals(hits: list[int], spill: int) -> Iterator[tuple[int, int]]:
    """The anchors' contexts, in order and apart; `spill` is the end of one that began earlier."""
    begin, end = 0, spill
    for hit in hits:
        if hit - BEFORE > end:
            if end > begin:
                yield begin, end
            begin = hit - BEFORE
        end = max(end, hit + AFTER)
    if end > begin:
        yield begin, end


def _anchors(data: bytearray, start: int, end: int, needles: tuple[bytes, ...]) -> dict[bytes, list[int]]:
    """Where anchors stand, by what they are; of those that are closer together than half a context, some."""
    found: dict[bytes, list[int]] = {}
    for needle in needles:
        position = _find(data, needle, start, end)
        while position >= 0:
            hits = found.setdefault(needle, [])
            hits.append(position)
            if needle in _ANNOUNCEMENTS:
                hits += range(position + AFTER, position + _ANNOUNCED, AFTER)
            position = _find(data, needle, position + AFTER // 2, end)
    return found


def _find(data: bytearray, needle: bytes, start: int, end: int) -> int:
    if needle != FRAME:
        return data.find(needle, start, end)
    # one character is found many times faster than three, unless it is frequent
    for _ in range(_PATIENCE):
        start = data.find(b"+", start, end)
        if start < 0 or data.startswith(FRAME, start, end):
            return start
        start += 1
    return data.find(FRAME, start, end)


class _Lines:
    """Cuts what it takes into lines, and knows what was passed over."""

    def __init__(self) -> None:
        self._line: int | None = 1
        self._rest = b""
        self._rest_at = 0

    def skip(self, data: bytearray, begin: int, end: int, count: bool) -> Iterator[RawLine]:
        """Pass over data[begin:end], after the line that this cuts; count its lines if `count`."""
        if begin >= end:
            return
        yield from self.finish()
        newlines = data.count(b"\n", begin, end) if count else 0
        self._line = self._line + newlines if count and self._line is not None else None

    def take(self, data: bytes, offset: int) -> Iterator[RawLine]:
        """The lines that end in this piece, empty ones too: they part stacks."""
        first, *others = data.split(b"\n")
        self._go_on(first, offset)
        offset += len(first) + 1
        for piece in others:
            yield RawLine(self._rest, self._line, self._rest_at)
            self._line = self._line + 1 if self._line is not None else None
            self._rest, self._rest_at = piece[:MAX_RAW_LINE], offset
            offset += len(piece) + 1

    def _go_on(self, piece: bytes, offset: int) -> None:
        if not self._rest:
            self._rest_at = offset
        self._rest += piece[: MAX_RAW_LINE - len(self._rest)]

    def finish(self) -> Iterator[RawLine]:
        """The line that has not ended yet."""
        if self._rest:
            yield RawLine(self._rest, self._line, self._rest_at)
        self._rest = b""
