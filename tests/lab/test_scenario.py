"""Scenario files: the ones that come with the package are whole, and mistakes are named."""

from pathlib import Path

import pytest

from ioflusher.lab.outcome import PROMISED, HalfOutcome, expectation_of
from ioflusher.lab.setup import needed_programs
from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.file import builtin_scenarios, find_scenario, parse_scenario

GOOD = builtin_scenarios()["swap-on-nbd"]


@pytest.mark.parametrize("name", sorted(builtin_scenarios()))
def test_builtin_scenarios_are_whole(name: str) -> None:
    """Each parses, is named as its file, and tells its story in sentences."""
    scenario = parse_scenario(builtin_scenarios()[name], origin=name)
    assert scenario.name == name
    assert scenario.served.startswith("/mnt " if scenario.device.use == "nfs" else "/dev/")
    assert scenario.frozen.stalled_s < scenario.deadline_s


@pytest.mark.parametrize(
    ("old", "new", "says", "hints"),
    [
        ("stalled_s", "staled_s", "unknown key frozen.staled_s", "did you mean frozen.stalled_s?"),
        ("[daemon]", "[deamon]", "unknown key deamon", "did you mean daemon?"),
        ('memory = "400M"', 'memory = "a lot"', 'machine.memory: expected a size such as "768M"', None),
        ('store = "remote"', 'store = "cloud"', "daemon.store: expected one of 'remote', 'file'", None),
        ("lock_memory = true", "lock_memory = 1", "hardening.lock_memory: expected true or false", None),
        ('size = "120M"', "", "the key pressure.size is missing: expected the bytes that the 'reader'", None),
        (
            'use = "swap"',
            'use = "swap"\nqueue_depth = 0',
            "device.queue_depth: expected a whole number from 1 to 10000, found 0",
            "number of requests at once",
        ),
        (
            'use = "swap"',
            'use = "swap"\npaths = 2',
            "device.paths: expected only with device.kind 'multipath', found 'nbd'",
            None,
        ),
        ('size = "188M"', "size = 0", "workload.size: expected more than nothing, found 0", None),
        ('size = "256M"', "size = 0", "device.size: expected more than nothing, found 0", None),
        ('chunk = "4M"', "chunk = 0", "workload.chunk: expected more than nothing, found 0", None),
        ("pause_ms = ", "pause_ms = -", "workload.pause_ms: expected a whole number from 0", "milliseconds"),
        ("pause_ms = ", "passes = 0 #", "workload.passes: expected a whole number from 1", None),
        ("lock_memory = true", 'state = "some"', "hardening.state: expected one of 'all', 'first-", None),
        ("lock_memory = true", "realtime = 50", "realtime: expected a whole number from 0 to 49", "observer"),
        ("lock_memory = true", "oom_score_adj = -2000", "expected a whole number from -1000 to 1000", None),
        (
            "lock_memory = true",
            'reserve = "8M"\n[cgroup]\nwho = "both"',
            "is for the daemon's own control group, and cgroup.who is 'both'",
            "memory_min",
        ),
        (
            "lock_memory = true",
            'reserve = "8M"\n[cgroup]\nwho = "workload"\nversion = 1',
            "hardening.reserve is memory.min of control groups of version 2",
            None,
        ),
        (
            "lock_memory = true",
            'daemon = "upper"',
            "hardening.daemon 'upper' is for device.kind 'stacked', which has two daemons; found 'nbd'",
            None,
        ),
        ("pause_ms = ", "pause_ms = 0.5 # ", "workload.pause_ms: expected a whole number", None),
        ('use = "swap"', "", "the key device.use is missing", None),
        ('use = "swap"', 'use = "xfs"', "does not go with device.use 'xfs'", "goes with"),
        ('name = "swap-on-nbd"', 'name = "../evil"', "expected small letters", None),
        ('name = "swap-on-nbd"', 'name = "swap..nbd"', "expected small letters", None),
        ("[machine]", "[machine", "not TOML", None),
        ("[machine]", "[machine]\nkernel = 5.10", 'machine.kernel: expected a series such as "5.8"', None),
        ("[machine]", '[machine]\nkernel = "old"', "machine.kernel: expected a series", None),
        (
            "[machine]",
            "[[expected]]\nsince = 5.10\n[machine]",
            "expected 1: since: expected a version in",
            None,
        ),
        ("[machine]", '[[expected]]\nsince = "5.9"\n[machine]', "expected 1: the key why is missing", None),
        (
            "[machine]",
            '[[expected]]\nsince = "5.9"\nwhy = "."\nwith_state = "well"\n[machine]',
            "expected 1: with_state: expected one of 'frozen', 'finished', 'out of memory'",
            None,
        ),
        ("[daemon]", '[daemon]\ncommand = ["serve"]', "found neither", '"{socket}"'),
        ("[daemon]", '[daemon]\ncommand = ["s", "{socket}", "{file}"]', "{socket} and {remote}", None),
    ],
)
def test_mistakes_are_named(old: str, new: str, says: str, hints: str | None) -> None:
    """The message names the key, what was expected and found; the hint names the nearest key."""
    assert old in GOOD
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(GOOD.replace(old, new, 1), origin="mine.toml")
    assert str(caught.value).startswith("mine.toml:")
    assert says in str(caught.value)
    if hints:
        assert hints in (caught.value.hint or "")


def test_unknown_name_suggests_the_nearest() -> None:
    """A misspelt scenario name is answered with the one that was meant."""
    with pytest.raises(ScenarioError) as caught:
        find_scenario("swap-on-ndb")
    assert "did you mean swap-on-nbd?" in (caught.value.hint or "")


def test_missing_file_is_an_error() -> None:
    """A scenario file that is not there is said to be so."""
    with pytest.raises(ScenarioError, match="cannot read the scenario"):
        find_scenario("/nowhere/at-all.toml")


def test_the_trace_that_brought_the_state_about_is_expected_of_its_kernels() -> None:
    """It brings its kernel; of 5.9 and later it expects no freeze, and names what changed in XFS."""
    scenario = find_scenario("xfs-on-nbd-5.8")
    assert scenario.machine.kernel == "5.8"
    assert expectation_of(scenario, "5.8.0-63-generic") == PROMISED
    assert 'pressure.size = "200M"' in expectation_of(scenario, "5.6.0-1056-oem").why
    unmeasured = expectation_of(scenario, "5.7.0")
    assert (unmeasured.without, unmeasured.with_) == (PROMISED.without, PROMISED.with_)
    assert "never measured" in unmeasured.why
    for release in ("5.9.0", "5.10.0-46-cloud-amd64", "6.12.117+deb12-cloud-amd64"):
        expected = expectation_of(scenario, release)
        assert (expected.without, expected.with_) == (HalfOutcome.FINISHED, HalfOutcome.FINISHED)
        assert "617825fe3489" in expected.why


def test_the_example_is_a_scenario() -> None:
    """The one of a daemon whose store is a cluster: it parses, and `lab setup` finds the daemon's package."""
    file = Path(__file__).parents[2] / "examples" / "rbd-nbd" / "swap-on-rbd-nbd.toml"
    scenario = parse_scenario(file.read_text(), origin=str(file))
    assert scenario.name == file.stem
    assert scenario.machine.network
    assert needed_programs(scenario)["rbd-nbd"] == "rbd-nbd"
