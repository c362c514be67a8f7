"""Faults: what a scenario does to the daemon, its connection, its paths or the server outside, and when.

A fault is a row here. In the guest it is carried out by `ioflusher.lab.guest.faults`, with what the stack
knows of it (`ioflusher.lab.stacks.base.Stack.faults`); what happens outside the guest, by
`ioflusher.lab.remote`, when the guest says that the time has come. So all go by one clock, the guest's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from ioflusher.scenario.records import FaultTable


class FaultPlace(Enum):
    """Who carries a fault out."""

    ANY_STACK = "any stack"
    STACK = "a stack that says so"
    OUTSIDE = "the server outside"


@dataclass(frozen=True, slots=True)
class FaultRow:
    """A kind of fault.

    Attributes:
        kind: its name in a scenario, `fault.kind`.
        place: who carries it out.
        ends: whether it can be ended again, after `fault.for_s`.
        delayed: whether `fault.delay_ms` says how much.
    """

    kind: str
    place: FaultPlace
    ends: bool = True
    delayed: bool = False


# of an nbd device whose connection is to be cut: seconds after which a request on its way is sent again
NBD_REQUEST_TIMEOUT_S = 10

FAULTS: dict[str, FaultRow] = {
    row.kind: row
    for row in (
        FaultRow("daemon-killed", FaultPlace.ANY_STACK, ends=False),
        FaultRow("daemon-stopped", FaultPlace.ANY_STACK),
        FaultRow("connection-cut", FaultPlace.STACK),
        FaultRow("paths-offline", FaultPlace.STACK),
        FaultRow("remote-slow", FaultPlace.OUTSIDE, delayed=True),
        FaultRow("remote-silent", FaultPlace.OUTSIDE),
        FaultRow("remote-cut", FaultPlace.OUTSIDE),
    )
}


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """A point in time at which a fault begins or ends.

    Attributes:
        at_s: seconds since the workload began.
        fault: the number of its table in the scenario, from 0.
        begins: whether it begins; else it ends.
    """

    at_s: float
    fault: int
    begins: bool


def fault_events(faults: Iterable[FaultTable]) -> tuple[FaultEvent, ...]:
    """All that is to happen, in the order of time; what ends at a moment comes before what begins then."""
    events = []
    for number, fault in enumerate(faults):
        for time in range(fault.times):
            at_s = fault.at_s + time * fault.every_s
            events.append(FaultEvent(at_s, number, begins=True))
            if fault.for_s:
                events.append(FaultEvent(at_s + fault.for_s, number, begins=False))
    return tuple(sorted(events, key=lambda event: (event.at_s, event.begins)))
