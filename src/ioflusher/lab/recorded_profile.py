"""A daemon's profile out of a trace that somebody recorded, instead of a guest of the lab. Pure.

Requests are those that the trace shows of the daemon's device. A stretch of time in which they were all of
one kind is a round, as the lab plays them on purpose: it begins when the first of them is given to the driver
and ends when one of another kind is, or a while after the last is done. What the daemon does in between is
the base line. Where reads and writes are in flight at once nobody can tell whose call a call is: those
stretches are left out, and that is said.
"""

import fnmatch
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from ioflusher.kernel.syscall_names import syscall_name
from ioflusher.kernel.trace_text import (
    Allocated,
    CallBegins,
    CallEnds,
    FaultedInUserSpace,
    RequestBegins,
    RequestEnds,
    TracedEvent,
    TraceText,
)
from ioflusher.lab.errors import LabError
from ioflusher.lab.event_counter import KMALLOC, PAGES, SLAB, EventCounter
from ioflusher.lab.messages import ProfileRound
from ioflusher.lab.profile import IDLE, DaemonProfile, work_profiles
from ioflusher.support.text import counted

SECTOR_BYTES = 512
# how long after the last request what a daemon does is still for its sake, as in the lab
SETTLE_NS = 250_000_000
# of a daemon's threads, and of what else is in a trace, so many are listed
MOST_NAMES = 8
_RECORD = (
    "record system calls, allocations and the device's requests of the whole machine: trace-cmd record "
    "-e raw_syscalls -e kmem -e exceptions -e block:block_rq_issue -e block:block_rq_complete"
)
_NAME_THEM = "name the daemon's threads with --thread NAME, in which * stands for anything, or by number"
_KINDS = {"R": "read", "W": "write", "D": "discard", "F": "flush"}


@dataclass(frozen=True, slots=True)
class AllRequests:
    """That the whole trace is so many requests of one kind, where it does not show them itself."""

    requests: int
    work: str
    size: int


def profile_trace(
    lines: Iterable[str],
    origin: str,
    *,
    threads: Collection[str] = (),
    device: tuple[int, int] | None = None,
    every: AllRequests | None = None,
    machine: str,
    page_bytes: int,
) -> DaemonProfile:
    """The profile of the daemon whose threads were traced.

    Args:
        lines: of the trace; `origin`: what messages call it.
        threads: the daemon's, by name, in which * stands for anything, or by number of thread or process;
            may be left out of a trace of one name.
        device: (major, minor); may be left out where the trace has requests of one device.
        every: what the trace is about, where it shows no requests.
        machine, page_bytes: uname -m, which names system calls, and the size of a page.

    Raises:
        LabError: it is no trace, has no system calls of the daemon, or no requests; or several daemons or
            devices could be meant. The hint says what to do.
    """
    text = TraceText()
    ours: list[TracedEvent] = []
    names: Counter[str] = Counter()
    requests: list[TracedEvent] = []
    wanted = frozenset(threads)
    is_ours = _Threads(wanted)
    for event in text.read(lines):
        if isinstance(event.action, RequestBegins | RequestEnds):
            requests.append(event)
            continue
        if isinstance(event.action, CallBegins):
            names[_label(event)] += 1
        if is_ours(event):
            ours.append(event)
    _check(text, origin, names, wanted, ours)
    if every is None:
        device = _device(requests, device, origin)
        of_device = [event for event in requests if _of(event, device)]
        rounds = _Rounds(EventCounter(page_bytes), text.machine or machine)
        played = rounds.play(sorted([*ours, *of_device], key=lambda event: event.time_ns))
        left_out = rounds.left_out
    else:
        played, left_out = (_whole(ours, every, EventCounter(page_bytes), text.machine or machine),), ()
    if text.lost:
        played = tuple(msgspec.structs.replace(one, lost=True) for one in played)
    works = work_profiles(played)
    if not works:
        why = "; ".join(left_out) or "none ended"
        raise LabError(
            f"{origin}: none of the requests of {_name(device)} can be told apart: {why}",
            hint="record while there are only writes, or only reads",
        )
    calling = [name for name, _ in Counter(_label(event) for event in ours).most_common()]
    return DaemonProfile(
        served=f"{_some(calling)}, as {origin} shows it",
        kind="",
        command=(calling[0],) if ours[0].comm else (),
        kernel=text.release,
        accelerator=None,
        io_flusher=None,
        device=_name(device),
        threads=len({event.tid for event in ours}),
        missing=_missing(text),
        works=works,
        left_out=(*left_out, *_not_understood(text)),
    )


class _Threads:
    """Whether an event is of a thread that was named; every one is, where none was."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._known: dict[str, bool] = {}  # by name, as there are millions of events

    def __call__(self, event: TracedEvent) -> bool:
        if not self._wanted or not self._wanted.isdisjoint((str(event.tid), str(event.pid))):
            return True
        known = self._known.get(event.comm)
        if known is None:
            known = any(fnmatch.fnmatchcase(event.comm, pattern) for pattern in self._wanted)
            self._known[event.comm] = known
        return known


def _some(names: Sequence[str]) -> str:
    """The first of the names, and how many there are beside them."""
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"


def _label(event: TracedEvent) -> str:
    """A thread's name; strace has its number alone."""
    return event.comm or f"thread {event.tid}"


def _check(
    text: TraceText, origin: str, names: Counter[str], wanted: frozenset[str], ours: Sequence[TracedEvent]
) -> None:
    """Raise LabError unless there are system calls of one daemon."""
    if not text.kinds:
        number, line = text.first_unknown or (1, "")
        raise LabError(
            f"{origin}, line {number}: expected an event as tracefs's trace, trace-cmd report, perf script "
            f"or strace -f -tt -T print it, found {line[:80]!r}",
            hint="what a tracer keeps is made text by `trace-cmd report FILE` or `perf script -i FILE`",
        )
    if not names:
        raise LabError(
            f"{origin}: expected system calls, found none among {', '.join(sorted(text.kinds))}", hint=_RECORD
        )
    listing = ", ".join(f"{name} ({calls})" for name, calls in names.most_common(MOST_NAMES))
    if not any(isinstance(event.action, CallBegins) for event in ours):
        raise LabError(
            f"{origin} has no system calls of {' or '.join(sorted(wanted))}; it has those of {listing}",
            hint=_NAME_THEM,
        )
    if not wanted and "strace" not in text.kinds and len(names) > 1:
        raise LabError(
            f"{origin} has system calls of several programs: {listing}",
            hint=_NAME_THEM,
        )


def _device(requests: Sequence[TracedEvent], wanted: tuple[int, int] | None, origin: str) -> tuple[int, int]:
    found = Counter(event.action.device for event in requests if isinstance(event.action, RequestBegins))
    if wanted is None and len(found) == 1:
        (wanted,) = found
    if wanted is not None and found[wanted]:
        return wanted
    if not found:
        raise LabError(
            f"{origin} has no requests of a device (block_rq_issue)",
            hint="say what it is about with --requests N, --work and --size, or " + _RECORD,
        )
    listing = ", ".join(f"{_name(device)} ({number})" for device, number in found.most_common(MOST_NAMES))
    what = f"no requests of {_name(wanted)}" if wanted else "requests of several devices"
    raise LabError(
        f"{origin} has {what}; it has those of {listing}",
        hint="say which is the daemon's with --device MAJOR:MINOR, as lsblk shows it",
    )


def _of(event: TracedEvent, device: tuple[int, int]) -> bool:
    return isinstance(event.action, RequestBegins | RequestEnds) and event.action.device == device


def _name(device: tuple[int, int] | None) -> str:
    return "" if device is None else f"{device[0]}:{device[1]}"


def _missing(text: TraceText) -> tuple[str, ...]:
    """The events that the lab records, and of which this trace has none."""
    plain = {kind.rpartition("/")[2] for kind in text.kinds}
    kinds = [f"kmem/{name}" for name in (KMALLOC, SLAB, PAGES)] + ["exceptions/page_fault_user"]
    return tuple(kind for kind in kinds if kind.rpartition("/")[2] not in plain)


def _not_understood(text: TraceText) -> tuple[str, ...]:
    if text.first_unknown is None:
        return ()
    number, line = text.first_unknown
    return (f"{counted(text.unknown, 'line')} that no tracer prints, first line {number}: {line[:80]!r}",)


def _take(counter: EventCounter, event: TracedEvent, machine: str) -> None:
    match event.action:
        case CallBegins(call, operation):
            name = call if isinstance(call, str) else syscall_name(call, machine)
            counter.enter(event.time_ns, event.tid, name, operation)
        case CallEnds():
            counter.leave(event.time_ns, event.tid)
        case Allocated(kind, amount, flags):
            counter.allocate(event.tid, kind, amount, flags)
        case FaultedInUserSpace():
            counter.fault(event.tid)


def _whole(
    events: Sequence[TracedEvent], every: AllRequests, counter: EventCounter, machine: str
) -> ProfileRound:
    """All of a trace as one round. How long a request took it does not say: 0."""
    ordered = sorted(events, key=lambda event: event.time_ns)
    for event in ordered:
        _take(counter, event, machine)
    return msgspec.structs.replace(
        counter.take_round(),
        work=every.work,
        size=every.size,
        requests=every.requests,
        watched_s=(ordered[-1].time_ns - ordered[0].time_ns) / 1e9,
    )


@dataclass(slots=True)
class _Stretch:
    """Time in which requests of one kind were in flight, or none.

    Attributes:
        began_ns: when.
        kinds: what the requests are, with the power of two that the bytes do not exceed; none while idle.
        done, bytes, waited_ns: requests that ended, their bytes, and how long they took altogether.
    """

    began_ns: int
    kinds: set[tuple[str, int]] = field(default_factory=set)
    done: int = 0
    bytes: int = 0
    waited_ns: int = 0

    @property
    def works(self) -> set[str]:
        """What the requests are, of whatever size."""
        return {work for work, _ in self.kinds}


@dataclass(slots=True)
class _InFlight:
    work: str
    since_ns: int
    sectors: int
    left: int


class _Rounds:
    """Events of a daemon's threads and its device, in the order of their time, to rounds."""

    def __init__(self, counter: EventCounter, machine: str) -> None:
        self._counter = counter
        self._machine = machine
        self._in_flight: dict[tuple[str, int], _InFlight] = {}  # by work and the first sector that is left
        self._rounds: list[tuple[_Stretch, ProfileRound]] = []
        self._last_done_ns = 0
        self._mixed = 0
        self._early = 0

    def play(self, events: Sequence[TracedEvent]) -> tuple[ProfileRound, ...]:
        """The rounds, each with its kind, idle ones among them."""
        self._stretch = _Stretch(events[0].time_ns)
        for event in events:
            settled = self._last_done_ns + SETTLE_NS
            if self._stretch.kinds and not self._in_flight and event.time_ns > settled:
                self._turn(settled)
            match event.action:
                case RequestBegins():
                    self._begins(event.time_ns, event.action)
                case RequestEnds():
                    self._ends(event.time_ns, event.action)
                case _:
                    _take(self._counter, event, self._machine)
        self._turn(events[-1].time_ns)
        return self._classified()

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is in no round, in words."""
        said: list[str] = []
        if self._mixed:
            said.append(f"{counted(self._mixed, 'request')} in flight beside those of another kind")
        if self._early:
            said.append(f"{counted(self._early, 'request')} that began before the trace")
        if self._in_flight:
            said.append(f"{counted(len(self._in_flight), 'request')} that did not end in it")
        return tuple(said)

    def _turn(self, time_ns: int) -> None:
        """End the stretch, and begin one."""
        stretch = self._stretch
        counted_round = self._counter.take_round()
        watched_s = (time_ns - stretch.began_ns) / 1e9
        self._rounds.append((stretch, msgspec.structs.replace(counted_round, watched_s=watched_s)))
        self._stretch = _Stretch(time_ns)

    def _begins(self, time_ns: int, request: RequestBegins) -> None:
        work = _work(request.rwbs)
        key = work, _place(request)
        if key in self._in_flight:  # it was given back, and goes to the driver once more
            return
        kind = work, _power(request.sectors * SECTOR_BYTES)
        if not self._in_flight and self._stretch.kinds != {kind}:
            self._turn(time_ns)
        self._stretch.kinds.add(kind)
        self._in_flight[key] = _InFlight(work, time_ns, request.sectors, request.sectors)

    def _ends(self, time_ns: int, request: RequestEnds) -> None:
        work = _work(request.rwbs)
        found = self._in_flight.pop((work, _place(request)), None)
        if found is None:
            self._early += 1
            return
        found.left -= request.sectors
        if found.left > 0:
            self._in_flight[work, request.sector + request.sectors] = found
            return
        self._stretch.done += 1
        self._stretch.bytes += found.sectors * SECTOR_BYTES
        self._stretch.waited_ns += time_ns - found.since_ns
        self._last_done_ns = time_ns

    def _classified(self) -> tuple[ProfileRound, ...]:
        """Rounds with their kinds: the sizes of all that do not exceed the same power of two are one."""
        stretches = [
            (stretch, one) for stretch, one in self._rounds if stretch.done and len(stretch.works) == 1
        ]
        self._mixed = sum(stretch.done for stretch, _ in self._rounds if len(stretch.works) > 1)
        done: Counter[tuple[str, int]] = Counter()
        size: Counter[tuple[str, int]] = Counter()
        for stretch, _ in stretches:
            kind = _kind(stretch)
            done[kind] += stretch.done
            size[kind] += stretch.bytes
        rounds = [
            msgspec.structs.replace(
                one,
                work=_kind(stretch)[0],
                size=round(size[_kind(stretch)] / done[_kind(stretch)]),
                requests=stretch.done,
                duration_s=stretch.waited_ns / 1e9,
            )
            for stretch, one in stretches
        ]
        idle = [msgspec.structs.replace(one, work=IDLE) for stretch, one in self._rounds if not stretch.kinds]
        rounds.sort(key=lambda one: (one.size, one.work != "write"))
        return (*rounds, *idle)


def _kind(stretch: _Stretch) -> tuple[str, int]:
    (work,) = stretch.works
    return work, _power(round(stretch.bytes / stretch.done))


def _place(request: RequestBegins | RequestEnds) -> int:
    """Its first sector; 0 for a flush, which one of the events has as 0 and the other as -1."""
    return request.sector if request.sectors else 0


def _work(rwbs: str) -> str:
    """What a request does: blk_fill_rwbs(), kernel/trace/blktrace.c; an F may stand before a write's W."""
    letters = rwbs.removeprefix("F") or "F"
    return _KINDS.get(letters[0], "other")


def _power(size: int) -> int:
    """The least power of two that is not below a size; 0 for 0."""
    return 1 << (size - 1).bit_length() if size else 0
