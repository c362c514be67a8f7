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


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ext4-on-nbd-throttled", "daemon-killed"),
        ("ext4-on-nbd-throttled", "daemon-stopped"),
        ("ext4-on-nbd-throttled", "connection-cut"),
        ("ext4-on-qemu-nbd-throttled", "daemon-killed"),
        ("ext4-on-fuse-throttled", "daemon-killed"),
        ("ext4-on-ublk-throttled", "daemon-killed"),
        ("swap-on-nbd", "daemon-killed"),
        ("swap-on-nbd", "connection-cut"),
        ("swap-on-nbd", "remote-cut"),
    ],
)
@pytest.mark.parametrize("at_s", [0.2, 1.0, 5.0])
def test_nor_by_a_fault(name: str, kind: str, at_s: float) -> None:
    """Whatever goes wrong, and whenever."""
    ends = {} if kind == "daemon-killed" else {"for_s": 1}
    scenario = with_settings(find_scenario(name), {"fault": [{"kind": kind, "at_s": at_s, **ends}]})
    for io_flusher in (False, True):
        _watch(build(scenario, io_flusher=io_flusher, version=(6, 12)))


def _watch(system: TransitionSystem) -> None:
    limits = [(variable.low, variable.high) for variable in system.variables]
    memory = [place for place, variable in enumerate(system.variables) if variable.unit == "memory"]
    total = sum(system.variables[place].initial for place in memory)

    def look(one: Happened) -> None:
        assert sum(one.values[place] for place in memory) == total, one.step
        assert all(low <= now <= high for now, (low, high) in zip(one.values, limits, strict=True)), one.step

    run(system, on_step=look, limit_s=20)
