"""States of the device mapper's targets, as the kernel tells them."""

import struct

import pytest

from ioflusher.kernel.dm import parse_multipath_state, parse_states, status_request

# drivers/md/dm-mpath.c: two groups of two and one paths, service-time with two words a path
TWO_GROUPS = "2 0 0 0 2 1 E 0 2 2 8:0 F 1 0 1 8:16 F 2 0 1 A 0 1 2 8:32 A 0 0 1 "
LOST = "2 0 1 0 1 1 E 0 2 2 8:0 F 1 0 1 8:16 F 1 0 1 "


def answer(*targets: tuple[str, str]) -> bytearray:
    """A DM_TABLE_STATUS answer with these targets and states."""
    found = status_request("mpatha", 4096)
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
    assert status_request("mpatha", 4096)[48:54] == b"mpatha"


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
