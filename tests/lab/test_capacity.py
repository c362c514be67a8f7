"""Whether both halves fit into this machine at once."""

import os
from pathlib import Path

import pytest

from ioflusher.lab.capacity import Capacity, half_bytes, this_machine, why_in_turn
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from ioflusher.scenario.records import Scenario

MIB = 1 << 20


def scenario(name: str, cpus: int = 1) -> Scenario:
    """A built-in scenario with so many processors."""
    text = builtin_scenarios()[name]
    return parse_scenario(text.replace("[machine]\n", f"[machine]\ncpus = {cpus}\n"))


def test_each_virtual_processor_has_one_of_its_own() -> None:
    """Two guests of one need two, two guests of two need four; why not says both numbers."""
    for cpus in (1, 2):
        played = scenario("ext4-on-nbd-throttled", cpus)
        assert why_in_turn(played, Capacity(2 * cpus, None)) is None
        reason = why_in_turn(played, Capacity(2 * cpus - 1, None))
        assert reason is not None
        assert reason.endswith(f"for 2 guests of {cpus}")
    assert why_in_turn(scenario("swap-on-nbd"), Capacity(1, None)) == (
        "this machine has 1 processor for 2 guests of 1"
    )


@pytest.mark.parametrize(
    ("name", "mib"),
    [
        ("ext4-on-nbd-throttled", 512 + 256),
        ("swap-on-nbd", 400 + 256 + 256),  # with the store outside the guest
    ],
)
def test_memory_for_two(name: str, mib: int) -> None:
    """The guest's, what the emulator takes, and a store that this program holds."""
    played = scenario(name)
    assert half_bytes(played) == mib * MIB
    assert why_in_turn(played, Capacity(2, 2 * mib * MIB)) is None
    reason = why_in_turn(played, Capacity(2, 2 * mib * MIB - 1))
    assert reason is not None
    assert reason.startswith("this machine has ")
    assert "both at once need" in reason


def test_the_limits_of_a_container_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cpu.max is quota and period in microseconds; "max" is none, and so is a file that is not there."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert this_machine(tmp_path) == Capacity(8, None)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4096 kB\n")
    assert this_machine(tmp_path) == Capacity(8, 4 * MIB)
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    for quota, limit, expected in (
        ("max 100000\n", "max\n", Capacity(8, 4 * MIB)),
        ("300000 100000\n", f"{3 * MIB}\n", Capacity(3, 3 * MIB)),
        ("50000 100000\n", f"{5 * MIB}\n", Capacity(1, 4 * MIB)),
        ("garbage\n", "garbage\n", Capacity(8, 4 * MIB)),
    ):
        (group / "cpu.max").write_text(quota)
        (group / "memory.max").write_text(limit)
        assert this_machine(tmp_path) == expected
