"""Texts of /proc that the injection reads: maps, status, syscall; and wait statuses of traced threads."""

import os
import signal
from pathlib import Path

import pytest

from ioflusher.kernel.blocked import parse_syscall
from ioflusher.kernel.maps import Mapping, parse_maps
from ioflusher.kernel.ptrace import PTRACE_EVENT_STOP, Stop, StopReport, parse_wait_status
from ioflusher.kernel.status import parse_status

MAPS = b"""\
55d0c8a00000-55d0c8a02000 r-xp 00002000 fe:01 1234  /usr/bin/a program with spaces
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
7ffd1b5f2000-7ffd1b5f4000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_maps() -> None:
    """Addresses, permissions and paths, with spaces in a path and without a path."""
    program, memory, vdso, vsyscall = parse_maps(MAPS)
    path = b"/usr/bin/a program with spaces"
    assert program == Mapping(0x55D0C8A00000, 0x55D0C8A02000, "r-xp", path, "254:1")
    assert program.executable
    assert memory.path == b""
    assert not memory.executable
    assert (vdso.path, vsyscall.end) == (b"[vdso]", 0xFFFFFFFFFF601000)


@pytest.mark.parametrize(
    "text", [b"rubbish\n", b"1-2 r-x 0 0:0 0\n", b"zz-2 r-xp 0 0:0 0\n", b"12 r-xp 0 0:0 0\n"]
)
def test_maps_refuses_other_text(text: bytes) -> None:
    """A line of another form is an error."""
    with pytest.raises(ValueError, match=r"expected|invalid literal"):
        parse_maps(text)


@pytest.mark.live
def test_maps_of_this_process() -> None:
    """Every line parses, and the stack is where the kernel says."""
    mappings = parse_maps(Path("/proc/self/maps").read_bytes())
    assert any(mapping.path == b"[stack]" for mapping in mappings)
    assert all(mapping.start < mapping.end for mapping in mappings)


STATUS = b"""\
Name:\tevil
Umask:\t0022
State:\tS (sleeping)
Tgid:\t70
Pid:\t71
TracerPid:\t5
Uid:\t0\t0\t0\t0
SigPnd:\t0000000000000001
ShdPnd:\t0000000000000200
SigBlk:\t0000000000000001
SigCgt:\t0000000000000201
CapEff:\t0000000001000000
Seccomp:\t2
"""


def test_status() -> None:
    """The lines that matter, among others."""
    status = parse_status(STATUS)
    assert (status.state, status.tgid, status.tracer_pid, status.seccomp) == ("S", 70, 5, 2)
    assert status.capabilities.effective == 1 << 24
    assert status.catches(signal.SIGUSR1)
    assert not status.catches(signal.SIGUSR2)
    assert status.handler_waits


def test_a_blocked_or_uncaught_signal_runs_no_handler() -> None:
    """Only pending, caught and not blocked counts."""
    none_pending = STATUS.replace(b"ShdPnd:\t0000000000000200", b"ShdPnd:\t0000000000000000")
    assert not parse_status(none_pending).handler_waits
    uncaught = STATUS.replace(b"SigCgt:\t0000000000000201", b"SigCgt:\t0000000000000001")
    assert not parse_status(uncaught).handler_waits


def test_status_without_seccomp_is_an_old_kernel() -> None:
    """A kernel without the line has no filters."""
    assert parse_status(STATUS.replace(b"Seccomp:\t2\n", b"")).seccomp == 0


def test_a_name_cannot_forge_a_line() -> None:
    """The kernel escapes newlines in names; a name with a colon stays on its line."""
    assert parse_status(STATUS.replace(b"evil", b"x\\nTracerPid:\\t0")).tracer_pid == 5


def test_status_refuses_other_text() -> None:
    """Text without the needed lines is an error."""
    with pytest.raises(ValueError, match="expected lines"):
        parse_status(b"Name:\tx\n")


def test_syscall() -> None:
    """A blocked thread's call; a thread that runs or waits outside of a call has none."""
    blocked = parse_syscall(b"16 0x3 0xab03 0x0 0x0 0x0 0x0 0x7ffe12 0x7f34\n")
    assert blocked is not None
    assert (blocked.number, blocked.arguments[:2]) == (16, (3, 0xAB03))
    assert (blocked.stack, blocked.address) == (0x7FFE12, 0x7F34)
    assert parse_syscall(b"running\n") is None
    assert parse_syscall(b"-1 0x7ffe12 0x7f34\n") is None
    with pytest.raises(ValueError, match="expected"):
        parse_syscall(b"16 0x3\n")


@pytest.mark.parametrize(
    ("status", "report"),
    [
        (0x0000, StopReport(Stop.GONE)),  # exited
        (0x0009, StopReport(Stop.GONE)),  # killed
        (PTRACE_EVENT_STOP << 16 | signal.SIGTRAP << 8 | 0x7F, StopReport(Stop.TRAP)),
        (
            PTRACE_EVENT_STOP << 16 | signal.SIGSTOP << 8 | 0x7F,
            StopReport(Stop.TRAP),
        ),  # stopped with its process
        ((signal.SIGTRAP | 0x80) << 8 | 0x7F, StopReport(Stop.SYSCALL)),
        (signal.SIGTRAP << 8 | 0x7F, StopReport(Stop.SIGNAL, signal.SIGTRAP)),  # a real one
        (signal.SIGUSR1 << 8 | 0x7F, StopReport(Stop.SIGNAL, signal.SIGUSR1)),
        (1 << 16 | signal.SIGTRAP << 8 | 0x7F, StopReport(Stop.OTHER)),
    ],
)
def test_wait_statuses(status: int, report: StopReport) -> None:
    """What a seized thread reports is told apart."""
    assert os.WIFSTOPPED(status) is (report.stop is not Stop.GONE)
    assert parse_wait_status(status) == report
