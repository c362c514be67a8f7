"""What tests need of the machine, and what a test says where it is missing.

A test names its needs by `@pytest.mark.needs("dot", "root")`, or asks `need("gcc")` when it comes to it. What
is missing is a skip that says how to get it; IOFLUSHER_TESTS_NO_SKIP=1, which CI sets, makes every skip a
failure (tests/conftest.py). What no package can bring, a capability or a recorded dump, is no skip: such
tests carry a marker of `ELSEWHERE` and are deselected where they cannot run.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ioflusher.kernel.capability import CAP_SYS_RESOURCE
from ioflusher.kernel.status import parse_status

NO_SKIP = os.environ.get("IOFLUSHER_TESTS_NO_SKIP") == "1"
PERMITTED = not parse_status(Path("/proc/self/status").read_bytes()).capabilities.missing(CAP_SYS_RESOURCE)
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))

# program -> the Debian packages that bring it; `tools/packages test` installs them all
PACKAGES = {
    "apt-get": "apt",
    "as": "binutils",
    "bash": "bash",
    "bindfs": "bindfs",
    "chrt": "util-linux",
    "depmod": "kmod",
    "dot": "graphviz",
    "dpkg-deb": "dpkg",
    "fio": "fio",
    "fish": "fish",
    "fsck.erofs": "erofs-utils",
    "gcc": "gcc libc6-dev",
    "ionice": "util-linux",
    "nbd-client": "nbd-client",
    "nbdcopy": "libnbd-bin",
    "nbddump": "libnbd-bin",
    "nbdinfo": "libnbd-bin",
    "nbdkit": "nbdkit",
    "nbdsh": "python3-libnbd",
    "node": "nodejs",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "ps": "procps",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "spin": "spin",
    "sysctl": "procps",
    "systemd-analyze": "systemd",
    "tgtd": "tgt",
    "zsh": "zsh",
    "zstd": "zstd",
}


def missing(need: str) -> str | None:
    """What is missing for a need, and how to get it; None where it is there.

    A need is a program of `PACKAGES`, or "root".
    """
    if need == "root":
        return None if os.geteuid() == 0 else "needs root: run the tests as root"
    packages = PACKAGES[need]
    # where the headers are a package of their own, the compiler alone compiles nothing
    there = shutil.which(need, path=PATH) and (need != "gcc" or Path("/usr/include/stdio.h").exists())
    return None if there else f"needs {need}: apt-get install {packages} (or tools/packages test)"


def need(name: str) -> str:
    """The path of a program of `PACKAGES`; the calling test is skipped where it is missing."""
    if reason := missing(name):
        pytest.skip(reason)
    path = shutil.which(name, path=PATH)
    assert path is not None
    return path


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Tests that run in another place than this one.

    Attributes:
        here: whether they can run here.
        where: where they run instead, for the summary.
    """

    here: Callable[[], bool]
    where: str


def _has_aarch64() -> bool:
    from tests.flag.aarch64.machine import missing as missing_there

    return not missing_there()


# marker -> when tests that carry it can run
ELSEWHERE = {
    "permitted": Elsewhere(
        lambda: PERMITTED, "need CAP_SYS_RESOURCE: tests/flag/attach/test_guest.py runs them in a guest"
    ),
    "refused": Elsewhere(
        lambda: not PERMITTED, "show what the kernel refuses without CAP_SYS_RESOURCE, which is here"
    ),
    "dump": Elsewhere(
        lambda: bool(os.environ.get("IOFLUSHER_VMCORE") and os.environ.get("IOFLUSHER_DEBUG_INFO")),
        "read a dump that IOFLUSHER_VMCORE and IOFLUSHER_DEBUG_INFO name (docs/diagnose.md)",
    ),
    "aarch64": Elsewhere(_has_aarch64, "boot an arm64 machine: make aarch64"),
    "x86_64": Elsewhere(lambda: os.uname().machine == "x86_64", "are for x86-64"),
    "attach": Elsewhere(
        lambda: os.uname().machine in ("x86_64", "aarch64"), "need a processor whose registers are known"
    ),
}
