"""The commands that diagnose gives as remedies, executed as root in a guest: each does what it is for."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from tests.lab.conftest import ioflusher

from ioflusher import kernlog
from ioflusher.kernlog.judging import advice

pytestmark = pytest.mark.vm
# a FUSE file system with its daemon, so that there is something to look at
BEFORE = """
ioflusher() { PYTHONPATH=%s %s -m ioflusher "$@"; }
sleep() { command sleep 0.1; }
echo 4096 > /proc/sys/vm/min_free_kbytes
mount -t fusectl none /sys/fs/fuse/connections 2>/dev/null
mkdir -p /tmp/below /tmp/above && bindfs /tmp/below /tmp/above
"""


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What each command printed in the guest, by its name in advice.py."""
    if shutil.which("bindfs") is None:
        pytest.skip("needs bindfs: tools/packages test")
    names = [name for name in vars(advice) if name.isupper() and not name.startswith("_")]
    script = BEFORE % (Path(kernlog.__file__).parents[2], sys.executable)
    script += "".join(f"echo; echo == {name}\n{{ {getattr(advice, name)}; }} 2>&1; echo\n" for name in names)
    script += "echo == AFTER; cat /proc/sys/vm/min_free_kbytes; grep ^MemTotal /proc/meminfo\n"
    done = ioflusher(
        *("lab", "exec", "--load", "fuse", "--load", "cifs", "--timeout", "200", "--"),
        *("bash", "-c", script),
        timeout=300,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    parts = re.split(r"^== (\w+)$", done.stdout.decode(errors="replace"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("EATERS", r"^ *RSS +PID +COMMAND\n *\d+ +\d+ +\S+"),
        ("REQUESTS", r"^(?:/sys/block/vda/inflight: +0 +0\n){2}"),
        ("FUSE_REQUESTS", r"^/sys/fs/fuse/connections/\d+/waiting:0$"),
        ("FUSE_STACKS", r"^\[<0>\] fuse_dev_do_read\+0x"),
        ("EVERY_STACK", r"^no reclaim recursion.*; \d{2,} stacks read$"),
        ("NFS_STATE", r"^device proc mounted on /proc with fstype proc$"),
        ("CIFS_STATE", r"^Display Internal CIFS Data Structures for Debugging$"),
    ],
)
def test_a_command_shows_what_is_to_be_looked_at(said: dict[str, str], name: str, form: str) -> None:
    """The very words of the remedy, typed into a root shell."""
    assert re.search(form, said[name], re.M), said[name]


def test_the_reserve_is_two_percent_of_the_memory(said: dict[str, str]) -> None:
    """Nothing is printed, and min_free_kbytes is what the remedy says."""
    assert said["RESERVE"].strip() == ""
    free, total = re.findall(r"\d+", said["AFTER"])
    assert int(free) == int(total) // 50
