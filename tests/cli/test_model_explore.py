"""`ioflusher model explore`: what it prints, its exit statuses; what it did not cover is not judged."""

import json
import sys

import pytest
from tests.cli.program import call

NBD = "ext4-on-nbd-throttled"


def test_the_way_to_a_freeze() -> None:
    """The steps, from where it cannot be avoided, and where the daemon stands in the end; 0, as expected."""
    ended = call("model", "explore", NBD, "--without")
    assert (ended.status, ended.stderr) == (0, "")
    assert "without the state: A FREEZE IS REACHABLE, a deadlock, in " in ended.stdout
    assert "The way to a freeze without the state, the shortest:\n" in ended.stdout
    assert "  -- from here on nothing can avoid it\n" in ended.stdout
    assert "nbd-daemon (6)            a page of a file on vda\n" in ended.stdout
    words = " ".join(ended.stdout.split())
    assert (
        "nbd-daemon (6) waits for less dirty memory in the machine, state D in balance_dirty_pages() <"
        in words
    )


def test_no_freeze() -> None:
    """With the state all is covered, with every state and with fewer that stand for others: the same."""
    for options, least in (((), 500), (("--all-states",), 1_000)):
        ended = call(
            "model", "explore", NBD, "--with", "--queue-depth", "1", "--work", "6", "--json", *options
        )
        assert ended.status == 0
        record = json.loads(ended.stdout)
        (half,) = record["halves"]
        assert (half["verdict"], half["stopped"], half["freeze"]) == ("no_freeze", "covered", None)
        assert half["queue_depth"] == 1
        assert half["states"] > least


def test_an_instance_that_is_too_small() -> None:
    """One unit of work reaches no limit; the runs of the whole do, and that is what counts."""
    tiny = ("model", "explore", NBD, "--work", "1", "--queue-depth", "1")
    ended = call(*tiny)
    words = " ".join(ended.stdout.split())
    assert "without the state: no freeze is reachable within these bounds the instance is small; " in words
    assert "of 5 runs at full size ALL FREEZE: that takes more than the instance has" in words
    assert "of 5 runs at full size none freezes" in words
    cut = call("model", "explore", NBD, "--without", "--states", "1")
    assert "ALL FREEZE: what was not followed may have it" in " ".join(cut.stdout.split())
    assert ended.status == 0, "frozen without, finished with"
    with_, without = call(*tiny, "--with", "--json"), call(*tiny, "--without", "--json")
    for answer, frozen in ((with_, []), (without, [0, 1, 2, 3, 4])):
        (half,) = json.loads(answer.stdout)["halves"]
        assert half["verdict"] == "no_freeze"
        assert half["runs_at_full_size"] == {"seeds": 5, "frozen": frozen}


@pytest.mark.parametrize("bound", ["--states=500", "--memory=64K", "--depth=9"])
def test_what_is_not_covered(bound: str) -> None:
    """No claim, and 1."""
    ended = call("model", "explore", NBD, "--with", bound)
    assert ended.status == 1
    assert "with the state: NOT COVERED: no freeze was found in what was followed" in ended.stdout
    assert "no freeze is reachable" not in ended.stdout


def test_json() -> None:
    """The way with what each step changed, and every task in the end."""
    record = json.loads(call("model", "explore", NBD, "--without", "--json").stdout)
    assert (record["kernel"], record["as_expected"]) == ("6.12", True)
    freeze = record["halves"][0]["freeze"]
    assert freeze["kind"] == "deadlock"
    assert 0 < freeze["doomed_after"] < len(freeze["way"])
    daemon = next(task for task in freeze["end"] if task["task"] == "nbd-daemon")
    assert (daemon["does"], daemon["state"], daemon["stack"][0]) == ("waits", "D", "balance_dirty_pages")
    for step in freeze["way"]:
        assert step["changes"].items() <= step["values"].items()


def test_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing, and how to get it."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    from ioflusher.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(["model", "explore", NBD])
    assert ended.value.code == 2
