"""What `make interop` stands on, without fetching anything."""

from pathlib import Path

import pytest
from tests.nbd.interop import __main__ as interop
from tests.nbd.interop import archive
from tests.nbd.interop.__main__ import Failed, Skipped, Verdict


def test_another_suite_from_where_the_own_one_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms in which apt is told of sources; those of other things on the machine are left alone."""
    monkeypatch.setattr(archive, "own_suite", lambda: "bookworm")
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("# deb a b c\ndeb [arch=amd64] mirror bookworm main contrib\n")
    expected = "Types: deb deb-src\nURIs: mirror\nSuites: trixie\nComponents: main contrib\n"
    assert archive.stanza_for("trixie", tmp_path) == expected
    (parts / "other.sources").write_text("Types: deb\nURIs: other\nSuites: nodistro\n")
    (parts / "own.sources").write_text(
        "Types: deb\n# a comment\nURIs: mirror\nSuites: bookworm bookworm-updates\nComponents: main\n\n"
        "Types: deb\nURIs: mirror\nSuites: bookworm-security\n"
    )
    assert archive.stanza_for("trixie", tmp_path) == (
        "Types: deb deb-src\nURIs: mirror\nSuites: trixie\nComponents: main\n"
    )


def test_a_machine_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told what to do instead."""
    monkeypatch.setattr(archive, "own_suite", lambda: "bookworm")
    with pytest.raises(RuntimeError, match="give folders with the sources"):
        archive.stanza_for("trixie", tmp_path)


def test_verdicts() -> None:
    """A complaint fails, a test that cannot be run is skipped, and both say why."""

    def complain() -> None:
        raise Failed("first\nlast")

    def skip() -> None:
        raise Skipped("no PSK")

    verdicts = [interop.judge("j", test) for test in (("a", complain), ("b", skip), ("c", lambda: None))]
    assert verdicts[1:] == [Verdict("j", "b", "skip", "no PSK"), Verdict("j", "c", "pass")]
    assert interop.table(verdicts) == (
        "| judge | test | result |\n|---|---|---|\n"
        "| j | a | FAIL (last) |\n| j | b | skip (no PSK) |\n| j | c | pass |\n"
    )


def test_a_tests_parameters() -> None:
    """Its temporary file is its own word, all others are strings."""
    assert interop.c_strings(["--file", "TMPFILE", 'a"b']) == '"--file", TMPFILE, "a\\"b"'
