"""Descriptions of daemons: what a scenario may say of threads, and the packaged rows."""

import pytest

from ioflusher.lab.trials import trial_key
from ioflusher.scenario.daemons import DAEMONS, describe
from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.file import builtin_scenarios, check_scenario, find_scenario, parse_scenario
from ioflusher.scenario.records import ThreadTable
from ioflusher.scenario.settings import with_settings

BASE = "ext4-on-nbd-throttled"


@pytest.mark.parametrize(
    ("threads", "said"),
    [
        ('name = "a"\ntakes = "request"', "thread 1: takes: expected one of 'requests', 'events', 'nothing'"),
        ('name = "requests"', "thread 1: name: expected a name of its own, found 'requests'"),
        (
            'name = "a"\n[[daemon.thread]]\nname = "a"',
            "thread 2: name: expected a name of its own, found 'a'",
        ),
        ('name = "a"\ntakes = "nothing"', "daemon.thread: expected one that takes"),
        ('name = "a"\ndoes = ["wait"]', "thread 1: does: expected \"send\" before it, found 'wait'"),
        ('name = "a"\ndoes = ["lock", "lock"]', "thread 1: does: expected \"unlock\" between, found 'lock'"),
        ('name = "a"\ndoes = ["unlock"]', "thread 1: does: expected \"lock\" before it, found 'unlock'"),
        ('name = "a"\ndoes = ["lock"]', 'thread 1: does: expected "unlock" after "lock"'),
        ('name = "a"\ndoes = ["send", "wait"]', "does: 'wait' goes with daemon.store 'remote', found 'file'"),
        ('name = "a"\ncount = 0', "count: expected a whole number from 1 to 256, found 0"),
        ('name = "a"\ndoes = ["stor"]', "expected one of"),
        ('name = "a"\ndose = ["store"]', "does"),
        (
            'name = "a"\n[[daemon.thread]]\nname = "b"\ntakes = "a"\n'
            '[[daemon.thread]]\nname = "c"\ntakes = "a"',
            "thread 3: takes: 'a' hands its requests to another thread already",
        ),
    ],
)
def test_a_description_that_cannot_be(threads: str, said: str) -> None:
    """The message has the table, the key, what was expected and what was found."""
    text = builtin_scenarios()[BASE] + f"\n[[daemon.thread]]\n{threads}\n"
    with pytest.raises(ScenarioError) as raised:
        parse_scenario(text, origin="mine.toml")
    assert str(raised.value).startswith("mine.toml:")
    assert said in f"{raised.value} {raised.value.hint}"


def test_every_packaged_scenario_has_a_described_daemon() -> None:
    """The program that its command names, or ours."""
    found = {name: describe(find_scenario(name)).program for name in builtin_scenarios()}
    assert found["ext4-on-fuse-overlayfs-throttled"] == "fuse-overlayfs"
    assert found["nfs-on-ganesha-throttled"] == "ganesha.nfsd"
    assert found["swap-on-multipath"] == "multipathd"
    assert found["ext4-on-nbd-throttled"] == ""


@pytest.mark.parametrize("row", DAEMONS, ids=lambda row: f"{row.program or 'ours'}-{row.kinds[0]}")
def test_a_packaged_description_is_one_that_a_scenario_could_give(row: object) -> None:
    """The rows keep the rules that files are held to."""
    assert hasattr(row, "threads")
    base = find_scenario(BASE)
    threads = [
        {"name": each.name, "does": list(each.does), "takes": each.takes, "count": each.count}
        for each in row.threads
    ]
    check_scenario(with_settings(base, {"daemon.thread": threads}), "row")


def test_what_a_scenario_says_goes_before_the_row() -> None:
    """Its own threads, with what else is known of the program."""
    mine = [{"name": "mine", "does": ["store"]}]
    found = describe(
        with_settings(find_scenario("ext4-on-fuse-overlayfs-throttled"), {"daemon.thread": mine})
    )
    assert found.threads == (ThreadTable("mine", ("store",)),)
    assert found.writeback_cache


@pytest.mark.parametrize(
    ("scenario", "option", "counts"),
    [
        ("swap-on-tgt", "", {"tgtd": 1, "tgtd-worker": 2}),
        ("ext4-on-tgt-throttled", "", {"tgtd": 1, "tgtd-worker": 16}),
        ("ext4-on-nbdkit-throttled", "--threads=3", {"nbdkit-main": 1, "nbdkit": 3}),
    ],
)
def test_a_command_says_how_many_threads(scenario: str, option: str, counts: dict[str, int]) -> None:
    """The option of the program's own; without it there are as many as it starts by itself."""
    found = find_scenario(scenario)
    command = [*found.daemon.command, *option.split()]
    row = describe(with_settings(found, {"daemon.command": command}))
    assert {thread.name: thread.count for thread in row.threads} == counts


def test_a_description_leaves_the_identity_of_kept_runs() -> None:
    """What a guest played is told by what it was given; it never looks at the description."""
    base = find_scenario(BASE)
    described = with_settings(base, {"daemon.thread": [{"name": "mine", "does": ["store"]}]})
    played = [trial_key(one, "6.12.117", "emulated", {}) for one in (base, described)]
    assert described != base
    assert played[0] == played[1]
