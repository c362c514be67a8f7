"""Making a scenario smaller: what can be taken away, the search, and the file that comes out. No guests."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ioflusher.lab import repeat
from ioflusher.lab.errors import MachineLost
from ioflusher.lab.minimise import play
from ioflusher.lab.minimise.play import Answered, NoContrastError, SearchEnd, minimise
from ioflusher.lab.minimise.reductions import SIZES, Part, half_of, parts_of, reduced
from ioflusher.lab.minimise.search import Search, Tried, Try
from ioflusher.lab.minimise.text import minimal_scenario, minimal_toml
from ioflusher.lab.outcome import Half
from ioflusher.lab.qemu import Accelerator
from ioflusher.lab.session import Lab
from ioflusher.lab.store import ExperimentStore
from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from ioflusher.scenario.records import Scenario
from tests.lab.halves import FINISHED, FROZEN

LIVED = replace(FINISHED, io_flusher=False)
TEXT = """
name = "mine"
title = "many parts"
served = "s"
pressed = "p"
deadline_s = 100

[machine]
memory = "400M"
cpus = 2
modules = ["nbd nbds_max=1", "virtio_net"]

[kernel.sysctl]
"vm.swappiness" = 100
"vm.page-cluster" = 5

[kernel.write]
"/sys/kernel/mm/lru_gen/enabled" = "0"

[device]
size = "256M"
use = "swap"

[daemon]
store = "remote"

[workload]
kind = "anonymous"
size = "188M"
chunk = "4M"
pause_ms = 20

[pressure]
kind = "reader"
size = "120M"

[hardening]
lock_memory = true

[[fault]]
kind = "remote-slow"
at_s = 1
delay_ms = 10

[[fault]]
kind = "remote-slow"
at_s = 2
delay_ms = 20

[frozen]
stalled_s = 8
"""
MANY = parse_scenario(TEXT)
KEYS = [part.key for part in parts_of(MANY)]


def searched(shows: Callable[[Scenario], bool], base: Scenario = MANY) -> tuple[Search, list[Try]]:
    """A search whose every try is answered by `shows`; at the end, and what was tried."""
    search = Search(base)
    steps, tried = search.steps(), []
    step = next(steps, None)
    while step is not None:
        tried.append(step)
        assert len(tried) < 200
        try:
            step = steps.send(Tried(shows(step.scenario), "seen"))
        except StopIteration:
            step = None
    return search, tried


def test_what_can_be_taken_away() -> None:
    """All but the stack, its daemon, the deadline and what counts as frozen."""
    assert KEYS == [
        "fault 1",
        "fault 2",
        "pressure",
        "kernel.sysctl.vm.swappiness",
        "kernel.sysctl.vm.page-cluster",
        "kernel.write./sys/kernel/mm/lru_gen/enabled",
        "machine.modules.nbd nbds_max=1",
        "machine.modules.virtio_net",
        "machine.cpus",
        "workload.chunk",
        "workload.pause_ms",
        "hardening.lock_memory",
    ]


@pytest.mark.parametrize("key", KEYS)
def test_each_can_be_taken_away(key: str) -> None:
    """It alone is gone then, and cannot be taken away once more."""
    smaller = reduced(MANY, [Part(key)], {})
    assert smaller is not None
    left = [part.key for part in parts_of(smaller)]
    # faults are counted anew
    assert left == ([one for one in KEYS if one != key] if "fault" not in key else ["fault 1", *KEYS[2:]])


def test_everything_can_be_taken_away_at_once() -> None:
    """What is left is the stack, the machine and the work."""
    bare = reduced(MANY, parts_of(MANY), {})
    assert bare is not None
    assert parts_of(bare) == ()
    assert (bare.device, bare.daemon, bare.frozen, bare.deadline_s) == (
        MANY.device,
        MANY.daemon,
        MANY.frozen,
        MANY.deadline_s,
    )
    assert bare.workload.size == MANY.workload.size


def test_halves() -> None:
    """Whole processors, and sizes down to a limit."""
    assert half_of(MANY, "machine.memory") == 200 << 20
    assert half_of(MANY, "machine.cpus") == 1
    assert half_of(replace(MANY, machine=replace(MANY.machine, cpus=1)), "machine.cpus") is None
    tiny = replace(MANY, workload=replace(MANY.workload, chunk=100 << 10))
    assert half_of(tiny, "workload.chunk") is None
    smaller = reduced(MANY, [], {"machine.memory": 200 << 20, "workload.size": 1 << 20})
    assert smaller is not None
    assert (smaller.machine.memory, smaller.workload.size) == (200 << 20, 1 << 20)


def test_what_fits_no_scenario_is_not_tried() -> None:
    """Known without a boot: a fault of the remote store where there is none, say."""
    group = parse_scenario(TEXT + '\n[cgroup]\nwho = "daemon"\nmemory_max = "64M"\n')
    assert Part("cgroup") in parts_of(group)
    assert reduced(group, [Part("cgroup")], {}) == MANY
    local = replace(MANY, daemon=replace(MANY.daemon, store="file"))
    assert reduced(local, [], {}) is None
    search, tried = searched(lambda scenario: True, local)
    assert all(not one.scenario.fault for one in tried)
    assert search.done


def test_nothing_is_needed() -> None:
    """One try takes all away."""
    search, tried = searched(lambda scenario: scenario.workload.size == MANY.workload.size)
    assert tried[0].words == "without " + ", ".join(KEYS)
    assert (search.kept, search.done) == ([], True)
    assert len([one for one in tried if one.words.startswith("without")]) == 1


@pytest.mark.parametrize("needed", [*([key] for key in KEYS), ["pressure", "fault 2"], KEYS[::3], KEYS])
def test_what_is_needed_is_found(needed: list[str]) -> None:
    """All of it and nothing else, each tried by itself in the end, and not in too many tries."""

    def shows(scenario: Scenario) -> bool:
        left = {part.key for part in parts_of(scenario)}
        # a fault is known by its delay, since they are counted anew
        delays = [fault.delay_ms for fault in scenario.fault]
        here = {key for key, delay in (("fault 1", 10), ("fault 2", 20)) if delay in delays}
        small = scenario.workload.size < MANY.workload.size or scenario.machine.memory < MANY.machine.memory
        return not small and set(needed) <= (left - {"fault 1", "fault 2"}) | here

    search, tried = searched(shows)
    assert sorted(part.key for part in search.kept) == sorted(needed)
    assert set(search.needed) >= set(needed)
    assert len(tried) <= 5 * len(KEYS) + 2 * len(SIZES)
    if needed == ["pressure"]:
        # halves, not one by one
        assert len([one for one in tried if one.words.startswith("without")]) < len(KEYS)


def test_sizes_are_halved_as_long_as_that_goes_well() -> None:
    """188 MiB of work, of which 40 are enough: two halves of it; the third one was too small."""
    search, tried = searched(
        lambda scenario: (
            scenario.workload.size >= 40 << 20
            and scenario.machine.memory == MANY.machine.memory
            and scenario.device.size == MANY.device.size
        )
    )
    assert search.sizes["workload.size"] == 47 << 20
    assert search.not_half["workload.size"] == "seen"
    assert search.best.workload.size == 47 << 20
    words = [one.words for one in tried]
    assert words.count("with half of workload.size") == 3
    assert words.count("with half of machine.memory") == 1
    assert "with half of pressure.size" not in words, "the pressure is gone"


def test_a_search_can_be_left_at_any_time() -> None:
    """The best so far is a scenario that was seen to show it."""
    search = Search(MANY)
    steps = search.steps()
    next(steps)
    assert search.best == MANY
    second = steps.send(Tried(False, "no"))
    steps.send(Tried(True, "yes"))
    assert search.best == second.scenario
    assert not search.done


# playing


class Bench:
    """A lab whose guests show the contrast where `shows` says so, with a store."""

    def __init__(self, shows: Callable[[Scenario], bool], store: ExperimentStore) -> None:
        self.shows = shows
        self.store = store
        self.played: list[Scenario] = []
        self.fails: dict[int, BaseException] = {}
        self.told: list[Answered] = []

    def run_half(self, lab: Any, scenario: Scenario, *, io_flusher: bool, **_: Any) -> Half:
        if not io_flusher:
            self.played.append(scenario)
            if error := self.fails.get(len(self.played)):
                raise error
        return FINISHED if io_flusher else FROZEN if self.shows(scenario) else LIVED

    def minimise(self, base: Scenario = MANY, **options: Any) -> tuple[Search, SearchEnd]:
        lab = SimpleNamespace(kernel=SimpleNamespace(release="6.12"), accelerator=Accelerator.TCG)
        return minimise(cast(Lab, lab), base, self.store, sequential=True, on_try=self.told.append, **options)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    """A lab that shows the contrast as long as there is pressure."""
    found = Bench(lambda scenario: scenario.pressure.kind != "none", ExperimentStore(tmp_path / "lab.sqlite"))
    monkeypatch.setattr(repeat, "run_half", found.run_half)
    monkeypatch.setattr(repeat, "versions", lambda scenario: {})
    return found


def test_every_try_is_played_and_kept(bench: Bench) -> None:
    """As often as asked where it shows, once where it does not; a second search plays nothing."""
    search, stop = bench.minimise(runs=3)
    assert stop is SearchEnd.DONE
    assert [part.key for part in search.kept] == ["pressure"]
    assert bench.told[0].step.words == "as it is"
    assert [one.number for one in bench.told] == list(range(len(bench.told)))
    assert {one.played for one in bench.told if one.tried.shows} == {3}
    assert {one.played for one in bench.told if not one.tried.shows} == {1}
    assert len(bench.store.experiments()) == len(bench.played)
    number = len(bench.played)
    assert bench.minimise(runs=3)[0].best == search.best
    assert len(bench.played) == number
    bench.minimise(runs=4)
    assert len(bench.played) == number + sum(one.tried.shows for one in bench.told[-len(bench.told) // 3 :])


def test_ctrl_c_loses_nothing(bench: Bench) -> None:
    """The best so far, and the next search goes on from what was played."""
    bench.fails[4] = KeyboardInterrupt()
    search, stop = bench.minimise(runs=1)
    assert stop is SearchEnd.INTERRUPTED
    assert len(bench.told) == 3
    assert bench.shows(search.best)
    bench.fails.clear()
    bench.told.clear()
    bench.minimise(runs=1)
    assert [one.played for one in bench.told[:4]] == [0, 0, 0, 1]


def test_the_deadline(bench: Bench) -> None:
    """Nothing is begun after it; the scenario as it is has been played by then."""
    search, stop = bench.minimise(runs=1, deadline=0.0)
    assert stop is SearchEnd.TIME
    assert (len(bench.told), search.best) == (1, MANY)


def test_what_cannot_be_played_does_not_show(bench: Bench) -> None:
    """A file system that does not fit its device any more, say."""
    bench.fails[2] = MachineLost("mkfs: no space\nand more")
    bench.minimise(runs=1)
    assert bench.told[1].tried == Tried(False, "mkfs: no space")


def test_a_scenario_without_contrast(bench: Bench) -> None:
    """Said with what was seen, after one run."""
    bench.shows = lambda scenario: False
    with pytest.raises(NoContrastError) as error:
        bench.minimise(runs=3)
    assert str(error.value) == "mine does not show the contrast: finished without, finished with"
    assert len(bench.played) == 1


# the file


def test_the_file(bench: Bench) -> None:
    """It reads as the scenario that was found, and says of each key what it was needed for."""
    pytest.importorskip("tomlkit", reason="needs tomlkit: make setup")
    bench.shows = lambda scenario: (
        scenario.pressure.kind != "none"
        and any(fault.delay_ms == 20 for fault in scenario.fault)
        and scenario.workload.size > 40 << 20
        and scenario.kernel.sysctl.get("vm.swappiness") == "100"
    )
    search, stop = bench.minimise(runs=1)
    text = minimal_toml(search, kernel="6.12.117", runs=1, tries=len(bench.told), ending=stop.value)
    assert parse_scenario(text) == minimal_scenario(search)
    lines = text.splitlines()
    made = "# made by `ioflusher lab minimise` from mine on Linux 6.12.117"
    assert lines[0] == f"{made}: {len(bench.told)} tries of 1 run, done"
    assert lines[1].startswith("# not needed: ")
    gone = set(lines[1].removeprefix("# not needed: ").split(", "))
    assert gone == set(KEYS) - {"pressure", "fault 2", "kernel.sysctl.vm.swappiness"}
    assert 'name = "mine-minimal"' in lines
    needed = "# needed; without it: finished without, finished with"
    assert f'"vm.swappiness" = "100" {needed}' in lines
    assert lines[lines.index("[[fault]]") + 1] == needed
    assert 'size = "47M" # 188M in mine; with half of it: finished without, finished with' in lines
    assert lines[lines.index("[pressure]") + 1] == needed
    assert "hardening" not in text.partition("\n\n")[2].replace(lines[1], "")


@pytest.mark.parametrize("name", builtin_scenarios())
def test_every_scenario_can_be_written(name: str) -> None:
    """And reads as itself."""
    pytest.importorskip("tomlkit", reason="needs tomlkit: make setup")
    from ioflusher.scenario.writer import scenario_toml

    scenario = parse_scenario(builtin_scenarios()[name])
    assert parse_scenario(scenario_toml(scenario, head=["a", "b"])) == scenario


def test_all_that_a_scenario_may_have_is_written() -> None:
    """Control groups, faults and settings with dots in their names, too."""
    pytest.importorskip("tomlkit", reason="needs tomlkit: make setup")
    from ioflusher.scenario.writer import scenario_toml

    text = TEXT + '\n[cgroup]\nwho = "daemon"\nmemory_max = 1000001\n'
    scenario = parse_scenario(text)
    assert parse_scenario(scenario_toml(scenario)) == scenario


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install."""
    import sys

    from ioflusher.scenario.writer import check_writer

    monkeypatch.setitem(sys.modules, "tomlkit", None)
    with pytest.raises(ScenarioError, match="not installed: tomlkit") as error:
        check_writer()
    assert error.value.hint == "pip install 'ioflusher[lab]'"
    assert play.__doc__
