"""The table of kernel functions is well-formed and finds what it should."""

from collections import Counter

import pytest

from ioflusher.kernlog.stacks.roles import Role, RoleTableError, all_rows, parse_table, role_of


def test_no_function_has_two_rows() -> None:
    """A second row for a pattern would be dead."""
    doubles = [pattern for pattern, count in Counter(row.pattern for row in all_rows()).items() if count > 1]
    assert not doubles


def test_a_star_stands_at_the_end_only() -> None:
    """The look-up knows prefixes and nothing else."""
    assert all("*" not in row.pattern[:-1] for row in all_rows())


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


@pytest.mark.parametrize("line", ["f block - -", "f swimming - - it swims"])
def test_a_bad_line_is_named(line: str) -> None:
    """Whoever adds a line learns which one is wrong, and why."""
    with pytest.raises(RoleTableError, match=r"t:2: expected .* found"):
        parse_table("# head\n" + line, "t")
