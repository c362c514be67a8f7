"""A kernel log or console capture, any bytes, to records: task reports, lockdep reports, events.

The reader goes line by line and keeps one stack at a time for each caller column, so a log of any
length needs constant memory. Lines that it does not know end nothing: logs interleave.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ioflusher.kernlog.events import event_of
from ioflusher.kernlog.frames import Frame, parse_frame
from ioflusher.kernlog.heads import Head, parse_head
from ioflusher.kernlog.lines import COMMON_FRAME, Line, parse_line
from ioflusher.kernlog.records import Event, EventKind, LockdepReport, Record, Source, TaskReport
from ioflusher.kernlog.scan import MAX_RAW_LINE, RawLine
from ioflusher.kernlog.told import told_head

# Stacks longer than this come from broken input; the kernel's own limit is its 16 KiB stack.
MAX_FRAMES = 512
MAX_CALLERS = 256


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
    for raw in lines:
        if not reader.continues_stack(raw.data):
            yield from reader.feed(raw)
    yield from reader.finish()


def _numbered(data: bytes) -> Iterator[RawLine]:
    offset = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        yield RawLine(line[:MAX_RAW_LINE], number, offset)
        offset += len(line) + 1


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
    lockdep: list[str] | None = None  # lock names, while this is lockdep's report
    title: str = ""
    lockdep_lines: int = 0
    cycle_over: bool = False  # lockdep went on to what is held and where it was found
    gap: bool = False  # an empty line stood behind the last frame
    gaps: int = 0  # so many frames had one behind them
    parted: bool = False  # and other words behind that

    @property
    def double_spaced(self) -> bool:
        """Whether some web page or mail put an empty line behind every line: then they part nothing."""
        return self.gaps >= 2 and self.gaps >= len(self.frames) - 1

    def add(self, frame: Frame) -> None:
        """Take a frame, unless it is an interrupt's."""
        self.gap = self.parted = False
        if not self.in_irq and len(self.frames) < MAX_FRAMES:
            self.frames.append(frame)
            # as the very first frame it begins a stack that is printed the other way round
            if len(self.frames) > 1 and _FIRST_FRAME.match(frame.function):
                self.complete = True


_INNERMOST = {"__schedule", "schedule", "__switch_to"}
_FIRST_FRAME = re.compile(
    r"^(?:entry_SYSCALL|entry_SYSENTER|entry_INT80|system_call|sysenter|ret_from_fork|kernel_thread_helper"
    r"|ret_fast_syscall|el0_sync|el0t_64_sync|ret_from_kernel_thread|ret_to_user|handle_syscall|syscall_common)"
)
_TRACE_BEGINS = re.compile(r"^\s*(?:Call [Tt]race|Backtrace|Stack [Tt]race|stack backtrace):?", re.A)
# `journalctl -o export` writes its own fields around each message
_JOURNAL_FIELD = re.compile(r"^_{0,2}[A-Z][A-Z0-9_]{2,63}=")
_STACK_INLINE = re.compile(r"^(.*/stack)\s*[:=]\s*(\[<.*)$")
_LOCKDEP = re.compile(
    r"Chain exists of:|-> #\d+ \(|existing dependency chain|Possible unsafe locking scenario"
    r"|possible (?:circular locking|recursive locking|irq lock inversion|irq "
    r"locking)|inconsistent lock state"
    r"|inconsistent \{.*\} usage"
)
_LOCKDEP_WORDS = ("lock", "Chain", "inconsistent", "-> #", "existing dep")
_LOCKDEP_MIDDLE = re.compile(r"Chain exists of:|-> #\d+ \(|existing dependency chain|Possible unsafe locking")
_LOCK_NAME = re.compile(r"\(([^(){}]{1,120}(?:\([^()]*\))?[^(){}]*)\)\{[^}]*\}")
_LOCKDEP_STATE = re.compile(r"RECLAIM_FS")
_KERNEL = re.compile(r"(?:Not tainted|Tainted: .{1,80}?|Linux version) (\d{1,2}\.\d{1,3}[\w.+~-]*)")
_QUEUE = re.compile(r"^\s*Workqueue: (.{1,120})$")
# hung_task.c, debug_show_blocker(), Linux 6.16: printed behind the task's stack, before its owner's
_OWNER = re.compile(
    r"^\s*(?:INFO: )?task (?P<comm>.{1,64}?):\d+ (?:is )?(?:<\w{1,8}> )?blocked on an? "
    r"[\w-]{1,16},? ?(?:likely )?"
    r"(?:owned|last held) by task (?P<owner>.{1,64}?):(?P<tid>\d+)"
)
# the registers of an oops or a warning: whoever has its instruction pointer in the kernel runs
_RAN = "RIP: 0010:"
# what an oops or a warning begins with, where the registers are another architecture's or were cut out
_OOPS = re.compile(
    r"Unable to handle kernel|BUG: (?:unable to handle|kernel NULL pointer|KASAN:)|kernel BUG at "
    r"|Internal error: Oops|general protection fault|WARNING: (?:CPU: \d|at )"
)
_OOPS_WORDS = ("kernel", "BUG", "Oops", "fault", "WARNING")
_ENDS = ("Code: ", "---[ end trace", "Kernel panic")


class Reader:
    """Lines in, records out; keeps what is unfinished."""

    def __init__(self) -> None:
        self._drafts: dict[str, _Draft] = {}
        self._kernel: str | None = None

    def continues_stack(self, data: bytes) -> bool:
        """Take a line that is one more frame of a stack already begun; False for every other line.

        `feed` would do the same. Most lines that matter are such frames: worth a short way.
        """
        found = COMMON_FRAME.match(data) if b"+0x" in data else None
        if found is None:
            return False
        draft = self._drafts.get(found[2].decode("ascii") if found[2] else "")
        frame = parse_frame(found[3].decode("ascii")) if draft and not draft.complete else None
        if draft is None or frame is None:
            return False
        draft.add(frame)
        return True

    def feed(self, raw: RawLine) -> Iterator[Record]:
        """Take one line; yields the records that it ends."""
        line = parse_line(raw.data)
        text = line.text
        if not text:
            if (draft := self._drafts.get(line.caller)) and draft.frames and not draft.gap:
                draft.gap = True
                draft.gaps += 1
            return
        if text[:1] in "_ABCDEFGHIJKLMNOPQRSTUVWXYZ" and _JOURNAL_FIELD.match(text):
            return
        if "/stack" in text and (with_head := _STACK_INLINE.match(text)):
            # "/proc/4350/stack : [<0>] func+0x1/0x2": head and first frame on one line
            yield from self._take_text(Line(with_head[1], line.seconds, line.caller), raw)
            text = with_head[2]
        frame = parse_frame(text)
        if frame:
            yield from self._take_frame(frame, text, line, raw)
            return
        kernel = _KERNEL.search(text) if "ainted" in text or "Linux version" in text else None
        if kernel:
            self._kernel = kernel[1]
        event = event_of(line, raw)
        if event and event.kind is not EventKind.HELD_LOCK:
            yield event
        yield from self._take_text(line, raw)

    def finish(self) -> Iterator[Record]:
        """End of the log: the records still open."""
        for caller in list(self._drafts):
            yield from self._end(caller)

    def _take_frame(self, frame: Frame, text: str, line: Line, raw: RawLine) -> Iterator[Record]:
        draft = self._drafts.get(line.caller)
        first = bool(_FIRST_FRAME.match(frame.function))
        # text without time stamps has stacks of several tasks with a line on each between them; stamped
        # ones go on behind a remark, unless a stack begins there
        anew = first or line.seconds is None or frame.function in _INNERMOST
        parted = draft is not None and draft.parted and anew
        ended = draft and (parted or (draft.complete and not first))
        if draft and ended and frame.reliable and draft.lockdep is None:
            yield from self._end(line.caller)
            draft = None
        if draft is None:
            source = Source.PROC if text.lstrip().startswith("[<0>]") else Source.BARE
            draft = self._begin(Head(source=source), line, raw)
        draft.add(frame)

    def _take_text(self, line: Line, raw: RawLine) -> Iterator[Record]:
        text, caller = line.text, line.caller
        draft = self._drafts.get(caller)
        if draft and draft.gap and line.seconds is None:
            draft.parted = not draft.double_spaced
        # words before expressions: most lines between stacks are noise
        if any(word in text for word in _LOCKDEP_WORDS) and _LOCKDEP.search(text):
            yield from self._open_lockdep(line, raw)
            return
        if draft and draft.lockdep is not None:
            if self._stays_in_lockdep(draft, text):
                return
            yield from self._end(caller)
            draft = None
        head = parse_head(text) or told_head(text)
        if head:
            yield from self._take_head(head, line, raw)
        elif any(word in text for word in _OOPS_WORDS) and _OOPS.search(text):
            yield from self._end(caller)
            self._begin(Head(source=Source.DUMP), line, raw)
        elif draft:
            yield from self._take_detail(draft, line, raw)
        elif ("race" in text and _TRACE_BEGINS.match(text)) or ("queue: " in text and _QUEUE.match(text)):
            draft = self._begin(Head(source=Source.BARE), line, raw)
            yield from self._take_detail(draft, line, raw)
        elif _RAN in text:
            self._begin(Head(source=Source.DUMP), line, raw)

    def _take_head(self, head: Head, line: Line, raw: RawLine) -> Iterator[Record]:
        draft = self._drafts.get(line.caller)
        if draft and not draft.frames and draft.head.same_task(head):
            draft.head = draft.head.joined(head)
            return
        yield from self._end(line.caller)
        self._begin(head, line, raw)

    def _take_detail(self, draft: _Draft, line: Line, raw: RawLine) -> Iterator[Record]:
        text = line.text
        queue = _QUEUE.match(text) if "queue: " in text else None
        owner = _OWNER.match(text) if "blocked on" in text else None
        if queue:
            if draft.frames:
                yield from self._end(line.caller)
                draft = self._begin(Head(source=Source.BARE), line, raw)
            draft.head = draft.head.joined(Head(source=draft.head.source, workqueue=queue[1].strip()))
        elif owner:
            if draft.head.same_task(Head(Source.HUNG_TASK, owner["comm"])):
                held_by = (owner["owner"], int(owner["tid"]))
                draft.head = draft.head.joined(Head(draft.head.source, owner=held_by))
        elif "<IRQ>" in text or "<NMI>" in text or "<SOFTIRQ>" in text:
            draft.in_irq = "</" not in text
        elif "</IRQ>" in text or "</NMI>" in text or "<TASK>" in text or "<EOI>" in text:
            draft.in_irq = False
        elif "</TASK>" in text:
            draft.complete = True
        elif _RAN in text and not draft.frames and draft.head.source is Source.BARE:
            draft.head = replace(draft.head, source=Source.DUMP)
        elif draft.frames and text.lstrip().startswith(_ENDS):
            yield from self._end(line.caller)
        elif "race" in text and _TRACE_BEGINS.match(text) and draft.frames:
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
            yield LockdepReport(
                draft.title,
                head.comm,
                head.tid,
                tuple(draft.lockdep),
                tuple(draft.frames),
                self._kernel,
                draft.begin.line,
                draft.begin.offset,
            )
        elif draft.frames:
            yield TaskReport(
                comm=head.comm,
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
            )

    # -- lockdep

    def _open_lockdep(self, line: Line, raw: RawLine) -> Iterator[Record]:
        draft = self._drafts.get(line.caller)
        middle = _LOCKDEP_MIDDLE.search(line.text)
        if draft and draft.lockdep is not None and (not draft.frames or middle):
            if middle:
                self._stays_in_lockdep(draft, line.text)
                return
            draft.title += "; " + line.text.strip()
            draft.lockdep += _LOCKDEP_STATE.findall(line.text)
            return
        yield from self._end(line.caller)
        draft = self._begin(Head(source=Source.DUMP), line, raw)
        draft.lockdep = _LOCKDEP_STATE.findall(line.text)
        draft.title = "a report whose beginning is lost" if middle else line.text.strip()
        if middle:
            self._stays_in_lockdep(draft, line.text)

    def _stays_in_lockdep(self, draft: _Draft, text: str) -> bool:
        """Whether a line still belongs to lockdep's report; keeps the lock names in it."""
        assert draft.lockdep is not None
        # what follows the cycle lists every lock that is held, whether it takes part or not
        draft.cycle_over |= "held by" in text or "stack backtrace" in text
        names = _LOCK_NAME.findall(text)
        if " --> " in text:
            names += [name.strip() for name in text.split(" --> ") if name.strip()]
        if "lock(fs_reclaim)" in text:
            names.append("fs_reclaim")
        for name in () if draft.cycle_over else names:
            if name not in draft.lockdep and len(draft.lockdep) < 64:
                draft.lockdep.append(name)
        trying = re.match(r"^(.{1,32})/(\d+) (?:is trying to acquire lock|\[HC)", text)
        if trying:
            draft.head = draft.head.joined(Head(source=Source.DUMP, comm=trying[1], tid=int(trying[2])))
        head = parse_head(text)
        foreign = head is not None and head.source is not Source.DUMP
        draft.lockdep_lines += 1
        ended = text.lstrip().startswith(_ENDS) or "</TASK>" in text
        return not foreign and not ended and draft.lockdep_lines < 600
