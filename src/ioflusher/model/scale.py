"""How large an instance of a scenario is: whole for a run, small for an exploration."""

from dataclasses import dataclass

from ioflusher.scenario.records import Scenario


@dataclass(frozen=True, slots=True)
class Scale:
    """How large an instance of a scenario is.

    Attributes:
        unit_bytes: bytes of a unit of memory and of a request; in a run SWAP_CLUSTER_MAX pages.
        queue_depth: requests that a device takes at once; None as the scenario or the driver has it.
        work_units: at most so many units of work; None for all.
        memory_units: at most so many units of memory; None for all.
    """

    unit_bytes: int = 128 << 10
    queue_depth: int | None = None
    work_units: int | None = None
    memory_units: int | None = None


FULL = Scale()


def small(scenario: Scenario, *, units: int = 8, queue_depth: int = 3) -> Scale:
    """An instance that can be explored: what decides is a few units.

    Where a dirty limit is set, that is so many units; else memory is. The work is more than either.
    """
    dirty = int(scenario.kernel.sysctl.get("vm.dirty_bytes", 0))
    if dirty and scenario.device.use != "swap":
        return Scale(dirty // units, queue_depth, work_units=units + 2, memory_units=3 * units)
    return Scale(scenario.machine.memory // units, queue_depth, work_units=units)
