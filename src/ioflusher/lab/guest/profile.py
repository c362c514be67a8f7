"""Inside the guest: what a daemon does for one request of its device, from the kernel's own events.

Nothing presses on the machine. Requests go to the device one at a time, past the page cache, in rounds; a
round without any is the base line. `EventCounter` is pure; `profile` feeds it from a tracefs instance that
records the daemon's threads alone.
"""

import mmap
import os
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Iterable

import msgspec

from ioflusher.flag import FlagError
from ioflusher.flag.threads import thread_states
from ioflusher.kernel.syscall_names import syscall_name
from ioflusher.kernel.trace_events import TraceEvent, TraceFormat, flags_text
from ioflusher.lab.guest.port import ReportPort
from ioflusher.lab.guest.processes import Processes, SetupFailed, become_observer
from ioflusher.lab.guest.tracing import TraceInstance
from ioflusher.lab.messages import (
    GfpUse,
    Profiled,
    ProfileDaemon,
    ProfileRound,
    SettingUp,
    StageFailed,
    SyscallUse,
)
from ioflusher.lab.stacks import load_stack
from ioflusher.lab.stacks.base import Stack

BUFFER_KIB = 8192  # for each processor; a round of 20 requests has some 2,000 events of 30 to 110 bytes
SETTLE_S = 1.0  # after the daemon serves, and behind a round, for what it still does
ENTER, EXIT, FAULT = "sys_enter", "sys_exit", "page_fault_user"
KMALLOC, SLAB, PAGES = "kmalloc", "kmem_cache_alloc", "mm_page_alloc"
EVENTS = {
    f"raw_syscalls/{ENTER}": ("id", "args"),
    f"raw_syscalls/{EXIT}": ("id",),
    f"kmem/{KMALLOC}": ("bytes_alloc", "gfp_flags"),
    f"kmem/{SLAB}": ("bytes_alloc", "gfp_flags"),
    f"kmem/{PAGES}": ("order", "gfp_flags"),
    f"exceptions/{FAULT}": (),
}
# include/uapi/linux/futex.h: those that wait; the other bits say how
FUTEX_WAITS = frozenset({0, 6, 9, 11})
FUTEX_COMMAND = 0x7F
_SECOND_ARGUMENT = struct.Struct("=8xQ")


class EventCounter:
    """Counts what events of the daemon's threads say, between two calls of `take_round`.

    `machine` is uname -m; `gfp_names` has for each event its flags' names.
    """

    def __init__(self, machine: str, gfp_names: dict[str, tuple[tuple[int, str], ...]]) -> None:
        self._machine = machine
        self._gfp_names = gfp_names
        self._in_call: dict[int, tuple[int, int, bool]] = {}  # tid -> number, since when, whether on a futex
        self._clear()

    def _clear(self) -> None:
        self._calls: Counter[str] = Counter()
        self._allocating: Counter[str] = Counter()
        self._objects: Counter[str] = Counter()
        self._object_bytes: Counter[str] = Counter()
        self._pages: Counter[str] = Counter()
        self._gfp: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._allocated_in: set[int] = set()  # threads whose call has allocated
        self._tids: set[int] = set()
        self._faults = 0
        self._futex_waits = 0
        self._futex_wait_ns = 0

    def take(self, events: Iterable[TraceEvent]) -> None:
        """Events in the order of their time."""
        for event in events:
            self._tids.add(event.tid)
            match event.name:
                case "sys_enter":
                    self._enter(event)
                case "sys_exit":
                    self._leave(event)
                case "page_fault_user":
                    self._faults += 1
                case _:
                    self._allocation(event)

    def _enter(self, event: TraceEvent) -> None:
        number, arguments = event.values
        assert isinstance(number, int)
        assert isinstance(arguments, bytes)
        name = syscall_name(number, self._machine)
        self._calls[name] += 1
        (operation,) = _SECOND_ARGUMENT.unpack_from(arguments)
        waits = name == "futex" and operation & FUTEX_COMMAND in FUTEX_WAITS
        self._futex_waits += waits
        self._in_call[event.tid] = number, event.time_ns, waits
        self._allocated_in.discard(event.tid)

    def _leave(self, event: TraceEvent) -> None:
        call = self._in_call.pop(event.tid, None)
        if call is not None and call[2]:
            self._futex_wait_ns += event.time_ns - call[1]
        self._allocated_in.discard(event.tid)

    def _allocation(self, event: TraceEvent) -> None:
        amount, gfp = event.values
        assert isinstance(amount, int)
        assert isinstance(gfp, int)
        call = self._in_call.get(event.tid)
        # a page fault, or a call that began before anybody looked
        name = "outside system calls" if call is None else syscall_name(call[0], self._machine)
        if call is not None and event.tid not in self._allocated_in:
            self._allocated_in.add(event.tid)
            self._allocating[name] += 1
        size = os.sysconf("SC_PAGE_SIZE") << amount if event.name == PAGES else amount
        if event.name == PAGES:
            self._pages[name] += 1 << amount
        else:
            self._objects[name] += 1
            self._object_bytes[name] += amount
        use = self._gfp[event.name, flags_text(gfp, self._gfp_names.get(event.name, ()))]
        use[0] += 1
        use[1] += size

    def take_round(self) -> ProfileRound:
        """What was counted since the last one; what the caller knows itself is 0 in it."""
        names = sorted({*self._calls, *self._objects, *self._pages})
        counted = ProfileRound(
            work="",
            size=0,
            requests=0,
            duration_s=0.0,
            watched_s=0.0,
            lost=False,
            syscalls=tuple(
                SyscallUse(
                    name=name,
                    calls=self._calls[name],
                    allocating=self._allocating[name],
                    objects=self._objects[name],
                    object_bytes=self._object_bytes[name],
                    pages=self._pages[name],
                )
                for name in names
            ),
            gfp=tuple(
                GfpUse(event=event, flags=flags, count=count, size=size)
                for (event, flags), (count, size) in sorted(self._gfp.items())
            ),
            faults=self._faults,
            futex_waits=self._futex_waits,
            futex_wait_s=self._futex_wait_ns / 1e9,
            threads=len(self._tids),
        )
        self._clear()
        return counted


def profile(order: ProfileDaemon, port: ReportPort) -> None:
    """Start the daemon, send its device requests in rounds, and report what it did in each."""
    scenario = order.half.scenario
    stack = load_stack(scenario.device.kind)(order.half, Processes())
    try:
        become_observer()
        port.say(SettingUp(step="starting the daemon"))
        stack.start()
        trace, counter, missing = _tracing(stack)
    except (SetupFailed, OSError) as error:
        port.say(StageFailed(message=str(error)))
        return
    port.say(SettingUp(step=f"sending requests to {stack.device}"))
    _play_rounds(order, stack, trace, counter, port)
    stack.end()
    port.say(Profiled(device=stack.device, threads=len(_threads(stack)), missing=missing))


def _tracing(stack: Stack) -> tuple[TraceInstance, EventCounter, tuple[str, ...]]:
    """An instance that records the daemons' threads, and the events that this kernel lacks.

    Never this process: its reading would be recorded, too, and so there would always be more to read.
    """
    trace = TraceInstance("ioflusher-profile", buffer_kib=BUFFER_KIB)
    trace.follow(_threads(stack))
    found: dict[str, TraceFormat | None] = {
        event: trace.want(event, fields) for event, fields in EVENTS.items()
    }
    names = {row.name: row.flag_names.get("gfp_flags", ()) for row in found.values() if row is not None}
    missing = tuple(event for event, row in found.items() if row is None)
    if f"raw_syscalls/{ENTER}" in missing:
        raise SetupFailed("this kernel records no system calls (raw_syscalls/sys_enter)")
    trace.open()
    return trace, EventCounter(os.uname().machine, names), missing


def _threads(stack: Stack) -> set[int]:
    """The daemons' threads."""
    found: set[int] = set()
    for pid in stack.daemons():
        try:
            found.update(thread.tid for thread in thread_states(pid))
        except FlagError:
            continue  # it is gone
    return found


def _play_rounds(
    order: ProfileDaemon, stack: Stack, trace: TraceInstance, counter: EventCounter, port: ReportPort
) -> None:
    counters = stack.counters()
    # aligned, as O_DIRECT wants it
    buffer = mmap.mmap(-1, max(order.sizes))
    device = os.open(stack.device, os.O_RDWR | os.O_DIRECT)
    trace.follow(_threads(stack))
    time.sleep(SETTLE_S)
    _events(trace)
    plan = [(work, size) for size in order.sizes for work in ("write", "read")]
    for number in range(order.rounds + 1):  # the first one warms up, and is not reported
        for work, size in [*plan, ("idle", 0)]:
            before, began = counters.read().completed, time.monotonic()
            if work == "idle":
                time.sleep(SETTLE_S)
            for place in range(order.requests if work != "idle" else 0):
                at = (number * order.requests + place) * size % (order.half.scenario.device.size - size)
                at -= at % size
                move = os.pwritev if work == "write" else os.preadv
                with memoryview(buffer)[:size] as piece:
                    moved = move(device, [piece], at)
                if moved != size:
                    raise OSError(f"{stack.device}: a {work} of {size} bytes moved {moved}")
            duration_s = time.monotonic() - began
            time.sleep(SETTLE_S / 4)
            watched_s = time.monotonic() - began
            events, lost = _events(trace)
            counter.take(events)
            counted = counter.take_round()
            if number:
                port.say(
                    msgspec.structs.replace(
                        counted,
                        work=work,
                        size=size,
                        requests=counters.read().completed - before,
                        duration_s=duration_s,
                        watched_s=watched_s,
                        lost=lost,
                    )
                )
    os.close(device)


def _events(trace: TraceInstance) -> tuple[list[TraceEvent], bool]:
    """What the daemons' threads did since the last call, in the order of its time."""
    events, lost = trace.read()
    return sorted(events, key=lambda event: event.time_ns), lost
