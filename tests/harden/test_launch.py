"""What a launcher sets: identity, limits, priorities, control groups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ioflusher.harden import (
    HardenError,
    Identity,
    IoClass,
    find_identity,
    join_cgroup,
    set_io_priority,
    set_nice,
)

pytestmark = pytest.mark.live


def in_child(code: str) -> str:
    """Run code in an interpreter of its own; its output."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return (done.stdout + done.stderr).strip()


@pytest.mark.needs("root")
def test_become_gives_up_everything() -> None:
    """Real, effective and saved user and group change, supplementary groups go, and there is no way back."""
    code = (
        "import os; from ioflusher.harden import *\n"
        "become(find_identity('nobody', None))\n"
        "print(os.getresuid(), os.getresgid(), os.getgroups() in ([], [65534]))\n"
        "try: os.setuid(0)\n"
        "except PermissionError: print('no way back')\n"
    )
    assert in_child(code) == "(65534, 65534, 65534) (65534, 65534, 65534) True\nno way back"


@pytest.mark.needs("root")
def test_become_is_refused_to_others() -> None:
    """Without the capability the error names it."""
    code = (
        "from ioflusher.harden import *\n"
        "become(find_identity('nobody', None))\n"
        "try: become(Identity(0, 0, (0,)))\n"
        "except HardenError as e: print(e, e.errno)\n"
    )
    assert "needs CAP_SETUID and CAP_SETGID 1" in in_child(code)


def test_identities() -> None:
    """Names, numbers, a group alone, and numbers without an entry."""
    assert find_identity("root", None).uid == 0
    assert find_identity("0", "7") == Identity(0, 7, find_identity("0", "7").groups)
    assert find_identity("54321", "7") == Identity(54321, 7, ())
    assert find_identity(None, "7").uid == os.getuid()
    for user, group in (("54321", None), ("no-such-user", None), (None, "no-such-group")):
        with pytest.raises(HardenError):
            find_identity(user, group)


@pytest.mark.needs("ionice")
def test_nice_and_io_priority_take() -> None:
    """The values show in the system's own view."""
    code = (
        "import os, subprocess; from ioflusher.harden import *\n"
        "set_nice(7); set_io_priority(IoClass.BEST_EFFORT, 6)\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0))\n"
        "print(subprocess.run(['ionice'], capture_output=True, text=True, stdin=0).stdout.strip())\n"
    )
    assert in_child(code) == "7\nbest-effort: prio 6"


def test_values_out_of_range() -> None:
    """What the kernel does not know is refused before it is asked."""
    with pytest.raises(HardenError, match="between -20 and 19"):
        set_nice(20)
    with pytest.raises(HardenError, match="between 0 and 7"):
        set_io_priority(IoClass.REALTIME, 8)


def test_join_cgroup(tmp_path: Path) -> None:
    """The process's own number is written as 0, by name or by whole path; a missing group is told."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "cgroup.procs").touch()
    for name in ("a/b", "/a/b", f"{tmp_path}/a/b"):
        join_cgroup(name, root=tmp_path)
        assert (tmp_path / "a" / "b" / "cgroup.procs").read_text() == "0\n"
    with pytest.raises(HardenError, match="cannot join the control group") as caught:
        join_cgroup("none/x", root=tmp_path)
    assert caught.value.errno == 2
