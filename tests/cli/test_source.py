"""Snapshots come from files, standard input or the live machine."""

import io
import json
from pathlib import Path

import pytest
from tests.audit.machines import WELL
from tests.cli.program import call, start

from ioflusher.cli.source import snapshots_from
from ioflusher.machine.codec import dump_snapshot
from ioflusher.machine.errors import SnapshotError
from ioflusher.machine.snapshot import Memory, Snapshot, System

EMPTY = Snapshot(System("host", "6.12.0", "x86_64", "2026-11-25T01:00:00Z", privileged=True), Memory())


def test_files_one_after_another(tmp_path: Path) -> None:
    """Each file gives its snapshot under its name, in the order of the command line."""
    names = [tmp_path / "b.json", tmp_path / "a.json"]
    for name in names:
        name.write_bytes(dump_snapshot(EMPTY))
    assert list(snapshots_from(names)) == [(str(name), EMPTY) for name in names]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash is standard input; what is no snapshot there is named so."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(dump_snapshot(EMPTY))))
    assert list(snapshots_from([Path("-")])) == [("standard input", EMPTY)]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"{")))
    with pytest.raises(SnapshotError, match="standard input"):
        list(snapshots_from([Path("-")]))


@pytest.mark.live
def test_no_file_is_this_machine() -> None:
    """Without files the live machine is looked at."""
    ((name, snapshot),) = snapshots_from([])
    assert name == "this machine"
    assert snapshot.processes


RECORDED = dump_snapshot(WELL)
LOG = (Path(__file__).parent.parent / "kernlog" / "logs" / "pos_nbd_xfs_inode_write.txt").read_bytes()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a file that is called - and is of no use to any verb."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_text("the file called -")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "stdin", "status"),
    [
        (["audit", "--snapshot", "-"], RECORDED, 0),
        (["audit", "--snapshot", "host.json", "-"], RECORDED, 0),
        (["audit", "--config", "-", "--snapshot", "host.json"], b"[rules.cycle]\noff = 'known'\n", 0),
        (["map", "--snapshot", "-"], RECORDED, 0),
        (["map", "--snapshot", "host.json", "--snapshot", "-"], RECORDED, 0),
        (["diagnose", "-"], LOG, 1),
    ],
)
def test_a_dash_is_standard_input_everywhere(
    directory: Path, words: list[str], stdin: bytes, status: int
) -> None:
    """And never the file of that name, which is ./-."""
    (directory / "host.json").write_bytes(RECORDED)
    run = start if words[0] == "diagnose" else call  # which reads the descriptor itself
    ended = run(*words, stdin=stdin)
    assert ended.status == status, ended.output
    assert (directory / "-").read_text() == "the file called -"
    named = [word.replace("-", "./-") if word == "-" else word for word in words]
    assert call(*named, stdin=stdin).status == (0 if words[0] == "diagnose" else 2)


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "--snapshot", "-", "-"],
        ["audit", "--config", "-", "--snapshot", "-"],
        ["map", "--snapshot", "-", "--snapshot", "-"],
        ["diagnose", "-", "-"],
    ],
)
def test_a_dash_can_be_named_once(words: list[str]) -> None:
    """The second would find nothing there: wrong usage, not an empty file."""
    ended = call(*words, stdin=RECORDED)
    assert ended.status == 2
    assert "standard input (-) is named twice" in ended.stderr


def test_what_is_wrong_with_standard_input_is_said_of_it() -> None:
    """Each verb names it, and a fleet goes on."""
    assert "standard input is not a whole JSON" in call("map", "--snapshot", "-", stdin=b"{").stderr
    assert "standard input: could not be judged" in call("audit", "--snapshot", "-", stdin=b"{").stdout
    scenario = call("lab", "run", "-", stdin=b"[machine]\nmemory = 'much'\n")
    assert scenario.status == 2
    assert scenario.stderr.startswith("ioflusher: standard input: ")
    assert "standard input: not TOML" in call("audit", "--config", "-", stdin=b"[").stderr


@pytest.mark.parametrize(
    ("words", "beginning"),
    [
        (["snapshot"], '{"system"'),
        (["map", "--snapshot", "host.json", "--format", "dot"], "digraph"),
        (["audit", "--snapshot", "host.json", "--json"], "{"),
        (["audit", "--snapshot", "host.json"], "host: "),
        (["diagnose", "--format", "html", "log"], "<!doctype"),
        (["diagnose", "log"], "RECLAIM RECURSION"),
    ],
)
@pytest.mark.live
def test_output_goes_to_the_file_or_to_standard_output(
    directory: Path, words: list[str], beginning: str
) -> None:
    """--output FILE and -o FILE write what is printed otherwise; - is standard output."""
    (directory / "host.json").write_bytes(RECORDED)
    (directory / "log").write_bytes(LOG)
    printed = call(*words, "--output", "-")
    written = call(*words, "-o", "out")
    assert printed.stdout.lower().startswith(beginning.lower())
    assert written.stdout == ""
    assert written.status == printed.status
    if words[0] != "snapshot":  # which is another one each time
        assert (directory / "out").read_text() == printed.stdout
    assert (directory / "-").read_text() == "the file called -"
    failed = call(*words, "--output", "no/such/place")
    assert (failed.status, failed.stdout) == (2, "")
    assert "ioflusher: cannot write no/such/place: No such file or directory\n" in failed.stderr


@pytest.mark.parametrize("verb", ["audit", "map", "diagnose"])
def test_json_is_short_for_format_json(directory: Path, verb: str) -> None:
    """And contradicts any other form."""
    (directory / "host.json").write_bytes(RECORDED)
    (directory / "log").write_bytes(LOG)
    words = ["diagnose", "log"] if verb == "diagnose" else [verb, "--snapshot", "host.json"]
    first, second = call(*words, "--json"), call(*words, "--format", "json")
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert call(*words, "--json", "--format", "json").stdout == first.stdout
    both = call(*words, "--json", "--format", "text")
    assert both.status == 2
    assert "--json and --format contradict each other" in both.stderr


def test_one_of_several_maps_that_cannot_be_drawn(directory: Path) -> None:
    """Each that was named has its turn: the others are drawn, and the status is 2; the shape stays."""
    (directory / "host.json").write_bytes(RECORDED)
    ended = call("map", "--json", "--snapshot", "host.json", "--snapshot", "none")
    assert ended.status == 2
    assert "none" in ended.stderr
    assert [each["host"] for each in json.loads(ended.stdout)["machines"]] == [WELL.system.hostname]
