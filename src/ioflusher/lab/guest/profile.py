"""Inside the guest: what a daemon does for one request of its device, from the kernel's own events.

Nothing presses on the machine. Requests go to the device one at a time, past the page cache, in rounds; a
round without any is the base line. Events come from a tracefs instance that records the daemon's threads
alone.
"""

import mmap
import os
import struct
import time
from collections.abc import Iterable

import msgspec

from ioflusher.flag import FlagError
from ioflusher.flag.threads import thread_states
from ioflusher.kernel.syscall_names import syscall_name
from ioflusher.kernel.trace_events import TraceEvent, TraceFormat, flags_text
from ioflusher.lab.event_counter import KMALLOC, PAGES, SLAB, EventCounter
from ioflusher.lab.guest.port import ReportPort
from ioflusher.lab.guest.processes import Processes, SetupFailed, become_observer
from ioflusher.lab.guest.tracing import TraceInstance
from ioflusher.lab.messages import (
    Profiled,
    ProfileDaemon,
    ProfileRound,
    SettingUp,
    StageFailed,
)
from ioflusher.lab.stacks import load_stack
from ioflusher.lab.stacks.base import Stack

BUFFER_KIB = 8192  # for each processor; a round of 20 requests has some 2,000 events of 30 to 110 bytes
SETTLE_S = 1.0  # after the daemon serves, and behind a round, for what it still does
ENTER, EXIT, FAULT = "sys_enter", "sys_exit", "page_fault_user"
EVENTS = {
    f"raw_syscalls/{ENTER}": ("id", "args"),
    f"raw_syscalls/{EXIT}": ("id",),
    f"kmem/{KMALLOC}": ("bytes_alloc", "gfp_flags"),
    f"kmem/{SLAB}": ("bytes_alloc", "gfp_flags"),
    f"kmem/{PAGES}": ("order", "gfp_flags"),
    f"exceptions/{FAULT}": (),
}
_SECOND_ARGUMENT = struct.Struct("=8xQ")


class RingEvents:
    """Events of this guest's ring buffer, for an `EventCounter`.

    `machine` is uname -m; `gfp_names` has for each event its flags' names.
    """

    def __init__(
        self, counter: EventCounter, machine: str, gfp_names: dict[str, tuple[tuple[int, str], ...]]
    ) -> None:
        self._counter = counter
        self._machine = machine
        self._gfp_names = gfp_names

    def take(self, events: Iterable[TraceEvent]) -> None:
        """Events in the order of their time."""
        for event in events:
            match event.name:
                case "sys_enter":
                    number, arguments = event.values
                    assert isinstance(number, int)
                    assert isinstance(arguments, bytes)
                    (operation,) = _SECOND_ARGUMENT.unpack_from(arguments)
                    name = syscall_name(number, self._machine)
                    self._counter.enter(event.time_ns, event.tid, name, operation)
                case "sys_exit":
                    self._counter.leave(event.time_ns, event.tid)
                case "page_fault_user":
                    self._counter.fault(event.tid)
                case name:
                    amount, gfp = event.values
                    assert isinstance(amount, int)
                    assert isinstance(gfp, int)
                    flags = flags_text(gfp, self._gfp_names.get(name, ()))
                    self._counter.allocate(event.tid, name, amount, flags)

    def take_round(self) -> ProfileRound:
        """What was counted since the last one."""
        return self._counter.take_round()


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


def _tracing(stack: Stack) -> tuple[TraceInstance, RingEvents, tuple[str, ...]]:
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
    counter = EventCounter(os.sysconf("SC_PAGE_SIZE"))
    return trace, RingEvents(counter, os.uname().machine, names), missing


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
    order: ProfileDaemon, stack: Stack, trace: TraceInstance, counter: RingEvents, port: ReportPort
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
