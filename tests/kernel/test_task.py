"""Task flags and stat lines: any name parses, every bit has its name."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.kernel.flags import parse_flags
from ioflusher.kernel.task import (
    PF_KTHREAD,
    PF_LOCAL_THROTTLE,
    PF_MEMALLOC_NOFS,
    PF_MEMALLOC_NOIO,
    TaskFlags,
    parse_stat,
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
    with pytest.raises(ValueError, match="expected"):
        parse_flags(b"1 (x) S 1 2 3")
