"""Memory is neither made nor lost: whatever a step of any packaged scenario does."""

import pytest

from ioflusher.model.build import build
from ioflusher.model.run import Happened, run
from ioflusher.model.transitions import TransitionSystem
from ioflusher.scenario.file import builtin_scenarios, find_scenario
from ioflusher.scenario.settings import with_settings


@pytest.mark.parametrize("name", builtin_scenarios())
def test_no_unit_of_memory_comes_or_goes(name: str) -> None:
    """Whatever a step does; and no variable leaves its range."""
    scenario = find_scenario(name)
    variants: list[dict[str, object]] = [{}]
    if scenario.device.use == "swap":
        variants += [{"workload.passes": 2}, {"pressure.kind": "anonymous", "pressure.size": 60 << 20}]
    for settings in variants:
        for io_flusher in (False, True):
            _watch(build(with_settings(scenario, settings), io_flusher=io_flusher, version=(6, 1)))


def _watch(system: TransitionSystem) -> None:
    limits = [(variable.low, variable.high) for variable in system.variables]
    memory = [place for place, variable in enumerate(system.variables) if variable.unit == "memory"]
    total = sum(system.variables[place].initial for place in memory)

    def look(one: Happened) -> None:
        assert sum(one.values[place] for place in memory) == total, one.step
        assert all(low <= now <= high for now, (low, high) in zip(one.values, limits, strict=True)), one.step

    run(system, on_step=look, limit_s=20)
