"""A kernel log or console capture, any bytes, to records: task reports, lockdep reports, events.

The reader goes line by line and keeps one stack at a time for each caller column, so a log of any
length needs constant memory. Lines that it does not know end nothing: logs interleave.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, islice, pairwise

from ioflusher.kernlog.reading import lockdep
from ioflusher.kernlog.reading.drawings import Drawing, drawing_below
from ioflusher.kernlog.reading.events import event_of
from ioflusher.kernlog.reading.frames import Frame, find_frame, parse_frame, repeated_word, several_frames
from ioflusher.kernlog.reading.heads import Head, head_below, parse_head
from ioflusher.kernlog.reading.lines import Line, breaks_softly, goes_on, parse_line, stamped
from ioflusher.kernlog.reading.lockdep import LockdepText
from ioflusher.kernlog.reading.noise import Noise
from ioflusher.kernlog.reading.patterns import LazyPattern
from ioflusher.kernlog.reading.prefixes import LearnedPrefix
from ioflusher.kernlog.reading.processes import Process, ProcessList
from ioflusher.kernlog.reading.scan import MAX_RAW_LINE, RawLine
from ioflusher.kernlog.reading.told import told_head
from ioflusher.kernlog.records import Event, EventKind, LockdepReport, Record, Source, TaskReport
from ioflusher.kernlog.stacks.roles import Role, does, role_of, tagged_rows
from ioflusher.kernlog.stacks.things import Thing, Verb

# Stacks longer than this come from broken input; the kernel's own limit is its 16 KiB stack.
MAX_FRAMES = 512
MAX_CALLERS = 256
# so many lines are looked at before the first one is read
MAX_AHEAD = 256


def parse_console(data: bytes) -> tuple[Record, ...]:
    """Every record of a capture, in the order in which their first lines end; for logs that fit in memory."""
    return tuple(read_records(_numbered(data)))


def task_reports(data: bytes) -> tuple[TaskReport, ...]:
    """The task reports of a capture."""
    return tuple(record for record in parse_console(data) if isinstance(record, TaskReport))


def events(data: bytes) -> tuple[Event, ...]:
    """The events of a capture: panic reason, OOM kills, hung task lines and the others of `EventKind`."""
    return tuple(record for record in parse_console(data) if isinstance(record, Event))


def read_records(lines: Iterable[RawLine]) -> Iterator[Record]:
    """Records from lines as they come. Never fails on any bytes."""
    reader = Reader()
    coming = iter(lines)
    for raw in chain(reader.look_ahead(coming), coming):
        if not reader.passes(raw.data):
            yield from reader.feed(raw)
    yield from reader.finish()


def _numbered(data: bytes) -> Iterator[RawLine]:
    offset = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        yield RawLine(line[:MAX_RAW_LINE], number, offset)
        offset += len(line) + 1


# a line's time, or a line of the usual form, whose time is looked at if it is needed
_When = float | bytes | None


def _seconds(when: _When) -> float | None:
    return parse_line(when).seconds if isinstance(when, bytes) else when


@dataclass(slots=True)
class _Draft:
    """A report of which more lines may come."""

    head: Head
    begin: RawLine
    seconds: float | None
    frames: list[Frame] = field(default_factory=list)
    in_irq: bool = False
    complete: bool = (
        False  # the last frame was one that begins a thread: another reliable one starts a new stack
    )
    lockdep: LockdepText | None = None  # while this is lockdep's report
    announced: Event | None = None  # the line that says that a stack follows
    seen: bool = False  # a frame, be it an interrupt's
    faulted: bool = (
        False  # registers of the kernel stood in it: what follows their code is the rest of the stack
    )
    gap: bool = False  # an empty line stood behind the last frame
    gaps: int = 0  # so many frames had one behind them
    parted: bool = False  # and other words behind that
    snipped: bool = False  # a person's mark for what was left out stood behind the last frame
    first: _When = None  # when the first frame was printed
    last: _When = None  # when the last one was

    @property
    def double_spaced(self) -> bool:
        """Whether some web page or mail put an empty line behind every line: then they part nothing."""
        return self.gaps >= 2 and self.gaps >= len(self.frames) - 1

    def leaps_to(self, line: Line) -> bool:
        """Whether so much time lies between the last frame and a line that others were printed there."""
        first, last = _seconds(self.first), _seconds(self.last)
        if first is None or last is None or line.seconds is None or len(self.frames) < 2:
            return False
        return line.seconds - last > _LEAP * (last - first) / (len(self.frames) - 1)

    def add(self, frame: Frame, at: _When) -> None:
        """Take a frame, unless it is an interrupt's; `at` is when it was printed."""
        self.gap = self.parted = self.snipped = False
        if not self.seen:
            self.first = at
        self.last = at
        self.seen = True
        if self.lockdep is not None:
            self.lockdep.take_frame(len(self.frames))
        if not self.in_irq and len(self.frames) < MAX_FRAMES:
            self.frames.append(frame)
            # as the very first frame it begins a stack that is printed the other way round
            if len(self.frames) > 1 and _is_outermost(frame.function):
                self.complete = True


# a name that stood alone on its line
_Name = tuple[Frame, Line, RawLine]


@lru_cache(maxsize=4096)
def _is_outermost(function: str) -> bool:
    return does(function, Verb.BEGINS, Thing.STACK)


# a frame as the kernel prints it, with nothing else to take off
_COMMON_FRAME = re.compile(rb" (?:\? )?[\w.$]+\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\w+\])?\r?$")


@lru_cache(maxsize=8192)  # tasks that wait for the same have the same frames
def _common_frame(data: bytes) -> Frame | None:
    return parse_frame(data.decode("ascii").rstrip()) if _COMMON_FRAME.match(data) else None


_TRACE_BEGINS = LazyPattern(
    r"(?a)^\s*(?:Call [Tt]race|Backtrace|Stack [Tt]race|stack backtrace):?|(?<!\S)Call [Tt]race:\s*$"
)
_ANNOUNCES = LazyPattern(r"(?<!\S)Call [Tt]race:?\s*$")
# `journalctl -o export` writes its own fields around each message
_JOURNAL_FIELD = LazyPattern(r"^_{0,2}[A-Z][A-Z0-9_]{2,63}=")
# `journalctl -o json-pretty`, a message with control characters in it: a number a line
_NUMBERS_BEGIN = LazyPattern(r'^\s*"MESSAGE"\s*:\s*\[\s*(?P<numbers>[\d,\s]*)$')
_NUMBERS = LazyPattern(r"^[\d,\s]*\]?,?\s*$")
_KERNEL = LazyPattern(r"(?:Not tainted|Tainted: .{1,80}?|Linux version) (\d{1,2}\.\d{1,3}[\w.+~-]*)")
_QUEUE = LazyPattern(r"(?<!\S)Workqueue: (.{1,120})$")
# hung_task.c, debug_show_blocker(), Linux 6.16: printed behind the task's stack, before its owner's
_BLOCKER = LazyPattern(
    r"\btask (?P<comm>.{1,64}?):\d+ (?:is )?(?:<(?P<mode>\w{1,8})> )?blocked on an? (?P<lock>[\w-]{1,16}?),?"
    r"(?: but the (?:owner|last holder)"
    r"| ?(?:likely )?(?:owned|last held) by task (?P<owner>.{1,64}?):(?P<tid>\d+)"
    r"(?: <(?P<owner_mode>\w{1,8})>)?)"
)
# lines that a mail broke before they were whole: heads, and what names a lock's owner
_TORN = LazyPattern(
    r"\btask .{1,64}?:\d+ (?:is )?(?:<\w{1,8}> )?(?:blocked|can't die)"
    r"(?: for(?: more)?| in I/O.{0,16}| on .{0,60})?$"
    r"|\btask:.{1,64}?$|\s[RSDTtXxZPIKWN](?:\s+(?:[0-9a-f]{8,16}|running task))?(?:\s+\d+)*$|\bPID: \d+$"
)
# an address behind it is a lock's or a register's, in whatever line it stands
_LABELS_NEXT = LazyPattern(
    r"(?:\bat:|\bis at|\bat \S+\.[chS]:\d+|\blast +(?:en|dis)abled at \(\d+\):|\b[ER]IP:?(?: [0-9a-f]{4}:)?)"
    r"\s*(?:\[<[0-9a-f]+>\]\s*)?$"
)
# a mail broke the line behind the mark of doubt
_DOUBT_NEXT = LazyPattern(r"^(?:\[<?[0-9a-f]+>?\]|\s)*\?$")
# a function's name and perhaps a remark, as people write stacks down, also as trees
_NAME = LazyPattern(
    r"^\s*(?:[-=]+(?:>\s*|\s+)|[|*+`\\\u2502\u2514\u251c\u2500 -]*[|*+`\\\u2502\u2514\u251c\u2500]+-*>?\s*"
    r"|\d{1,3}[.):]\s+|(?P<doubt>\?)\s*)?(?P<function>[A-Za-z_][\w.]{3,})(?:\([\w&>, *.-]{0,40}\))?"
    r"(?:\s+\[(?P<module>[A-Za-z_]\w*)\])?(?:\s*[-=]+>.*|\s+(?://|/\*|#|<[-=]|--|\().*)?\s*$"
)
# what a person left out between two names
_ELIDED = LazyPattern(r"^[\s|]*(?:\.{2,}|\u2026)\s*$")
# what a person left out of a log: the rest of a stack, and other tasks
_SNIPPED = LazyPattern(r"(?i)(?:^|[^\w.])\.*(?:\.{3,}|\u2026|snip(?:ped)?)\W*$")
# around what interrupts did on top of a task's stack (x86)
_IRQ_BEGINS = ("<IRQ>", "<NMI>", "<SOFTIRQ>")
_IRQ_ENDS = ("</IRQ>", "</NMI>", "</SOFTIRQ>", "<TASK>", "<EOI>", "<EOE>")
# longer than so many lines no stack's rest is
_LEAP = 60
_SWITCHING = "[Switching to thread"
# what ends a quoted text of a web page
_FENCE = "```"
# a text that names so many functions of reclaim and shows no stack may draw one in a form of its own
_TOLD = 4
_WORD = LazyPattern(r"(?<!\w)[a-z_]\w*_\w+")
_RECLAIM = frozenset({Role.DIRECT_RECLAIM, Role.RECLAIM, Role.SHRINKER, Role.SWAP_OUT, Role.PAGE_OUT})
_REPORTS = ("Call Trace", "Call trace", "blocked for more than")
_NAMED = LazyPattern(r"[A-Za-z_]\w* ?\+0x[0-9a-f]")
# the registers of an oops or a warning, which may be cut: whoever has its instruction pointer or code segment
# in the kernel runs (x86, powerpc)
_RAN = LazyPattern(r"RIP: 0010:|\bCS: +0010 |(?<!\S)NIP \[[0-9a-f]+\] [A-Za-z_]")
_RAN_WORDS = ("0010", "NIP [")
# behind whose stack it is: arm's code has the instruction in parentheses, and only an oops has it
_ENDS_OOPS = LazyPattern(r"---\[ end trace|Code: (?:[0-9a-f]{4,8} )+\([0-9a-f]+\)")
# what an oops or a warning begins with, where the registers are another architecture's or were cut out
_OOPS = LazyPattern(
    r"Unable to handle kernel|BUG: (?:unable to handle|kernel NULL pointer|KASAN:)|kernel BUG at "
    r"|Internal error: Oops|general protection fault|WARNING: (?:CPU: \d|at )|^(?:>>)?[ER]IP;"
)
_OOPS_WORDS = ("kernel", "BUG", "Oops", "fault", "WARNING", "IP;")


class Reader:
    """Lines in, records out; keeps what is unfinished."""

    def __init__(self) -> None:
        self._drafts: dict[str, _Draft] = {}
        self._kernel: str | None = None
        self._prefix = LearnedPrefix()
        self._broken: RawLine | None = None  # a line of a mail that goes on in the next one
        self._torn = ""  # a line of which the rest may follow
        self._labelled = False  # the last line ended with what makes the next address no frame
        self._doubtful = False  # the last line ended with what makes the next frame one that is in doubt
        self._names: list[_Name] = []  # names alone, which may become a stack
        self._names_end = False  # an empty line stood behind them
        self._drawing: Drawing | None = None  # tasks side by side, so far
        self._above = b""  # the line before
        self._message: list[str] | None = None  # the numbers of a journal's message, so far
        self._noise = Noise()
        self._processes = ProcessList()
        self._process: Process | None = None  # the line before was of a list of processes, and is this one
        self._reports = 0
        self._odd: Event | None = None  # the first line with a function in it that is no frame
        self._spoken: Event | None = None  # the first line with words of a report, wherever they stand
        self._announced = False  # whether one was taken for an announcement
        self._told: dict[str, Event] = {}  # functions of reclaim, each with the first line that names it

    def passes(self, data: bytes) -> bool:
        """Take a line that is one more frame of a stack already begun, or noise; False for every other line.

        `feed` would do the same. Most lines that are read are such ones: worth a short way.
        """
        if self._names or self._broken or self._drawing or (found := stamped(data)) is None:
            return False
        caller, rest = found
        draft = self._drafts.get(caller)
        if b"+0x" not in rest:
            if self._torn or (draft and draft.lockdep) or self._prefix.known or not self._noise.knows(rest):
                return False
            if self._processes.columns:
                return False
            self._process = None
            self._doubtful = self._labelled = False
            return True
        frame = _common_frame(rest) if draft and not draft.complete else None
        if draft is None or frame is None or draft.snipped or self._labelled or self._doubtful:
            return False
        draft.add(frame, data)
        return True

    def look_ahead(self, lines: Iterator[RawLine]) -> list[RawLine]:
        """Learn a prefix from the first frames, before the heads above them are read; the lines for that."""
        seen = []
        for raw in islice(lines, MAX_AHEAD):
            seen.append(raw)
            line = parse_line(raw.data)
            found = find_frame(line.text)
            if not found and (word := repeated_word(line.text)) and self._prefix.learn(word):
                break
            if found and (not (before := line.before or found[1]) or self._prefix.learn(before)):
                break
        self._prefix.forget_half()
        return seen

    def feed(self, raw: RawLine) -> Iterator[Record]:
        """Take one line; yields the records that it ends."""
        if self._broken is not None:
            broken, self._broken = self._broken, None
            if goes_on(raw.data):
                raw = broken._replace(data=(_softly(broken) + raw.data)[:MAX_RAW_LINE])
            else:
                yield from self._take_line(broken._replace(data=_softly(broken)))
        if raw.data.endswith((b"=", b"=\r")) and breaks_softly(raw.data):
            self._broken = raw
            return
        yield from self._take_line(raw)

    def _take_line(self, raw: RawLine) -> Iterator[Record]:
        above, self._above = self._above, raw.data
        if self._drawing is not None:
            if self._drawing.take(raw.data.decode("utf-8", "replace")):
                self._tell(parse_line(raw.data), raw)
                return
            yield from self._end_drawing()
        if b"-+-" in raw.data and (drawing := drawing_below(above, raw)):
            self._drawing = drawing
            return
        line = parse_line(raw.data)
        if self._message is not None or '"MESSAGE"' in line.text:
            message = self._numbers(line.text)
            if message is None:
                return
            line = parse_line(message)
        if (rest := self._prefix.taken_off(line.text)) is not None:
            inner = parse_line(rest.encode("utf-8", "replace"))
            seconds = line.seconds if inner.seconds is None else inner.seconds
            line = Line(inner.text, seconds, inner.caller or line.caller)
        elif line.before:
            self._prefix.learn(line.before)
        text = line.text
        if not text:
            self._names_end = bool(self._names)
            if (draft := self._drafts.get(line.caller)) and draft.frames and not draft.gap:
                draft.gap = True
                draft.gaps += 1
            return
        if text[:1] in "_ABCDEFGHIJKLMNOPQRSTUVWXYZ" and _JOURNAL_FIELD.match(text):
            return
        if text.startswith(_SWITCHING) and "]#" in text:
            # gdb prints the first frame on the same line
            title, _, first = text.partition("]#")
            yield from self._take_text(line._replace(text=f"{title}]"), raw)
            text = f"#{first}"
        if several := several_frames(text):
            # "kjournald Call Trace:    [sleep_on+75/124] [kernel_thread+40/56]"
            announced, colon, _ = text.partition("race:")
            if colon and several[0].function not in announced:
                yield from self._take_text(line._replace(text=announced + colon), raw)
            for frame in several:
                yield from self._take_frame(frame, text, line, raw)
            return
        found = find_frame(text)
        if found:
            if self._names:
                yield from self._flush_names()
            if self._labelled:
                self._labelled = False
                return
            frame, before = found
            if self._doubtful:
                frame = replace(frame, reliable=False)
            # "Call Trace: [<c01>] foo+0x1/0x2", "/proc/4350/stack : [<0>] foo+0x1/0x2"
            if before and not self._prefix.learn(before):
                yield from self._take_text(line._replace(text=before), raw)
            self._doubtful = False
            yield from self._take_frame(frame, text, line, raw)
            return
        if (below := head_below(text)) is not None:
            yield from self._flush_names()
            if (draft := self._drafts.get(line.caller)) and draft.frames and draft.head.comm is None:
                draft.head = below
                yield from self._end(line.caller)
            return
        name = _NAME.match(text)
        if name and len(self._names) < MAX_FRAMES:
            frame = Frame(name["function"], None, None, name["module"], not name["doubt"])
            self._names.append((frame, line, raw))
            self._names_end = False
            return
        if self._names:
            if _ELIDED.match(text):
                return
            yield from self._flush_names()
        if (cut := self._drafts.get(line.caller)) and cut.frames and cut.lockdep is None:
            cut.snipped |= len(text) < 40 and _SNIPPED.search(text) is not None
            if text.lstrip().startswith(_FENCE):
                yield from self._end(line.caller)
                return
        kernel = _KERNEL.search(text) if "ainted" in text or "Linux version" in text else None
        if kernel:
            self._kernel = kernel[1]
        event = event_of(line, raw)
        if event and event.kind is not EventKind.HELD_LOCK:
            yield event
        if self._odd is None and not self._reports and "+0x" in text and _NAMED.search(text):
            self._odd = _unread(line, raw)
        if self._spoken is None and any(word in text for word in _REPORTS):
            self._spoken = _unread(line, raw)
        self._tell(line, raw)
        self._doubtful = text.endswith("?") and _DOUBT_NEXT.match(text) is not None
        self._labelled = (text[-1] in ":]tP" or ".c:" in text) and _LABELS_NEXT.search(text) is not None
        if line.seconds is not None and (plain := stamped(raw.data)):
            self._noise.learn(plain[1], text)
        yield from self._take_text(line, raw)

    def finish(self) -> Iterator[Record]:
        """End of the log: the records still open."""
        if self._broken:
            broken, self._broken = self._broken, None
            yield from self._take_line(broken._replace(data=_softly(broken)))
        yield from self._end_drawing()
        yield from self._flush_names()
        for caller in list(self._drafts):
            yield from self._end(caller)
        if self._reports:
            return
        if self._odd:
            yield self._odd
        elif len(self._told) >= _TOLD:
            yield next(iter(self._told.values()))
        elif self._spoken and not self._announced:
            yield self._spoken

    def _numbers(self, text: str) -> bytes | None:
        """The message that a line ends, where a journal wrote it as numbers; None while it goes on."""
        if self._message is None:
            begin = _NUMBERS_BEGIN.match(text)
            if begin is None:
                return text.encode("utf-8", "replace")
            self._message = [begin["numbers"]]
            return None
        if not _NUMBERS.match(text) or len(self._message) > MAX_RAW_LINE:
            self._message = None
            return text.encode("utf-8", "replace")
        self._message.append(text)
        if "]" not in text:
            return None
        numbers = re.findall(r"\d+", "".join(self._message))
        self._message = None
        return bytes(int(number) & 0xFF for number in numbers)

    def _flush_names(self) -> Iterator[Record]:
        """Names that stood alone on their lines: a stack, if enough of them are functions that are known."""
        names, self._names = self._names, []
        if not names:
            return
        draft = self._drafts.get(names[0][1].caller)
        awaited = draft is not None and not draft.frames and draft.lockdep is None
        for stack in _paths(names):
            least = 2 if awaited else 4
            if len(stack) >= least and _are_known(frame.function for frame, _, _ in stack):
                for frame, line, raw in stack:
                    yield from self._take_frame(frame, line.text, line, raw)
                if len(stack) < len(names) or self._names_end:
                    yield from self._end(names[0][1].caller)
            else:
                for _, line, raw in stack:
                    self._tell(line, raw)
                    yield from self._take_text(line, raw)

    def _end_drawing(self) -> Iterator[Record]:
        drawing, self._drawing = self._drawing, None
        if drawing is None:
            return
        for comm, frames in drawing.stacks():
            if len(frames) >= 3 and _are_known(frame.function for frame in frames):
                draft = self._begin(Head(Source.BARE, comm), Line("", None, comm), drawing.begin)
                draft.frames = frames
                yield from self._end(comm)

    def _tell(self, line: Line, raw: RawLine) -> None:
        """Remember what a line that shows no frame names of reclaim."""
        if self._reports or len(self._told) >= _TOLD or "_" not in line.text:
            return
        for word in _WORD.compiled().findall(line.text):
            row = role_of(word)
            if row is not None and row.role in _RECLAIM:
                self._told.setdefault(word, _unread(line, raw))

    def _take_frame(self, frame: Frame, text: str, line: Line, raw: RawLine) -> Iterator[Record]:
        draft = self._drafts.get(line.caller)
        first = _is_outermost(frame.function)
        # text without time stamps has stacks of several tasks with a line on each between them; stamped
        # ones go on behind a remark, unless a stack begins there
        anew = first or line.seconds is None or does(frame.function, Verb.ENDS, Thing.STACK)
        parted = draft is not None and draft.parted and anew
        ended = draft and (parted or (draft.complete and not first))
        lockdep = draft.lockdep if draft else None
        if draft and draft.snipped and draft.leaps_to(line):
            yield from self._end(line.caller)
            draft = None
        if draft and ended and frame.reliable and (lockdep is None or lockdep.backtrace):
            yield from self._end(line.caller)
            draft = None
        if draft is None:
            draft = self._begin(self._head_above(text), line, raw)
        draft.add(frame, line.seconds)

    def _head_above(self, text: str) -> Head:
        """Whose stack begins without a head: a row of a list of processes may stand above it."""
        process, self._process = self._process, None
        if process is not None:
            return Head(Source.PROC, process.name, None, process.number, process.state)
        return Head(source=Source.PROC if "[<0>]" in text else Source.BARE)

    def _take_text(self, line: Line, raw: RawLine) -> Iterator[Record]:
        text, caller = line.text, line.caller
        draft = self._drafts.get(caller)
        if draft and draft.gap and line.seconds is None:
            draft.parted = not draft.double_spaced
        # words before expressions: most lines between stacks are noise
        if lockdep.opens(text):
            yield from self._take_lockdep(line, raw)
            return
        self._process = self._processes.take(text)
        if self._process is not None:
            if draft and draft.frames and draft.lockdep is None:
                yield from self._end(caller)
            return
        head = parse_head(text) or told_head(text)
        begins = "race" in text and _TRACE_BEGINS.search(text) is not None
        if draft and draft.lockdep is not None:
            if not self._leaves_lockdep(draft, text, head, begins):
                return
            yield from self._end(caller)
            draft = None
        whole = f"{self._torn} {text.strip()}" if self._torn else text
        if head is None and self._torn:
            # a syslog's host may stand before the rest
            head = parse_head(whole) or parse_head(f"{self._torn} {text.strip().partition(' ')[2].strip()}")
        torn = (head is None or head.tid is None) and (len(text) < 100 or "task" in text)
        self._torn = text if torn and _is_torn(text) else ""
        if head:
            yield from self._take_head(head, line, raw)
        elif any(word in text for word in _OOPS_WORDS) and _OOPS.search(text) and not _is_listed(draft, text):
            yield from self._end(caller)
            self._begin(Head(source=Source.DUMP), line, raw)
        elif draft:
            yield from self._take_detail(draft, line._replace(text=whole), begins, raw)
        elif begins or ("queue: " in text and _QUEUE.search(text)):
            draft = self._begin(Head(source=Source.BARE), line, raw)
            yield from self._take_detail(draft, line, begins, raw)
        elif _ran(text):
            self._begin(Head(source=Source.DUMP), line, raw)
        announces = (head and head.source is Source.HUNG_TASK) or (begins and _ANNOUNCES.search(text))
        if announces and (draft := self._drafts.get(caller)) and not draft.announced:
            draft.announced = _unread(line, raw)
            self._announced = True

    def _take_head(self, head: Head, line: Line, raw: RawLine) -> Iterator[Record]:
        draft = self._drafts.get(line.caller)
        if draft and not draft.frames and draft.head.same_task(head):
            draft.head = draft.head.joined(head)
            draft.in_irq = draft.complete = False  # its stack is still to come
            return
        yield from self._end(line.caller)
        self._begin(head, line, raw)

    def _take_detail(self, draft: _Draft, line: Line, begins: bool, raw: RawLine) -> Iterator[Record]:
        text = line.text
        queue = _QUEUE.search(text) if "queue: " in text else None
        blocker = _BLOCKER.search(text) if "blocked on" in text else None
        if queue:
            if draft.frames:
                yield from self._end(line.caller)
                draft = self._begin(Head(source=Source.BARE), line, raw)
            draft.head = draft.head.joined(Head(source=draft.head.source, workqueue=queue[1].strip()))
        elif blocker:
            if draft.head.same_task(Head(Source.HUNG_TASK, blocker["comm"])):
                draft.head = draft.head.joined(_blocked_head(draft.head.source, blocker))
        elif any(mark in text for mark in _IRQ_BEGINS):
            draft.in_irq = "</" not in text
        elif any(mark in text for mark in _IRQ_ENDS):
            draft.in_irq = False
        elif "</TASK>" in text:
            draft.complete = True
        elif _ran(text) and not draft.frames and draft.head.source is Source.BARE:
            draft.head = replace(draft.head, source=Source.DUMP)
        elif _ran(text) and draft.head.source is Source.DUMP:
            draft.faulted = True
        elif draft.frames and _ends_stack(text):
            if draft.head.source is Source.BARE and _ENDS_OOPS.search(text):
                draft.head = replace(draft.head, source=Source.DUMP)
            faulted = draft.faulted and "Code: " in text
            yield from self._end(line.caller)
            if faulted:
                self._begin(draft.head, line, raw)
        elif begins and draft.frames:
            yield from self._end(line.caller)
            self._begin(Head(source=Source.BARE), line, raw)

    def _begin(self, head: Head, line: Line, raw: RawLine) -> _Draft:
        if len(self._drafts) >= MAX_CALLERS:
            # an old caller's unfinished head; a stack would have been ended by its next line
            self._drafts.pop(next(iter(self._drafts)))
        draft = _Draft(head, raw, line.seconds)
        self._drafts[line.caller] = draft
        return draft

    def _end(self, caller: str) -> Iterator[Record]:
        draft = self._drafts.pop(caller, None)
        if draft is None:
            return
        head = draft.head
        if draft.lockdep is not None:
            self._reports += 1
            yield LockdepReport(
                title=draft.lockdep.title,
                comm=draft.lockdep.comm,
                tid=draft.lockdep.tid,
                locks=draft.lockdep.locks,
                frames=tuple(draft.frames),
                begins=tuple(draft.lockdep.begins),
                kernel=self._kernel,
                line=draft.begin.line,
                offset=draft.begin.offset,
            )
        elif draft.frames:
            self._reports += 1
            yield TaskReport(
                comm=head.comm or self._processes.name_of(head.tid) or self._processes.name_of(head.pid),
                pid=head.pid,
                tid=head.tid,
                state=head.state,
                task_flags=head.task_flags,
                frames=tuple(draft.frames),
                kernel=self._kernel,
                source=head.source,
                workqueue=head.workqueue,
                blocked_seconds=head.blocked_seconds,
                owner=head.owner,
                seconds=draft.seconds,
                line=draft.begin.line,
                offset=draft.begin.offset,
                lock=head.lock,
                mode=head.mode,
                owner_mode=head.owner_mode,
                io_wait=bool(head.io_wait),
                parent=head.parent,
            )
        elif draft.announced and not draft.seen:
            yield draft.announced

    # -- lockdep

    def _take_lockdep(self, line: Line, raw: RawLine) -> Iterator[Record]:
        draft = self._drafts.get(line.caller)
        if draft is None or draft.lockdep is None or draft.lockdep.is_other(line.text):
            yield from self._end(line.caller)
            draft = self._begin(Head(source=Source.DUMP), line, raw)
            draft.lockdep = LockdepText()
        assert draft.lockdep is not None
        draft.lockdep.take(line.text)

    def _leaves_lockdep(self, draft: _Draft, text: str, head: Head | None, begins: bool) -> bool:
        """Whether a line no longer belongs to lockdep's report; gives it what does."""
        report = draft.lockdep
        assert report is not None
        if "stack backtrace" in text or (head and not report.backtrace):
            report.backtrace = True
            draft.complete = draft.gap = draft.parted = False  # of the stacks before it
        elif (begins or "Workqueue: " in text) and not report.backtrace:
            return True  # its own backtrace is cut: this is another stack
        elif report.backtrace and draft.complete and (head or begins):
            return True
        if head is not None and head.source is not Source.DUMP:
            return True
        within = report.take(text)
        return not within or "</TASK>" in text or _ends_stack(text)


def _is_listed(draft: _Draft | None, text: str) -> bool:
    """Whether an instruction pointer is that of a task in ksymoops's list of all, and of no oops."""
    listed = draft is not None and draft.head.source is Source.TASK_LIST and not draft.frames
    return listed and text.endswith("IP;")


def _ran(text: str) -> bool:
    """Whether a line shows the registers of a task that runs in the kernel."""
    return any(word in text for word in _RAN_WORDS) and _RAN.search(text) is not None


def _ends_stack(text: str) -> bool:
    return "Code: " in text or "---[ end trace" in text or "Kernel panic" in text


def _is_torn(text: str) -> bool:
    """Whether a line may be the beginning of a head that a mail broke."""
    # a number, an address, or a state's letter
    short = len(text) < 100 and (text[-1] in "0123456789abcdef" or text[-2:-1] == " ")
    return (short or (len(text) < 200 and "task" in text)) and _TORN.search(text) is not None


def _are_known(functions: Iterable[str]) -> bool:
    """Whether the tables have half of them: names alone are words of prose otherwise."""
    known = [bool(role_of(function) or tagged_rows(function)) for function in functions]
    return 2 * sum(known) >= len(known)


def _paths(names: list[_Name]) -> list[list[_Name]]:
    """The stacks that names alone are, innermost first.

    Where most stand further to the right than the one before, it is a tree: who calls stands above whom it
    calls, and each way down to one that calls nobody is a stack.
    """
    columns = [raw.data.find(frame.function.encode()) for frame, _, raw in names]
    if 2 * sum(one < two for one, two in pairwise(columns)) <= len(names) - 1:
        return [names]
    paths: list[list[_Name]] = []
    path: list[tuple[int, _Name]] = []
    for column, name in zip(columns, names, strict=True):
        if path and column <= path[-1][0]:
            paths.append([one for _, one in reversed(path)])
            path = [(at, one) for at, one in path if at < column]
        path.append((column, name))
    paths.append([one for _, one in reversed(path)])
    return paths


def _softly(broken: RawLine) -> bytes:
    """A line without the mark that a mail put where it broke it."""
    return broken.data.removesuffix(b"\r").removesuffix(b"=")


def _unread(line: Line, raw: RawLine) -> Event:
    return Event(EventKind.UNREAD_STACK, line.text, None, None, line.seconds, raw.line, raw.offset)


def _blocked_head(source: Source, found: re.Match[str]) -> Head:
    owner = (found["owner"], int(found["tid"])) if found["owner"] else None
    return Head(source, owner=owner, lock=found["lock"], mode=found["mode"], owner_mode=found["owner_mode"])
