"""The table of kernel functions is well-formed and finds what it should."""

from collections import Counter

import pytest

from ioflusher.kernlog.reading.frames import Frame
from ioflusher.kernlog.stacks.anatomy import Step
from ioflusher.kernlog.stacks.roles import (
    Role,
    RoleTableError,
    all_rows,
    named_after,
    parse_table,
    role_of,
    tagged_rows,
)
from ioflusher.kernlog.stacks.things import Thing, Verb


def test_no_function_has_two_rows() -> None:
    """A second row with a role for a pattern would be dead; so would a second one of tags alone."""
    for rows in ([r for r in all_rows() if r.role], [r for r in all_rows() if r.role is None]):
        assert [pattern for pattern, count in Counter(row.pattern for row in rows).items() if count > 1] == []


def test_a_star_stands_where_the_look_up_knows_it() -> None:
    """At one end, either; a row of any subsystem's functions by the end of their names belongs to none."""
    assert all(row.part is None for row in all_rows() if row.pattern.startswith("*"))
    assert all(row.pattern.count("*") <= 1 and "*" not in row.pattern[1:-1] for row in all_rows())


def test_tags_of_all_rows_that_fit_count() -> None:
    """A function has the tags of its own row and of every row that only adds some."""
    assert [row.pattern for row in tagged_rows("evict")] == ["evict"]
    assert [row.pattern for row in tagged_rows("ext4_file_write_iter.cold")] == ["*_file_write_iter"]
    assert tagged_rows("no_such_function") == ()
    evict = Step(Frame("evict", 1, 2, None, True), role_of("evict"))
    assert evict.does(Verb.HOLDS, Thing.INODE)
    assert evict.does(Verb.FREES, Thing.INODE)
    assert not evict.does(Verb.WAITS, Thing.INODE)


@pytest.mark.parametrize(
    ("function", "role"),
    [
        ("try_to_free_pages", Role.DIRECT_RECLAIM),
        ("shrink_slab.part.40", Role.SHRINKER),
        ("fuse_dev_do_read", Role.IDLE),
        ("fuse_dev_write", Role.USER_FS_DAEMON),
        ("fuse_readpages", Role.USER_FS),
        ("tcp_sendmsg_locked", Role.NETWORK),
        ("__alloc_pages_slowpath.constprop.136", Role.ALLOCATION),
    ],
)
def test_the_nearest_row_wins(function: str, role: Role) -> None:
    """A whole name beats a prefix, a longer prefix a shorter one, suffixes do not count."""
    row = role_of(function)
    assert row
    assert row.role is role


def test_an_unknown_function_has_no_row() -> None:
    """Nothing is guessed."""
    assert role_of("no_such_function") is None


@pytest.mark.parametrize(
    "line",
    [
        "f block - -",
        "f swimming - - it swims",
        "f block,holds:nothing - - it",
        "f block,has:page - - it",
        "f - - - no role and no tag",
    ],
)
def test_a_bad_line_is_named(line: str) -> None:
    """Whoever adds a line learns which one is wrong, and why."""
    with pytest.raises(RoleTableError, match=r"t:2: expected .* found"):
        parse_table("# head\n" + line, "t")


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("frob_evict_inode", "frob"),
        ("__frob_wait", "frob"),
        ("z_erofs_endio", "erofs"),
        ("a_b_endio", None),  # a letter is no name
        ("frob", None),
        ("wait_for_frob", None),
    ],
)
def test_a_function_is_named_after_its_subsystem(function: str, name: str | None) -> None:
    """By the first word that stands for one."""
    assert named_after(function) == name
