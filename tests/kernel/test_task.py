"""Task flags and stat lines: any name parses, every bit has its name."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.kernel.task import Bits, Policy, Thread, parse_parent, parse_session, parse_stat
from ioflusher.kernel.task_flags import (
    PF_IO_FLUSHER,
    PF_KTHREAD,
    PF_LOCAL_THROTTLE,
    PF_MEMALLOC_NOFS,
    PF_MEMALLOC_NOIO,
    TaskFlags,
    parse_flags,
)

REAL = (
    b"14 (kworker/0:1H-kb) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 0 -20 1 0 9 0 0 18446744073709551615 "
    b"0 0 0 0 0 0 0 2147483647 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)


def test_a_recorded_line() -> None:
    """The fields of a real kernel worker's line come out by name."""
    thread = parse_stat(REAL)
    assert thread == Thread(14, "kworker/0:1H-kb", "I", 69238880, Policy.OTHER, 0, -20)
    assert parse_parent(REAL) == 2
    assert thread.kernel_thread
    assert TaskFlags(thread.flags).names == (
        "PF_WQ_WORKER",
        "PF_FORKNOEXEC",
        "PF_NOFREEZE",
        "PF_KTHREAD",
        "PF_NO_SETAFFINITY",
    )


def numbered(fields: int) -> bytes:
    """A line of so many fields after the name, in which field N of proc(5) has the value 10 N; 41 has 2."""
    numbers = b" ".join(b"2" if number == 41 else b"%d" % (10 * number) for number in range(4, fields + 3))
    return b"20 (x y) S " + numbers + b"\n"


def test_every_field_is_taken_from_its_place() -> None:
    """Number, name, state and flags, and of the rest nice, the real-time priority and the policy."""
    assert parse_stat(numbered(50)) == Thread(20, "x y", "S", 90, Policy.RR, 400, 190)
    assert parse_parent(numbered(50)) == 40
    assert parse_session(numbered(50)) == 60


@pytest.mark.parametrize("fields", range(7, 45))
def test_a_line_may_end_early(fields: int) -> None:
    """Kernels print more and more fields: what a line does not have is 0, or unknown for the policy."""
    thread = parse_stat(numbered(fields))
    assert (thread.tid, thread.flags) == (20, 90)
    assert thread.nice == (190 if fields > 16 else 0)
    assert thread.priority == (400 if fields > 37 else 0)
    assert thread.policy is (Policy.RR if fields > 38 else Policy.UNKNOWN)
    assert parse_flags(numbered(fields)) == 90


@pytest.mark.parametrize(
    ("state", "ended"), [("Z", True), ("X", True), ("S", False), ("D", False), ("t", False)]
)
def test_the_dead(state: str, ended: bool) -> None:
    """A zombie and a task that is being removed run no more; one that sleeps or is traced will."""
    assert Thread(1, "x", state, 0).ended is ended


@pytest.mark.parametrize(
    ("flags", "kernel_worker", "kernel_thread"),
    [
        (0, False, False),
        (0x00400140, False, False),
        (0x00000010, True, False),  # PF_IO_WORKER
        (0x00004000, True, False),  # PF_USER_WORKER
        (0x00404050, True, False),
        (0x00200000, False, True),  # PF_KTHREAD
    ],
)
def test_whom_the_kernel_runs(flags: int, kernel_worker: bool, kernel_thread: bool) -> None:
    """A worker of the kernel for a process, or a thread of its own; no other bit says so."""
    thread = Thread(1, "x", "S", flags)
    assert (thread.kernel_worker, thread.kernel_thread) == (kernel_worker, kernel_thread)


def test_what_a_record_is_without_the_rest() -> None:
    """An ordinary task of unknown policy."""
    bare = Thread(1, "x", "S", 0)
    assert (bare.nice, bare.priority, bare.policy) == (0, 0, Policy.UNKNOWN)


@given(comm=st.binary(max_size=15).filter(lambda name: b"\0" not in name), flags=st.integers(0, 2**32 - 1))
def test_any_name_parses(comm: bytes, flags: int) -> None:
    """Spaces, parentheses, newlines and digits in a name never move a field."""
    line = b"77 (%s) R 1 2 3 4 -1 %d 5 6 7\n" % (comm, flags)
    thread = parse_stat(line)
    name = comm.decode("utf-8", "backslashreplace")
    assert (thread.tid, thread.comm, thread.state, thread.flags) == (77, name, "R", flags)
    assert parse_parent(line) == 1


@pytest.mark.parametrize(
    ("flags", "bits"),
    [
        (0x180000, Bits.BOTH),
        (0x1C0000, Bits.BOTH),
        (0x80000, Bits.ONE),
        (0x140000, Bits.ONE),
        (0x40000, Bits.NONE),
    ],
)
def test_how_much_of_the_state(flags: int, bits: Bits) -> None:
    """Both bits are the state, one is half of it (FUSE sets LOCAL_THROTTLE and NOFS), others do not count."""
    thread = Thread(1, "x", "S", flags)
    assert thread.bits is bits
    assert (thread.io_flusher, thread.half_set) == (bits is Bits.BOTH, bits is Bits.ONE)


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
def test_the_name_lies_between_parentheses(line: bytes) -> None:
    """A number before them, and seven fields behind."""
    with pytest.raises(ValueError, match="expected 'PID"):
        parse_stat(line)


@pytest.mark.parametrize("line", [b"", b"1", b"1 (x)", b"1 (x) S", b"1 (x) S y"])
def test_a_line_without_a_parent(line: bytes) -> None:
    """What is cut off before the field raises ValueError."""
    with pytest.raises(ValueError, match=r"expected|invalid literal"):
        parse_parent(line)


@pytest.mark.parametrize("parse", [parse_flags, parse_stat, parse_parent])
def test_a_message_quotes_eighty_bytes(parse: Callable[[bytes], object]) -> None:
    """The beginning of what was found, and no more."""
    with pytest.raises(ValueError, match="found b'" + "x" * 80 + "'$"):
        parse(b"x" * 100)


@pytest.mark.live
def test_own_line() -> None:
    """This process's own line carries its number and its name."""
    line = Path("/proc/self/stat").read_bytes()
    thread = parse_stat(line)
    assert thread.tid == os.getpid()
    assert parse_parent(line) == os.getppid()
    assert thread.comm == Path("/proc/self/comm").read_text().rstrip("\n")
    assert thread.state == "R"


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
