"""What can be taken away from a scenario, and what can be made smaller. Pure.

The stack and its daemon are what is put to the test, the deadline and what counts as frozen are the measure:
they stay. All else may turn out not to be needed.
"""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.file import check_scenario
from ioflusher.scenario.records import PressureTable, Scenario
from ioflusher.scenario.settings import setting_of, with_settings

# tables whose keys may go back to their defaults, each by itself
_TABLES = ("machine", "device", "workload", "hardening")
_STAY = ("machine.modules", "device.kind")
# what may be halved, in the order in which that is tried: what takes most of a run's time comes first
SIZES = (
    "workload.size",
    "pressure.size",
    "device.size",
    "machine.memory",
    "machine.cpus",
    "workload.file_size",
    "workload.chunk",
)
SMALLEST = 64 << 10  # bytes; nothing is made smaller than that


@dataclass(frozen=True, slots=True)
class Part:
    """Something that a scenario has and may not need.

    Attributes:
        key: where it stands in the scenario's file: "pressure", "kernel.sysctl.vm.swappiness", "fault 2".
    """

    key: str


def parts_of(scenario: Scenario) -> tuple[Part, ...]:
    """All that can be taken away from the scenario."""
    keys = [f"fault {number}" for number in range(1, len(scenario.fault) + 1)]
    if scenario.pressure != PressureTable():
        keys.append("pressure")
    if scenario.cgroup is not None:
        keys.append("cgroup")
    keys += [f"kernel.sysctl.{name}" for name in scenario.kernel.sysctl]
    keys += [f"kernel.write.{name}" for name in scenario.kernel.write]
    keys += [f"machine.modules.{module}" for module in scenario.machine.modules]
    for table in _TABLES:
        record = getattr(scenario, table)
        for item in fields(record):
            default = _default(item)
            key = f"{table}.{item.name}"
            if default is not MISSING and getattr(record, item.name) != default and key not in _STAY:
                keys.append(key)
    return tuple(map(Part, keys))


def reduced(base: Scenario, removed: Collection[Part], sizes: Mapping[str, int]) -> Scenario | None:
    """The scenario without these parts and with these sizes; None where that is no scenario."""
    gone = {part.key for part in removed}
    machine, kernel = base.machine, base.kernel
    smaller = replace(
        base,
        machine=replace(
            machine, modules=tuple(one for one in machine.modules if f"machine.modules.{one}" not in gone)
        ),
        kernel=replace(
            kernel,
            sysctl={name: one for name, one in kernel.sysctl.items() if f"kernel.sysctl.{name}" not in gone},
            write={name: one for name, one in kernel.write.items() if f"kernel.write.{name}" not in gone},
        ),
        fault=tuple(one for number, one in enumerate(base.fault, 1) if f"fault {number}" not in gone),
        pressure=PressureTable() if "pressure" in gone else base.pressure,
        cgroup=None if "cgroup" in gone else base.cgroup,
    )
    for table in _TABLES:
        record: Any = getattr(smaller, table)
        defaults = {item.name: _default(item) for item in fields(record) if f"{table}.{item.name}" in gone}
        smaller = replace(smaller, **{table: replace(record, **defaults)})
    try:
        if sizes:
            return with_settings(smaller, sizes)
        check_scenario(smaller, smaller.name)
    except ScenarioError:
        return None
    return smaller


def half_of(scenario: Scenario, key: str) -> int | None:
    """Half of a size, or of the processors; None where the scenario has none or it cannot be less."""
    value = setting_of(scenario, key)
    least = 1 if key == "machine.cpus" else SMALLEST
    return value // 2 if isinstance(value, int) and value // 2 >= least else None


def _default(item: Any) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default
