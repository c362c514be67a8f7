"""Names of PF_* bits against the kernel's headers, and each change of a name in the release that made it."""

from pathlib import Path

import pytest

from ioflusher.kernel import task_flags as flags
from ioflusher.kernel.task_flags import TaskFlags

HEADERS = Path(__file__).parent / "task_flags"  # the PF_ lines of include/linux/sched.h, by release

# From the history of include/linux/sched.h: the first release with each name ("-": with none), for every bit
# that had more than one, or came after 2.6.
HISTORY = """
0x00000001 5.10 PF_VCPU
0x00000002 4.10 PF_IDLE
0x00000008 2.6 PF_EXITPIDONE, 5.5 -, 5.17 PF_POSTCOREDUMP
0x00000010 2.6 PF_VCPU, 5.10 PF_IO_WORKER
0x00001000 3.1 PF_NPROC_EXCEEDED
0x00004000 3.8 PF_USED_ASYNC, 5.17 -, 6.4 PF_USER_WORKER
0x00010000 2.6 PF_FROZEN, 6.1 -, 6.12 PF_KCOMPACTD
0x00020000 2.6 PF_FSTRANS, 4.12 PF_KSWAPD
0x00040000 2.6 PF_KSWAPD, 4.12 PF_MEMALLOC_NOFS
0x00080000 3.9 PF_MEMALLOC_NOIO
0x00100000 2.6 PF_LESS_THROTTLE, 5.8 PF_LOCAL_THROTTLE
0x00800000 2.6 PF_SWAPWRITE, 5.18 -, 6.9 PF_MEMALLOC_NORECLAIM, 6.12 PF_NO_NOTIFY_SIGNAL
0x01000000 4.20 PF_MEMSTALL, 5.7 -, 6.9 PF_MEMALLOC_NOWARN, 6.12 -
0x02000000 4.17 PF_UMH, 5.9 -
0x04000000 3.10 PF_NO_SETAFFINITY
0x10000000 5.1 PF_MEMALLOC_NOCMA, 5.13 PF_MEMALLOC_PIN
0x20000000 2.6 PF_MUTEX_TESTER, 5.5 PF_IO_WORKER, 5.10 -, 6.9 PF_BLOCK_TS
0x40000000 2.6 PF_FREEZER_SKIP, 6.1 -
0x80000000 3.11 PF_SUSPEND_TASK
"""
# Bits that have been called the same in every release since 2.6.
CONSTANT = {
    0x00000004: "PF_EXITING",
    0x00000020: "PF_WQ_WORKER",
    0x00000040: "PF_FORKNOEXEC",
    0x00000080: "PF_MCE_PROCESS",
    0x00000100: "PF_SUPERPRIV",
    0x00000200: "PF_DUMPCORE",
    0x00000400: "PF_SIGNALED",
    0x00000800: "PF_MEMALLOC",
    0x00002000: "PF_USED_MATH",
    0x00008000: "PF_NOFREEZE",
    0x00200000: "PF_KTHREAD",
    0x00400000: "PF_RANDOMIZE",
    0x08000000: "PF_MCE_EARLY",
}


def header(release: str) -> dict[str, int]:
    """The PF_ bits of a release's header by name."""
    words = (line.split() for line in (HEADERS / f"{release}.txt").read_text().splitlines())
    return {name: int(value, 16) for name, value in words}


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_every_name_of_a_header(release: str) -> None:
    """Each bit has the name that Debian's header of that kernel gives it."""
    major, minor = map(int, release.split("."))
    for name, bit in header(release).items():
        if (release, name) == ("6.1", "PF_NO_NOTIFY_SIGNAL"):  # 6.1.192 has it from a later release
            continue
        assert TaskFlags(bit).names_in((major, minor)) == (name,)


@pytest.mark.parametrize(
    "name",
    [
        "PF_IO_WORKER",
        "PF_KTHREAD",
        "PF_LOCAL_THROTTLE",
        "PF_MEMALLOC",
        "PF_MEMALLOC_NOFS",
        "PF_MEMALLOC_NOIO",
        "PF_USER_WORKER",
    ],
)
def test_every_constant_of_a_header(name: str) -> None:
    """The constants that the package judges by are the header's."""
    assert getattr(flags, name) == header("6.12")[name]


@pytest.mark.parametrize("line", HISTORY.strip().splitlines())
def test_a_name_changes_in_the_release_that_made_it(line: str) -> None:
    """The release before still has the name before."""
    number, _, rest = line.partition(" ")
    bit = int(number, 16)
    before = f"{bit:#010x}"
    for change in rest.split(", "):
        release, name = change.split()
        major, minor = map(int, release.split("."))
        assert TaskFlags(bit).names_in((major, minor - 1)) == (before,)
        before = f"{bit:#010x}" if name == "-" else name
        assert TaskFlags(bit).names_in((major, minor)) == (before,)
        if (major, minor) == (2, 6):
            assert TaskFlags(bit).names_in((2, 7)) == (before,)


@pytest.mark.parametrize(("bit", "name"), CONSTANT.items())
def test_a_name_that_never_changed(bit: int, name: str) -> None:
    """In the first release that is known and in the newest, and unknown before."""
    assert TaskFlags(bit).names_in((2, 6)) == (name,)
    assert TaskFlags(bit).names == (name,)
    assert TaskFlags(bit).names_in((2, 5)) == (f"{bit:#010x}",)
