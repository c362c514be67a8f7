"""What tracers print, a line an event: tracefs's trace, trace-cmd report, perf script, strace -f -tt -T.

Pure: lines in, records out. Known are the events that say what a task does for itself: system calls
(raw_syscalls or syscalls), allocations (kmem), page faults (exceptions), and requests of block devices
(block). Any other event is passed over; a line that is no event at all is counted.

Sources: kernel/trace/trace_output.c (trace_print_context), tools/perf/builtin-script.c, the TP_printk() of
include/trace/events/{syscalls,kmem,block}.h, strace(1).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class CallBegins(NamedTuple):
    """A system call: its name, or its number; `operation` is the second argument, where it is a number."""

    call: str | int
    operation: int


class CallEnds(NamedTuple):
    """The system call that the thread is in returns."""


class Allocated(NamedTuple):
    """The kernel allocated: event, bytes (of mm_page_alloc the order), flags as it prints them."""

    event: str
    amount: int
    flags: str


class FaultedInUserSpace(NamedTuple):
    """A page fault."""


class RequestBegins(NamedTuple):
    """A request goes to its driver: (major, minor), what it does ("W", "RA"), first sector and sectors."""

    device: tuple[int, int]
    rwbs: str
    sector: int
    sectors: int


class RequestEnds(NamedTuple):
    """So many sectors of it are done."""

    device: tuple[int, int]
    rwbs: str
    sector: int
    sectors: int


TracedAction = CallBegins | CallEnds | Allocated | FaultedInUserSpace | RequestBegins | RequestEnds


class TracedEvent(NamedTuple):
    """An event: when, by the tracer's clock; in which thread, its process where that was recorded, and name.

    strace tells no names: `comm` is empty there.
    """

    time_ns: int
    tid: int
    pid: int | None
    comm: str
    action: TracedAction


@dataclass(slots=True)
class TraceText:
    """What a trace says of itself, and what of it was not understood; filled while it is read.

    Attributes:
        kinds: the events in it, "system/event" where the tracer says so; "strace" for its lines.
        release, machine: the kernel's (uname -r, -m), from the header of perf.
        lost: lines that say that events were lost.
        unknown: how many lines are no event, and the first of them with its number.
    """

    kinds: set[str] = field(default_factory=set)
    release: str | None = None
    machine: str | None = None
    lost: int = 0
    unknown: int = 0
    first_unknown: tuple[int, str] | None = None

    def read(self, lines: Iterable[str]) -> Iterator[TracedEvent]:
        """The events of those lines that are known, as they stand there."""
        strace = _Strace()
        for number, line in enumerate(lines, 1):
            found = _TRACE.match(line)
            if found is not None:
                event = self._event(found)
                if event is not None:
                    yield event
                continue
            calls = strace.events(line)
            if calls is not None:
                self.kinds.add("strace")
                yield from calls
            elif self._heading(line):
                continue
            elif _LOST.search(line):
                self.lost += 1
            else:
                self.unknown += 1
                self.first_unknown = self.first_unknown or (number, line.rstrip("\n"))

    def _heading(self, line: str) -> bool:
        """Whether it is a line of a header."""
        for key, pattern in (("release", _RELEASE), ("machine", _MACHINE)):
            if (found := pattern.match(line)) is not None:
                setattr(self, key, found[1])
        return not line.strip() or line.startswith("#") or _HEADING.match(line) is not None

    def _event(self, found: re.Match[str]) -> TracedEvent | None:
        said = _EVENT.match(found["rest"])
        if said is None:
            return None
        system, name, details = said["system"], said["name"], said["details"]
        self.kinds.add(name if system is None else f"{system}/{name}")
        action = _action(name, details)
        if action is None:
            return None
        process = found["pid"] or found["tgid"]
        pid = int(process) if process and process.isdigit() else None
        return TracedEvent(_time_ns(found["time"]), int(found["tid"]), pid, found["comm"].strip(), action)


def _time_ns(text: str) -> int:
    """Nanoseconds of "12.345678", or of the time of a day, "23:59:59.999999"."""
    clock, fraction = text.split(".")
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part)
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])


# "nbdkit-166 (    160) [000] d..1.  12.345678: event: ..." and perf's "nbdkit  160/166 [000]  12.345678: ..."
# (with bounds, so that no line takes long to be none: a name has 15 bytes, TASK_COMM_LEN)
_TRACE = re.compile(
    r"\s{0,64}(?P<comm>\S.{0,63}?)(?:-|\s{1,64}(?:(?P<pid>\d{1,10})/)?)(?P<tid>\d{1,10})\s{1,64}"
    r"(?:\(\s{0,16}(?P<tgid>\d{1,10}|-+)\)\s{1,64})?\[\d{1,10}\]\s{1,64}"
    r"(?:[\w.#]{4,8}\s{1,64})?(?P<time>\d{1,20}\.\d{1,20}):\s{1,64}(?P<rest>.*)"
)
_EVENT = re.compile(r"(?:(?P<system>\w+):)?(?P<name>\w+)(?::|(?=\(| ->))\s*(?P<details>.*)")
_LOST = re.compile(r"LOST|[Ll]ost \d+|EVENTS DROPPED|events lost")
_HEADING = re.compile(r"cpus=\d+$|CPU \d+ is empty")
_RELEASE = re.compile(r"# os ?release : (\S+)")
_MACHINE = re.compile(r"# arch : (\S+)")

_NUMBER = re.compile(r"NR (-?\d+)(?: \(([^)]*)\))?")
_ENTER, _EXIT = "sys_enter_", "sys_exit_"
_FTRACE_CALL = re.compile(r"\((?P<arguments>.*)\)|-> ")
_ALLOCATION = re.compile(r"\bbytes_alloc=(?P<bytes>\d{1,20}) |\border=(?P<order>\d{1,2}) ")
_FLAGS = re.compile(r"\bgfp_flags=(\S+)")
_REQUEST = re.compile(r"(\d{1,10}),(\d{1,10}) (\w{1,16}) .{0,64}?(\d{1,20}) \+ (\d{1,20}) ")


def _action(name: str, details: str) -> TracedAction | None:
    """What an event of the kernel tells; None for one that is not of interest, or that says nothing known."""
    if name in ("sys_enter", "sys_exit"):
        found = _NUMBER.match(details)
        if found is None:
            return None
        return CallBegins(int(found[1]), _second(found[2] or "")) if name == "sys_enter" else CallEnds()
    if name.startswith(_ENTER):
        return CallBegins(name.removeprefix(_ENTER), _second(details))
    if name.startswith(_EXIT):
        return CallEnds()
    if name.startswith("sys_") and (call := _FTRACE_CALL.match(details)) is not None:
        arguments = call["arguments"]
        return CallEnds() if arguments is None else CallBegins(name[4:], _second(arguments))
    if name in ("kmalloc", "kmem_cache_alloc", "kmalloc_node", "kmem_cache_alloc_node", "mm_page_alloc"):
        amount, flags = _ALLOCATION.search(details), _FLAGS.search(details)
        if amount is None or flags is None:
            return None
        return Allocated(name.removesuffix("_node"), int(amount["bytes"] or amount["order"]), flags[1])
    if name == "page_fault_user":
        return FaultedInUserSpace()
    if name in ("block_rq_issue", "block_rq_complete"):
        found = _REQUEST.match(details)
        if found is None:
            return None
        kind = RequestBegins if name == "block_rq_issue" else RequestEnds
        return kind((int(found[1]), int(found[2])), found[3], int(found[4]), int(found[5]))
    return None


def _second(arguments: str) -> int:
    """The second of some arguments, with their names or without; 0 where it is no number of base 16."""
    words = arguments.split(", ")
    try:
        return int(words[1].rpartition(": ")[2], 16)
    except (IndexError, ValueError):
        return 0


# strace

_STRACE = re.compile(
    r"(?:(?:\[pid +)?(?P<tid>\d+)\]? +)?(?P<time>\d{1,2}:\d\d:\d\d\.\d+|\d{6,}\.\d+) +(?P<rest>.*)"
)
_STRACE_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>")
_TOOK = re.compile(r"<(\d+\.\d+)>$")
_UNFINISHED = re.compile(r"<unfinished \.\.\.>\)?$")
_FUTEX_OPERATIONS: Mapping[str, int] = {
    "FUTEX_WAIT": 0,
    "FUTEX_LOCK_PI": 6,
    "FUTEX_WAIT_BITSET": 9,
    "FUTEX_WAIT_REQUEUE_PI": 11,
}
_NO_WAIT = 1  # FUTEX_WAKE, for all the others
_DAY_NS = 86_400_000_000_000


class _Strace:
    """Lines of strace; each call is its begin and its end, which may stand in two lines."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}  # thread -> when its unfinished call began
        self._last_ns = 0
        self._days_ns = 0

    def events(self, line: str) -> list[TracedEvent] | None:
        """The events of a line; None for what is no line of strace."""
        found = _STRACE.match(line)
        if found is None:
            return None
        tid, now, rest = int(found["tid"] or 0), self._time(found["time"]), found["rest"].rstrip()
        took = _TOOK.search(rest)
        took_ns = None if took is None else round(float(took[1]) * 1e9)
        if _RESUMED.match(rest):
            begun = self._begun.pop(tid, None)
            ended = now if begun is None or took_ns is None else begun + took_ns
            return [TracedEvent(ended, tid, None, "", CallEnds())]
        call = _STRACE_CALL.match(rest)
        if call is None:  # a signal, or a thread's end
            return [] if rest.startswith(("---", "+++")) else None
        begins = CallBegins(call["name"], _operation(call["name"], call["arguments"]))
        events = [TracedEvent(now, tid, None, "", begins)]
        if _UNFINISHED.search(rest):
            self._begun[tid] = now
        else:
            events.append(TracedEvent(now + (took_ns or 0), tid, None, "", CallEnds()))
        return events

    def _time(self, text: str) -> int:
        """Nanoseconds; of a time of the day those since the first day."""
        now = _time_ns(text) + self._days_ns
        if ":" in text and now < self._last_ns - _DAY_NS // 2:  # past midnight
            self._days_ns += _DAY_NS
            now += _DAY_NS
        self._last_ns = now
        return now


def _operation(name: str, arguments: str) -> int:
    if name != "futex":
        return 0
    words = arguments.split(", ")
    operation = words[1].partition("|")[0] if len(words) > 1 else ""
    return _FUTEX_OPERATIONS.get(operation.removesuffix("_PRIVATE"), _NO_WAIT)
