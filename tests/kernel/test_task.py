"""Task flags and stat lines: any name parses, every bit has its name."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.kernel.flags import parse_flags
from ioflusher.kernel.task import (
    FLAGS,
    PF_IO_FLUSHER,
    PF_KTHREAD,
    PF_LOCAL_THROTTLE,
    PF_MEMALLOC_NOFS,
    PF_MEMALLOC_NOIO,
    PPID,
    STATE,
    TaskFlags,
    TaskStat,
    parse_stat,
    split_stat,
)

REAL = (
    b"14 (kworker/0:1H-kb) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 0 -20 1 0 9 0 0 18446744073709551615 "
    b"0 0 0 0 0 0 0 2147483647 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)


def test_a_recorded_line() -> None:
    """The fields of a real kernel worker's line come out by name."""
    stat = parse_stat(REAL)
    assert (stat.pid, stat.comm, stat.state, stat.ppid, stat.tpgid) == (14, b"kworker/0:1H-kb", "I", 2, -1)
    assert stat.flags == 69238880
    assert stat.flags & PF_KTHREAD
    assert stat.flags.names == (
        "PF_WQ_WORKER",
        "PF_FORKNOEXEC",
        "PF_NOFREEZE",
        "PF_KTHREAD",
        "PF_NO_SETAFFINITY",
    )


def numbered(fields: int) -> bytes:
    """A line of so many fields after the name, in which field N of proc(5) has the value 10 N."""
    numbers = b" ".join(b"%d" % (10 * number) for number in range(4, fields + 3))
    return b"20 (x y) S " + numbers + b"\n"


def test_every_field_is_taken_from_its_place() -> None:
    """Nine fields, and of the rest nice, the real-time priority and the policy."""
    expected = TaskStat(20, b"x y", "S", 40, 50, 60, 70, 80, TaskFlags(90), 190, 400, 410)
    assert parse_stat(numbered(50)) == expected
    name, fields = split_stat(numbered(50))
    assert (name, fields[STATE], fields[PPID], fields[FLAGS]) == (b"x y", b"S", b"40", b"90")


@pytest.mark.parametrize("fields", range(7, 45))
def test_a_line_may_end_early(fields: int) -> None:
    """Kernels print more and more fields: what a line does not have is 0, or None for the policy."""
    stat = parse_stat(numbered(fields))
    assert (stat.ppid, stat.flags) == (40, 90)
    assert stat.nice == (190 if fields > 16 else 0)
    assert (stat.rt_priority, stat.policy) == ((400, 410) if fields > 38 else (0, None))
    assert parse_flags(numbered(fields)) == 90


def test_what_a_record_is_without_the_rest() -> None:
    """An ordinary task of unknown policy."""
    bare = TaskStat(1, b"x", "S", 1, 1, 1, 0, -1, TaskFlags(0))
    assert (bare.nice, bare.rt_priority, bare.policy) == (0, 0, None)


@given(comm=st.binary(max_size=15).filter(lambda name: b"\0" not in name), flags=st.integers(0, 2**32 - 1))
def test_any_name_parses(comm: bytes, flags: int) -> None:
    """Spaces, parentheses, newlines and digits in a name never move a field."""
    stat = parse_stat(b"77 (%s) R 1 2 3 4 -1 %d 5 6 7\n" % (comm, flags))
    assert (stat.pid, stat.comm, stat.state, stat.flags) == (77, comm, "R", flags)


def test_text_and_bytes_mean_the_same() -> None:
    """A line read as text with surrogates gives the record of its bytes."""
    line = b"5 (\xff) ) S 1 1 1 0 -1 0 0\n"
    assert parse_stat(line.decode("utf-8", "surrogateescape")) == parse_stat(line)


@pytest.mark.parametrize(
    "line", [b"", b"1", b"1 (x)", b"1 (x) S 1 2 3 4 5", b"(x) S 1 2 3 4 5 6", b"1 (x) S 1 2 3 4 5 y"]
)
def test_a_line_that_is_none_is_refused(line: bytes) -> None:
    """Truncated or foreign text raises ValueError, never a half-right record."""
    with pytest.raises(ValueError, match=r"expected|invalid literal"):
        parse_stat(line)


@pytest.mark.parametrize(
    "line", [b"(x) S 1 2 3 4 5 6", b"1 )x( S 1 2 3 4 5 6", b"1 (x S 1 2 3 4 5 6", b"1 (x) S 1 2 3 4 5", b"S"]
)
def test_the_cheap_way_refuses_as_well(line: bytes) -> None:
    """The name must lie between parentheses after a number, and seven fields follow it."""
    with pytest.raises(ValueError, match="expected 'PID"):
        split_stat(line)


@pytest.mark.parametrize("parse", [parse_flags, split_stat])
def test_a_message_quotes_eighty_bytes(parse: Callable[[bytes], object]) -> None:
    """The beginning of what was found, and no more."""
    with pytest.raises(ValueError, match="found b'" + "x" * 80 + "'$"):
        parse(b"x" * 100)


@pytest.mark.live
def test_own_line() -> None:
    """This process's own line carries its number and its name."""
    stat = parse_stat(Path("/proc/self/stat").read_bytes())
    assert stat.pid == os.getpid()
    assert stat.comm == Path("/proc/self/comm").read_bytes().rstrip(b"\n")
    assert stat.state == "R"


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0, False),
        (PF_MEMALLOC_NOIO, False),
        (PF_LOCAL_THROTTLE, False),
        (PF_MEMALLOC_NOFS | PF_LOCAL_THROTTLE, False),
        (PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE, True),
        (0x001C0000, True),
    ],
)
def test_io_flusher_takes_both_bits(bits: int, expected: bool) -> None:
    """Only NOIO together with LOCAL_THROTTLE is the state."""
    assert TaskFlags(bits).io_flusher is expected


@pytest.mark.parametrize("others", [0, PF_KTHREAD, 0xFFFFFFFF & ~PF_IO_FLUSHER])
def test_half_of_the_state(others: int) -> None:
    """One of the two bits without the other, whatever else is set."""
    assert TaskFlags(others | PF_MEMALLOC_NOIO).half_set is True
    assert TaskFlags(others | PF_LOCAL_THROTTLE).half_set is True
    assert TaskFlags(others | PF_IO_FLUSHER).half_set is False
    assert TaskFlags(others).half_set is False
    assert TaskFlags(others).kernel_thread is bool(others)
    assert TaskFlags(others | PF_IO_FLUSHER).io_flusher is True


def test_flags_are_shown_as_the_kernel_writes_them() -> None:
    """Eight digits."""
    assert repr(TaskFlags(PF_KTHREAD)) == "TaskFlags(0x00200000)"


def test_unnamed_bits_show_as_numbers() -> None:
    """A bit that no header names is not hidden."""
    assert TaskFlags(0x00080000 | 0x40000000).names == ("PF_MEMALLOC_NOIO", "0x40000000")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        # from the headers of each release
        ((5, 7), ("PF_VCPU", "PF_MEMALLOC_NOFS", "PF_LESS_THROTTLE", "PF_SWAPWRITE", "PF_IO_WORKER")),
        ((5, 10), ("PF_IO_WORKER", "PF_MEMALLOC_NOFS", "PF_LOCAL_THROTTLE", "PF_SWAPWRITE", "0x20000000")),
        ((6, 1), ("PF_IO_WORKER", "PF_MEMALLOC_NOFS", "PF_LOCAL_THROTTLE", "0x00800000", "0x20000000")),
        ((3, 10), ("PF_VCPU", "PF_KSWAPD", "PF_LESS_THROTTLE", "PF_SWAPWRITE", "PF_MUTEX_TESTER")),
    ],
)
def test_names_go_with_the_kernel(version: tuple[int, int], expected: tuple[str, ...]) -> None:
    """A bit has the name that the kernel of that version gives it."""
    assert (
        TaskFlags(0x00000010 | 0x00040000 | 0x00100000 | 0x00800000 | 0x20000000).names_in(version)
        == expected
    )


@given(comm=st.binary(max_size=15).filter(lambda name: b"\0" not in name), flags=st.integers(0, 2**32 - 1))
def test_the_short_parser_agrees_with_the_long_one(comm: bytes, flags: int) -> None:
    """parse_flags finds what parse_stat finds, for any name."""
    line = b"77 (%s) R 1 2 3 4 -1 %d 5 6 7\n" % (comm, flags)
    assert parse_flags(line) == parse_stat(line).flags


def test_the_short_parser_refuses_what_is_no_line() -> None:
    """Truncated text raises, as in the long parser."""
    for line in (b"1 (x) S 1 2 3", b"1 (x) S 1 2 3 4 5"):
        with pytest.raises(ValueError, match="expected"):
            parse_flags(line)
