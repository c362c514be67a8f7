"""Texts of /proc about a process that a snapshot reads: stat's later fields, status, fdinfo, cgroup."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.kernel.cgroup import Membership, parse_cgroup, parse_limit
from ioflusher.kernel.fdinfo import O_APPEND, FdInfo, parse_fdinfo
from ioflusher.kernel.meminfo import meminfo_lines, parse_meminfo
from ioflusher.kernel.status import parse_status
from ioflusher.kernel.task import Policy, parse_stat

NAMES = st.binary(max_size=15).filter(lambda name: b"\0" not in name)

STAT = (
    b"%d (%s) S 1 812 812 0 -1 4194624 500 0 0 0 1 2 0 0 %d %d 3 0 9 0 0 18446744073709551615 "
    b"0 0 0 0 0 0 0 2147483647 0 0 0 0 17 1 %d %d 0 0 0 0 0 0 0 0 0 0 0\n"
)


# include/uapi/linux/sched.h
POLICIES = {
    0: Policy.OTHER,
    1: Policy.FIFO,
    2: Policy.RR,
    3: Policy.BATCH,
    5: Policy.IDLE,
    6: Policy.DEADLINE,
    7: Policy.EXT,
}


@given(
    comm=NAMES,
    nice=st.integers(-20, 19),
    priority=st.integers(0, 99),
    policy=st.integers(0, 9),
)
def test_scheduling_stands_in_its_fields(comm: bytes, nice: int, priority: int, policy: int) -> None:
    """Nice value, real-time priority and policy come out whatever the name holds."""
    thread = parse_stat(STAT % (812, comm, 20 + nice, nice, priority, policy))
    assert (thread.nice, thread.priority, thread.policy) == (
        nice,
        priority,
        POLICIES.get(policy, Policy.UNKNOWN),
    )
    assert thread.comm == comm.decode("utf-8", "backslashreplace")


def test_a_short_line_has_no_policy() -> None:
    """A line that ends early says that the policy is unknown, not that it is SCHED_OTHER."""
    thread = parse_stat(b"1 (x) S 0 1 1 0 -1 0 0")
    assert (thread.policy, thread.priority, thread.nice) == (Policy.UNKNOWN, 0, 0)
    whole = STAT % (1, b"x", 25, 5, 0, 3)
    cut = whole[: whole.rindex(b" 1 0 3 ")]  # before field 40
    assert (parse_stat(whole).policy, parse_stat(whole).nice) == (Policy.BATCH, 5)
    assert (parse_stat(cut).policy, parse_stat(cut).nice) == (Policy.UNKNOWN, 5)


@pytest.mark.live
def test_scheduling_of_this_process() -> None:
    """The fields agree with what the system calls say."""
    thread = parse_stat(Path("/proc/thread-self/stat").read_bytes())
    assert thread.policy is POLICIES[os.sched_getscheduler(0)]
    assert thread.nice == os.nice(0)


STATUS = (
    b"Name:\tnbd \\n) Uid:\t7\t7\t7\t7\nState:\tS (sleeping)\nTgid:\t812\nPid:\t812\nTracerPid:\t0\n"
    b"Uid:\t1000\t0\t0\t0\nGid:\t0\t0\t0\t0\nVmSize:\t   20000 kB\n"
    b"VmLck:\t    2048 kB\nVmRSS:\t    9000 kB\nVmSwap:\t      12 kB\n"
    b"CapInh:\t0000000000000000\nCapPrm:\t0000000001004000\nCapEff:\t0000000001004000\n"
    b"CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n"
)


def test_a_recorded_status() -> None:
    """The effective user, memory and capabilities; a name with a field's word in it forges nothing."""
    status = parse_status(STATUS)
    assert (status.uid, status.locked_kib, status.resident_kib, status.swapped_kib) == (0, 2048, 9000, 12)
    assert status.virtual_kib == 20000
    assert status.capabilities.effective == 1 << 24 | 1 << 14


def test_a_kernel_thread_has_no_memory() -> None:
    """Lines that are not there are unknown, not zero."""
    bare = b"".join(line for line in STATUS.splitlines(True) if not line.startswith(b"Vm"))
    status = parse_status(bare)
    assert (status.locked_kib, status.resident_kib, status.swapped_kib) == (None, None, None)
    assert status.virtual_kib is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"Name:\tx\n",
        STATUS.replace(b"1000\t0", b"x\ty"),
        STATUS.replace(b"1000\t0\t0", b"1000\t0"),
        *(STATUS.replace(name, b"X") for name in (b"\nState:", b"\nTgid:", b"\nTracerPid:", b"\nUid:\t1000")),
        STATUS.replace(b"2048 kB", b"many kB"),
        STATUS.replace(b"CapEff:\t00", b"CapEff:\tzz"),
    ],
)
def test_another_status_is_refused(text: bytes) -> None:
    """Text without a line that every kernel writes, or with another value than it writes, is an error."""
    with pytest.raises(ValueError, match=r"expected|invalid literal"):
        parse_status(text)


@pytest.mark.live
def test_status_of_this_process() -> None:
    """The effective user number is that of the system call."""
    assert parse_status(Path("/proc/self/status").read_bytes()).uid == os.geteuid()


def test_fdinfo() -> None:
    """Flags are octal; the mount and a FUSE connection are told where the kernel tells them."""
    log = parse_fdinfo(b"pos:\t0\nflags:\t0102001\nmnt_id:\t29\nino:\t3\n")
    assert log == FdInfo(0o102001, 29)
    assert log.writable
    assert log.flags & O_APPEND
    fuse = parse_fdinfo(b"pos:\t0\nflags:\t0100002\nmnt_id:\t24\nino:\t5\nfuse_connection:\t47\n")
    assert (fuse.fuse_connection, fuse.writable) == (47, True)
    assert not parse_fdinfo(b"pos:\t0\nflags:\t0100000\n").writable


@pytest.mark.parametrize("text", [b"", b"pos:\t0\n", b"flags:\t99\n", b"flags:\t02\nmnt_id:\tx\n"])
def test_another_fdinfo_is_refused(text: bytes) -> None:
    """Text without flags, or with what is no number, is an error."""
    with pytest.raises(ValueError, match=r"expected|invalid literal"):
        parse_fdinfo(text)


@pytest.mark.live
def test_fdinfo_of_an_open_file(tmp_path: Path) -> None:
    """A file opened for appending says so."""
    with (tmp_path / "log").open("ab") as file:
        info = parse_fdinfo(Path(f"/proc/self/fdinfo/{file.fileno()}").read_bytes())
    assert info.writable
    assert info.flags & O_APPEND
    mounts = Path("/proc/self/mountinfo").read_text()
    assert re.search(rf"^{info.mount_id} ", mounts, re.MULTILINE)


def test_control_groups() -> None:
    """Both versions, colons and any bytes in a path."""
    groups = parse_cgroup(b"4:memory:/a:b/\xff c\n2:cpu,cpuacct:/\n1:name=systemd:/x\n0::/user.slice\n")
    assert groups == (
        Membership(("memory",), b"/a:b/\xff c"),
        Membership(("cpu", "cpuacct"), b"/"),
        Membership(("name=systemd",), b"/x"),
        Membership((), b"/user.slice"),
    )
    assert [group.version for group in groups] == [1, 1, 1, 2]
    with pytest.raises(ValueError, match="expected"):
        parse_cgroup(b"memory:/x\n")


@pytest.mark.parametrize(
    ("text", "limit"),
    [(b"max\n", None), (b"1048576\n", 1 << 20), (b"0\n", 0), (b"9223372036854771712\n", None)],
)
def test_limits(text: bytes, limit: int | None) -> None:
    """ "max", and version 1's huge number, mean no limit."""
    assert parse_limit(text) == limit


def test_meminfo() -> None:
    """Values in KiB by name; what is not there is unknown."""
    info = parse_meminfo(b"MemTotal:  24684084 kB\nDirty:   12 kB\nActive(anon): 5 kB\nHugePages_Total: 0\n")
    assert (info.total_kib, info.dirty_kib, info.swap_total_kib) == (24684084, 12, None)


def test_every_line_of_meminfo() -> None:
    """All sizes by the kernel's names, parentheses and digits in them; counts of pages are no sizes."""
    text = (
        b"MemFree:  7 kB\nInactive(file):   9 kB\nCommitted_AS: 3 kB\nDirectMap4k:  1 kB\n"
        b"HugePages_Total:       4\nHugepagesize:    2048 kB\n"
    )
    assert meminfo_lines(text) == {
        "MemFree": 7,
        "Inactive(file)": 9,
        "Committed_AS": 3,
        "DirectMap4k": 1,
        "Hugepagesize": 2048,
    }


@pytest.mark.live
def test_meminfo_of_this_machine() -> None:
    """The real file has the lines that the record is made of, and those that the lab samples."""
    lines = meminfo_lines(Path("/proc/meminfo").read_bytes())
    assert {"MemTotal", "MemFree", "Active(file)", "Inactive(file)", "Dirty", "Writeback"} <= lines.keys()
