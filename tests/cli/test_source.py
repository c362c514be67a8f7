"""Snapshots come from files, standard input or the live machine."""

import io
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ioflusher.cli.source import snapshot_option, snapshots_from
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


def test_the_option_is_repeatable() -> None:
    """`--snapshot A --snapshot B` gives both, as paths."""

    @click.command()
    @snapshot_option
    def verb(snapshots: tuple[Path, ...]) -> None:
        click.echo([str(path) for path in snapshots])

    done = CliRunner().invoke(verb, ["--snapshot", "a", "--snapshot", "-"])
    assert done.output == "['a', '-']\n"
