"""The table of what changed in which release of Linux."""

import re
from pathlib import Path

import pytest

from ioflusher.model.errors import ModelError
from ioflusher.model.versions import (
    BEGIN,
    CHANGES,
    END,
    KernelChange,
    change,
    holds,
    parse_version,
    table_markdown,
)

ROOT = Path(__file__).parent.parent.parent


def test_the_document_has_the_table() -> None:
    """docs/model.md is up to date: run tools/model-versions after a change."""
    text = (ROOT / "docs" / "model.md").read_text()
    assert text.partition(BEGIN)[2].partition(END)[0] == f"\n\n{table_markdown()}\n"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("6.12.117", (6, 12)),
        ("5.8.0-63-generic", (5, 8)),
        ("6.12.12+bpo-cloud-amd64", (6, 12)),
        ("5.6", (5, 6)),
        ("v6.16-rc1", (6, 16)),
        ("Linux 7.3.4", (7, 3)),
    ],
)
def test_releases_are_read(text: str, version: tuple[int, int]) -> None:
    """As `uname -r`, a tag, or a person writes them."""
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "6", "six", "6.", "6.1234", "-5.8", "5,8", "5.x"])
def test_what_is_no_release_is_refused(text: str) -> None:
    """The message has the text and says what was expected."""
    with pytest.raises(ModelError, match="no release of Linux") as caught:
        parse_version(text)
    assert caught.value.hint is not None
    assert "6.12" in caught.value.hint


def test_a_misspelt_name_is_told_the_right_one() -> None:
    """Names are strings: a wrong one is never taken for False."""
    with pytest.raises(ModelError, match="no change 'xfs_reclaim_wait'") as caught:
        holds("xfs_reclaim_wait", "5.8")
    assert caught.value.hint == "did you mean xfs_reclaim_waits?"


@pytest.mark.parametrize(
    ("name", "last_without", "first_with"),
    [
        ("prctl_io_flusher", "5.5", "5.6"),
        ("local_throttle", "5.7", "5.8"),
        ("reclaim_throttle", "5.15", "5.16"),
        ("ublk", "5.19", "6.0"),
        ("mglru", "6.0", "6.1"),
    ],
)
def test_what_came(name: str, last_without: str, first_with: str) -> None:
    """It holds from its release on, and goes on to hold."""
    assert not holds(name, last_without)
    assert holds(name, first_with)
    assert holds(name, (99, 0))


@pytest.mark.parametrize(
    ("name", "last_with", "first_without"),
    [
        ("xfs_reclaim_waits", "5.8.0-63-generic", "5.9"),
        ("xfs_reclaim_writes_file_pages", "5.19", "6.0"),
        ("reclaim_writes_file_pages", "6.15", "6.16"),
        ("fuse_temp_pages", "6.15", "6.16"),
    ],
)
def test_what_went(name: str, last_with: str, first_without: str) -> None:
    """It holds from the beginning up to its release, and not in it."""
    assert holds(name, "2.6")
    assert holds(name, last_with)
    assert not holds(name, first_without)


def test_what_came_and_went() -> None:
    """Both bounds of a row count."""
    found = [holds("memalloc_noreclaim_flags", (6, minor)) for minor in (8, 9, 11, 12)]
    assert found == [False, True, True, False]


def test_a_stable_series_that_got_a_change() -> None:
    """Of 6.1 the newest stable kernel counts, of 6.2 there is none but mainline's."""
    assert [holds("rt_half_reserve", f"{series}.0") for series in ("5.10", "6.1", "6.2", "6.3")] == [
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("row", CHANGES, ids=lambda row: row.name)
def test_each_row_is_whole(row: KernelChange) -> None:
    """A name for code, a sentence, a file of the kernel, and commits that can be looked up."""
    assert change(row.name) is row
    assert re.fullmatch(r"[a-z][a-z0-9_]+", row.name)
    assert row.what.endswith(".")
    assert re.fullmatch(r"[\w/.-]+\.[ch]", row.source)
    assert row.since or row.before
    assert row.since is None or row.before is None or row.since < row.before
    assert row.commits
    for commit in row.commits:
        assert re.fullmatch(r"[0-9a-f]{12}", commit.hash)
        assert commit.subject
    assert row.verified in ("source", "commit", "")


def test_names_and_commits_are_unique() -> None:
    """A name means one row; a commit stands in one row."""
    names = [row.name for row in CHANGES]
    commits = [commit.hash for row in CHANGES for commit in row.commits]
    assert len(set(names)) == len(names)
    assert len(set(commits)) == len(commits)
