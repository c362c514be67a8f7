"""`ioflusher model run`: what it prints, its exit statuses, and what it says of what it cannot do."""

import json
from pathlib import Path

import pytest
from tests.cli.program import call

from ioflusher.scenario.file import builtin_scenarios

NBD = "ext4-on-nbd-throttled"


def test_both_halves() -> None:
    """Which froze, who waits for whom, and the circle; 0, as the scenario expects."""
    ended = call("model", "run", NBD)
    assert (ended.status, ended.stderr) == (0, "")
    assert "without the state: FROZEN after 0." in ended.stdout
    assert "with    the state: done after " in ended.stdout
    assert "expects of Linux 6.12, frozen without, finished with" in ended.stdout
    assert "The circle: nbd-daemon (6) -> nbd-daemon (6)\n" in ended.stdout
    assert "in balance_dirty_pages() < balance_dirty_pages_ratelimited_flags() <" in ended.stdout
    words = " ".join(ended.stdout.split())
    assert "nbd-daemon (6) itself (or writer (2)), in the step: replies to nbd0" in words


def test_one_half() -> None:
    """--with plays that one alone."""
    ended = call("model", "run", NBD, "--with")
    assert ended.status == 0
    assert "with the state: done" in ended.stdout
    assert "FROZEN" not in ended.stdout


@pytest.mark.parametrize("verb", ["run", "explore", "size", "page"])
@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        (
            'store = "file"',
            'stor = "file"',
            "20: unknown key daemon.stor\n  hint: did you mean daemon.store",
        ),
        ('size = "96M"', 'size = "96T"', "24: workload.size: expected at most device.size (256 MiB), found "),
        (
            'memory = "512M"',
            'memory = "64M"',
            "8: machine.memory: expected more than 135 MiB, which ",
        ),
        ('use = "ext4"', 'use = "ext4"\nkind = "nbb"', "18: device.kind: expected one of 'nbd', 'nbd-tcp', "),
        (
            'use = "ext4"',
            'use = "btrfs"',
            "17: device.use: the model expects 'swap', 'ext4'",
        ),
    ],
    ids=["misspelt", "too-large", "too-small", "no-stack", "not-modelled"],
)
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, verb: str, line: str, instead: str, said: str
) -> None:
    """File, line, key, what was expected and what was found; whichever verb reads it."""
    text = builtin_scenarios()[NBD]
    assert f"\n{line}\n" in text
    file = tmp_path / "mine.toml"
    file.write_text(text.replace(f"\n{line}\n", f"\n{instead}\n"))
    ended = call("model", verb, file)
    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"ioflusher: {file}:{said}")


def test_json() -> None:
    """The same as an object; the same seed, the same run."""
    texts = [call("model", "run", NBD, "--json", "--seed", "3").stdout for _ in range(2)]
    assert texts[0] == texts[1]
    record = json.loads(texts[0])
    assert (record["kernel"], record["seed"], record["as_expected"]) == ("6.12", 3, True)
    without, with_ = record["halves"]
    assert (without["outcome"], with_["outcome"]) == ("frozen", "done")
    (pid,) = without["cycle"]
    daemon = next(task for task in without["waiting"] if task["pid"] == pid)
    assert {"pid": pid, "step": "replies to nbd0"} in daemon["behind"]
    assert daemon["stack"][0] == "balance_dirty_pages"
    assert without["in_flight"]["nbd0"] > 0
    last = without["last_steps"]
    assert [step["what"] for step in last if step["task"] == "nbd-daemon"][-1] == "a page of a file on vda"
    assert last[-1]["time_s"] <= without["ended_s"]


def test_the_log_is_diagnosed(tmp_path: Path) -> None:
    """`ioflusher diagnose` reads the log that is written."""
    log = tmp_path / "frozen.log"
    assert call("model", "run", NBD, "--kernel", "6.14", "--log", log).status == 0
    diagnosed = call("diagnose", log)
    assert diagnosed.status == 1
    assert "cycle    nbd-daemon (6) -> nbd-daemon (6)\n" in diagnosed.stdout
    assert "Linux 6.14.0-model" in diagnosed.stdout


def test_no_log_of_what_does_not_freeze(tmp_path: Path) -> None:
    """It is said that there is none."""
    ended = call("model", "run", NBD, "--with", "--log", tmp_path / "log")
    assert "is not written: no half froze" in ended.stderr
    assert not (tmp_path / "log").exists()


def test_an_outcome_that_is_not_expected(tmp_path: Path) -> None:
    """Status 1, and what was expected: with ample dirty limits nothing freezes."""
    text = call("lab", "list").stdout
    assert NBD in text
    from ioflusher.scenario.file import builtin_scenarios

    easy = builtin_scenarios()[NBD].replace('"vm.dirty_bytes" = ', '"vm.dirty_bytes" = 2')
    assert easy != builtin_scenarios()[NBD]
    path = tmp_path / "easy.toml"
    path.write_text(easy)
    ended = call("model", "run", path, "--without")
    assert ended.status == 1
    assert "The scenario expects of Linux 6.12: frozen without" in ended.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ext4-on-nbd-throtled"], "ext4-on-nbd-throttled"),
        ([NBD, "--kernel", "5.5"], "expected 5.6 or later, which has PR_SET_IO_FLUSHER, found '5.5'"),
        ([NBD, "--kernel", "six"], "expected a version such as 5.8 or 6.12, found 'six'"),
        ([NBD, "--seed", "-1"], "--seed"),
    ],
)
def test_what_cannot_be_played(words: list[str], said: str) -> None:
    """Status 2, nothing on standard output, and what was expected."""
    ended = call("model", "run", *words)
    assert (ended.status, ended.stdout) == (2, "")
    assert said in ended.stderr


def test_a_kernel_that_the_model_was_not_read_in() -> None:
    """It is played, and said."""
    ended = call("model", "run", NBD, "--kernel", "8.0", "--with")
    assert ended.status == 0
    assert "read in kernels up to 7.3" in ended.stderr
