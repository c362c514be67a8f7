"""What goes wrong meanwhile, at its times: a task that waits for nothing in the machine, and what it changes.

Signals to the daemon's process, the server outside, and what a stack knows of its own: a connection, paths.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ioflusher.model.code import Code
from ioflusher.model.linux import Linux
from ioflusher.model.transitions import Changes, Expression, Variable, all_of
from ioflusher.scenario.faults import fault_events
from ioflusher.scenario.records import FaultTable

# what a fault changes where it begins, and where it ends
Effect = tuple[Changes, Changes]
# of a fault of the scenario
Effects = Callable[[FaultTable], Effect]
# fault.delay_ms at most
MOST_DELAY_MS = 600_000


@dataclass(frozen=True, slots=True)
class Signals:
    """SIGSTOP and SIGKILL to the process that serves.

    Attributes:
        running: 0 while it is stopped; None where it never is.
        alive: 0 once it was killed; None where it never is.
        threads: its threads that have not ended; None where it is never killed.
        files: what closing the process's files changes, which the last of them does; with its memory.
    """

    running: Variable | None
    alive: Variable | None
    threads: Variable | None
    files: Changes

    @property
    def pending(self) -> Expression:
        """Whether a thread that comes back to user mode does not go on there."""
        found = [variable.is_(0) for variable in (self.running, self.alive) if variable is not None]
        return found[0] if len(found) == 1 else found[0] | found[1]

    @property
    def killed(self) -> Expression | None:
        """Whether a signal is pending that ends waits in state K (fatal_signal_pending())."""
        return None if self.alive is None else self.alive.is_(0)

    @property
    def none(self) -> Expression | None:
        """Whether no signal is pending."""
        found = [variable > 0 for variable in (self.running, self.alive) if variable is not None]
        return all_of(*found)


@dataclass(frozen=True, slots=True)
class Outside:
    """The server outside, of which something may be wrong.

    Attributes:
        silent: 1 while it answers nothing. delay_ms: what each request takes longer.
        linked: 0 while the daemon has no connection to it. refusing: 1 while it takes none.
        Each is None where that never is.
    """

    silent: Variable | None = None
    delay_ms: Variable | None = None
    linked: Variable | None = None
    refusing: Variable | None = None

    @property
    def answers(self) -> Expression | None:
        """Whether it answers."""
        return None if self.silent is None else self.silent.is_(0)

    def takes_ns(self, request_ns: int) -> Expression | int:
        """What a request takes there."""
        return request_ns if self.delay_ms is None else self.delay_ms * 1_000_000 + request_ns


def signals_of(linux: Linux, faults: Sequence[FaultTable], *, threads: int, files: Changes) -> Signals | None:
    """What the scenario sends to a process of so many threads; None for nothing."""
    kinds = {fault.kind for fault in faults}
    if not kinds & {"daemon-stopped", "daemon-killed"}:
        return None
    stopped, killed = "daemon-stopped" in kinds, "daemon-killed" in kinds
    return Signals(
        linux.variable("daemon_running", 1, 1, what="the daemon is not stopped") if stopped else None,
        linux.variable("daemon_alive", 1, 1, what="the daemon was not killed") if killed else None,
        linux.variable("daemon_threads", threads, threads, what="threads of the daemon") if killed else None,
        files,
    )


def outside_of(linux: Linux, faults: Sequence[FaultTable]) -> Outside:
    """What may be wrong with the server outside."""
    kinds = {fault.kind for fault in faults}
    return Outside(
        linux.variable("outside_silent", 0, 1, what="the server outside is silent")
        if "remote-silent" in kinds
        else None,
        linux.variable("outside_delay", 0, MOST_DELAY_MS, what="milliseconds that the server outside waits")
        if "remote-slow" in kinds
        else None,
        linux.variable("outside_linked", 1, 1, what="a connection to the server outside")
        if "remote-cut" in kinds
        else None,
        linux.variable("outside_refusing", 0, 1, what="the server outside takes no connections")
        if "remote-cut" in kinds
        else None,
    )


def signal_effects(signals: Signals | None) -> dict[str, Effect]:
    """What SIGSTOP, SIGCONT and SIGKILL change, by `fault.kind`."""
    if signals is None:
        return {}
    found: dict[str, Effect] = {}
    if signals.running is not None:
        found["daemon-stopped"] = {signals.running: 0}, {signals.running: 1}
    if signals.alive is not None:
        found["daemon-killed"] = {signals.alive: 0}, {}
    return found


def outside_effects(outside: Outside, fault: FaultTable) -> Effect:
    """What a fault of the server outside changes."""
    match fault.kind:
        case "remote-slow" if outside.delay_ms is not None:
            return {outside.delay_ms: fault.delay_ms}, {outside.delay_ms: 0}
        case "remote-silent" if outside.silent is not None:
            return {outside.silent: 1}, {outside.silent: 0}
        case "remote-cut" if outside.linked is not None and outside.refusing is not None:
            refuses = int(fault.for_s > 0)
            return {outside.linked: 0, outside.refusing: refuses}, {outside.refusing: 0}
    raise KeyError(fault.kind)


def add_faults(linux: Linux, faults: Sequence[FaultTable], effects: Mapping[int, Effect]) -> None:
    """What begins and ends the faults, at their times.

    Args:
        faults: of the scenario.
        effects: of each of them, by its place.
    """
    code = Code()
    before = 0.0
    for event in fault_events(faults):
        begins, ends = effects[event.fault]
        kind = faults[event.fault].kind
        label = f"{kind} begins" if event.begins else f"{kind} ends"
        code.step(label, begins if event.begins else ends, takes_ns=round((event.at_s - before) * 1e9))
        before = event.at_s
    code.rest()
    linux.add(code, "fault", hardware=True)
