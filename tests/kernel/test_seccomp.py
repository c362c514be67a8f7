"""Seccomp filters judged in Python as the kernel judges them."""

import ctypes
import os
import struct
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.kernel.seccomp import Action, Instruction, SeccompData, judge, parse_filter, run

X86_64 = 0xC000003E
PRCTL = 157

LOAD_NUMBER = Instruction(0x20, 0, 0, 0)
LOAD_ARCH = Instruction(0x20, 0, 0, 4)
ALLOW = Instruction(0x06, 0, 0, Action.ALLOW.value)


def unless(number: int, answer: int) -> list[Instruction]:
    """Allow everything but the system call `number`."""
    return [LOAD_NUMBER, Instruction(0x15, 0, 1, number), Instruction(0x06, 0, 0, answer), ALLOW]


@pytest.mark.parametrize("action", Action)
def test_every_action(action: Action) -> None:
    """A filter's answer comes out, its 16 bits of data aside; other calls pass."""
    program = unless(PRCTL, action.value | 13)
    assert judge([program], SeccompData(PRCTL, X86_64)) is action
    assert judge([program], SeccompData(PRCTL + 1, X86_64)) is Action.ALLOW


def test_the_strictest_filter_counts() -> None:
    """KILL_PROCESS beats KILL_THREAD beats ERRNO beats ALLOW, in any order; no filter allows."""
    errno, thread, process = (
        unless(PRCTL, action.value) for action in (Action.ERRNO, Action.KILL_THREAD, Action.KILL_PROCESS)
    )
    assert judge([errno, thread], SeccompData(PRCTL, X86_64)) is Action.KILL_THREAD
    assert judge([process, errno, thread], SeccompData(PRCTL, X86_64)) is Action.KILL_PROCESS
    assert judge([], SeccompData(PRCTL, X86_64)) is Action.ALLOW


def test_an_unknown_action_kills() -> None:
    """As in the kernel, what is not known is the worst."""
    assert judge([[Instruction(0x06, 0, 0, 0x12340000)]], SeccompData(PRCTL, X86_64)) is Action.KILL_PROCESS


def test_arguments_are_seen() -> None:
    """A filter may look at an argument, low and high half."""
    program = [
        Instruction(0x20, 0, 0, 16),  # low half of argument 0
        Instruction(0x15, 0, 3, 57),
        Instruction(0x20, 0, 0, 28),  # high half of argument 1
        Instruction(0x15, 0, 1, 2),
        Instruction(0x06, 0, 0, Action.ERRNO.value),
        ALLOW,
    ]
    assert judge([program], SeccompData(PRCTL, X86_64, (57, 2 << 32))) is Action.ERRNO
    assert judge([program], SeccompData(PRCTL, X86_64, (57, 1))) is Action.ALLOW
    assert judge([program], SeccompData(PRCTL, X86_64, (58, 2 << 32))) is Action.ALLOW


def test_arithmetic_memory_and_jumps() -> None:
    """Every instruction that a filter may hold does what classic BPF says."""
    data = SeccompData(10, X86_64).data()
    program = [
        LOAD_NUMBER,  # A = 10
        Instruction(0x02, 0, 0, 3),  # M[3] = 10
        Instruction(0x61, 0, 0, 3),  # X = M[3]
        Instruction(0x0C, 0, 0, 0),  # A += X: 20
        Instruction(0x24, 0, 0, 3),  # A *= 3: 60
        Instruction(0x34, 0, 0, 7),  # A /= 7: 8
        Instruction(0x64, 0, 0, 4),  # A <<= 4: 128
        Instruction(0x74, 0, 0, 1),  # A >>= 1: 64
        Instruction(0x44, 0, 0, 3),  # A |= 3: 67
        Instruction(0x54, 0, 0, 0x42),  # A &= 0x42: 66
        Instruction(0xA4, 0, 0, 1),  # A ^= 1: 67
        Instruction(0x84, 0, 0, 0),  # A = -A
        Instruction(0x14, 0, 0, 1),  # A -= 1
        Instruction(0x07, 0, 0, 0),  # X = A
        Instruction(0x00, 0, 0, 5),  # A = 5
        Instruction(0x87, 0, 0, 0),  # A = X
        Instruction(0x05, 0, 0, 1),  # skip one
        Instruction(0x06, 0, 0, 0),
        Instruction(0x25, 0, 1, 0xFFFFFFBB),  # A > -69: -68 is
        Instruction(0x16, 0, 0, 0),  # return A
        Instruction(0x06, 0, 0, 1),
    ]
    assert run(program, data) == (-68) & 0xFFFFFFFF


@pytest.mark.parametrize(
    "program",
    [[LOAD_NUMBER], [Instruction(0x30, 0, 0, 0), ALLOW], [Instruction(0x34, 0, 0, 0), ALLOW], []],
)
def test_programs_that_the_kernel_refuses(program: Sequence[Instruction]) -> None:
    """Without an end, with a byte load, with a division by zero: an error, never a wrong answer."""
    with pytest.raises(ValueError, match="filter"):
        run(program, SeccompData(1, X86_64).data())


@given(st.lists(st.tuples(*[st.integers(0, limit) for limit in (0xFFFF, 255, 255, 0xFFFFFFFF)])))
def test_programs_parse_as_they_are_packed(fields: list[tuple[int, int, int, int]]) -> None:
    """parse_filter reads back any array of struct sock_filter."""
    packed = b"".join(struct.pack("=HBBI", *f) for f in fields)
    assert parse_filter(packed) == tuple(Instruction(*f) for f in fields)


def kernel_says(program: Sequence[Instruction], calls: Sequence[int]) -> list[int]:
    """The results of getppid-like calls in a child under the real filter: 0 allowed, else the errno."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            packed = b"".join(struct.pack("=HBBI", i.code, i.jt, i.jf, i.k) for i in program)
            array = ctypes.create_string_buffer(packed, len(packed))

            class Program(ctypes.Structure):
                _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

            fprog = Program(len(program), ctypes.addressof(array))
            assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
            assert libc.prctl(22, 2, ctypes.byref(fprog), 0, 0) == 0  # PR_SET_SECCOMP, filter
            results = [ctypes.get_errno() if libc.syscall(number, 0, 0, 0) == -1 else 0 for number in calls]
            os.write(write_end, struct.pack(f"={len(calls)}i", *results))
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        answer = file.read()
    os.waitpid(child, 0)
    return list(struct.unpack(f"={len(calls)}i", answer))


@pytest.mark.live
@pytest.mark.skipif(os.uname().machine != "x86_64" or sys.platform != "linux", reason="numbers of x86-64")
def test_the_kernel_agrees() -> None:
    """For a filter with jumps and arithmetic, a child under it gets what we foretell, call by call."""
    calls = [39, 102, 104, 107, 108, 110, 111]  # getpid, getuid, getgid, geteuid, getegid, getppid, getpgrp
    program = [
        LOAD_ARCH,
        Instruction(0x15, 0, 6, X86_64),
        LOAD_NUMBER,
        Instruction(0x54, 0, 0, 1),  # A &= 1
        Instruction(0x15, 0, 3, 0),  # odd numbers pass, write and exit_group among them
        LOAD_NUMBER,
        Instruction(0x35, 0, 1, 108),
        Instruction(0x06, 0, 0, Action.ERRNO.value | 99),
        ALLOW,
    ]
    foretold = [99 if judge([program], SeccompData(n, X86_64)) is Action.ERRNO else 0 for n in calls]
    assert set(foretold) == {0, 99}
    assert kernel_says(program, calls) == foretold
