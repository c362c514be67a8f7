"""States of the device mapper's targets, as the kernel tells them."""

import struct

import pytest

from ioflusher.kernel.dm import (
    DM_NOFLUSH_FLAG,
    DM_SECURE_DATA_FLAG,
    DM_STATUS_TABLE_FLAG,
    ask_status,
    parse_multipath_state,
    parse_queues_without_path,
    parse_states,
)

# drivers/md/dm-mpath.c: two groups of two and one paths, service-time with two words a path
TWO_GROUPS = "2 0 0 0 2 1 E 0 2 2 8:0 F 1 0 1 8:16 F 2 0 1 A 0 1 2 8:32 A 0 0 1 "
LOST = "2 0 1 0 1 1 E 0 2 2 8:0 F 1 0 1 8:16 F 1 0 1 "


def answer(*targets: tuple[str, str]) -> bytearray:
    """A DM_TABLE_STATUS answer with these targets and states."""
    found = bytearray(4096)
    ask_status(found, "mpatha")
    struct.pack_into("=I", found, 20, len(targets))  # target_count
    start = at = struct.unpack_from("=I", found, 16)[0]
    for kind, state in targets:
        text = state.encode() + b"\0"
        following = at + 40 + len(text) + -len(text) % 8 - start
        found[at : at + 40 + len(text)] = struct.pack("=QQiI16s", 0, 8, 0, following, kind.encode()) + text
        at = start + following
    return found


def test_states_of_all_targets_come_back() -> None:
    """Each with its type, in order."""
    assert parse_states(answer(("multipath", LOST), ("linear", ""))) == (("multipath", LOST), ("linear", ""))


def test_a_request_may_be_used_again() -> None:
    """For another device, and for the table; what the last answer left in the header is gone."""
    request = answer(("multipath", LOST))
    ask_status(request, "b", table=True)
    assert request[48:54] == b"b\0\0\0\0\0"
    assert struct.unpack_from("=II", request, 20) == (0, 0)  # target_count, open_count
    flags = DM_NOFLUSH_FLAG | DM_STATUS_TABLE_FLAG | DM_SECURE_DATA_FLAG
    assert struct.unpack_from("=I", request, 28) == (flags,)
    ask_status(request, "mpatha")
    assert struct.unpack_from("=I", request, 28) == (DM_NOFLUSH_FLAG,)
    assert request[48:55] == b"mpatha\0"


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        ("1 queue_if_no_path 0 1 1 service-time 0 2 2 8:0 1 1 8:16 1 1", True),
        ("3 pg_init_retries 50 queue_if_no_path 1 alua 1 1 service-time 0 1 2 8:0 1 1", True),
        ("0 0 1 1 service-time 0 2 2 8:0 1 1 8:16 1 1", False),
        ("0 1 queue_if_no_path 0 0", False),  # the name of a hardware handler
    ],
)
def test_whether_it_keeps_requests_without_a_path(text: str, keeps: bool) -> None:
    """As its features say, and nothing behind them."""
    assert parse_queues_without_path(text) is keeps


@pytest.mark.parametrize("text", ["", "x queue_if_no_path"])
def test_what_are_no_arguments_of_multipath(text: str) -> None:
    """Nothing, or something else."""
    with pytest.raises(ValueError, match=r"without arguments|invalid literal"):
        parse_queues_without_path(text)


def test_which_paths_are_in_use() -> None:
    """Over groups, whatever words the selector has."""
    assert parse_multipath_state(TWO_GROUPS) == (False, False, True)
    assert parse_multipath_state(LOST) == (False, False)
    assert parse_multipath_state("3 queue_mode bio 1 1 alua 1 1 A 0 1 0 8:0 A 0") == (True,)
    assert parse_multipath_state("2 0 0 0 0 0") == ()


@pytest.mark.parametrize("text", ["", "2 0", "x", LOST.rsplit(maxsplit=2)[0]])
def test_what_is_no_state(text: str) -> None:
    """Cut off, or something else."""
    with pytest.raises(ValueError, match=r"cut off|invalid literal"):
        parse_multipath_state(text)
