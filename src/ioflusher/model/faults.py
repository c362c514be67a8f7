"""What goes wrong meanwhile, at its times: a task that waits for nothing in the machine."""

from collections.abc import Sequence

from ioflusher.model.code import Code
from ioflusher.model.linux import Linux
from ioflusher.model.transitions import Changes
from ioflusher.scenario.faults import FaultEvent


def add_faults(linux: Linux, events: Sequence[FaultEvent], begins: Changes, ends: Changes) -> None:
    """What begins and ends a fault, at its times.

    Args:
        events: in the order of time.
        begins, ends: what changes.
    """
    code = Code()
    before = 0.0
    for event in events:
        label = "the fault begins" if event.begins else "the fault ends"
        changes = begins if event.begins else ends
        code.step(label, changes, takes_ns=round((event.at_s - before) * 1e9))
        before = event.at_s
    code.rest()
    linux.add(code, "fault", hardware=True)
