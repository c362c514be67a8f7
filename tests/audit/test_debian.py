"""The distribution's own daemons in a guest: what is printed for them is executed, and helps. One boot."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.audit.remedies import executed_in_a_guest
from tests.lab.conftest import ioflusher
from tests.machine.packages import unpacked
from tests.needs import need

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("nbd-client", "nbd-server", "nbdkit", "qemu-utils", "open-iscsi", "tgt", "fuse-overlayfs"),
    *("nfs-ganesha", "nfs-ganesha-vfs", "iproute2"),
)
MODULES = ("nbd nbds_max=8", "iscsi_tcp", "sd_mod", "fuse", "ublk_drv", "loop", "nfsv4")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What guest_debian.py saw in the guest, by check."""
    tree, programs = unpacked(PACKAGES), tmp_path_factory.mktemp("programs")
    source = ROOT / "tests/machine/programs/ublk.c"
    subprocess.run([need("gcc"), "-O2", "-static", "-o", programs / "ublk", source], check=True, timeout=120)
    done = ioflusher(
        *("lab", "exec", "--timeout", "700", "--memory", "1500M"),
        *("--share", str(tree), "--share", str(programs)),
        *(word for module in MODULES for word in ("--load", module)),
        *("--", "env", f"PYTHONPATH={ROOT}/src:{ROOT}"),
        *(sys.executable, "-m", "tests.audit.guest_debian", str(tree), str(programs)),
        timeout=800,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    answers = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"["))
    return answers


def test_every_step_was_taken(found: dict[str, Any]) -> None:
    """No daemon failed to start, and nothing else went wrong in the guest's script."""
    assert {check: why for check, why in found.items() if check.endswith(" failed")} == {}


@pytest.mark.parametrize(
    "check",
    [
        *executed_in_a_guest("test_debian.py"),
        *("nbdkit: uncovered", "nbd-server: uncovered", "tgtd: uncovered", "ublk: oom-killable"),
        *("fuse-overlayfs: uncovered", "ganesha.nfsd: oom-killable", "/dev/nbd1: daemon-gone"),
    ],
)
def test_a_remedy_that_was_executed(found: dict[str, Any], check: str) -> None:
    """The finding was there, each command ended with status 0, and the finding is gone."""
    _, commands, after = found[check]
    assert commands, check
    assert all(status == 0 for _, status, _ in commands), commands
    assert after == "gone", commands


def test_qemu_nbd_is_started_anew(found: dict[str, Any]) -> None:
    """Its thread in NBD_DO_IT is the one that is named; `set` would end with 1; under `run` it is covered."""
    ioctl = {"x86_64": "16", "aarch64": "29"}[os.uname().machine]
    assert found["qemu-nbd: thread in ioctl"] == [ioctl, "0xab03"]
    assert found["qemu-nbd: commands"] == []
    status, text = found["qemu-nbd: set"]
    assert status == 1
    assert "unsafe to stop" in text
    assert found["qemu-nbd: after set"] == "note", "the others are covered"
    assert found["qemu-nbd: started anew"] == []


def test_a_daemon_with_a_worker_of_the_kernel(found: dict[str, Any]) -> None:
    """`set` ends with 1 for an io_uring worker, which makes no call itself: no command is printed."""
    assert found["ublk: workers"] >= 1
    assert found["ublk: commands"] == []
    assert found["ublk: set"][0] == 1


def test_a_daemon_that_gives_the_capability_up(found: dict[str, Any]) -> None:
    """ganesha cannot take the state as it runs: no command is printed for that."""
    assert found["ganesha: rules"]["uncovered"] == "error"
    assert found["ganesha: rules"]["cannot-set"] == "warning"
    assert found["ganesha: commands"] == [[], []]
