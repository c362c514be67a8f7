"""Hardening: what is refused is refused clearly, what works takes."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ioflusher.harden import (
    HardenError,
    RealtimePolicy,
    lock_memory,
    set_memory_lock_limit,
    set_oom_score_adj,
    set_realtime,
)
from ioflusher.harden import memory as memory_module


def in_child(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own, since hardening cannot be taken back."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("n", [-1001, 1001])
def test_oom_score_out_of_range(n: int) -> None:
    """A value that the kernel does not know is refused before it is written."""
    with pytest.raises(HardenError, match="between -1000 and 1000"):
        set_oom_score_adj(n)


@pytest.mark.live
def test_oom_score_takes() -> None:
    """Raising the score is open to everybody and shows in /proc."""
    code = (
        "from ioflusher.harden import set_oom_score_adj; set_oom_score_adj(777)\n"
        "print(open('/proc/self/oom_score_adj').read())"
    )
    assert in_child(code).stdout.strip() == "777"


def test_oom_score_refused(tmp_path: Path) -> None:
    """Where the file cannot be written the error names the capability and carries the errno."""
    with pytest.raises(HardenError, match="CAP_SYS_RESOURCE") as caught:
        set_oom_score_adj(-500, proc=tmp_path)
    assert caught.value.errno is not None


@pytest.mark.live
def test_lock_memory_locks() -> None:
    """After lock_memory the process's VmLck is no longer zero, or the error says what was missing."""
    code = (
        "from ioflusher.harden import *\n"
        "try: lock_memory()\n"
        "except HardenError as e: print('refused', e)\n"
        "else: print([l for l in open('/proc/self/status') if l.startswith('VmLck')][0].split()[1])\n"
    )
    out = in_child(code).stdout.strip()
    assert (out.startswith("refused") and "CAP_IPC_LOCK" in out) or int(out) > 1000


@pytest.mark.live
@pytest.mark.parametrize("prefault", [True, False])
def test_what_is_mapped_after_the_lock(prefault: bool) -> None:
    """It is locked, and all of it is there at once, or without `prefault` only what is touched."""
    code = (
        "import mmap; from ioflusher.harden import *\n"
        "def sizes():\n"
        "    lines = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "    return [int(lines[name].split()[0]) for name in ('VmLck', 'RssAnon')]\n"
        f"try: lock_memory(prefault={prefault})\n"
        "except HardenError: print('refused')\n"
        "else:\n"
        "    before = sizes()\n"
        "    later = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "    print(*(now - then >= 32 << 10 for then, now in zip(before, sizes())), before[0] > 1000)\n"
    )
    assert in_child(code).stdout.split() in (["refused"], ["True", str(prefault), "True"])


def test_lock_memory_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal names the capability, the limit as it is, and the errno."""

    def refuse(flags: int) -> None:
        assert flags == 3
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(memory_module, "mlockall", refuse)
    with pytest.raises(HardenError, match="CAP_IPC_LOCK or a memory lock limit") as caught:
        lock_memory()
    assert caught.value.errno == 12
    assert caught.value.hint is not None


@pytest.mark.live
def test_memory_lock_limit() -> None:
    """The limit sinks for everybody; raising the hard limit again is refused without CAP_SYS_RESOURCE."""
    code = (
        "import resource; from ioflusher.harden import *; set_memory_lock_limit(65536)\n"
        "print(resource.getrlimit(resource.RLIMIT_MEMLOCK))"
    )
    assert in_child(code).stdout.strip() == "(65536, 65536)"


def test_memory_lock_limit_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resource module's ValueError for EPERM comes out as HardenError."""

    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    with pytest.raises(HardenError, match="unlimited: not allowed to raise"):
        set_memory_lock_limit(None)


@pytest.mark.parametrize("priority", [0, 100])
def test_realtime_priority_out_of_range(priority: int) -> None:
    """Priorities outside of 1 to 99 are refused with the range."""
    with pytest.raises(HardenError, match="between 1 and 99"):
        set_realtime(RealtimePolicy.RR, priority)


@pytest.mark.live
def test_realtime_takes_or_says_why() -> None:
    """The policy and priority show in the scheduler, or the error names CAP_SYS_NICE."""
    code = (
        "import os; from ioflusher.harden import *\n"
        "try: set_realtime(RealtimePolicy.FIFO, 7)\n"
        "except HardenError as e: print('refused', e)\n"
        "else: print(os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)\n"
    )
    out = in_child(code).stdout.strip()
    assert out == f"{os.SCHED_FIFO} 7" or "CAP_SYS_NICE" in out
