"""The memory control group of a scenario: what it may say, and who is in which group with which limits."""

from pathlib import Path

import pytest

from ioflusher.lab.guest import cgroups
from ioflusher.lab.guest.cgroups import Groups, group_limits, make_groups
from ioflusher.lab.guest.processes import SetupFailed
from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from ioflusher.scenario.records import CgroupTable
from tests.lab.test_stage import NotedProcesses

GOOD = builtin_scenarios()["swap-on-nbd"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('memory_max = "48M"', "the key cgroup.who is missing: expected one of 'workload', 'daemon', 'both'"),
        ('who = "everybody"', "cgroup.who: expected one of"),
        ('who = "both"\nversion = 3', "cgroup.version: expected one of 1, 2, found 3"),
        ('who = "both"\nmemory_max = "max"', 'cgroup.memory_max: expected a size such as "768M"'),
        ('who = "both"\nversion = 1\nmemory_high = "9M"', "cgroup.memory_high: version 1 of control groups"),
        ('who = "both"\nversion = 1\nmemory_min = "9M"', "cgroup.memory_min: version 1 of control groups"),
        ('who = "both"\nversion = 1\nswap_max = "9M"', "cgroup.swap_max: version 1 of control groups counts"),
    ],
)
def test_mistakes_are_named(table: str, says: str) -> None:
    """The key, what was expected, what was found."""
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(f"{GOOD}\n[cgroup]\n{table}\n", origin="mine.toml")
    assert str(caught.value).startswith("mine.toml:")
    assert says in str(caught.value)


def test_limits_are_files_of_the_version() -> None:
    """Bytes as they were given; a limit that was not given is not written, 0 is a limit."""
    text = f'{GOOD}\n[cgroup]\nwho = "workload"\nmemory_max = "48M"\nswap_max = 0\nmemory_high = "32M"\n'
    table = parse_scenario(text).cgroup
    assert table is not None
    assert group_limits(table) == {"memory.max": 48 << 20, "memory.high": 32 << 20, "memory.swap.max": 0}
    assert group_limits(CgroupTable("both", memory_min=4096)) == {"memory.min": 4096}
    old = CgroupTable("both", version=1, memory_max=1 << 20, swap_max=2 << 20)
    assert group_limits(old) == {
        "memory.limit_in_bytes": 1 << 20,
        "memory.memsw.limit_in_bytes": 3 << 20,
    }


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, Path]:
    """Places where the hierarchies would be."""
    places = {1: tmp_path / "memory", 2: tmp_path}
    monkeypatch.setattr(cgroups, "MOUNTS", places)
    return places


def test_who_is_in_the_group(mounts: dict[int, Path]) -> None:
    """The hierarchy is mounted and its memory controller switched on, the limits are in force, and the
    programs that the scenario names start in the group."""
    processes = NotedProcesses()
    assert make_groups(None, 0, processes) == Groups(None, None)
    assert processes.steps == [], "nothing is mounted where no group is asked for"
    group = mounts[2] / "lab"
    assert make_groups(CgroupTable("workload", memory_max=4096), 0, processes) == Groups(workload=group)
    assert processes.steps == [("mount", "-t", "cgroup2", "none", str(mounts[2]))]
    assert (mounts[2] / "cgroup.subtree_control").read_text() == "+memory"
    assert (group / "memory.max").read_text() == "4096"
    (group / "memory.max").unlink()
    group.rmdir()
    assert make_groups(CgroupTable("daemon"), 0, processes) == Groups(daemon=group)
    group.rmdir()
    assert make_groups(CgroupTable("both"), 0, processes) == Groups(daemon=group, workload=group)


def test_a_reserve_is_the_daemons_own(mounts: dict[int, Path]) -> None:
    """memory.min on the daemon's group: the scenario's, or one of its own beside the workload's."""
    processes = NotedProcesses()
    groups = make_groups(CgroupTable("daemon", memory_max=8192), 4096, processes)
    assert groups == Groups(daemon=mounts[2] / "lab")
    assert (mounts[2] / "lab" / "memory.min").read_text() == "4096"
    assert (mounts[2] / "lab" / "memory.max").read_text() == "8192"
    for file in (mounts[2] / "lab").iterdir():
        file.unlink()
    (mounts[2] / "lab").rmdir()
    groups = make_groups(CgroupTable("workload", memory_max=8192), 4096, processes)
    assert groups == Groups(daemon=mounts[2] / "daemon", workload=mounts[2] / "lab")
    assert (mounts[2] / "daemon" / "memory.min").read_text() == "4096"
    assert not (mounts[2] / "lab" / "memory.min").exists()


def test_a_kernel_without_version_1_is_told(mounts: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what the kernel lacks and which has it."""
    processes = NotedProcesses()

    def step(*argv: str) -> None:
        if "cgroup" in argv:
            raise SetupFailed("mount exited 32: wrong fs type")

    monkeypatch.setattr(processes, "step", step)
    with pytest.raises(SetupFailed, match=r"no memory controller of control groups version 1 .*6\.1 has"):
        make_groups(CgroupTable("both", version=1), 0, processes)
