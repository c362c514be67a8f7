"""Install what the lab needs from the distribution's packages."""

import os
import shutil
from collections.abc import Callable

from ioflusher.lab.errors import LabError
from ioflusher.lab.qemu import find_qemu
from ioflusher.support.programs import ProgramError, locate, run

INSTALL_DEADLINE_S = 900.0
# package -> a program of it
PACKAGES = {
    "qemu-system-x86": "qemu-system-x86_64",
    "kmod": "depmod",
    "e2fsprogs": "mkfs.ext4",
    "xfsprogs": "mkfs.xfs",
    "util-linux": "setpriv",
    "mount": "swapon",
}


def missing_packages() -> list[str]:
    """The packages whose program is not here."""
    return [package for package, program in PACKAGES.items() if locate(program) is None]


def install_missing(progress: Callable[[str], None]) -> list[str]:
    """Install what is missing, as root or with sudo; returns what was installed.

    Raises LabError that names the packages where that cannot be done.
    """
    missing = missing_packages()
    if not missing:
        return []
    names = " ".join(missing)
    hint = f"install these packages: {names}"
    if shutil.which("apt-get") is None:
        raise LabError("this machine has no apt-get, so nothing can be installed", hint=hint)
    if os.geteuid() == 0:
        prefix: list[str] = []
    elif shutil.which("sudo"):
        prefix = ["sudo", "-n"]
    else:
        raise LabError("missing packages can only be installed as root or with sudo", hint=hint)
    try:
        progress("updating the package lists")
        run([*prefix, "apt-get", "update", "-q"], deadline_s=INSTALL_DEADLINE_S)
        progress(f"installing {names}")
        install = (
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-yq",
            "--no-install-recommends",
        )
        run([*prefix, *install, *missing], deadline_s=INSTALL_DEADLINE_S)
    except ProgramError as error:
        raise LabError(f"packages could not be installed: {error}", hint=hint) from error
    find_qemu()
    return missing
