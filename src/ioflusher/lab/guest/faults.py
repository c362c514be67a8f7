"""Inside the guest: begins and ends the scenario's faults when their time has come, and says so.

The observer calls it between two looks; what is to happen is worked out before the workload begins.
"""

import time
from collections.abc import Callable, Mapping

from ioflusher.lab.guest.port import ReportPort
from ioflusher.lab.messages import FaultBegan, FaultEnded
from ioflusher.lab.stacks.base import Fault
from ioflusher.scenario.faults import FAULTS, FaultEvent, FaultPlace, fault_events
from ioflusher.scenario.records import FaultTable

NEVER_S = 1e9


class FaultDriver:
    """Carries out one scenario's faults.

    `known` is what the stack can do. A fault of the server outside is only announced: who reads the
    announcement carries it out.
    """

    def __init__(
        self,
        faults: tuple[FaultTable, ...],
        known: Mapping[str, Fault],
        port: ReportPort,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kinds = [fault.kind for fault in faults]
        self._known = known
        self._port = port
        self._clock = clock
        self._events = fault_events(faults)
        self._next = 0
        self._began_at = 0.0

    def begin(self) -> None:
        """The workload begins now."""
        self._began_at = self._clock()

    def due_in_s(self) -> float:
        """Seconds until something is to happen; 0 where it is due."""
        if self._next == len(self._events):
            return NEVER_S
        return max(0.0, self._began_at + self._events[self._next].at_s - self._clock())

    def act(self) -> None:
        """Do what is due."""
        while not self.due_in_s():
            event = self._events[self._next]
            self._next += 1
            self._carry_out(event)

    def _carry_out(self, event: FaultEvent) -> None:
        kind = self._kinds[event.fault]
        failed = ""
        if FAULTS[kind].place is not FaultPlace.OUTSIDE:
            fault = self._known[kind]
            action = fault.inject if event.begins else fault.relieve
            try:
                if action is not None:
                    action()
            except OSError as error:
                failed = str(error)
        say = FaultBegan if event.begins else FaultEnded
        self._port.say(say(fault=event.fault, kind=kind, failed=failed))
