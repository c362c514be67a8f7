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
        memory_units: at most so many units of memory, of which the min watermark is an eighth at most; None
            for all.
    """

    unit_bytes: int = 128 << 10
    queue_depth: int | None = None
    work_units: int | None = None
    memory_units: int | None = None


FULL = Scale()


def small(scenario: Scenario) -> Scale:
    """An instance that can be explored, in some hundred thousand states: what decides is a few units.

    Of a scenario with a dirty limit, the limit is eight units, and the work two more; of another one the
    work is six units, which is what a daemon, its queue and those who wait for it have in their hands at
    once. XFS with a reader has far more memory than work, which a search would fill in every order: six units
    are left of it, one of them of files, and one request at a time.
    """
    dirty = int(scenario.kernel.sysctl.get("vm.dirty_bytes", 0))
    if dirty and scenario.device.use != "swap":
        return Scale(dirty // 8, queue_depth=3, work_units=10, memory_units=24)
    if scenario.device.use == "xfs":
        return Scale(scenario.workload.size // 6, queue_depth=1, work_units=1, memory_units=6)
    return Scale(scenario.workload.size // 6, queue_depth=2, work_units=6)
