"""How the memory of a running process is locked: every reason with its figures, and unknown ones."""

import ctypes
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ioflusher.kernel.lock_plan import LockFigures, LockMethod, plan_lock
from ioflusher.kernel.smaps import absent_kib, parse_smaps, swapped_kib
from ioflusher.kernel.syscalls import process_vm_touch

MIB = 1024
# nbdkit in a guest of 768 MiB with plenty of memory free
ROOMY = LockFigures(
    mapped_kib=851 * MIB,
    resident_kib=5 * MIB,
    swapped_kib=0,
    absent_kib=200 * MIB,
    limit_kib=None,
    total_kib=700 * MIB,
    available_kib=600 * MIB,
    group_kib=None,
)


def test_with_room_it_populates() -> None:
    """Nothing in swap, at most half of what is available, an eighth of the machine left."""
    plan = plan_lock(ROOMY)
    assert (plan.method, plan.fetch) == (LockMethod.POPULATE, False)
    assert plan.reason == "mlockall would populate 200 MiB, 600 MiB are available"


@pytest.mark.parametrize(
    ("change", "fetch", "reason"),
    [
        # the guest of docs/flag.md that froze: 342 MiB to populate, 56 MiB available
        (
            {"absent_kib": 342 * MIB, "available_kib": 56 * MIB},
            False,
            "342 MiB, more than half of what is free: 56",
        ),
        ({"absent_kib": 300 * MIB + 1}, False, "more than half of what is free: 600 MiB"),
        (
            {"absent_kib": 60 * MIB, "available_kib": 147 * MIB},
            False,
            "and 87 MiB of them are left to everybody",
        ),
        ({"group_kib": 399 * MIB}, False, "more than half of what is free: 399 MiB"),
        ({"swapped_kib": 70 * MIB}, True, "70 MiB of it are in swap, 600 MiB are available"),
        ({"swapped_kib": 1}, True, "1 KiB of it are in swap"),
        (
            {"swapped_kib": 301 * MIB},
            False,
            "301 MiB of it are in swap, too much to bring back while 600 MiB",
        ),
        (
            {"swapped_kib": 70 * MIB, "available_kib": 150 * MIB},
            False,
            "too much to bring back while 150 MiB",
        ),
        ({"available_kib": None}, False, "not known"),
        ({"absent_kib": None}, False, "not known"),
        ({"swapped_kib": None}, False, "not known"),
        ({"total_kib": None}, False, "not known"),
    ],
)
def test_without_room_it_locks_what_is_there(change: dict[str, int | None], fetch: bool, reason: str) -> None:
    """MCL_ONFAULT, which allocates nothing and reads nothing, and the figures that decided."""
    plan = plan_lock(replace(ROOMY, **change))
    assert (plan.method, plan.fetch) == (LockMethod.ON_FAULT, fetch)
    assert reason in plan.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"limit_kib": 8 * MIB}, "RLIMIT_MEMLOCK) is 8 MiB and it maps 851 MiB"),
        ({"limit_kib": 2 * 851 * MIB - 1}, "give it 1702 MiB or unlimited"),
        ({"resident_kib": 613 * MIB}, "613 MiB of memory locked would leave 87 MiB of the machine's 700 MiB"),
        ({"resident_kib": 500 * MIB, "swapped_kib": 113 * MIB}, "613 MiB of memory locked"),
    ],
)
def test_refused(change: dict[str, int | None], reason: str) -> None:
    """A limit that its next mmap would run into, or too little left for others: the figures say so."""
    plan = plan_lock(replace(ROOMY, **change))
    assert (plan.method, plan.fetch) == (None, False)
    assert reason in plan.reason


def test_limits_that_suffice() -> None:
    """Twice what is mapped is enough."""
    assert plan_lock(replace(ROOMY, limit_kib=2 * 851 * MIB)).method is LockMethod.POPULATE


SMAPS = b"""\
55d0c1c00000-55d0c1c04000 r-xp 00000000 fe:01 131 /usr/sbin/nbdkit
Size:                 16 kB
KernelPageSize:        4 kB
Rss:                  12 kB
Shared_Clean:          8 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me sd
7f0000000000-7f0004000000 ---p 00000000 00:00 0
Size:              65536 kB
Rss:                   0 kB
Swap:                  0 kB
VmFlags: mr mw me nr sd
7f0010000000-7f0010800000 rw-p 00000000 00:00 0
Size:               8192 kB
Rss:                  40 kB
Swap:                100 kB
VmFlags: rd wr mr mw me ac sd
7ffc0c5f2000-7ffc0c5f6000 r--p 00000000 00:00 0 [vvar]
Size:                 16 kB
Rss:                   0 kB
VmFlags: rd mr pf io de dd sd
"""


def test_what_would_be_populated() -> None:
    """Text and stacks count; address space without access and the kernel's own mappings do not."""
    mappings = parse_smaps(SMAPS)
    assert [one.lockable for one in mappings] == [True, False, True, False]
    assert absent_kib(mappings) == 4 + (8192 - 40 - 100)
    assert swapped_kib(mappings) == 100
    assert mappings[0].mapping.path == b"/usr/sbin/nbdkit"


def test_what_is_no_smaps() -> None:
    """Any other text is refused."""
    with pytest.raises(ValueError, match="expected 'start-end perms"):
        parse_smaps(b"nonsense\n")
    with pytest.raises(ValueError, match="expected a mapping first"):
        parse_smaps(b"Rss: 4 kB\n")


@pytest.mark.live
def test_of_this_process() -> None:
    """The kernel's own sum of Rss agrees."""
    directory = Path("/proc/self")
    mappings = parse_smaps((directory / "smaps").read_bytes())
    rollup = dict(
        line.split(b":")
        for line in (directory / "smaps_rollup").read_bytes().splitlines()[1:]
        if b":" in line
    )
    assert sum(one.resident_kib for one in mappings) == pytest.approx(
        int(rollup[b"Rss"].split()[0]), rel=0.05
    )
    assert absent_kib(mappings) > 0


@pytest.mark.live
def test_a_page_is_touched_from_outside() -> None:
    """One byte of this process's own memory; nothing at address 0; no such process."""
    memory = bytearray(1)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert process_vm_touch(os.getpid(), address)
    assert not process_vm_touch(os.getpid(), 0)
    with pytest.raises(ProcessLookupError):
        process_vm_touch(4194305, address)
